"""Follow the faces of a video and draw their action units over time.

You will see each action unit's mean, and find the drawing in `over_time.png`. Without `clip.mp4` the script first makes
one, from a public portrait that moves to the right.
"""

from pathlib import Path

import av
import numpy as np
import pandas as pd
from skimage import data

from hf_geaau.pipeline import load_pipeline, predict_video
from hf_geaau.plots import save_time_series

VIDEO = Path("clip.mp4")  # or a URL of a stream, or the number of a camera
FRAMES_PER_SECOND = 10
DRAWING = Path("over_time.png")


def make_clip(path: Path, frames: int = 40) -> None:
    """Write a clip of NASA's portrait of Eileen Collins (public domain)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for number in range(frames):
            image = np.full((480, 640, 3), 110, np.uint8)
            image[:, 2 * number : 2 * number + 512] = data.astronaut()[:480]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))


if not VIDEO.exists():
    make_clip(VIDEO)
pipe = load_pipeline()
table = pd.DataFrame(predict_video(VIDEO, pipe, fps=FRAMES_PER_SECOND))  # a row for each face and frame
longest = table[table.track_id == table.track_id.mode()[0]]
labels = list(pipe.runner.action_units)
save_time_series(longest, dict(zip(labels, pipe.runner.thresholds, strict=True)), DRAWING, "The face seen longest")
print(longest[labels].mean().sort_values(ascending=False).round(3).to_string())
