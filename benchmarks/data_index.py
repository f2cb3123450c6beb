"""Index imitations of whole datasets: check the published totals, and measure label rows per second.

Prints, for BP4D (empty image files), BP4D+ and DISFA (videos of 16 pixels), the frames of each fold, checked against
the published ones, and seconds: for reading and checking all labels and matching them with images ("index"), for
`load` including that and writing the cache, and for `load` from the cache. The reference reads the same BP4D
occurrence files one by one with pandas, without checks, intensities or images.
"""

import os

os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

from hf_geaau import data
from hf_geaau.data import DatasetNotes, get_dataset
from hf_geaau.errors import DatasetWarning

REQUIRED = 100_000  # label rows per second
RUNS = 5
PROTOCOLS = {
    "bp4d": ({}, {False: [50_631, 50_182, 46_034], True: [50_601, 50_166, 45_809]}),
    "bp4d_plus": ({}, {False: [None] * 4}),
    "disfa": ({"camera": "left"}, {False: [43_604, 43_605, 43_605], True: [43_173, 40_344, 42_627]}),
}
warnings.simplefilter("error", DatasetWarning)  # any difference from the published totals ends the run


def seconds(work, *arguments):
    """Return the seconds of the fastest of some runs."""
    times = []
    for run in range(RUNS):
        start = time.perf_counter()
        work(*arguments, run)
        times.append(time.perf_counter() - start)
    return min(times)


def index(dataset, tree, run):
    return dataset.read(tree, DatasetNotes())


def load(name, tree, cache, options, run):
    return data.load(name, tree, cache_dir=cache / str(run), **options)


def read_with_pandas(files, run):
    return [pd.read_csv(file) for file in files]


def check_totals(name, tree, cache, options, folds):
    for drop_listed, sizes in folds.items():
        chosen = {**options, "drop_listed": drop_listed, "cache_dir": cache}
        whole = len(data.load(name, tree, fold=None, **chosen)["train"])
        for fold, expected in enumerate(sizes, 1):
            parts = data.load(name, tree, fold=fold, **chosen)
            assert expected in (None, len(parts["test"])), (name, fold, len(parts["test"]), expected)
            assert len(parts["train"]) + len(parts["test"]) == whole
            print(f"{name} fold {fold}{', drop list' * drop_listed}: {len(parts['test']):,} test of {whole:,}")


with tempfile.TemporaryDirectory() as scratch:
    for name, (options, folds) in PROTOCOLS.items():
        tree, cache = Path(scratch) / name, Path(scratch) / f"{name}-cache"
        data.write_example(name, tree, full_size=True)
        check_totals(name, tree, cache, options, folds)
        dataset = get_dataset(name, **options)
        rows = sum(map(len, dataset.read(tree, DatasetNotes())))
        indexed = seconds(index, dataset, tree)
        first = seconds(load, name, tree, cache, options)
        again = seconds(load, name, tree, cache, options)
        print(f"{name}: index {indexed:.2f} s = {rows / indexed:,.0f} rows/s; load {first:.2f} s, again {again:.2f} s")
        if name == "bp4d":
            files = sorted((tree / "AUCoding" / "AU_OCC").iterdir())
            pandas = seconds(read_with_pandas, files)
            print(f"pandas, the {len(files)} occurrence files one by one: {pandas:.2f} s = {rows / pandas:,.0f} rows/s")
        assert rows / indexed >= REQUIRED, f"slower than {REQUIRED:,} rows/s"
