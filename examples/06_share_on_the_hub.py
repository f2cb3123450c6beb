"""Share a checkpoint on the Hub with a model card.

You will see the card that would be pushed. Set `REPOSITORY`, log in with `hf auth login`, and the script pushes it.
Weights trained on licensed data go to a private repository.
"""

from hf_geaau.hub import push
from hf_geaau.model_card import CardFacts, Statements, make_card
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT

CHECKPOINT = BUNDLED_CHECKPOINT  # or a folder that `hf-geaau train` or `save_pretrained` wrote
REPOSITORY = ""  # such as "your-name/my-action-units"
STATEMENTS = Statements(
    contact="Ada Example, ada@example.org",
    intended_use="To try action units out.",
    license="apache-2.0",
)

print(make_card(CardFacts.read(CHECKPOINT), REPOSITORY or "owner/name", STATEMENTS))
if REPOSITORY:
    pushed = push(CHECKPOINT, REPOSITORY, STATEMENTS)
    print(f"{'private' if pushed.private else 'public'} at {pushed.url}")
