"""Texts of users, files and URLs: what cards, messages and the terminal show of them, and what a push may take."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from safetensors.torch import save_file

from hf_geaau.errors import GeaauError, HubError, hide_secrets
from hf_geaau.hub import push
from hf_geaau.metrics.scores import plain_markdown
from hf_geaau.model_card import CardFacts, Statements, make_card
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT, ZOO
from hf_geaau_cli._console import complain, printable, say

SAID = Statements(contact="Ada", intended_use="Use", license="mit", data_agreement="signed")
ROOT = Path(__file__).parents[2]
URLS = {
    "https://example.org/a_b": "https://example.org/a_b",
    "rtsp://ada:secret@camera:554/live": "rtsp://camera:554/live",
    "https://ada@example.org": "https://example.org",
    "https://ada:sec@ret@example.org/a": "https://example.org/a",
    "https://ada:sec/ret@example.org/a": "https://example.org/a",
    "https://example.org:8080/@ada/secretless": "https://example.org:8080/@ada/secretless",
    "https://medium.com/@ada": "https://medium.com/@ada",
    "https://example.org/a?x='secret'&token=secret": "https://example.org/a",
    "https://example.org/a#access_token=secret": "https://example.org/a",
    "HTTPS://ADA:SECRET@EXAMPLE.ORG/A?T=SECRET": "HTTPS://EXAMPLE.ORG/A",
    "s3://key:secret@bucket/a.mp4?X-Amz-Signature=secret": "s3://bucket/a.mp4",
    "http://ada:secret@[::1]:80/a": "http://[::1]:80/a",
    "ftp://:secret@host/a": "ftp://host/a",
    "file:///home/ada/a.jpg": "file:///home/ada/a.jpg",
    "C:\\a.jpg": "C:\\a.jpg",
    "ada@example.org": "ada@example.org",
}


@pytest.mark.parametrize("url", URLS)
def test_secrets_leave_a_url(url):
    assert hide_secrets(url) == URLS[url]
    assert hide_secrets(f"Cannot open '{url}': no answer (see {url}).").startswith(f"Cannot open '{URLS[url]}': no")
    assert "secret" not in hide_secrets(f"('{url}', <{url}>) {url}").replace("secretless", "").lower()
    assert hide_secrets(hide_secrets(url)) == hide_secrets(url)


def test_hiding_takes_linear_time():
    for text in ("a" * 300_000, "a://" * 100_000, "http://" + "a:" * 100_000, "x@" * 100_000, "http://a:/@" * 50_000):
        assert len(hide_secrets(text)) <= len(text)


# --- the terminal ---

CONTROLS = "\x1b]0;title\x07\x1b[31mred\x9b31m\r\x00\u202eevil\u2066\ud800.jpg"


def test_control_characters_are_written_out(capsys):
    shown = r"\x1b]0;title\x07\x1b[31mred\x9b31m\x0d\x00\u202eevil\u2066\ud800.jpg"
    assert printable(CONTROLS) == shown
    assert printable("Größe\t1\n日本 é") == "Größe\t1\n日本 é"
    say(CONTROLS)
    complain(f"Cannot read\n'{CONTROLS}': [bold]no[/bold] :smile:")
    out, err = capsys.readouterr()
    assert out == f"{shown}\n"
    assert err == f"error: Cannot read '{shown}': [bold]no[/bold] :smile:\n"


# --- cards ---

MARKUP = (
    "<script>alert(1)</script>", "</td></table><h1>x", "[a](javascript:alert(1))", "![a](https://evil.example/pixel.png)",
    "a\n\n# Heading", "# Heading", "```\n<b>out</b>\n```", "`code`", "**bold** __bold__ *a* _a_ ~~a~~", "| a | b |",
    "- item", "1. item", "> quote", "---", "===", "<https://evil.example>", "&lt;b&gt;", "a\\", "$x$", "\x1b[31mred",
    "\u202eevil", "[a]: https://evil.example", "<!-- comment", "{{ config }} {% for %}", "a  \n  b", "***", "+ a",
    "~~~",
)  # fmt: skip
KEPT = "see https://example.org/ada_l_/~x or ada@example.org"


def markup(text: str) -> list[str]:
    """Return the kinds of a page's tokens that are more than plain paragraphs."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = [inner for token in parser.parse(text) for inner in (token, *(token.children or []))]
    return [token.type for token in tokens if token.type not in ("paragraph_open", "inline", "text", "paragraph_close")]


@pytest.mark.parametrize("text", MARKUP)
def test_no_text_becomes_markup(text):
    for around in ("{}", "Weights: {}.", "- {}, {}", "`{}`"):
        page = around.replace("{}", plain_markdown(text))
        assert markup(page) == markup(around.replace("{}", "plain")), page
    shown = MarkdownIt("commonmark").render(plain_markdown(text))
    assert "\x1b" not in shown and "\u202e" not in shown
    assert plain_markdown(KEPT) == KEPT


def hostile(value, text):
    """Return JSON in which each text has some markup at its end."""
    if isinstance(value, dict):
        return {name: hostile(entry, text) for name, entry in value.items()}
    if isinstance(value, list):
        return [hostile(entry, text) for entry in value]
    return f"{value} {text}" if isinstance(value, str) else value


@pytest.mark.parametrize("text", MARKUP)
def test_no_text_of_a_checkpoint_becomes_markup_in_its_card(text, tiny_checkpoint):
    facts = CardFacts.read(tiny_checkpoint)
    recipe = {"dataset": "bp4d", "notes": ["a"], "weights": "https://ada:secret@example.org/w?token=secret"}
    row = {"f1": 0.5, "auc": 0.6, "base_rate": 0.2, "always_on_f1": 0.3, "threshold": 0.5}
    report = {"dataset": "lab", "title": "Lab", "split": "test", "frames": 9, "subjects": 3, "mean": row}
    seen = {"title": "Lab", "protocol": "ours", "fold": 1, "folds": 3, "train_rows": 5, "notes": ["a note"]}
    training = {"recipe": recipe, "dataset": seen, "versions": {"torch": "2"}, "commit": "c", "seed": "s"}
    training |= {"steps": {"one": 1, "two": 2}, "hardware": {"device": "cpu"}, "started_from": "x"}

    def card(end: str) -> str:
        config = {**facts.config, "trained_on": [f"our-lab {end}".strip()], "backbone": hostile("test_resnet", end)}
        units = {name + end: row for name in ("AU01", "AU12", "AU25")}
        made = {**hostile(report, end), "action_units": units}
        given = CardFacts(
            **{**vars(facts), "config": config, "training": hostile(training, end), "reports": {"test": made}}
        )
        said = Statements(**hostile(dict.fromkeys(vars(Statements()), "Ada"), end))
        page = make_card(given, "geaau/lab", said, may_publish=f"They agreed {end}", branch="dev" + end, with_code=True)
        assert "secret" not in str(page) and "\x1b" not in str(page) and "\u202e" not in str(page)
        assert ModelCard(str(page)).data.to_dict()["tags"][:3] == ["hf_geaau", "facial-action-units", "FACS"]
        return page.text

    assert markup(card(text)) == markup(card("x"))


def test_links_and_names_in_a_card_stay_readable(tiny_checkpoint):
    facts = CardFacts.read(tiny_checkpoint)
    said = Statements(contact=f"Ada O'Neil, {KEPT}", intended_use="Use it.", license="mit", data_agreement="none")
    text = str(make_card(facts, "geaau/x", said))
    assert f"Ada O'Neil, {KEPT}" in text


@pytest.mark.parametrize(
    "training", [{"steps": {"a": "x"}}, {"recipe": 7}, {"evaluation": {"action_units": 5}}], ids=str
)
def test_damaged_facts_are_one_line(training, tiny_checkpoint):
    (tiny_checkpoint / "training_facts.json").write_text(json.dumps(training))
    with pytest.raises(GeaauError) as caught:
        make_card(CardFacts.read(tiny_checkpoint), "geaau/x", SAID)
    assert "\n" not in str(caught.value)


def test_no_card_sends_people_to_the_widget_of_whole_photos():
    for entry in ZOO:
        data = ModelCard.load(ROOT / entry.card).data.to_dict()
        assert data.get("pipeline_tag") != "image-classification"
        assert data["library_name"] == "transformers"
        assert {"hf_geaau", "facial-action-units", "FACS"} <= set(data["tags"])
    assert "pipeline_tag" not in ModelCard.load(BUNDLED_CHECKPOINT / "README.md").data.to_dict()


# --- what a push may take ---


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret"
    path.write_text("{}")
    return path


FILES = (
    "config.json", "preprocessor_config.json", "model.safetensors", "README.md", "training_facts.json",
    "calibration.json", "evaluation.json", "evidence.md", "calibration.png", "failures.jpg", "folds.json",
    "model-2.safetensors", "model.safetensors.index.json",
)  # fmt: skip


def pushed(folder: Path, **options) -> str:
    with pytest.raises(GeaauError) as caught:  # the Hub is off, so that even a good folder ends here
        push(folder, "geaau/x", SAID, trained_on=["synthetic"], **options)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_good_folder_gets_as_far_as_the_hub(tiny_checkpoint):
    assert pushed(tiny_checkpoint).startswith("HubError: Cannot push to 'geaau/x': HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("name", FILES)
def test_links_out_of_the_folder_are_refused(name, tiny_checkpoint, secret):
    (tiny_checkpoint / name).unlink(missing_ok=True)
    (tiny_checkpoint / name).symlink_to(secret)
    assert "it is a link that leads out of" in pushed(tiny_checkpoint)


@pytest.mark.parametrize("name", FILES)
def test_pipes_devices_and_folders_are_refused(name, tiny_checkpoint):
    path = tiny_checkpoint / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert "it is no regular file" in pushed(tiny_checkpoint)
    path.unlink()
    path.mkdir()
    assert "it is no regular file" in pushed(tiny_checkpoint)
    path.rmdir()
    path.symlink_to(name)  # to itself
    assert "it is no regular file" in pushed(tiny_checkpoint)


def test_links_within_the_folder_are_pushed(tiny_checkpoint):
    (tiny_checkpoint / "model.safetensors").rename(tiny_checkpoint / "weights.bin")
    (tiny_checkpoint / "model.safetensors").symlink_to("weights.bin")
    assert pushed(tiny_checkpoint).startswith("HubError")


def test_folds_that_are_links_are_refused(tiny_checkpoint, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "folds.json").write_text(json.dumps({"folds": {"1": {}}}))
    (run / "fold1").symlink_to(tiny_checkpoint)
    assert "it is a link that leads out of" in pushed(run)
    for number in ("1/../../etc", "..", "1\n", "١", "0", "one"):
        (run / "folds.json").write_text(json.dumps({"folds": {"1": {}, number: {}}}))
        assert "which is no number" in pushed(run)
    for content in ({"folds": [1]}, {"folds": "1"}, {"folds": {}}, {"other": 1}):
        (run / "folds.json").write_text(json.dumps(content))
        assert "folds.json has no fold 1" in pushed(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [("README.md", b"\xff\xfe"), ("evidence.md", b"\xff"), ("config.json", b"[" * 100_000), ("evaluation.json", b"[1]"),
     ("training_facts.json", b'{"seed": NaN}'), ("evaluation.json", b'{"reports": 5}'), ("config.json", b"{}"),
     ("training_facts.json", b'{"evaluation": "x"}'), ("calibration.json", b"\x00")],
)  # fmt: skip
def test_damaged_files_are_one_line(name, content, tiny_checkpoint):
    (tiny_checkpoint / name).write_bytes(content)
    assert pushed(tiny_checkpoint).startswith(("CheckpointError", "CardError"))


def test_half_a_checkpoint_is_not_pushed(tiny_checkpoint, tiny_model):
    state = tiny_model.state_dict()
    save_file({name: state[name] for name in list(state)[::2]}, tiny_checkpoint / "model.safetensors")
    assert "do not fit its config: they lack" in pushed(tiny_checkpoint)


@pytest.mark.parametrize("name", ["a/b/c", "a b", "https://ada:secret@example.org/x", "<b>", "../x", "x" * 300])
def test_a_strange_repository_is_one_line(name, tiny_checkpoint):
    with pytest.raises(HubError, match="`repo_id` must be such as 'owner/name'") as caught:
        push(tiny_checkpoint, name, SAID)
    assert "secret" not in str(caught.value) and len(str(caught.value)) < 400


def test_statements_alone_do_not_break_the_metadata(tiny_checkpoint):
    facts = CardFacts.read(tiny_checkpoint)
    facts.config["trained_on"] = ["synthetic"]
    data = make_card(facts, "geaau/x", replace(SAID, license="mit\n---\nevil: true")).data.to_dict()
    assert data["license"] == "mit --- evil: true"
    assert "evil" not in data
