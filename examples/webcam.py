"""Action units of the face before the camera, live. You will see a line per frame; Ctrl-C ends it.

python examples/webcam.py        # the first camera; 1 for the second
"""

import sys
from contextlib import suppress

from hf_geaau import predict_video

SHOWN = 6


def main() -> None:
    camera = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with suppress(KeyboardInterrupt):
        for row in predict_video(camera, detect_every=1, smooth=0.2):
            units = {name: row[name] for name in row if f"{name}_present" in row}
            strongest = sorted(units, key=units.__getitem__, reverse=True)[:SHOWN]
            bars = "  ".join(f"{name} {'█' * round(8 * units[name]):8}" for name in strongest)
            print(f"\r{row['time_s']:6.1f} s  face {row['track_id']}  {bars}", end="", flush=True)


if __name__ == "__main__":
    main()
