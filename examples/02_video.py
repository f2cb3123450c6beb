"""Write the action units of a video to a table, one row per face and frame, and draw them over time.

You will find `video.csv` and `over_time.png` in the current folder. An interrupted run continues with `resume=True`.

    python examples/02_video.py interview.mp4     # without an argument: a portrait that moves through the picture
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hf_geaau.inference import load_analyzer
from hf_geaau.plots import save_time_series
from hf_geaau.video.run import predict_to_table
from hf_geaau.video.stream import Settings

FRAMES_PER_SECOND = 10
TABLE = Path("video.csv")


def write_clip(path: Path) -> Path:
    """Write two seconds of NASA's portrait of Eileen Collins (public domain) moving to the right."""
    import av
    from skimage.data import astronaut

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 512, "yuv420p"
        for index in range(50):
            frame = np.full((512, 640, 3), 110, np.uint8)
            frame[:, 2 * index : 2 * index + 512] = astronaut()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path


def main() -> None:
    video = sys.argv[1] if len(sys.argv) > 1 else write_clip(Path("portrait.mp4"))
    analyzer = load_analyzer()
    report = predict_to_table([video], TABLE, analyzer, Settings(fps=FRAMES_PER_SECOND), overwrite=True)
    print(f"{report.sources[0].rows} rows, {report.sources[0].tracks} people: {TABLE}")

    table = pd.read_csv(TABLE)
    longest = table[table.track_id == table.track_id.mode()[0]]
    units = list(analyzer.runner.action_units)
    thresholds = dict(zip(units, analyzer.runner.thresholds, strict=True))
    save_time_series(longest, thresholds, Path("over_time.png"), "The face seen longest")
    print(longest[units].mean().sort_values(ascending=False).head(5).round(2).to_string())


if __name__ == "__main__":
    main()
