"""Share checkpoints on the Hub: what is pushed, what never is, and who may see it.

Only the files that loading needs, the card and the numbers behind it are pushed; labels, crops, optimizer states, logs
and pickles never are. Weights trained on licensed data go to a private repository, unless somebody states why they may
be public.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from hf_geaau.errors import CardError, CheckpointError, GeaauError, HubError, LicenseError, hide_secrets
from hf_geaau.files import whole_file
from hf_geaau.model_card import (
    CardFacts,
    Statements,
    check_written_card,
    is_generated,
    make_card,
    publication_section,
    read_json,
)
from hf_geaau.models.geaau.licensing_geaau import keep_private
from hf_geaau.models.loading import load_checkpoint
from hf_geaau.models.zoo import quoted, reason_and_remedy, why_out_of_reach

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CODE = Path(__file__).parent / "models" / "geaau"
MAIN_FOLD = "1"
"""The fold whose weights `main` holds. Fixed in advance: taking the best on its test fold would choose by test data."""

MODEL_CLASSES = ("GeaauModel", "GeaauForExpressionEmbedding")

# Pushed beside the weights; nothing else in the folder is. The pictures are those of `hf-geaau evidence`.
_PUSHED = ("evaluation.json", "calibration.png", "failures.jpg")
_LOADED = ("_geaau.py", ".safetensors", ".bin", ".onnx", ".xml")

# Read beside what is pushed.
_READ = (
    "config.json", "preprocessor_config.json", "training_facts.json", "calibration.json", "evidence.md", "README.md",
)  # fmt: skip
_WEIGHTS = ("model*.safetensors", "model*.safetensors.index.json")


class LicenseCallback(TrainerCallback):
    """Apply the rule of `keep_private` to a `Trainer` that pushes.

    A Trainer uploads its folder by itself, past the model's own methods. With this callback among its `callbacks`, it
    stops before anything is uploaded to a public repository if the data binds the weights.

    Args:
        model: With `args`, the check happens at once, before the Trainer creates an empty public repository.
        args: Of the Trainer.

    Raises:
        PermissionError: When the callback or the Trainer is made, and before each push.

    Example:
        >>> Trainer(model, args, callbacks=[LicenseCallback(model, args)])  # doctest: +SKIP
    """

    def __init__(self, model: "PreTrainedModel | None" = None, args: TrainingArguments | None = None) -> None:
        if model is not None and args is not None and args.push_to_hub and args.process_index == 0:
            self._check(args, model)

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check as soon as the Trainer is made."""
        if args.push_to_hub:
            self.on_push_begin(args, state, control, **kwargs)

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Check before a push."""
        if state.is_world_process_zero:
            self._check(args, model)

    def _check(self, args: TrainingArguments, model: Any) -> None:
        config = getattr(model, "config", None)
        if getattr(config, "model_type", None) == "geaau":
            repo_id = args.hub_model_id or Path(args.output_dir).absolute().name
            keep_private(config, repo_id, args.hub_private_repo, args.hub_token)


@dataclass(frozen=True)
class Pushed:
    """The result of a push.

    Attributes:
        url: Of the repository.
        private: Whether only its owners see it.
        files: Revision -> names of the files pushed to it.
    """

    url: str
    private: bool
    files: dict[str, list[str]]


def push(
    directory: str | Path,
    repo_id: str,
    statements: Statements | None = None,
    *,
    private: bool | None = None,
    may_publish: str | None = None,
    trained_on: Iterable[str] = (),
    remote_code: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Push a checkpoint, or the folds of a training, with a model card.

    Args:
        directory: What `hf-geaau train` or `save_pretrained` wrote. With folds.json and folders fold1, fold2, …, each
            fold goes to a revision of its own name, and `main` gets fold 1 and the mean results.
        repo_id: Such as "owner/name"; created if it is missing.
        statements: What only a human knows. Not needed if the folder holds a README.md that somebody wrote.
        private: Whether only its owners see it. None: private if the data binds the weights, else public.
        may_publish: Why weights bound by a license may be public; goes into the card.
        trained_on: Datasets that the weights were trained on, if the config does not say it.
        remote_code: Add the code of the model, for machines without hf_geaau.
        revision: Branch to push to; None for main.
        token: Of the Hub; None for the one that `hf auth login` stored.

    Raises:
        CheckpointError: If the folder holds no complete checkpoint in safetensors, or a file that is pushed or read is
            no regular file inside the folder, such as a link to elsewhere.
        CardError: If something that only a human knows is missing.
        LicenseError: If bound weights would become public, or nothing says what they were trained on.
        HubError: If the Hub is unreachable or refuses.
    """
    directory, statements = Path(directory), statements or Statements()
    _check_repo_id(repo_id)
    checkpoints = _checkpoints(directory, revision)
    facts = {branch: _facts(folder, folds, trained_on) for branch, (folder, folds) in checkpoints.items()}
    bound = list(dict.fromkeys(name for each in facts.values() for name in each.bound))
    if may_publish is not None and not may_publish.strip():
        raise CardError("`--i-may-publish` must give a reason, got an empty text. Say which agreement allows it.")
    must_be_private = bool(bound) and not may_publish
    if must_be_private and private is False:
        raise LicenseError(
            f"Cannot push weights trained on {', '.join(bound)} to the public '{repo_id}'. Push privately, or, if your"
            ' agreement allows it, say why with `--i-may-publish "reason"`.'
        )
    commits = {}
    for (branch, each), (folder, _) in zip(facts.items(), checkpoints.values(), strict=True):
        readme = folder / "README.md"
        card = _read_card(readme) if readme.is_file() else ""
        if card.strip() and not is_generated(card):
            check_written_card(card, f"'{readme}'")
            card += publication_section(each, statements, may_publish)
        else:
            made = make_card(each, repo_id, statements, branch=branch, may_publish=may_publish, with_code=remote_code)
            card = str(made)
        commits[branch] = {"README.md": card.encode(), **_files(folder, each, remote_code)}
    for folder in dict.fromkeys(folder for folder, _ in checkpoints.values()):
        load_checkpoint(folder)  # raises if a tensor is missing or a setting out of range
    if reason := why_out_of_reach():
        raise HubError(f"Cannot push to '{repo_id}': {reason}. Go online and push again.")
    try:
        return _upload(repo_id, commits, bool(private), token, must_be_private)
    except GeaauError:
        raise
    except Exception as error:  # the client raises its own, httpx's, OSError and ValueError
        reason, remedy = reason_and_remedy(error)
        raise HubError(f"Cannot push to '{repo_id}': {reason}. {remedy}") from error


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(
            f"`repo_id` must be such as 'owner/name', got {quoted(repo_id)}. Choose another name."
        ) from error


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"Cannot read the card {quoted(path)}: {error}. Save it as UTF-8, or delete it.") from error


def export_remote_code(directory: str | Path) -> list[str]:
    """Add the model's code to a checkpoint, so that `trust_remote_code=True` loads it without hf_geaau.

    If hf_geaau is installed, its own code is used nevertheless.

    Args:
        directory: A checkpoint; its two JSON files get an `auto_map`.

    Returns:
        Names of the files that were added.

    Raises:
        CheckpointError: If it is no checkpoint.
    """
    directory = Path(directory)
    facts = CardFacts.read(directory)
    files = _code(facts)
    for name, content in files.items():
        with whole_file(directory / name) as part:
            part.write_bytes(content)
    return sorted(set(files) - {"config.json", "preprocessor_config.json"})


def _code(facts: CardFacts) -> dict[str, bytes]:
    """Return the model files, and the two JSON files that name their classes.

    The map is written by hand: `register_for_auto_class` would make every later `save_pretrained` copy code, would
    forget AutoModel, and would give the torchvision processor for `backend="pil"`.
    """
    kind = MODEL_CLASSES[facts.is_encoder]
    models = {"AutoConfig": "configuration_geaau.GeaauConfig", "AutoModel": f"modeling_geaau.{kind}"}
    if not facts.is_encoder:
        models["AutoModelForImageClassification"] = f"modeling_geaau.{kind}"
    processors = {
        "torchvision": "image_processing_geaau.GeaauImageProcessor",
        "pil": "image_processing_geaau.GeaauImageProcessorPil",
    }
    return {
        **{path.name: path.read_bytes() for path in sorted(CODE.glob("*_geaau.py"))},
        "config.json": _json({**facts.config, "auto_map": models}),
        "preprocessor_config.json": _json({**facts.processor, "auto_map": {"AutoImageProcessor": processors}}),
    }


def _json(content: dict[str, Any]) -> bytes:
    # In the file's own order: sorted as text, label 10 would come before label 2.
    return (json.dumps(content, indent=2) + "\n").encode()


# --- what is pushed ---


def _checkpoints(directory: Path, revision: str | None) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return folder and folds.json of each branch; the folds first, so that `main` is complete only at the end."""
    if not directory.is_dir():
        raise CheckpointError(
            f"Cannot push {quoted(directory)}: it is not a directory. Pass the directory of a checkpoint."
        )
    _check_inside(directory / "folds.json", directory)
    folds = read_json(directory / "folds.json", optional=True)
    if not folds:
        _check_files(directory, directory)
        return {revision or "main": (directory, {})}
    if revision is not None:
        raise CheckpointError(
            f"`revision` must be left out for folds, which go to revisions of their own, got '{revision}'."
        )
    reports = folds.get("folds")
    numbers = sorted(reports) if isinstance(reports, dict) else []
    if wrong := [number for number in numbers if not re.fullmatch("[1-9][0-9]?", number)]:
        raise CheckpointError(
            f"Cannot push the folds in {quoted(directory)}: folds.json names a fold {quoted(wrong[0])}, which is no"
            " number. Repair it."
        )
    if MAIN_FOLD not in numbers:
        raise CheckpointError(
            f"Cannot push the folds in {quoted(directory)}: folds.json has no fold {MAIN_FOLD}. Train it first."
        )
    branches: dict[str, tuple[Path, dict[str, Any]]] = {f"fold{n}": (directory / f"fold{n}", {}) for n in numbers}
    for folder, _ in branches.values():
        if not folder.is_dir():
            raise CheckpointError(f"Cannot push the folds: {quoted(folder)} is missing. Train that fold first.")
        _check_files(folder, directory)
    return {**branches, "main": (directory / f"fold{MAIN_FOLD}", folds)}


def _check_files(folder: Path, root: Path) -> None:
    """Check everything that is pushed or read, before anything is opened: a pipe would wait for ever."""
    names = {folder / name for name in (*_READ, *_PUSHED)} | {*folder.glob("onnx/*"), *folder.glob("openvino/*")}
    for path in sorted(names.union(*(folder.glob(pattern) for pattern in _WEIGHTS))):
        _check_inside(path, root)


def _check_inside(path: Path, root: Path) -> None:
    """Refuse what is no regular file inside the folder, and links that lead out of it."""
    if not os.path.lexists(path):
        return
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(root)):
        raise CheckpointError(
            f"Cannot push {quoted(path)}: it is a link that leads out of {quoted(root)}. Put a copy of the file there."
        )
    if not target.is_file():
        raise CheckpointError(f"Cannot push {quoted(path)}: it is no regular file. Remove it.")


def _facts(folder: Path, folds: dict[str, Any], trained_on: Iterable[str]) -> CardFacts:
    facts = CardFacts.read(folder, folds)
    if facts.config.get("model_type") != "geaau":
        raise CheckpointError(
            f"Cannot push '{folder}': its model type is '{facts.config.get('model_type')}', not 'geaau'."
        )
    if not facts.parameters:
        raise CheckpointError(
            f"Cannot push '{folder}': it holds no weights in safetensors. Save it with save_pretrained."
        )
    names = list(dict.fromkeys([*facts.trained_on, *trained_on]))
    if not names:
        raise LicenseError(
            f"Cannot tell what the weights were trained on: '{folder / 'config.json'}' has no `trained_on`. Pass"
            " `--trained-on NAME` for each dataset."
        )
    return replace(facts, config={**facts.config, "trained_on": names})


def _files(folder: Path, facts: CardFacts, remote_code: bool) -> dict[str, bytes | Path]:
    """Return what is pushed beside the card: only files that are known, instead of all but those that are not."""
    files: dict[str, bytes | Path] = {path.name: path for path in sorted(folder.glob("model*.safetensors"))}
    files |= {path.name: path for path in folder.glob("model*.safetensors.index.json")}
    files |= {name: folder / name for name in _PUSHED if (folder / name).is_file()}
    files |= {name: folder / name for name in facts.networks}
    if facts.folds:
        folds = {number: _report(report) for number, report in facts.folds["folds"].items()}
        files["folds.json"] = _json({**facts.folds, "folds": folds})
    if facts.reports:
        files["evaluation.json"] = _json({"reports": {name: _report(report) for name, report in facts.reports.items()}})
    config = {name: value for name, value in facts.config.items() if name not in ("_name_or_path", "auto_map")}
    processor = {name: value for name, value in facts.processor.items() if name != "auto_map"}
    files |= {"config.json": _json(config), "preprocessor_config.json": _json(processor)}
    return {**files, **_code(facts)} if remote_code else files


def _report(report: dict[str, Any]) -> dict[str, Any]:
    """Leave out the path of the checkpoint, which is of somebody's machine."""
    return {name: value for name, value in report.items() if name != "checkpoint"}


# --- the Hub ---


def _upload(
    repo_id: str, commits: dict[str, dict[str, Any]], private: bool, token: str | None, must_be_private: bool
) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard

    for files in commits.values():  # before a repository is created for nothing
        try:
            ModelCard(files["README.md"].decode()).validate()
        except ValueError as error:
            try:
                found = "; ".join(entry["message"] for entry in json.loads(str(error))["errors"])
            except (ValueError, KeyError, TypeError):
                found = hide_secrets(" ".join(str(error).split()))
            raise CardError(f"The Hub refuses the metadata of the card: {found}.") from error
    api = HfApi(token=token)
    url = api.create_repo(repo_id, private=private or must_be_private, exist_ok=True)
    repo_id = url.repo_id
    is_private = bool(api.repo_info(repo_id).private)
    if must_be_private and not is_private:
        raise LicenseError(
            f"Cannot push bound weights to '{repo_id}', which exists and is public. Make it private, choose another"
            ' name, or, if your agreement allows it, say why with `--i-may-publish "reason"`.'
        )
    for branch, files in commits.items():
        if branch != "main":
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        # Code and weights of an earlier push would be loaded with, or instead of, the new files.
        present = {sibling.rfilename for sibling in api.model_info(repo_id, revision=branch).siblings or []}
        stale = sorted(name for name in present - set(files) if name.endswith(_LOADED))
        operations: list[Any] = [CommitOperationDelete(name) for name in stale]
        operations += [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repo_id, operations, commit_message="Share a checkpoint with hf_geaau", revision=branch)
    return Pushed(hide_secrets(str(url)), is_private, {branch: sorted(files) for branch, files in commits.items()})
