"""Add action units to a `datasets` table of pictures, with `map`.

You will see the probability of a smile in each picture. `map` stores its results and resumes from them; `num_proc=4`
would use four processes, each with a model of its own.
"""

from pathlib import Path

from datasets import load_dataset

from hf_geaau.pipeline import load_pipeline

FACES = Path(__file__).parent / "faces.parquet"  # or any dataset with an Image column, such as one of the Hub


def action_units(batch: dict) -> dict:
    """Return the probabilities of the largest face of each picture, or None where there is no face."""
    global pipe
    pipe = pipe or load_pipeline()
    faces = pipe(batch["image"], on_error="return")  # a picture that cannot be read gives its error
    return {
        "action_units": [found[0]["action_units"] if isinstance(found, list) and found else None for found in faces]
    }


pipe = None
rows = load_dataset("parquet", data_files=str(FACES), split="train").select(range(8))
rows = rows.map(action_units, batched=True, batch_size=8)
for row in rows.select_columns(["action_units"]):
    units = row["action_units"]
    print("no face" if units is None else f"AU12 {units['AU12']:.2f}")
