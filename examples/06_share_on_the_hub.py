"""Share a checkpoint on the Hub with a model card, and load it back as anybody would.

You will see what was pushed and where, and the largest difference between your logits and those of the pushed model.
Log in first with `hf auth login`. Weights of licensed data go to a private repository; state the agreement then.

    python examples/06_share_on_the_hub.py OWNER/NAME [CHECKPOINT]
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModel

from hf_geaau.hub import push
from hf_geaau.model_card import Statements
from hf_geaau.models.loading import BUNDLED_CHECKPOINT

STATEMENTS = Statements(
    contact="Ada Example, ada@example.org",
    intended_use="To annotate videos with a human who checks the result.",
    license="apache-2.0",  # where no data binds the weights
    data_agreement="None: the faces are drawn.",  # where data binds them
)


def main() -> None:
    repo = sys.argv[1]
    checkpoint = Path(sys.argv[2]) if len(sys.argv) > 2 else BUNDLED_CHECKPOINT
    pushed = push(checkpoint, repo, STATEMENTS)
    for branch, files in pushed.files.items():
        print(f"{branch}: {', '.join(files)}")
    print(f"{'private' if pushed.private else 'public'} at {pushed.url}")

    mine, theirs = (AutoModel.from_pretrained(source).eval() for source in (checkpoint, repo))
    size = mine.config.image_size
    crop = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        difference = (mine(crop).logits - theirs(crop).logits).abs().max()
    print(f"largest difference of logits: {difference:.1e}")


if __name__ == "__main__":
    main()
