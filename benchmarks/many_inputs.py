"""Measure a run over very many inputs: its memory, its time, and the size of what it keeps until the table is written.

Lists of paths without a file (1,000 and 1,000,000 of them) show what a source costs by itself; hard links to one small
photo (100,000), which is taken as an aligned crop and analyzed by an untrained tiny network, show the table's chunks.
Peak memory must hardly grow with their number. Prints for each run the seconds, the peak resident memory in MB, and the
largest size of `_NAME.unfinished`.

    python benchmarks/many_inputs.py
    python benchmarks/many_inputs.py --missing 1000 100000 --photos 0    # in two minutes
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel

LINKS = 50_000  # hard links to one file; ext4 allows 65,000


def measure(listed: Path, *options: str) -> None:
    """Run `hf-geaau predict` over a list, and print what it took."""
    table = listed.with_suffix(".parquet")
    command = [sys.executable, "-m", "hf_geaau", "predict", str(listed), "--output", str(table), *options]
    start = time.monotonic()
    with listed.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    folder, largest, ended = table.with_name(f"_{table.name}.unfinished"), 0, 0
    while not ended:
        largest = max(largest, size_of(folder))
        time.sleep(0.5)
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(
        f"{listed.stem}: exit code {process.returncode}, {time.monotonic() - start:.0f} s, {used.ru_maxrss / unit:.0f}"
        f" MB, unfinished {largest / 1e6:.1f} MB, table {table.stat().st_size / 1e6:.1f} MB",
        flush=True,
    )


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files, which may vanish meanwhile."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", type=int, nargs="*", default=[1_000, 1_000_000], help="numbers of missing files")
    parser.add_argument("--photos", type=int, default=100_000, help="number of photos; 0 for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in arguments.missing:
            listed = folder / f"missing_{count}.txt"
            with listed.open("w") as file:
                file.writelines(f"/data/study/participant_{number:07d}.jpg\n" for number in range(count))
            measure(listed)
        if not arguments.photos:
            return
        listed, photos = folder / f"photos_{arguments.photos}.txt", folder / "photos"
        photos.mkdir()
        with listed.open("w") as file:
            for number in range(arguments.photos):
                photo, first = photos / f"{number:07d}.png", photos / f"{number - number % LINKS:07d}.png"
                if photo == first:
                    Image.effect_noise((64, 64), 40).convert("RGB").save(photo)
                else:
                    photo.hardlink_to(first)
                file.write(f"{photo}\n")
        model = folder / "model"
        GeaauModel(GeaauConfig(backbone="test_resnet", image_size=64, lam_hidden_channels=36)).save_pretrained(model)
        GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(model)
        measure(listed, "--aligned", "--model", str(model))


if __name__ == "__main__":
    main()
