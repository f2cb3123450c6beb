"""From a video to a picture of its action units over time. You will see the mean of each, and find `over_time.png`.

python examples/video_timeseries.py clip.mp4
"""

import sys
from pathlib import Path

import pandas as pd

from hf_geaau import predict_video
from hf_geaau.pipeline import load_pipeline
from hf_geaau.plots import save_time_series

FRAMES_PER_SECOND = 10


def main() -> None:
    video = sys.argv[1]
    pipe = load_pipeline()
    table = pd.DataFrame(predict_video(video, pipe, fps=FRAMES_PER_SECOND))
    if table.empty:
        raise SystemExit(f"No face in {video}.")
    longest = table[table.track_id == table.track_id.mode()[0]]
    labels = list(pipe.model.config.id2label.values())
    thresholds = dict(zip(labels, pipe.model.config.thresholds, strict=True))
    save_time_series(longest, thresholds, Path("over_time.png"), f"{Path(video).name}, the face seen longest")
    print(longest[labels].mean().sort_values(ascending=False).round(3).to_string())


if __name__ == "__main__":
    main()
