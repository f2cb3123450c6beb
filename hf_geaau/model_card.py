"""Model cards: facts collected in training and evaluation, what only a human knows, and the Hub's metadata.

A card says where each number comes from. What was not measured reads "not measured"; what only a human knows has no
default, and stops a push while it is empty.
"""

import json
import math
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_geaau.data import AUDataset, list_datasets
from hf_geaau.errors import CardError, CheckpointError
from hf_geaau.facs import ACTION_UNITS
from hf_geaau.models.geaau.guard_geaau import bound_data
from hf_geaau.models.zoo import ZOO, ZooEntry

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

PAPER = "An et al., Global-to-local Expression-aware Embeddings for Facial Action Unit Detection, arXiv 2210.15160"
TASK_NAME = "Facial action unit detection"
NOT_MEASURED = "not measured"
COLUMNS = {
    "base_rate": "base rate",
    "always_on_f1": "always-on F1",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "auc": "AUC",
}
"""Columns of the results table, in order: the key in the report, and how the card calls it."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# What tools write where a human has said nothing.
_PLACEHOLDERS = re.compile(r"\[more information needed\]|\btodo\b|<!--.*?-->|generated automatically", re.I | re.S)


@dataclass(frozen=True, kw_only=True)
class Statements:
    """What only a human knows. None has a default; an empty one that is needed stops a push.

    Attributes:
        contact: Who answers questions about the weights: a name with an address.
        intended_use: What you share them for.
        license: Of the weights, as the Hub's identifier, such as "apache-2.0"; only where no data binds them.
        data_agreement: Under which agreement you hold the data, and what it says about weights; only where data
            binds them.
    """

    contact: str = ""
    intended_use: str = ""
    license: str = ""
    data_agreement: str = ""

    def check(self, bound: list[str]) -> None:
        """Name what is missing.

        Args:
            bound: The datasets that bind the weights.

        Raises:
            CardError: If something that is needed is empty.
        """
        needed = ["contact", "intended_use", "data_agreement" if bound else "license"]
        if missing := [name for name in needed if not getattr(self, name).strip()]:
            options = " ".join(f'--{name.replace("_", "-")} "…"' for name in missing)
            raise CardError(f"A card needs what only you know, got nothing for {', '.join(missing)}. Pass `{options}`.")


@dataclass(frozen=True)
class CardFacts:
    """What the files of a checkpoint say about it.

    Attributes:
        config: config.json.
        processor: preprocessor_config.json.
        training: training_facts.json, {} without.
        calibration: calibration.json, {} without.
        parameters: Number of weights.
        megabytes: Size of the weight files.
        folds: folds.json of the directory above, {} without; its means go into the card of `main`.
    """

    config: dict[str, Any]
    processor: dict[str, Any]
    training: dict[str, Any]
    calibration: dict[str, Any]
    parameters: int
    megabytes: float
    folds: dict[str, Any]

    @classmethod
    def read(cls, directory: Path, folds: dict[str, Any] | None = None) -> "CardFacts":
        """Read a checkpoint's directory.

        Raises:
            CheckpointError: If a file is missing or damaged, or the weights are not safetensors.
        """
        weights = sorted(directory.glob("model*.safetensors"))
        return cls(
            config=read_json(directory / "config.json"),
            processor=read_json(directory / "preprocessor_config.json"),
            training=read_json(directory / "training_facts.json", optional=True),
            calibration=read_json(directory / "calibration.json", optional=True),
            parameters=sum(count_weights(path) for path in weights),
            megabytes=sum(path.stat().st_size for path in weights) / 1e6,
            folds=folds or {},
        )

    @property
    def is_encoder(self) -> bool:
        """Whether it gives expression embeddings only."""
        return "GeaauForExpressionEmbedding" in (self.config.get("architectures") or [])

    @property
    def thresholds(self) -> dict[str, float]:
        """Label -> decision threshold, in the order of the outputs."""
        labels = [f"AU{number:02d}" for number in self.config["action_units"]]
        return dict(zip(labels, self.config.get("thresholds") or [0.5] * len(labels), strict=True))

    @property
    def trained_on(self) -> list[str]:
        """Names of the datasets that the weights have seen."""
        return list(self.config.get("trained_on") or [])

    @property
    def bound(self) -> list[str]:
        """Names of the datasets whose licence binds the weights."""
        return bound_data(self.trained_on)

    @property
    def report(self) -> dict[str, Any]:
        """The evaluation on the test fold; {} if there was none."""
        return self.training.get("evaluation") or {}


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file is missing (unless `optional`) or holds anything else.
    """
    if optional and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"A checkpoint to share must hold {path.name}, got '{path.parent}' without it. Save it with"
            " save_pretrained."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"'{path}' must hold JSON, got something else: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' must hold a JSON object, got a {type(content).__name__}.")
    return content


def count_weights(path: Path) -> int:
    """Count the weights in a file of safetensors by its header alone, without the running statistics of batch norm.

    Raises:
        CheckpointError: If the file is no safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if not name.endswith(_STATISTICS)]  # noqa: SIM118 - it is no dict
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"Weights must be safetensors, got '{path}', which is none ({error}). Save them again with save_pretrained."
        ) from error


# --- the card ---


def make_card(
    facts: CardFacts,
    repo_id: str,
    statements: Statements,
    *,
    branch: str = "main",
    may_publish: str | None = None,
    with_code: bool = False,
) -> "ModelCard":
    """Write the card of a checkpoint.

    Args:
        facts: What its files say.
        repo_id: Where it is shared.
        statements: What only a human knows.
        branch: The one that this card is for, such as "fold2".
        may_publish: Why weights bound by a licence may be public, in the words of who says so.
        with_code: Whether the model's code goes along.

    Raises:
        CardError: If a statement that is needed is empty.
    """
    from huggingface_hub import ModelCard

    statements.check(facts.bound)
    sections = {
        repo_id.split("/")[-1] + ("" if branch == "main" else f", {branch}"): _start(facts, repo_id, branch, with_code),
        "What it predicts": _predicts(facts),
        "What it expects": _expects(facts),
        "Training data": _data(facts),
        "Protocol": _protocol(facts),
        "Results": _results(facts),
        "Differences from the paper": _differences(facts),
        "Limits": _limits(facts),
        "Intended use": _use(statements),
        "Training": _training(facts),
        "Licence and citation": _licence(facts, statements, may_publish),
        "Contact": statements.contact.strip(),
    }
    body = "\n\n".join(
        f"{'#' if index == 0 else '##'} {title}\n\n{text}" for index, (title, text) in enumerate(sections.items())
    )
    metadata = _metadata(facts, repo_id, statements)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}\n")


def check_written_card(content: str, where: str) -> None:
    """Check a card that somebody wrote: metadata with a licence, no empty section, no placeholder.

    Raises:
        CardError: With the name of what is missing.
    """
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(content)
    except (ValueError, yaml.YAMLError) as error:
        raise CardError(f"A card's metadata must be YAML, got {where}: {' '.join(str(error).split())}.") from error
    if not card.data.get("license"):
        raise CardError(f"A card must name the licence of the weights, got {where} without `license:` in its metadata.")
    if found := _PLACEHOLDERS.search(card.text):
        raise CardError(f"A card must be filled in, got {where} with '{found[0][:40]}'. Write it, or delete the file.")
    titles = list(re.finditer(r"^#+ +(.+)$", card.text, re.M))
    for title, following in zip(titles, [*titles[1:], None], strict=True):
        text = card.text[title.end() : following.start() if following else None]
        deeper = following and following[0].count("#") > title[0].count("#")
        if not text.strip() and not deeper:
            raise CardError(f"A card must be filled in, got {where} with nothing under '{title[1]}'.")


def is_generated(content: str) -> bool:
    """Tell whether a README was written by Trainer or `push_to_hub`, not by a human."""
    return "generated automatically" in content or "automatically generated" in content


_ENCODER_USE = """from hf_geaau import GeaauForExpressionEmbedding

model = GeaauForExpressionEmbedding.from_pretrained({where})"""

_USE = """import hf_geaau  # registers the model and the task
from transformers import pipeline

detect = pipeline("facial-action-unit-detection", model={where})
detect("photo.jpg")"""


def _start(facts: CardFacts, repo_id: str, branch: str, with_code: bool) -> str:
    where = f'"{repo_id}"' + ("" if branch == "main" else f', revision="{branch}"')
    what = f"Detects {len(facts.thresholds)} facial action units (AUs) with GTLE-Net."
    if facts.is_encoder:
        what = "Gives an expression embedding of an aligned face crop (GEE, the first stage of GTLE-Net)."
    code = (_ENCODER_USE if facts.is_encoder else _USE).format(where=where)
    alone = (
        f"\n\nWhere hf_geaau is not installed: `AutoModel.from_pretrained({where}, trust_remote_code=True)`."
        if with_code
        else ""
    )
    branches = ""
    if facts.folds:
        names = [f"`fold{number}`" for number in sorted(facts.folds["folds"])]
        branches = (
            f"\n\nEach fold is a revision: {', '.join(names)}. `main` holds the weights of fold 1: folds differ only in"
            " which people were held out, and to choose the one with the best test result would be to choose by test"
            " data. The results below are means over the folds."
        )
    return f"{what} Made with hf_geaau.\n\n```python\n{code}\n```{alone}{branches}"


def _predicts(facts: CardFacts) -> str:
    if facts.is_encoder:
        size = facts.config["embedding_dim"]
        return f"A vector of length {size}, L2-normalised: near for similar expressions, far for others."
    rows = [f"| {label} | {_name(label)} | {value:g} |" for label, value in facts.thresholds.items()]
    text = (
        "For each unit the probability that it is present. It counts as present from its threshold on, which the config"
        " carries.\n\n| AU | name | threshold |\n|---|---|--:|\n"
    )
    origin = "Where the thresholds come from is not recorded."
    if set(facts.thresholds.values()) == {0.5}:
        origin = "All thresholds are 0.5, not tuned."
    elif facts.calibration:
        origin = "The thresholds were chosen on validation people, not on the test fold."
    intensity = " The intensity of each unit, 0 to 5, comes beside it." if facts.config.get("predict_intensity") else ""
    return f"{text}{chr(10).join(rows)}\n\n{origin}{intensity}"


def _expects(facts: CardFacts) -> str:
    size = facts.processor.get("size", {})
    return (
        f"A square face crop of {size.get('height')}×{size.get('width')} px, aligned by five points (eyes, nose tip,"
        " mouth corners) to the template in `preprocessor_config.json`. The pipeline finds and aligns faces in photos;"
        " `AutoImageProcessor` aligns with given points."
    )


def _data(facts: CardFacts) -> str:
    lines = []
    for name in facts.trained_on:
        if name in list_datasets():
            dataset = dataset_class(name)
            lines.append(f"- {dataset.TITLE} (`{name}`), {dataset.HOMEPAGE}: {dataset.LICENSE}. {dataset.CITATION}.")
        else:
            lines.append(f"- `{name}`: not one of hf_geaau's datasets; its licence is not known to it.")
    seen = facts.training.get("dataset") or {}
    counts = [
        f"{seen[f'{split}_rows']:,} rows of {seen.get(f'{split}_subjects', NOT_MEASURED)} people for {what}"
        for split, what in (("train", "training"), ("validation", "validation"), ("test", "test"))
        if seen.get(f"{split}_rows") is not None
    ]
    used = [f"Used here: {'; '.join(counts)}."] if counts else []
    notes = [f"- {note}" for note in seen.get("notes") or []]
    people = "Age, sex and skin tone of the people: see the papers cited; results by group are not measured."
    if facts.trained_on == ["synthetic"]:
        people = "All faces are rendered. Results by group are not measured."
    return "\n".join([*lines, "", *used, *notes, people]).strip()


def _protocol(facts: CardFacts) -> str:
    seen = facts.training.get("dataset") or {}
    if not seen:
        return "Not recorded: these weights were not trained by `hf-geaau train`."
    fold = f"fold {seen['fold']} of {seen.get('folds')}" if seen.get("fold") else "no folds"
    if facts.folds:
        fold = f"{len(facts.folds['folds'])} folds of which each tests on other people"
    shared = facts.report.get("identities_shared_with_training", NOT_MEASURED)
    chosen = (
        "chosen on validation people from the training part, never on the test fold"
        if seen.get("validation_rows")
        else "the last one, because nobody was held out for validation"
    )
    return (
        f"{seen.get('title')}, {fold}, numbering of {seen.get('protocol')}; subject-exclusive: people of the test"
        f" set in training: {shared}. The checkpoint is {chosen}. Seed {facts.training.get('seed', 'not recorded')}."
    )


def _results(facts: CardFacts) -> str:
    if facts.folds:
        return _fold_results(facts.folds)
    if not facts.report.get("action_units"):
        numbers = {name: value for name, value in facts.report.items() if isinstance(value, float)}
        measured = "\n".join(f"- {name.replace('_', ' ')}: {value:.3f}" for name, value in numbers.items())
        return measured or f"{NOT_MEASURED.capitalize()}."
    report = facts.report
    rows = {**report["action_units"], "mean": report["mean"]}
    used = {label: row.get("threshold") for label, row in report["action_units"].items()}
    at = "the thresholds above"
    if used != facts.thresholds:
        at = "other thresholds, before those above were set; at those it is not measured"
    intro = (
        f"{report.get('frames', 0):,} test frames of {report.get('subjects', NOT_MEASURED)} people. F1 at {at};"
        ' "always-on" is the F1 of saying yes every time.'
    )
    return f"{intro}\n\n{_table(rows)}"


def _fold_results(folds: dict[str, Any]) -> str:
    means, pooled = folds["mean_of_folds"], folds.get("pooled") or {}
    each = [f"fold {number} {report['mean']['f1']:.3f}" for number, report in sorted(folds["folds"].items())]
    spread = (means.get("spread") or {}).get("f1")
    text = f"Mean F1 over {len(each)} folds **{means['mean']['f1']:.3f}** ({', '.join(each)}"
    text += f"; standard deviation {spread:.3f})." if spread is not None else ")."
    if pooled.get("mean"):
        text += f" With the frames of all folds counted together: {pooled['mean']['f1']:.3f}."
    return f"{text}\n\n{_table({**means['action_units'], 'mean': means['mean']})}"


def _table(rows: dict[str, dict[str, Any]]) -> str:
    shown = {key: title for key, title in COLUMNS.items() if any(key in row for row in rows.values())}
    lines = [
        f"| AU | name | {' | '.join(shown.values())} |",
        f"|---|---|{'--:|' * len(shown)}",
    ]
    for label, row in rows.items():
        values = [NOT_MEASURED if row.get(key) is None else f"{row[key]:.3f}" for key in shown]
        lines.append(f"| {label} | {_name(label)} | {' | '.join(values)} |")
    return "\n".join(lines)


def _name(label: str) -> str:
    unit = ACTION_UNITS.get(int(label[2:])) if label[2:].isdigit() else None
    return unit.name if unit else ""


def _differences(facts: CardFacts) -> str:
    encoder = facts.training.get("started_from")
    stage = "It started from an expression encoder (GEE)." if encoder else "No expression encoder was trained first."
    return (
        "Only the abstract of the paper was available: layers, widths and training settings are our choice, and the"
        f" paper's results are not reproduced. {'' if facts.is_encoder else stage}".strip()
    )


def _limits(facts: CardFacts) -> str:
    lines = [
        "Crops that are aligned otherwise than the template, profile views, hands and masks are outside of what was"
        " tested.",
        "Rare units rest on few frames: compare their F1 with the base rate and the always-on F1.",
        "Results by age, sex and skin tone: not measured.",
    ]
    if facts.trained_on == ["synthetic"]:
        lines.insert(0, "Trained on rendered faces only. Accuracy on photos: not measured.")
    return "\n".join(f"- {line}" for line in lines)


def _use(statements: Statements) -> str:
    return (
        f"{statements.intended_use.strip()}\n\nNot for judging emotion, health, honesty, or anybody's fitness for"
        " anything: an action unit says what moves in a face, not why."
    )


def _training(facts: CardFacts) -> str:
    training, config = facts.training, facts.config
    hardware, versions = training.get("hardware") or {}, training.get("versions") or {}
    machine = ", ".join(f"{key} {value}" for key, value in hardware.items() if value is not None)
    minutes = training.get("minutes")
    lines = [
        f"- Backbone {config['backbone']} (timm), feature map {config.get('backbone_stage', -1)};"
        f" {facts.parameters / 1e6:.2f} M weights, {facts.megabytes:.1f} MB.",
        f"- Steps: {training.get('steps', NOT_MEASURED)}; time:"
        f" {NOT_MEASURED if minutes is None else f'{minutes:.1f} minutes'}; machine: {machine or NOT_MEASURED}.",
        f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items()) or NOT_MEASURED}; commit:"
        f" {training.get('commit') or NOT_MEASURED}.",
    ]
    recipe = _without_paths(training.get("recipe") or {})
    if recipe:
        lines.append(f"- Recipe:\n\n```yaml\n{yaml.safe_dump(recipe, sort_keys=False).strip()}\n```")
    return "\n".join(lines)


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out paths: they are of somebody's machine."""
    return {
        key: _without_paths(value) if isinstance(value, dict) else value
        for key, value in recipe.items()
        if not (isinstance(value, str) and ("/" in value or "\\" in value))
    }


def _licence(facts: CardFacts, statements: Statements, may_publish: str | None) -> str:
    if not facts.bound:
        text = f"Weights: {statements.license.strip()}."
    else:
        text = (
            f"The weights were trained on {', '.join(_title(name) for name in facts.bound)}; the agreement on that data"
            f" binds them. {statements.data_agreement.strip()}\n\n"
        )
        text += (
            f"They are public because whoever shared them states: {may_publish.strip()}"
            if may_publish
            else "They are shared privately, with people whom that agreement covers."
        )
    return f"{text}\n\nMethod: {PAPER}."


def publication_section(facts: CardFacts, statements: Statements, may_publish: str | None) -> str:
    """Give what is added to a card that somebody wrote, if a licence binds the weights."""
    return f"\n## Licence of the data\n\n{_licence(facts, statements, may_publish)}\n" if facts.bound else ""


def dataset_class(name: str) -> type[AUDataset]:
    """Give what a dataset's module says of its title, licence and source, without choosing options."""
    return import_module(f"hf_geaau.data.{name}").DATASET


def _title(name: str) -> str:
    return dataset_class(name).TITLE if name in list_datasets() else name


# --- metadata ---


def _metadata(facts: CardFacts, repo_id: str, statements: Statements) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    licence: dict[str, Any] = {"license": statements.license.strip()}
    if facts.bound:
        first = facts.bound[0]
        link = dataset_class(first).HOMEPAGE if first in list_datasets() else f"https://huggingface.co/{repo_id}"
        licence = {"license": "other", "license_name": f"{re.sub('[^a-z0-9]+', '-', first.lower())}-agreement"}
        licence["license_link"] = link
    results = [result for report in _reports(facts) for result in eval_results(report)]
    return ModelCardData(
        **licence,
        library_name="transformers",
        pipeline_tag="image-feature-extraction" if facts.is_encoder else "image-classification",
        tags=["hf_geaau", "facial-action-units", "FACS", *facts.trained_on],
        base_model=_base_model(facts, facts.training.get("recipe")),
        eval_results=results or None,
        model_name=repo_id.split("/")[-1] if results else None,
        metrics=["f1", "roc_auc"] if results else None,
    )


def _base_model(facts: CardFacts, recipe: dict[str, Any] | None) -> str | None:
    """Name the Hub id of the backbone's ImageNet weights, if the recipe started from them."""
    if not (recipe or {}).get("pretrained_backbone"):
        return None
    import timm

    default = timm.get_pretrained_cfg(facts.config["backbone"])
    return (default and default.hf_hub_id and default.hf_hub_id.rstrip("/")) or None


def _reports(facts: CardFacts) -> list[dict[str, Any]]:
    if facts.folds:
        return [report for _, report in sorted(facts.folds["folds"].items())]
    return [facts.report] if facts.report.get("action_units") else []


def eval_results(report: dict[str, Any]) -> list["EvalResult"]:
    """Turn a report into entries of the Hub's `model-index`: the mean F1 and AUC, then the F1 of each AU."""
    from huggingface_hub import EvalResult

    units = report["action_units"]
    rows = [(f"F1, mean over {len(units)} AUs", "f1", report["mean"].get("f1"), {"zero_division": 0})]
    rows.append((f"AUC, mean over {len(units)} AUs", "roc_auc", report["mean"].get("auc"), {}))
    for label, row in units.items():
        arguments = {"threshold": row["threshold"]} if row.get("threshold") is not None else {}
        rows.append((f"F1 {label}", "f1", row.get("f1"), arguments))
    fold = report.get("fold")
    return [
        EvalResult(
            task_type="image-classification",
            task_name=TASK_NAME,
            dataset_type=report["dataset"],
            dataset_name=report.get("title") or report["dataset"],
            dataset_config=f"fold{fold}" if fold else None,
            dataset_split=report.get("split", "test"),
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(value), 4),
            metric_args=arguments or None,
        )
        for name, kind, value, arguments in rows
        if value is not None
    ]


# --- the zoo's cards ---


def bundled_card(directory: Path) -> str:
    """Write the card of a checkpoint that `hf_geaau.training.train_rendered` made, by the hand-written template.

    Args:
        directory: The checkpoint, with its evaluation.json; where `hf-geaau evidence` has left evidence.md there, the
            card carries it.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    from huggingface_hub import ModelCard

    facts, made = CardFacts.read(directory), read_json(directory / "evaluation.json")
    reports = {name: made[name] for name in ("test", "unseen") if name in made}
    evidence = directory / "evidence.md"
    name = f"geaau-{facts.config['backbone'].removeprefix('tf_')}-synthetic"  # the same wherever the files lie
    template = Path(__file__).with_name("bundled_card.md").read_text(encoding="utf-8")
    card = ModelCard(
        template.format(
            title=name,
            tables="\n\n".join(_rendered_table(kind, report) for kind, report in reports.items()),
            evidence=evidence.read_text(encoding="utf-8").strip()
            if evidence.is_file()
            else NOT_MEASURED.capitalize() + ".",
            weakest=", ".join(_weakest(list(reports.values())[-1]["action_units"])),
            **_how_it_was_made(facts, made),
        )
    )
    test = {"dataset": "synthetic", "title": "rendered faces of unseen people", **reports["test"]}
    metadata: Any = card.data
    metadata.model_name, metadata.eval_results = name, eval_results(test)
    metadata.base_model = _base_model(facts, made["recipe"])
    return str(card)


def _how_it_was_made(facts: CardFacts, made: dict[str, Any]) -> dict[str, Any]:
    """Give what the template of `bundled_card` names."""
    recipe, calibration = made["recipe"], made["calibration"]
    renders, hardware = recipe["renders"], made["hardware"]
    steps = made["steps"]
    gee = "the expression encoder GEE first, on triplets of rendered faces, then the whole network"
    return {
        "count": len(facts.thresholds),
        "names": ", ".join(facts.thresholds),
        "size": facts.processor["size"]["height"],
        "backbone": facts.config["backbone"],
        "stage": facts.config["backbone_stage"],
        "parameters": facts.parameters / 1e6,
        "megabytes": facts.megabytes,
        "start": "The backbone starts from ImageNet weights, learned from photos."
        if recipe["pretrained_backbone"]
        else "",
        "identities": renders["train"] // renders["images_per_identity"],
        "per_identity": renders["images_per_identity"],
        "train": renders["train"],
        "validation": renders["validation"],
        "seed": renders["seed"],
        "length": ", ".join(
            f"{count:,} steps" + (f" of {name}" if len(steps) > 1 else "") for name, count in steps.items()
        ),
        "stages": gee if recipe["gee"] else "one stage, without the paper's pre-training on expression similarity",
        "machine": f"{hardware['device']}, {hardware['threads']} threads, {hardware['machine']}",
        "render_minutes": made["render_minutes"],
        "train_minutes": sum(made["train_minutes"].values()),
        "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
        "temperature": facts.config["temperature"],
        "false_alarm_rate": recipe["false_alarm_rate"],
        "kept_f1": 1 - recipe["threshold_slack"],
        "neutral": calibration["neutral_frames"],
        "recipe": yaml.safe_dump(_without_paths(recipe), sort_keys=False).strip(),
    }


def _weakest(units: dict[str, dict[str, Any]]) -> list[str]:
    """Name the units of the lowest AUC, a quarter of all."""
    known = sorted((row["auc"], label) for label, row in units.items() if row.get("auc") is not None)
    return [label for _, label in known[: max(1, len(units) // 4)]]


_RENDERED_SETS = {
    "test": "People it has not seen",
    "unseen": "People it has not seen, under settings of the renderer that no other set has",
}
_RENDERED_COLUMNS = {
    "base_rate": "base rate", "always_on_f1": "always-on F1", "f1": "F1", "auc": "AUC", "icc": "ICC", "mae": "MAE",
    "expected_calibration_error": "ECE", "threshold": "threshold",
}  # fmt: skip


def _rendered_table(name: str, report: dict[str, Any]) -> str:
    """Give a set's scores by AU."""
    strength = report.get("intensity") or {}
    rows = {label: {**row, **strength.get(label, {})} for label, row in report["action_units"].items()}
    rows["mean"] = {**report["mean"], **strength.get("mean", {})}
    lines = [f"**{_RENDERED_SETS[name]}**: {report['frames']:,} faces of {report['subjects']:,} people.", ""]
    lines += [
        f"| AU | name | {' | '.join(_RENDERED_COLUMNS.values())} |",
        f"|---|---|{'--:|' * len(_RENDERED_COLUMNS)}",
    ]
    for label, row in rows.items():
        values = ["" if row.get(key) is None else f"{row[key]:.3f}" for key in _RENDERED_COLUMNS]
        lines.append(f"| {label} | {_name(label)} | {' | '.join(values)} |")
    return "\n".join(lines)


def zoo_row(entry: ZooEntry) -> dict[str, str]:
    """Describe a checkpoint of the zoo as `hf-geaau models` and model_cards/README.md do."""
    datasets = [dataset_class(name) for name in entry.data]
    size = sum(path.stat().st_size for path in entry.path.glob("*.safetensors")) / 1e6 if entry.is_bundled else 0
    return {
        "checkpoint": entry.name,
        "status": "bundled" if entry.is_bundled else f"recipe {entry.recipe}",
        "AUs": str(len(entry.action_units)) if entry.action_units else "embedding",
        "trained on": ", ".join(dataset.TITLE for dataset in datasets),
        "licence": "Apache-2.0" if entry.is_bundled else "; ".join(dataset.LICENSE for dataset in datasets),
        "size": f"{size:.1f} MB" if entry.is_bundled else "not published",
    }


def zoo_table() -> str:
    """Give the zoo as a Markdown table, with links for model_cards/README.md."""
    rows = [zoo_row(entry) for entry in ZOO]
    lines = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"]
    for entry, row in zip(ZOO, rows, strict=True):
        link = entry.card.removeprefix("model_cards/") if entry.card.startswith("model_cards/") else f"../{entry.card}"
        cells = {**row, "checkpoint": f"[{entry.name}]({link})"}
        lines.append(f"| {' | '.join(cells.values())} |")
    return "\n".join(lines)
