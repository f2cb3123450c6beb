"""Detect the action units of every face in a photo.

You will see each face's box, the AUs that are present, and the probability and intensity of AU12 (a smile).

    python examples/01_photo.py photo.jpg        # without an argument: NASA's portrait of Eileen Collins
"""

import sys

from transformers import pipeline

import hf_geaau  # noqa: F401  (registers the model and the task)

MODEL = None  # a directory or Hub id; None: the bundled checkpoint


def main() -> None:
    if len(sys.argv) > 1:
        photo = sys.argv[1]
    else:
        from skimage.data import astronaut

        photo = astronaut()
    detect = pipeline("facial-action-unit-detection", model=MODEL)
    for face in detect(photo):
        print(face["box"], " ".join(face["present"]))
        print(f"AU12: probability {face['action_units']['AU12']:.2f}, intensity {face['intensities']['AU12']:.1f}")


if __name__ == "__main__":
    main()
