"""Cut the faces of a benchmark and train on one fold by a recipe.

You will see the F1 of each AU on subjects that were not trained on. The data is an imitation of BP4D, drawn faces with
invented labels, and the network is tiny: the numbers mean nothing. Set DATA_DIR to the directory of the real dataset,
and remove SMALL.

    python examples/03_prepare_and_train.py
"""

from pathlib import Path

from hf_geaau.data import prepare, write_example
from hf_geaau.metrics import score_rows, score_table
from hf_geaau.training import load_recipe, train

DATA_DIR = None  # the directory of BP4D
CROPS, OUTPUT = Path("crops"), Path("trained")
SMALL = {
    "model.backbone": "test_resnet",
    "model.backbone_stage": -1,
    "model.image_size": 64,
    "pretrained_backbone": False,
    "epochs": None,
    "max_steps": 4,
    "batch_size": 8,
    "per_device_batch_size": 8,
    "workers": 0,
    "precision": "fp32",
}


def main() -> None:
    data_dir = DATA_DIR or write_example("bp4d", "bp4d")
    prepare("bp4d", data_dir, CROPS, size=112, workers=1)
    recipe = load_recipe("bp4d", SMALL)
    metrics = train(recipe, CROPS, OUTPUT, fold=1, use_cpu=True)
    print(score_table(score_rows(metrics["test"])).to_markdown())


if __name__ == "__main__":  # `prepare` and data loaders start processes that import this file
    main()
