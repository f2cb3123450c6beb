"""Add action units to a Spark table of pictures, with `mapInPandas`.

You will see a row for each face. Spark divides the table among its workers, each of which loads the model once.
Needs `pip install pyspark` and Java (Debian: default-jre-headless).
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

FACES = Path(__file__).parent / "faces.parquet"  # or a table on HDFS or S3
UNITS = ("AU04", "AU12", "AU25")


def action_units(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield a row for each face: which picture, which face of it, and the probability of each action unit."""
    from hf_geaau.pipeline import load_pipeline

    pipe = load_pipeline()
    for batch in batches:
        found = pipe([bytes(picture) for picture in batch["picture"]], on_error="return")
        rows = [
            {"number": number, "face": index, **{unit: face["action_units"][unit] for unit in UNITS}}
            for number, faces in zip(batch["number"], found, strict=True)
            if isinstance(faces, list)  # else the error of a picture that cannot be read
            for index, face in enumerate(faces)
        ]
        yield pd.DataFrame(rows, columns=["number", "face", *UNITS])


os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # the environment in which hf_geaau is installed
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
images = pd.read_parquet(FACES)["image"][:8]
table = pd.DataFrame({"number": range(len(images)), "picture": [image["bytes"] for image in images]})
schema = "number int, face int, " + ", ".join(f"{unit} double" for unit in UNITS)
spark.createDataFrame(table).mapInPandas(action_units, schema).orderBy("number").show()
spark.stop()
