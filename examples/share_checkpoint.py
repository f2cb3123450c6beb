"""Share a checkpoint on the Hub with an honest card, and load it back as anybody would.

You will see what was pushed and where, then the largest difference between the logits of what you hold and of what the
Hub gives. Log in first with `hf auth login`.

    python examples/share_checkpoint.py --repo OWNER/NAME --contact "Ada Example, ada@example.org" \
        --intended-use "To try action units out" --license apache-2.0
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModel

from hf_geaau.hub import push
from hf_geaau.model_card import Statements
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED_CHECKPOINT, help="default: the bundled one")
    parser.add_argument("--repo", required=True, help="OWNER/NAME")
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--remote-code", action="store_true", help="so that it loads where hf_geaau is not installed")
    for name in ("contact", "intended-use", "license", "data-agreement"):
        parser.add_argument(f"--{name}", default="", help="for the card; see `hf-geaau push --help`")
    args = parser.parse_args()
    said = {name: getattr(args, name) for name in ("contact", "intended_use", "license", "data_agreement")}
    pushed = push(
        args.checkpoint,
        args.repo,
        Statements(**said),
        private=args.private or None,
        remote_code=args.remote_code,
    )
    for branch, files in pushed.files.items():
        print(f"{branch}: {', '.join(files)}")
    print(f"{'private' if pushed.private else 'public'} at {pushed.url}")

    mine = AutoModel.from_pretrained(args.checkpoint).eval()
    theirs = AutoModel.from_pretrained(args.repo).eval()
    size = mine.config.image_size
    crop = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        difference = (mine(crop).logits - theirs(crop).logits).abs().max()
    print(f"largest difference of logits: {difference:.1e}")


if __name__ == "__main__":
    main()
