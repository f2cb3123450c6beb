"""Model cards: honest from the facts, complete by what a human says, accepted by the Hub's own rules."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
from hub_server import card_errors
from huggingface_hub import ModelCard

from hf_geaau.data import dataset_class, list_datasets
from hf_geaau.errors import CardError, CheckpointError
from hf_geaau.facs import labels
from hf_geaau.model_card import (
    CardFacts,
    Statements,
    check_written_card,
    is_generated,
    make_card,
    rendered_card,
    write_card,
    zoo_table,
)
from hf_geaau.models.geaau.licensing_geaau import FREE_DATA, bound_data
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT, ZOO

ROOT = Path(__file__).parents[2]
STATEMENTS = Statements(
    contact="Ada Example, ada@example.org",
    intended_use="To annotate laboratory recordings, with a human who checks.",
    license="apache-2.0",
    data_agreement="Signed by Example University in 2025; it is silent on weights.",
)


def report(fold: int, f1: float) -> dict:
    row = {"f1": f1, "precision": 0.5, "recall": 0.6, "auc": None, "base_rate": 0.2, "always_on_f1": 0.333}
    units = {name: {**row, "threshold": 0.5} for name in ("AU01", "AU12", "AU25")}
    common = {"dataset": "disfa", "title": "DISFA", "fold": fold, "split": "test", "frames": 4321, "subjects": 9}
    return {**common, "identities_shared_with_training": 0, "action_units": units, "mean": row}


def training_facts(fold: int = 1, f1: float = 0.61, dataset: str = "disfa") -> dict:
    """What `hf-geaau train` writes."""
    seen = {"name": dataset, "title": dataset.upper(), "fold": fold, "folds": 3, "protocol": "jaanet"}
    seen |= {"train_rows": 100, "validation_rows": 20, "test_rows": 50, "notes": ["No training frame shows AU25."]}
    seen |= {"train_subjects": 12, "validation_subjects": 2, "test_subjects": 9}
    recipe = {"stage": "action_units", "dataset": dataset, "learning_rate": 1e-4, "start_from": "/home/ada/secret/run"}
    return {
        "recipe": {**recipe, "pretrained_backbone": True},
        "dataset": seen,
        "trained_on": [dataset],
        "started_from": "/home/ada/secret/run",
        "seed": 7,
        "versions": {"torch": "2.15.0"},
        "commit": "0123abc",
        "hardware": {"device": "cpu", "processes": 1},
        "minutes": 12.34,
        "steps": 600,
        "evaluation": {**report(fold, f1), "dataset": dataset},
    }


@pytest.fixture
def facts(tiny_checkpoint) -> CardFacts:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    (tiny_checkpoint / "config.json").write_text(json.dumps({**config, "trained_on": ["disfa"]}))
    (tiny_checkpoint / "training_facts.json").write_text(json.dumps(training_facts()))
    return CardFacts.read(tiny_checkpoint)


def test_a_card_says_what_was_measured_and_what_was_not(facts):
    card = make_card(facts, "geaau/disfa", STATEMENTS)
    text = str(card)
    assert card_errors(text) == []
    for words in (
        "4,321 test frames of 9 people. F1 at the thresholds above",
        "| AU12 | Lip corner puller | 0.200 | 0.333 | 0.610 | 0.500 | 0.600 | not measured |",
        "100 rows of 12 people for training",
        "people of the test set in training: 0",
        "No training frame shows AU25.",
        "Seed 7",
        "12.3 minutes",
        "commit: 0123abc",
        "torch 2.15.0",
        "Results by age, sex and skin tone: not measured",
        dataset_class("disfa").LICENSE,
        STATEMENTS.data_agreement,
        STATEMENTS.contact,
        STATEMENTS.intended_use,
        "They are shared privately",
    ):
        assert words in text, words
    assert "/home/ada" not in text  # paths of the machine that trained
    assert "apache" not in text  # the data binds the weights, so nobody may choose their licence


def test_numbers_measured_before_calibration_are_not_passed_off(facts):
    assert "F1 at the thresholds above" in str(make_card(facts, "geaau/disfa", STATEMENTS))
    assert "All thresholds are 0.5, not tuned." in str(make_card(facts, "geaau/disfa", STATEMENTS))
    tuned = {**vars(facts), "config": {**facts.config, "thresholds": [0.4, 0.5, 0.6]}}
    text = str(make_card(CardFacts(**tuned), "geaau/disfa", STATEMENTS))
    assert "F1 at other thresholds, before those above were set; at those it is not measured" in text
    assert "Where the thresholds come from is not recorded." in text
    text = str(make_card(CardFacts(**{**tuned, "calibration": {"temperature": 1.1}}), "geaau/disfa", STATEMENTS))
    assert "chosen on validation people, not on the test fold" in text


def test_metadata_is_what_the_hub_reads(facts):
    data = make_card(facts, "geaau/disfa", STATEMENTS).data.to_dict()
    assert data["license"] == "other"
    assert data["license_name"] == "disfa-agreement"
    assert data["license_link"] == dataset_class("disfa").HOMEPAGE
    assert data["library_name"] == "transformers"
    assert "pipeline_tag" not in data  # a widget would score a whole photo as if it were a face crop
    assert {"hf_geaau", "facial-action-units", "FACS"} <= set(data["tags"])
    result = data["model-index"][0]["results"][0]
    assert result["dataset"] == {"name": "DISFA", "type": "disfa", "config": "fold1", "split": "test"}
    assert result["metrics"][0] == {
        "type": "f1",
        "value": 0.61,
        "name": "F1, mean over 3 AUs",
        "args": {"zero_division": 0},
    }
    assert [metric["name"] for metric in result["metrics"][1:]] == ["F1 AU01", "F1 AU12", "F1 AU25"]


def test_folds_are_told_in_the_card_of_main(facts):
    folds = {str(n): report(n, f1) for n, f1 in ((1, 0.5), (2, 0.6), (3, 0.7))}
    means = {"action_units": report(1, 0.6)["action_units"], "mean": {"f1": 0.6}, "spread": {"f1": 0.1}}
    told = {"folds": folds, "mean_of_folds": means, "pooled": {"mean": {"f1": 0.62}}}
    card = make_card(CardFacts(**{**vars(facts), "folds": told}), "geaau/disfa", STATEMENTS)
    text = str(card)
    assert "**0.600** (fold 1 0.500, fold 2 0.600, fold 3 0.700; standard deviation 0.100)" in text
    assert "counted together: 0.620" in text
    assert "`main` holds the weights of fold 1" in text
    assert [result["dataset"]["config"] for result in card.data.to_dict()["model-index"][0]["results"]] == [
        "fold1",
        "fold2",
        "fold3",
    ]
    assert card_errors(text) == []
    assert 'revision="fold2"' in str(make_card(facts, "geaau/disfa", STATEMENTS, branch="fold2"))


def test_reasons_to_publish_are_in_the_card(facts):
    text = str(make_card(facts, "geaau/disfa", STATEMENTS, may_publish="The owners agreed in writing on 3 May 2026."))
    assert "states: The owners agreed in writing on 3 May 2026." in text


def test_a_checkpoint_without_facts_says_so(facts):
    config = {**facts.config, "trained_on": ["synthetic"]}
    bare = CardFacts(**{**vars(facts), "training": {}, "reports": {}, "config": config})
    text = str(make_card(bare, "geaau/mine", STATEMENTS))
    assert "Not measured." in text
    assert "Not recorded" in text
    assert "Trained on rendered faces only, which are easier than photos. Accuracy on photos: not measured." in text
    assert ModelCard(text).data.license == "apache-2.0"
    assert card_errors(text) == []
    unknown = CardFacts(**{**vars(bare), "config": {**config, "trained_on": ["our-lab"]}})
    text = str(make_card(unknown, "geaau/mine", STATEMENTS))
    assert "`our-lab`: not one of hf_geaau's datasets" in text
    assert card_errors(text) == []


def test_an_expression_encoder_has_a_card_too(facts):
    config = {**facts.config, "architectures": ["GeaauForExpressionEmbedding"], "trained_on": ["fec"]}
    training = copy.deepcopy(facts.training)
    reports = {"test": {"dataset": "fec", "accuracy": 0.8125, "triplets": 400}}
    changed = {"config": config, "training": training, "reports": reports}
    card = make_card(CardFacts(**{**vars(facts), **changed}), "geaau/gee", STATEMENTS)
    assert "GeaauForExpressionEmbedding.from_pretrained" in str(card)
    assert "accuracy: 0.812" in str(card)
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert card_errors(str(card)) == []


def test_what_only_a_human_knows_stops_the_card(facts):
    with pytest.raises(
        CardError,
        match=r"without contact, intended_use, data_agreement, which only you know\. Pass `--contact",
    ):
        make_card(facts, "geaau/disfa", Statements(license="mit"))
    free = CardFacts(**{**vars(facts), "config": {**facts.config, "trained_on": ["synthetic"]}})
    with pytest.raises(CardError, match=r"without license, which only you know\. Pass `--license"):
        make_card(free, "geaau/disfa", Statements(contact="a", intended_use="b", license=" "))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# A model\n\ntext", "has no `license:`"),
        ("---\nlicense: mit\n---\n# A model\n\n## Contact\n\n## Use\n\ntext", "nothing is written under 'Contact'"),
        ("---\nlicense: mit\n---\n# A model\n\n[More Information Needed]", "is not filled in"),
        ("---\nlicense: [\n---\n# A model\n\ntext", "Cannot read the metadata"),
    ],
)
def test_a_card_that_somebody_wrote_must_be_filled_in(content, said):
    with pytest.raises(CardError, match=said) as caught:
        check_written_card(content, "'README.md'")
    assert "\n" not in str(caught.value)


def test_what_trainer_writes_is_no_card():
    assert is_generated("<!-- This model card has been generated automatically according to the information the")
    assert not is_generated((BUNDLED_CHECKPOINT / "README.md").read_text())


def test_only_rendered_recipes_have_a_card_without_statements(facts, tiny_checkpoint):
    assert write_card(tiny_checkpoint) is None
    assert not (tiny_checkpoint / "README.md").exists()


def test_damaged_checkpoints_are_named(tiny_checkpoint):
    (tiny_checkpoint / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"it has no preprocessor_config\.json"):
        CardFacts.read(tiny_checkpoint)
    (tiny_checkpoint / "preprocessor_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="it holds a list instead of a JSON object"):
        CardFacts.read(tiny_checkpoint)
    (tiny_checkpoint / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="it is not JSON"):
        CardFacts.read(tiny_checkpoint)
    (tiny_checkpoint / "preprocessor_config.json").write_text("{}")
    (tiny_checkpoint / "model.safetensors").write_bytes(b"PK\x03\x04 a pickle in disguise")
    with pytest.raises(CheckpointError, match="is not safetensors"):
        CardFacts.read(tiny_checkpoint)


def test_weights_are_counted_without_running_statistics(facts, tiny_model):
    assert facts.parameters == sum(parameter.numel() for parameter in tiny_model.parameters())


def test_free_data_is_exactly_what_the_datasets_call_free():
    free = {name for name in list_datasets() if not dataset_class(name).IS_LICENSED}
    assert free - {"folder"} == FREE_DATA  # own data may be free; only its owner knows, so weights of it are bound
    assert bound_data(["synthetic", "fec", "our-lab"]) == ["fec", "our-lab"]
    assert bound_data(None) == bound_data([]) == ["unknown data"]


# --- the zoo ---


def test_the_bundled_card_is_the_filled_template(tmp_path):
    card = (BUNDLED_CHECKPOINT / "README.md").read_text()
    assert str(rendered_card(CardFacts.read(BUNDLED_CHECKPOINT))) == card
    copied = shutil.copytree(BUNDLED_CHECKPOINT, tmp_path / "copied")
    (copied / "README.md").unlink()
    assert write_card(copied) == copied / "README.md"
    assert (copied / "README.md").read_text() == card
    assert card_errors(card) == []
    check_written_card(card, "the bundled card")


def test_the_table_of_the_zoo_exists_once():
    readme = (ROOT / "model_cards" / "README.md").read_text()
    assert re.search(r"<!-- zoo -->\n(.*)\n<!-- /zoo -->", readme, re.S)[1] == zoo_table()


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_every_zoo_entry_has_a_reviewed_card(entry):
    card = (ROOT / entry.card).read_text()
    assert card_errors(card) == []
    check_written_card(card, entry.card)
    flat = " ".join(card.split())
    if entry.is_bundled:
        assert (entry.path / "model.safetensors").is_file()
        return
    assert "no weights are published" in flat
    assert f"hf-geaau train {entry.recipe}" in flat
    for name in entry.data:
        for fact in (dataset_class(name).LICENSE, dataset_class(name).HOMEPAGE, dataset_class(name).CITATION):
            assert fact.rstrip(".") in flat
    if entry.action_units:
        assert ", ".join(labels(entry.action_units)) in flat
