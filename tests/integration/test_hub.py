"""Sharing, with the genuine client over HTTP: pushed in one process, loaded in others that start anew."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch
from hub_server import HubServer, card_errors
from PIL import Image

from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel
from hf_geaau.hub import export_remote_code
from hf_geaau.pipeline import load_pipeline
from hf_geaau_cli import main

pytest.importorskip("accelerate", reason="the Trainer needs accelerate")

SAID = ("--contact", "Ada Example, ada@example.org", "--intended-use", "To annotate with a human who checks.")
JUNK = (
    "labels.parquet", "crop.jpg", "optimizer.pt", "training_args.bin", "pytorch_model.bin", "events.out.tfevents.1",
    "train.csv", ".run.json", "curves.png", "scheduler.safetensors",
)  # fmt: skip

PRELUDE = """
    import json, os, sys
    import torch
    torch.set_num_threads(1)
    CROP = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    said = {}

    def refused(name, action, kinds=Exception):
        try:
            action()
            said[name] = "nothing was refused"
        except kinds as error:
            said[name] = f"{type(error).__name__}: {error}"

    def logits(model):
        with torch.inference_mode():
            return model.eval()(CROP).logits
"""


def client(hub: HubServer, home: Path, code: str, token: str | None = None, **more: str) -> dict:
    """Run code in a new process, whose only Hub is ours; give what it put into `said`."""
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(code) + "\nprint('SAID ' + json.dumps(said))"
    environment = hub.environment(home, token, **more)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.split("SAID ")[-1])


def command(hub: HubServer, home: Path, *arguments: object, token: str | None = None, code: int = 0, **more: str):
    environment = hub.environment(home, token, **more)
    # `python -m` takes the package that is being tested, wherever the command is installed from.
    line = [sys.executable, "-m", "hf_geaau", *map(str, arguments)]
    result = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def save(folder: Path, trained_on: list[str] | None, seed: int, **settings) -> GeaauModel:
    torch.manual_seed(seed)
    config = GeaauConfig(
        **{"backbone": "test_resnet", "image_size": 64, "action_units": [1, 12, 25], "lam_hidden_channels": 12}
        | {"trained_on": trained_on, **settings}
    )
    model = GeaauModel(config).eval()
    model.save_pretrained(folder)
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return model


def row(f1: float) -> dict:
    return {"f1": f1, "auc": 0.8, "base_rate": 0.2, "always_on_f1": 0.333}


def facts(fold: int, f1: float) -> dict:
    """What `hf-geaau train` writes, as far as the card needs it."""
    units = {name: {**row(f1), "threshold": 0.5} for name in ("AU01", "AU12", "AU25")}
    report = {"dataset": "bp4d", "title": "BP4D", "fold": fold, "split": "test", "frames": 900, "subjects": 13}
    report |= {"identities_shared_with_training": 0, "action_units": units, "mean": row(f1)}
    report["checkpoint"] = "/home/ada/runs/bp4d"
    seen = {"name": "bp4d", "title": "BP4D", "fold": fold, "folds": 3, "protocol": "jaanet", "train_rows": 1800}
    seen |= {"train_subjects": 24, "train_subject_ids": ["F001"], "notes": []}
    return {"recipe": {"dataset": "bp4d"}, "dataset": seen, "seed": 0, "evaluation": report}


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Checkpoints to share: a free one among junk, and three folds of a licensed training; and what they predict."""
    work = tmp_path_factory.mktemp("hub")
    crop = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    models = {"free": save(work / "free", ["synthetic"], 0), "untold": save(work / "untold", None, 0)}
    for name in JUNK:
        (work / "free" / name).write_bytes(b"not for the Hub")
    for fold in (1, 2, 3):
        models[f"fold{fold}"] = save(work / "folds" / f"fold{fold}", ["bp4d"], fold)
        (work / "folds" / f"fold{fold}" / "training_facts.json").write_text(json.dumps(facts(fold, fold / 10)))
    reports = {str(fold): facts(fold, fold / 10)["evaluation"] for fold in (1, 2, 3)}
    means = {"action_units": reports["2"]["action_units"], "mean": row(0.2), "spread": {"f1": 0.1}}
    (work / "folds" / "folds.json").write_text(json.dumps({"folds": reports, "mean_of_folds": means}))
    with torch.inference_mode():
        reference = {name: (model.state_dict(), model(crop).logits) for name, model in models.items()}
    torch.save(reference, work / "reference.pt")
    return work


def same_as(name: str) -> str:
    """Code that compares `model` with the one that was shared: equal weights, and logits up to alignment in memory."""
    return f"""
    state, expected = torch.load(os.environ["WORK"] + "/reference.pt")["{name}"]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert len(state) == len(model.state_dict())
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-6)
    """


@pytest.fixture(scope="module")
def pushed(hub, work) -> dict:
    """Everything that Python pushes, or must not push, in one process."""
    code = """
    from pathlib import Path
    from transformers import Trainer, TrainingArguments, trainer as trainer_module
    from huggingface_hub import HfApi
    from hf_geaau import GeaauImageProcessor, GeaauModel
    from hf_geaau.hub import LicenseCallback, push
    from hf_geaau.model_card import Statements
    work = Path(os.environ["WORK"])
    model = GeaauModel.from_pretrained(work / "free")
    processor = GeaauImageProcessor.from_pretrained(work / "free")

    # the roads of transformers
    model.push_to_hub("geaau/plain")
    processor.push_to_hub("geaau/plain")
    HfApi().create_tag("geaau/plain", tag="v1")
    items = [{"pixel_values": CROP[0], "labels": torch.tensor([1.0, 0, -1])}] * 4

    def trainer(name, trained_on, **options):
        network = GeaauModel.from_pretrained(work / "free")
        network.config.trained_on = trained_on
        arguments = TrainingArguments(
            str(work / "runs" / name), max_steps=1, report_to="none", use_cpu=True, save_strategy="no",
            hub_model_id=f"geaau/{name}", **options
        )
        callbacks = [LicenseCallback(network, arguments)]
        return Trainer(network, arguments, train_dataset=items, processing_class=processor, callbacks=callbacks)

    free = trainer("trained", ["synthetic"], push_to_hub=True)
    free.train()
    free.push_to_hub()
    torch.save((free.model.state_dict(), logits(free.model)), work / "trained.pt")

    # the same roads, with weights that a licence binds
    bound = GeaauModel.from_pretrained(work / "folds" / "fold1")
    bound.push_to_hub("geaau/kept-private")
    refused("asked for public", lambda: bound.push_to_hub("geaau/new", private=False))
    refused("existing public", lambda: bound.push_to_hub("geaau/plain"))
    refused("save and push", lambda: bound.save_pretrained(work / "x", push_to_hub=True, repo_id="geaau/plain"))
    from hf_geaau.pipeline import load_pipeline
    refused("pipeline", lambda: load_pipeline(work / "folds" / "fold1").push_to_hub("geaau/plain"))
    trainer("trained-bound", ["synthetic", "bp4d"]).push_to_hub()
    refused("trainer to public", lambda: trainer("plain", ["bp4d"]).push_to_hub())
    refused("trainer that pushes", lambda: trainer("plain", ["bp4d"], push_to_hub=True))
    refused("trainer to a new one", lambda: trainer("new", ["bp4d"], push_to_hub=True, hub_private_repo=False))
    trainer("new-bound", ["bp4d"], push_to_hub=True)

    before = list(trainer_module.DEFAULT_CALLBACKS)
    unknown = GeaauModel.from_pretrained(work / "free")
    unknown.config.trained_on = []
    refused("unknown origin", lambda: unknown.push_to_hub("geaau/plain"))
    unknown.push_to_hub("geaau/unknown")
    assert trainer_module.DEFAULT_CALLBACKS == before

    # our own road
    mine = Statements(contact="Ada", intended_use="Trials", license="mit", data_agreement="Example University, 2025")
    refused("no data named", lambda: push(work / "untold", "geaau/untold", mine))
    refused("nothing said", lambda: push(work / "free", "geaau/mine"))
    refused("public", lambda: push(work / "folds", "geaau/x", mine, private=False))
    refused("into public", lambda: push(work / "folds" / "fold1", "geaau/plain", mine))
    refused("empty reason", lambda: push(work / "folds", "geaau/x", mine, may_publish=" "))
    refused("revision of folds", lambda: push(work / "folds", "geaau/x", mine, revision="dev"))
    refused("no directory", lambda: push(work / "nowhere", "geaau/x", mine))
    refused("not mine", lambda: push(work / "free", "stranger/x", mine))
    refused("wrong token", lambda: push(work / "free", "geaau/x", mine, token="hf_wrong"))
    refused("may only read", lambda: push(work / "free", "geaau/x", mine, token="hf_reader"))
    refused("no login", lambda: push(work / "free", "geaau/x", mine, token=False))
    (work / "free" / "README.md").write_text("---\\nlicense: nonsense\\n---\\n# Mine\\n\\ntext")
    refused("card refused", lambda: push(work / "free", "geaau/x", mine))
    (work / "free" / "README.md").unlink()
    said["untold"] = push(work / "untold", "geaau/untold", mine, trained_on=["our-lab"]).private
    said["published"] = push(work / "folds", "geaau/published", mine, may_publish="The owners agreed.").private
    said["mine"] = push(work / "free", "geaau/mine", mine).files
    push(work / "free", "geaau/code", mine, remote_code=True)
    push(work / "free", "geaau/tidy", mine, remote_code=True)
    push(work / "free", "geaau/tidy", mine)
    """
    return client(hub, work / "home-sharer", code, hub.OWNER, WORK=str(work))


def test_transformers_own_pushes_arrive(hub, work, pushed):
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(hub.files("geaau/plain"))
    assert hub.files("geaau/plain")["model.safetensors"] == (work / "free" / "model.safetensors").read_bytes()
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(hub.files("geaau/trained"))
    assert not any(name.endswith(".py") for name in hub.files("geaau/plain"))


def test_weights_bound_by_a_licence_stay_private_on_every_road(hub, pushed):
    assert hub.repos["geaau/kept-private"].private
    assert hub.repos["geaau/trained-bound"].private
    assert hub.repos["geaau/new-bound"].private
    assert "model.safetensors" in hub.files("geaau/trained-bound")
    for name in (
        "asked for public",
        "existing public",
        "save and push",
        "trainer to public",
        "trainer that pushes",
        "trainer to a new one",
        "pipeline",
    ):
        assert pushed[name].startswith("PermissionError: Cannot push to the public 'geaau/"), name
        assert "the weights were trained on bp4d, whose license binds them" in pushed[name], name
        assert "--i-may-publish" in pushed[name]
        assert "\n" not in pushed[name]
    assert "`config.trained_on` does not say what the weights were trained on" in pushed["unknown origin"]
    assert hub.repos["geaau/unknown"].private
    assert pushed["public"].startswith("LicenseError: Cannot push weights trained on bp4d to the public 'geaau/x'")
    assert pushed["into public"].startswith(
        "LicenseError: Cannot push bound weights to 'geaau/plain', which exists and is public"
    )
    assert not {"geaau/new", "geaau/x"} & set(hub.repos)
    # What the public repository holds is what was put there before.
    assert json.loads(hub.files("geaau/plain")["config.json"])["trained_on"] == ["synthetic"]
    assert pushed["untold"] is True  # data that nobody knows binds, too
    assert json.loads(hub.files("geaau/untold")["config.json"])["trained_on"] == ["our-lab"]


def test_a_stated_reason_publishes_and_stands_in_the_card(hub, pushed):
    assert pushed["published"] is False
    card = hub.files("geaau/published")["README.md"].decode()
    assert "states: The owners agreed." in card
    assert "license: other" in card


def test_only_what_may_leaves_the_folder(hub, pushed):
    files = set(hub.files("geaau/mine"))
    assert files == {".gitattributes", "README.md", "config.json", "preprocessor_config.json", "model.safetensors"}
    assert pushed["mine"] == {"main": sorted(files - {".gitattributes"})}
    assert not {"training_facts.json", *JUNK} & set(hub.files("geaau/published"))
    for content in hub.files("geaau/published").values():
        assert b"/home/ada" not in content
        assert b"F001" not in content


def test_code_goes_along_only_when_asked(hub, pushed):
    code = {name for name in hub.files("geaau/code") if name.endswith(".py")}
    assert {"configuration_geaau.py", "modeling_geaau.py", "image_processing_geaau.py"} <= code
    assert not any(name.endswith(".py") for name in hub.files("geaau/tidy"))  # an earlier push had brought it
    assert b"auto_map" not in hub.files("geaau/tidy")["config.json"]


def test_what_the_hub_refuses_is_one_line(pushed):
    expected = {
        "no data named": ("LicenseError", "what the weights were trained on", "--trained-on"),
        "nothing said": ("CardError", "contact, intended_use, license", "--contact"),
        "empty reason": ("CardError", "must give a reason", "Say which agreement"),
        "revision of folds": ("CheckpointError", "got 'dev'", "must be left out"),
        "no directory": ("CheckpointError", "nowhere", "it is not a directory"),
        "not mine": ("HubError", "'stranger/x'", "does not allow it", "Use a token"),
        "wrong token": ("HubError", "'geaau/x'", "does not accept the token", "hf auth login"),
        "may only read": ("HubError", "'geaau/x'", "does not allow it"),
        "no login": ("HubError", "'geaau/x'", "hf auth login"),
        "card refused": ("CardError", "The Hub refuses the metadata", '"license" must be one of the known identifiers'),
    }
    for name, words in expected.items():
        assert all(word in pushed[name] for word in words), pushed[name]
        assert "\n" not in pushed[name]


@pytest.fixture(scope="module")
def folds(hub, work):
    """The folds of a licensed training, pushed by the command."""
    line = ("push", work / "folds", "geaau/bp4d", *SAID)
    agreed = ("--data-agreement", "Signed by Example University in 2025.")
    return command(hub, work / "home-command", *line, *agreed, token=hub.OWNER)


def test_an_incomplete_card_stops_the_command_before_it_asks_the_hub(work, monkeypatch, capsys):
    monkeypatch.setattr("hf_geaau_cli._hub.quiet_libraries", lambda: None)  # it would last for the tests to come
    monkeypatch.setattr(sys, "argv", ["hf-geaau", "push", str(work / "folds"), "geaau/bp4d", *SAID])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().err
    assert said.startswith("error: Cannot write the card without data_agreement, which only you know.")
    assert len(said.splitlines()) == 1


def test_folds_are_revisions_and_main_tells_their_mean(hub, work, folds):
    assert "private at" in folds.stdout
    assert hub.repos["geaau/bp4d"].private
    assert set(hub.repos["geaau/bp4d"].refs) == {"main", "fold1", "fold2", "fold3"}
    for branch, fold in (("main", 1), ("fold1", 1), ("fold2", 2), ("fold3", 3)):
        weights = (work / "folds" / f"fold{fold}" / "model.safetensors").read_bytes()
        files = hub.files("geaau/bp4d", branch)
        assert files["model.safetensors"] == weights
        assert card_errors(files["README.md"].decode()) == []
    main, second = (hub.files("geaau/bp4d", branch)["README.md"].decode() for branch in ("main", "fold2"))
    assert "Mean F1 over 3 folds **0.200** (fold 1 0.100, fold 2 0.200, fold 3 0.300" in main
    assert "Signed by Example University in 2025." in main
    assert 'revision="fold2"' in second
    assert json.loads(hub.files("geaau/bp4d", "fold2")["evaluation.json"])["reports"]["test"]["mean"]["f1"] == 0.2


@pytest.fixture(scope="module")
def photo(work, portrait) -> Path:
    path = work / "photo.png"
    Image.fromarray(portrait[0]).save(path)
    return path


@pytest.fixture(scope="module")
def read(hub, work, photo, pushed, folds) -> dict:
    """Everything that loads, and what comes instead where it must not, in one process."""
    big = work / "big"
    save(big, ["synthetic"], 0, embedding_dim=40_000)
    assert (big / "model.safetensors").stat().st_size > 12 << 20  # more than the client's 10 MiB piece
    hub.put("geaau/big", big)
    hub.put("geaau/pickled", _pickled(work))
    hub.put("geaau/hollow", _hollow(work))
    for name in ("broken", "dropped", "slow"):
        hub.put(f"geaau/{name}", work / "untold")
    hub.faults.status["geaau/broken"] = 503
    hub.faults.drop.add("geaau/dropped")
    hub.faults.delay["geaau/slow"] = 0.2
    code = f"""
    import hf_geaau
    from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
    from hf_geaau.models.zoo import find_checkpoint
    from hf_geaau.pipeline import load_pipeline

    model = AutoModel.from_pretrained("geaau/bp4d"){same_as("fold1")}
    model = AutoModelForImageClassification.from_pretrained("geaau/bp4d", revision="fold2"){same_as("fold2")}
    model = AutoModel.from_pretrained("geaau/plain", revision="v1"){same_as("free")}
    model = AutoModel.from_pretrained("geaau/slow"){same_as("untold")}
    expected = torch.load(os.environ["WORK"] + "/trained.pt")
    torch.testing.assert_close(logits(AutoModel.from_pretrained("geaau/trained")), expected[1], rtol=1e-5, atol=1e-6)
    for backend, kind in (("torchvision", "GeaauImageProcessor"), ("pil", "GeaauImageProcessorPil")):
        assert type(AutoImageProcessor.from_pretrained("geaau/bp4d", backend=backend)).__name__ == kind
    photo = os.environ["WORK"] + "/photo.png"
    faces = pipeline("facial-action-unit-detection", model="geaau/bp4d")(photo)
    said["pipeline"] = [face["action_units"] for face in faces]
    said["fold 2"] = [face["action_units"] for face in load_pipeline("geaau/bp4d", revision="fold2")(photo)]

    # where the plugin is installed, it wins over code that came along
    model = AutoModel.from_pretrained("geaau/code", trust_remote_code=True)
    said["class"] = type(model).__module__

    # a download that is cut goes on where it was
    from huggingface_hub import snapshot_download
    folder = snapshot_download("geaau/big")
    there, here = (os.path.join(place, "model.safetensors") for place in (folder, os.environ["WORK"] + "/big"))
    assert open(there, "rb").read() == open(here, "rb").read()

    # no answer, or another one than hoped for
    refused("no token", lambda: find_checkpoint("geaau/bp4d", token=False))
    refused("stranger", lambda: find_checkpoint("geaau/bp4d", token="hf_stranger"))
    refused("wrong token", lambda: find_checkpoint("geaau/bp4d", token="hf_wrong"))
    refused("misspelt", lambda: load_pipeline("geaau/bp4-plus"))
    refused("misspelt bundled", lambda: load_pipeline("geaau/geaau-efficientnet-synthetic"))
    refused("unlike anything", lambda: load_pipeline("nobody/nothing"))
    refused("revision", lambda: load_pipeline("geaau/bp4d", revision="fold9"))
    refused("pickle", lambda: load_pipeline("geaau/pickled"))
    refused("hollow", lambda: load_pipeline("geaau/hollow"))
    refused("broken", lambda: load_pipeline("geaau/broken"))
    refused("dropped", lambda: load_pipeline("geaau/dropped"))
    refused("no id", lambda: load_pipeline("no such id!"))
    refused("no path", lambda: load_pipeline("./no/such/folder"))
    refused("recipe only", lambda: load_pipeline("disfa"))
    assert find_checkpoint("geaau-efficientnet_lite2-synthetic").is_dir()

    # what is in the cache serves on the Hub's bad days
    import urllib.request
    before = find_checkpoint("geaau/plain")
    urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/_break/geaau/plain")
    assert find_checkpoint("geaau/plain") == before
    refused("bad day", lambda: find_checkpoint("geaau/plain", revision="fold7"))
    """
    hub.faults.cut["model.safetensors"] = 11 << 20  # of the big one; the others are shorter
    hub.log.clear()
    said = client(hub, work / "home-reader", code, hub.OWNER, WORK=str(work))
    del hub.faults.status["geaau/plain"]
    return said


def _pickled(work: Path) -> Path:
    folder = work / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((work / "free" / "config.json").read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def _hollow(work: Path) -> Path:
    folder = work / "hollow"
    folder.mkdir()
    (folder / "README.md").write_text("nothing else")
    return folder


def test_fresh_processes_load_what_was_pushed(work, photo, read):
    for name, fold in (("pipeline", "fold1"), ("fold 2", "fold2")):
        expected = [face["action_units"] for face in load_pipeline(work / "folds" / fold)(photo)]
        assert len(read[name]) == len(expected) == 1
        assert read[name][0] == pytest.approx(expected[0], abs=1e-5)
    assert read["class"] == "hf_geaau.models.geaau.modeling_geaau"


def test_a_cut_download_goes_on_where_it_was(hub, read):
    assert not hub.faults.cut
    ranges = [headers.get("Range") for headers in hub.requests("GET", r"/model\.safetensors$")]
    assert f"bytes={10 << 20}-" in ranges  # the client keeps whole pieces of 10 MiB


def test_the_token_never_goes_to_the_storage(hub, read):
    to_storage = [headers for _, path, headers in hub.log if re.match(r"/[0-9a-f]{64}/", path)]
    assert to_storage
    assert not any("Authorization" in headers for headers in to_storage)


def test_what_keeps_a_checkpoint_from_loading_is_one_line(read):
    expected = {
        "no token": ("'geaau/bp4d'", "config.json", "no such repository, or you may not see it", "hf auth login"),
        "stranger": ("'geaau/bp4d'", "you may not see it"),
        "wrong token": ("'geaau/bp4d'", "does not accept the token", "hf auth login"),
        "misspelt": ("'geaau/bp4-plus'", "Did you mean 'bp4d-plus' of the zoo?", "hf-geaau train bp4d_plus"),
        "misspelt bundled": ("Did you mean 'geaau-efficientnet_lite2-synthetic', which is in the package?",),
        "unlike anything": ("'nobody/nothing'", "The zoo has geaau-efficientnet_lite2-synthetic, gee-fec, bp4d,"),
        "revision": ("'geaau/bp4d' at revision 'fold9'", "there is no such revision", "branches and tags"),
        "pickle": ("'geaau/pickled'", "only pytorch_model.bin, a pickle, which can run code", "save_pretrained"),
        "hollow": ("'geaau/hollow'", "it has no config.json on the Hub"),
        "broken": ("'geaau/broken'", "status 503", "Try again later"),
        "dropped": ("'geaau/dropped'", "Check the connection"),
        "bad day": ("'geaau/plain' at revision 'fold7'", "not in the cache, and the Hub answers with status 503"),
        "no id": ("such as 'owner/name'", "'no such id!'"),
        "no path": ("'./no/such/folder'", "Check the path"),
        "recipe only": ("'disfa'", "not published", "hf-geaau train disfa"),
    }
    for name, words in expected.items():
        assert read[name].startswith(("CheckpointError: Cannot ", "CheckpointError: `model` must")), read[name]
        assert all(word in read[name] for word in words), read[name]
        assert "\n" not in read[name]


def test_nothing_but_what_loading_needs_is_fetched(hub, read):
    asked = {path.split("/")[-1] for method, path, _ in hub.log if method == "GET" and "/resolve/" in path}
    assert not any(name.endswith((".py", ".bin", ".pt")) for name in asked)


def test_the_command_predicts_with_a_checkpoint_from_the_hub(hub, work, photo, read):
    table = work / "table.csv"
    line = ("predict", photo, "--model", "geaau/bp4d", "--output", table, "--overwrite")
    command(hub, work / "home-reader", *line, token=hub.OWNER)
    expected = load_pipeline(work / "folds" / "fold1")(photo)[0]["action_units"]
    assert pd.read_csv(table).iloc[0][list(expected)].to_dict() == pytest.approx(expected, abs=1e-5)


OFFLINE = """
    import time
    import transformers
    import hf_geaau
    from hf_geaau.pipeline import load_pipeline

    def no_waiting(seconds):
        raise AssertionError(f"waited {seconds} s to try again")

    time.sleep = no_waiting
"""


def test_offline_the_cache_serves_and_nobody_waits(hub, work, photo, read):
    hub.log.clear()
    code = (
        OFFLINE
        + f"""
    model = transformers.AutoModel.from_pretrained("geaau/bp4d"){same_as("fold1")}
    model = load_pipeline("geaau/bp4d", revision="fold2").model{same_as("fold2")}
    began = time.monotonic()
    refused("missing", lambda: load_pipeline("geaau/never-seen"))
    said["seconds"] = time.monotonic() - began
    """
    )
    said = client(hub, work / "home-reader", code, HF_HUB_OFFLINE="1", WORK=str(work))
    assert "file config.json: not in the cache, and HF_HUB_OFFLINE is set. Go online once" in said["missing"]
    assert not hub.log
    print(f"offline: an error after {said['seconds']:.3f} s")


def test_a_host_that_cannot_be_resolved_is_asked_once(hub, work, read):
    code = (
        OFFLINE
        + f"""
    import socket
    asked, look_up = [], socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **more: asked.append(host) or look_up(host, *rest, **more)
    began = time.monotonic()
    refused("missing", lambda: load_pipeline("geaau/bp4dd"))
    said["seconds"], said["asked"] = time.monotonic() - began, list(asked)
    model = load_pipeline("geaau/bp4d").model{same_as("fold1")}
    from hf_geaau.hub import push
    from hf_geaau.model_card import Statements
    mine = Statements(contact="Ada", intended_use="Trials", license="mit")
    refused("push", lambda: push(os.environ["WORK"] + "/free", "geaau/x", mine))
    """
    )
    said = client(hub, work / "home-reader", code, HF_ENDPOINT="https://hub.invalid", WORK=str(work))
    assert said["asked"] == ["hub.invalid"]
    assert "the host 'hub.invalid' cannot be resolved" in said["missing"]
    assert "Did you mean 'bp4d' of the zoo?" in said["missing"]
    assert said["push"].startswith("HubError: Cannot push to 'geaau/x': the host 'hub.invalid' cannot be")
    print(f"unresolvable: an error after {said['seconds']:.3f} s")


def test_code_on_the_hub_works_where_the_plugin_is_not_installed(hub, work, pushed):
    exported = work / "exported"
    save(exported, ["synthetic"], 0)
    assert "modeling_geaau.py" in export_remote_code(exported)
    assert not list(exported.glob(".*"))
    code = f"""
    class NotInstalled:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("hf_geaau", "hf_geaau_cli"):
                raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

    sys.meta_path.insert(0, NotInstalled())
    refused("plugin", lambda: __import__("hf_geaau"))
    from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification
    refused("without code", lambda: AutoModel.from_pretrained("geaau/plain"))
    trusted = {{"trust_remote_code": True}}
    model = AutoModelForImageClassification.from_pretrained("geaau/code", **trusted){same_as("free")}
    model = AutoModel.from_pretrained(os.environ["WORK"] + "/exported", **trusted){same_as("free")}
    model = AutoModel.from_pretrained("geaau/code", **trusted){same_as("free")}
    for backend, kind in (("torchvision", "GeaauImageProcessor"), ("pil", "GeaauImageProcessorPil")):
        processor = AutoImageProcessor.from_pretrained("geaau/code", backend=backend, **trusted)
        assert type(processor).__name__ == kind
        assert processor(torch.zeros(3, 80, 80, dtype=torch.uint8), return_tensors="pt").pixel_values.shape[-1] == 64
    said["module"] = type(model).__module__
    model.config.trained_on = ["bp4d"]
    refused("guard", lambda: model.push_to_hub("geaau/new", private=False))
    assert "hf_geaau" not in sys.modules
    """
    said = client(hub, work / "home-stranger", code, WORK=str(work))
    assert said["plugin"] == "ModuleNotFoundError: No module named 'hf_geaau'"
    assert "does not recognize this architecture" in said["without code"]
    assert said["module"].startswith("transformers_modules.")
    assert "the weights were trained on bp4d, whose license binds them" in said["guard"]


def test_the_command_lists_the_zoo(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hf-geaau", "models"])
    with pytest.raises(SystemExit, match="0"):
        main()
    text = capsys.readouterr().out
    for words in ("geaau-efficientnet_lite2-synthetic", "bundled", "gee-fec", "recipe bp4d_plus", "2.7 MB"):
        assert words in text


EXAMPLES = Path(__file__).parents[2] / "examples"


def share(hub: HubServer, home: Path, repo_id: str, checkpoint: Path | None = None) -> str:
    """Run the example with its constants set as a user would."""
    source = (EXAMPLES / "06_share_on_the_hub.py").read_text().replace('REPOSITORY = ""', f"REPOSITORY = {repo_id!r}")
    if checkpoint is not None:
        source = source.replace("CHECKPOINT = BUNDLED_CHECKPOINT", f"CHECKPOINT = {str(checkpoint)!r}")
        source = source.replace("STATEMENTS = Statements(", 'STATEMENTS = Statements(data_agreement="Signed in 2025.",')
    environment = hub.environment(home, hub.OWNER)
    command = [sys.executable, "-c", source]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_example_shares_the_bundled_weights(hub, work):
    assert "public at" in share(hub, work / "home-example", "geaau/bundled")
    assert "thresholds" in json.loads(hub.files("geaau/bundled")["config.json"])


def test_the_example_shares_licensed_weights_privately(hub, work, tiny_model):
    tiny_model.config.trained_on = ["synthetic", "disfa"]
    tiny_model.save_pretrained(work / "finetuned")
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(work / "finetuned")
    assert "private at" in share(hub, work / "home-example", "geaau/finetuned", work / "finetuned")
    assert json.loads(hub.files("geaau/finetuned")["config.json"])["trained_on"] == ["synthetic", "disfa"]
    assert card_errors(hub.files("geaau/finetuned")["README.md"].decode()) == []
