"""Run the ablation. An interrupted run resumes with the same command.

python -m benchmarks.ablation ICT-FaceKit runs/ablation
"""

import argparse
import sys

from hf_geaau.errors import GeaauError

from . import SCALES, run_ablation


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__.splitlines()[0])
    parser.add_argument("face_model", help="clone of ICT-FaceKit, or its packed .npz")
    parser.add_argument("output", help="folder of the run; an existing one is resumed")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--other-rig", metavar="FACE_MODEL", help="test on its people, too, such as a clone of VALID")
    parser.add_argument("--workers", type=int, help="processes that render; default: one per core")
    parser.add_argument("--device", help="such as cpu; default: the accelerator if there is one")
    args = parser.parse_args()
    try:
        run_ablation(
            args.face_model,
            args.output,
            args.scale,
            other_rig=args.other_rig,
            workers=args.workers,
            device=args.device,
            report=lambda line: print(line, flush=True),
        )
    except GeaauError as error:
        sys.exit(str(error))
    print(f"Report: {args.output}/report.md")


if __name__ == "__main__":
    main()
