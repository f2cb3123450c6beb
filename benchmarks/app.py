"""How long `hf-geaau app` takes to start and to answer, and what its page weighs. The figures of docs/app.md."""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

from hf_geaau.app import EXAMPLES


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Return the median time of calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def page_weight(address: str, chromium: str) -> tuple[int, float]:
    """Return the number of requests of the first load, and megabytes transferred."""
    from playwright.sync_api import sync_playwright

    sizes: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        page.goto(address)
        page.wait_for_timeout(5000)
        browser.close()
    return len(sizes), sum(sizes) / 1e6


def resident(process: int) -> float:
    """Return the largest resident memory of a process so far, in MB; Linux only."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1e3 if found else float("nan")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", help="a photo with a face, such as scikit-image's astronaut")
    parser.add_argument("--video", help="a longer video, for the memory it takes")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_geaau", "app", "--no-open"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        print(f"start: {time.perf_counter() - start:.1f} s")
        address = line.split()[4]
        client = Client(address, verbose=False, download_files=False)
        photo = handle_file(arguments.photo)
        print(f"first photo: {seconds(lambda: client.predict(photo, api_name='/photo')):.2f} s")
        print(f"photo, median of 20: {seconds(lambda: client.predict(photo, api_name='/photo'), 20):.2f} s")
        print("page: {} requests, {:.2f} MB".format(*page_weight(address, arguments.chromium)))
        for video in filter(None, (EXAMPLES / "clip.mp4", arguments.video)):
            took = seconds(lambda: client.predict(handle_file(video), "none", False, api_name="/video"))  # noqa: B023
            print(f"{video}: {took:.1f} s, memory up to {resident(process.pid):.0f} MB")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
