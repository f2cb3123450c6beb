"""Cut the faces of a benchmark and train on one fold by a recipe.

You will see the report of the cutting and F1 on people who were not trained on; `OUTPUT` is then a checkpoint. The data
is a small imitation of DISFA with invented labels, so the scores mean nothing: set `DATA` to your copy, and remove the
settings of `TINY`.
"""

from pathlib import Path

from hf_geaau.data import prepare, write_example
from hf_geaau.training import load_recipe, train

DATA, CROPS, OUTPUT = Path("disfa"), Path("disfa_crops"), Path("runs/disfa")
FOLD = 1
TINY = {
    "model.backbone": "test_vit",
    "model.backbone_kwargs": None,
    "model.image_size": 64,
    "pretrained_backbone": False,
    "batch_size": 8,
    "max_steps": 4,
    "epochs": None,
    "workers": 0,
    "precision": "fp32",
}


def main() -> None:
    """Prepare, train, print."""
    if not DATA.exists():
        write_example("disfa", DATA, cameras=("left",), subjects_per_part=2, frames=8)
    print(prepare("disfa", DATA, CROPS, size=128, workers=1, camera="left"))
    metrics = train(load_recipe("disfa", TINY), CROPS, OUTPUT, FOLD)
    print(f"mean F1 of fold {FOLD}: {metrics['test']['mean']['f1']:.3f}")


if __name__ == "__main__":  # worker processes import this file
    main()
