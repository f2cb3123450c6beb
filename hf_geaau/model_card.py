"""Model cards: facts collected in training and evaluation, what only a human knows, and the Hub's metadata.

A card says where each number comes from. What was not measured reads "not measured"; what only a human knows has no
default, and stops a push while it is empty.
"""

import json
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_geaau.backends import exported_networks
from hf_geaau.data import dataset_class, list_datasets
from hf_geaau.errors import CardError, CheckpointError, hide_secrets
from hf_geaau.facs import ACTION_UNITS
from hf_geaau.files import parse_json, whole_file
from hf_geaau.metrics import SCORES, markdown_table, score_rows, score_table
from hf_geaau.metrics.scores import one_line, plain_markdown
from hf_geaau.models.geaau.licensing_geaau import bound_data
from hf_geaau.models.zoo import ZOO, ZooEntry

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

TASK_NAME = "Facial action unit detection"
NOT_MEASURED = "not measured"
SHOWN_SCORES = (
    "base_rate", "always_on_f1", "f1", "precision", "recall", "auc", "icc", "mae", "expected_calibration_error",
)  # fmt: skip
"""Scores in a card's tables; those that a report lacks are left out."""

_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# What tools write where a human has stated nothing.
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

    def check(self, *needed: str) -> None:
        """Raise a `CardError` that names those of the needed statements that are empty."""
        if missing := [name for name in needed if not getattr(self, name).strip()]:
            options = " ".join(f'--{name.replace("_", "-")} "…"' for name in missing)
            raise CardError(
                f"Cannot write the card without {', '.join(missing)}, which only you know. Pass `{options}`."
            )


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
        reports: By set, the reports in evaluation.json, or the one that training left of its test fold; {} without.
        evidence: evidence.md, "" without.
        networks: Size in MB of each exported network that fits the weights, by its path.
    """

    config: dict[str, Any]
    processor: dict[str, Any]
    training: dict[str, Any]
    calibration: dict[str, Any]
    parameters: int
    megabytes: float
    folds: dict[str, Any]
    reports: dict[str, dict[str, Any]]
    evidence: str
    networks: dict[str, float]

    @classmethod
    def read(cls, directory: str | Path, folds: dict[str, Any] | None = None) -> "CardFacts":
        """Read a checkpoint's directory.

        Raises:
            CheckpointError: If a file is missing or damaged, or the weights are not safetensors.
        """
        directory = Path(directory)
        weights = sorted(directory.glob("model*.safetensors"))
        training = read_json(directory / "training_facts.json", optional=True)
        tested = {"test": training["evaluation"]} if training.get("evaluation") else {}
        evidence = directory / "evidence.md"
        try:
            page = evidence.read_text(encoding="utf-8").strip() if evidence.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"Cannot read '{evidence}': {error}. Write it again with hf-geaau evidence."
            ) from error
        return cls(
            config=read_json(directory / "config.json"),
            processor=read_json(directory / "preprocessor_config.json"),
            training=training,
            calibration=read_json(directory / "calibration.json", optional=True),
            reports=read_json(directory / "evaluation.json", optional=True).get("reports") or tested,
            evidence=page,
            parameters=sum(count_weights(path) for path in weights),
            megabytes=sum(path.stat().st_size for path in weights) / 1e6,
            folds=folds or {},
            networks={
                path.as_posix(): (directory / path).stat().st_size / 1e6 for path in exported_networks(directory)
            },
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
        """Names of the datasets whose license binds the weights."""
        return bound_data(self.trained_on)

    @property
    def is_rendered(self) -> bool:
        """Whether a recipe that renders its own faces made it, as the bundled checkpoint."""
        return "renders" in (self.training.get("recipe") or {})

    @property
    def scored(self) -> dict[str, dict[str, Any]]:
        """By set, the reports that score AUs."""
        return {name: report for name, report in self.reports.items() if report.get("action_units")}

    def has_other_thresholds(self, report: dict[str, Any]) -> bool:
        """Return whether a report was made with other thresholds than those of the config."""
        rows = report["action_units"].items()
        return any(row.get("threshold") != self.thresholds.get(label) for label, row in rows)


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file is missing (unless `optional`) or holds anything else.
    """
    if optional and not path.is_file():
        return {}

    def refuse(literal: str) -> None:
        raise ValueError(f"it holds {literal}, which is no number")

    try:
        content = parse_json(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"Cannot read the checkpoint '{path.parent}': it has no {path.name}. Save it with save_pretrained."
        ) from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"Cannot read '{path}': it is not JSON ({str(error)[:100]}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Cannot read '{path}': it holds a {type(content).__name__} instead of a JSON object.")
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
            f"Cannot read the weights '{path}': the file is not safetensors ({error}). Save them again with"
            " save_pretrained."
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
    """Return the card of a checkpoint.

    Args:
        facts: What its files say.
        repo_id: Where it is shared.
        statements: What only a human knows.
        branch: The one that this card is for, such as "fold2".
        may_publish: Why weights bound by a license may be public, in the words of who says so.
        with_code: Whether the model's code goes along.

    Raises:
        CardError: If a statement that is needed is empty.
    """
    statements.check("contact", "intended_use", "data_agreement" if facts.bound else "license")
    shown = plain_markdown(branch)
    on_branch, revision = ("", "") if branch == "main" else (f", {shown}", f", revision={json.dumps(shown)}")
    return _render(
        facts,
        repo_id,
        statements,
        on_branch=on_branch,
        where=json.dumps(plain_markdown(repo_id)) + revision,
        with_code=with_code,
        license_text=_license(facts, statements, may_publish),
    )


def write_card(directory: str | Path) -> Path | None:
    """Write, or renew, the README.md of a checkpoint that a rendered recipe made, as the bundled one.

    Its data is free, so nothing is needed that only a human knows. What `hf-geaau evidence` left beside it is included.

    Args:
        directory: The checkpoint, with its training_facts.json and evaluation.json.

    Returns:
        The path of the card; None if another kind of recipe made the checkpoint, whose card `hf-geaau push` writes.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    facts, path = CardFacts.read(Path(directory)), Path(directory) / "README.md"
    if not facts.is_rendered:
        return None
    with whole_file(path) as part:
        part.write_text(str(rendered_card(facts)), encoding="utf-8")
    return path


def rendered_card(facts: CardFacts) -> "ModelCard":
    """Return the card of a checkpoint that was trained on rendered faces by a recipe of this package."""
    name = f"geaau-{facts.config['backbone'].removeprefix('tf_')}-synthetic"  # the same wherever the files lie
    statements = Statements(
        license="apache-2.0",
        intended_use="Exploring, annotating with a human in the loop, and as a start for fine-tuning.",
    )
    return _render(
        facts,
        name,
        statements,
        where='"."',  # the folder that holds the card
        license_text="Weights: Apache-2.0. Cite hf_geaau for these weights.",
    )


def _render(facts: CardFacts, repo_id: str, statements: Statements, **values: Any) -> "ModelCard":
    """Fill the template with the facts and with what differs between kinds of cards.

    Texts of users and files reach the template as `_shown` returns them, so that none of them is read as markup.

    Raises:
        CardError: If the facts lack what the template needs, or hold something else.
    """
    from huggingface_hub import ModelCard
    from jinja2 import TemplateError

    fields = ("config", "processor", "training", "calibration", "folds", "reports")
    try:
        recipe = _without_paths(facts.training.get("recipe") or {})
        shown = replace(
            facts, **{name: _shown(getattr(facts, name)) for name in fields}, evidence=_inert(facts.evidence)
        )
        units = [[label, ACTION_UNITS[int(label[2:])].name, f"{value:g}"] for label, value in shown.thresholds.items()]
        return ModelCard.from_template(
            _metadata(facts, repo_id, statements),
            template_path=str(_TEMPLATE),
            title=plain_markdown(repo_id.split("/")[-1]),
            facts=shown,
            statements=Statements(**_shown(vars(statements))),
            not_measured=NOT_MEASURED,
            units=markdown_table(["AU", "name", "threshold"], units, "llr"),
            datasets={
                plain_markdown(name): dataset_class(name) if name in list_datasets() else None
                for name in facts.trained_on
            },
            scores=SCORES,
            table=_table,
            weakest=_weakest(shown),
            # In a fence, where only its end could be markup. YAML itself writes control characters out.
            recipe_text=recipe and yaml.safe_dump(recipe, sort_keys=False).strip().replace("`", "'"),
            **values,
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, TemplateError) as error:
        raise CardError(
            f"Cannot write the card: the facts about the checkpoint are damaged ({one_line(str(error))[:200]}). Repair"
            " or remove its training_facts.json, calibration.json, evaluation.json or folds.json."
        ) from error


def _shown(value: Any) -> Any:
    """Return facts as the card prints them: each text as `plain_markdown`, also within lists and mappings."""
    if isinstance(value, str):
        return plain_markdown(value)
    if isinstance(value, dict):
        return {_shown(name): _shown(entry) for name, entry in value.items()}
    return [_shown(entry) for entry in value] if isinstance(value, list | tuple) else value


def _inert(page: str) -> str:
    """Return a Markdown page of this package, as it lies in a folder, without HTML and control characters."""
    lines = ("".join(filter(str.isprintable, line)) for line in hide_secrets(page).splitlines())
    return re.sub(r"<(?=[a-zA-Z/!?])", "&#60;", "\n".join(lines))


def _table(report: dict[str, Any]) -> str:
    return score_table(score_rows(report), SHOWN_SCORES, names=True, undefined=NOT_MEASURED).to_markdown()


def _weakest(facts: CardFacts) -> list[str]:
    """Return the AUs of the lowest AUC in the hardest set, a quarter of all; only of rendered checkpoints."""
    if not (facts.is_rendered and facts.reports):
        return []
    units = list(facts.reports.values())[-1]["action_units"]
    known = sorted((row["auc"], label) for label, row in units.items() if row.get("auc") is not None)
    return [label for _, label in known[: max(1, len(units) // 4)]]


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out paths: they are of somebody's machine."""

    def is_path(value: Any) -> bool:
        return isinstance(value, str) and ("/" in value or "\\" in value)

    return {
        key: _without_paths(value)
        if isinstance(value, dict)
        else [entry for entry in value if not is_path(entry)]
        if isinstance(value, list)
        else value
        for key, value in recipe.items()
        if not is_path(value)
    }


def _license(facts: CardFacts, statements: Statements, may_publish: str | None) -> str:
    if not facts.bound:
        return f"Weights: {plain_markdown(statements.license)}."
    titles = ", ".join(
        dataset_class(name).TITLE if name in list_datasets() else plain_markdown(name) for name in facts.bound
    )
    public = (
        f"They are public because whoever shared them states: {plain_markdown(may_publish)}"
        if may_publish
        else "They are shared privately, with people whom that agreement covers."
    )
    return (
        f"The weights were trained on {titles}; the agreement on that data binds them."
        f" {plain_markdown(statements.data_agreement)}\n\n{public}"
    )


def check_written_card(content: str, where: str) -> None:
    """Check a card that somebody wrote: metadata with a license, no empty section, no placeholder.

    Raises:
        CardError: With the name of what is missing.
    """
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(content)
    except (ValueError, yaml.YAMLError) as error:
        raise CardError(f"Cannot read the metadata of the card {where}: {' '.join(str(error).split())}.") from error
    if not card.data.get("license"):
        raise CardError(f"Cannot use the card {where}: its metadata has no `license:` of the weights. Add it.")
    if found := _PLACEHOLDERS.search(card.text):
        raise CardError(
            f"Cannot use the card {where}: '{found[0][:40]}' is not filled in. Write it, or delete the file."
        )
    _, *parts = re.split(r"^(#+) +(.+)$", card.text, flags=re.M)
    levels, titles, texts = parts[::3], parts[1::3], parts[2::3]
    for level, title, text, next_level in zip(levels, titles, texts, [*levels[1:], ""], strict=True):
        if not text.strip() and len(next_level) <= len(level):
            raise CardError(f"Cannot use the card {where}: nothing is written under '{title}'.")


def is_generated(content: str) -> bool:
    """Return whether a README was written by Trainer or `push_to_hub`, not by a human."""
    return "generated automatically" in content or "automatically generated" in content


def publication_section(facts: CardFacts, statements: Statements, may_publish: str | None) -> str:
    """Return what is added to a card that somebody wrote, if a license binds the weights.

    Raises:
        CardError: If the agreement on the data is not stated.
    """
    if not facts.bound:
        return ""
    statements.check("data_agreement")
    return f"\n## License of the data\n\n{_license(facts, statements, may_publish)}\n"


# --- metadata ---


def _metadata(facts: CardFacts, repo_id: str, statements: Statements) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    license: dict[str, Any] = {"license": one_line(statements.license)}
    if facts.bound:
        first = facts.bound[0]
        link = dataset_class(first).HOMEPAGE if first in list_datasets() else f"https://huggingface.co/{repo_id}"
        license = {"license": "other", "license_name": f"{re.sub('[^a-z0-9]+', '-', first.lower())}-agreement"}
        license["license_link"] = link
    reports = [report for name, report in facts.scored.items() if name == "test"]
    if facts.folds:
        reports = [report for _, report in sorted(facts.folds["folds"].items())]
    results = [result for report in reports for result in eval_results(report)]
    return ModelCardData(
        **license,
        library_name="transformers",
        # No tag for AU models: "image-classification" would offer a widget and a pipeline that score a whole photo as
        # if it were an aligned face crop. The Hub knows no task that fits; people find the models by the tags below.
        pipeline_tag="image-feature-extraction" if facts.is_encoder else None,
        tags=["hf_geaau", "facial-action-units", "FACS", *map(one_line, facts.trained_on)],
        base_model=_base_model(facts),
        eval_results=results or None,
        model_name=repo_id.split("/")[-1] if results else None,
        metrics=["f1", "roc_auc"] if results else None,
    )


def _base_model(facts: CardFacts) -> str | None:
    """Return the Hub id of the backbone's ImageNet weights, if the recipe started from them."""
    if not (facts.training.get("recipe") or {}).get("pretrained_backbone"):
        return None
    import timm

    default = timm.get_pretrained_cfg(facts.config["backbone"])
    return (default and default.hf_hub_id and default.hf_hub_id.rstrip("/")) or None


def eval_results(report: dict[str, Any]) -> list["EvalResult"]:
    """Return a report as entries of the Hub's `model-index`: the mean F1 and AUC, then the F1 of each AU."""
    from huggingface_hub import EvalResult

    units = report["action_units"]
    rows = [(f"F1, mean over {len(units)} AUs", "f1", report["mean"].get("f1"), {"zero_division": 0})]
    rows.append((f"AUC, mean over {len(units)} AUs", "roc_auc", report["mean"].get("auc"), {}))
    for label, row in units.items():
        arguments = {"threshold": row["threshold"]} if row.get("threshold") is not None else {}
        rows.append((f"F1 {one_line(label)}", "f1", row.get("f1"), arguments))
    fold = report.get("fold")
    return [
        EvalResult(
            task_type="image-classification",
            task_name=TASK_NAME,
            dataset_type=one_line(report["dataset"]),
            dataset_name=one_line(report.get("title") or report["dataset"]),
            dataset_config=f"fold{fold}" if fold else None,
            dataset_split=one_line(report.get("split", "test")),
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(value), 4),
            metric_args=arguments or None,
        )
        for name, kind, value, arguments in rows
        if value is not None
    ]


def zoo_row(entry: ZooEntry) -> dict[str, str]:
    """Return what is known of a checkpoint of the zoo, as `hf-geaau models` and model_cards/README.md show it."""
    datasets = [dataset_class(name) for name in entry.data]
    size = sum(path.stat().st_size for path in entry.path.glob("*.safetensors")) / 1e6 if entry.is_bundled else 0
    return {
        "checkpoint": entry.name,
        "status": "bundled" if entry.is_bundled else f"recipe {entry.recipe}",
        "AUs": str(len(entry.action_units)) if entry.action_units else "embedding",
        "trained on": ", ".join(dataset.TITLE for dataset in datasets),
        "license": "Apache-2.0" if entry.is_bundled else "; ".join(dataset.LICENSE for dataset in datasets),
        "size": f"{size:.1f} MB" if entry.is_bundled else "not published",
    }


def zoo_table() -> str:
    """Return the zoo as a Markdown table, with links for model_cards/README.md."""
    rows = [
        {**zoo_row(entry), "checkpoint": f"[{entry.name}]({os.path.relpath(entry.card, 'model_cards')})"}
        for entry in ZOO
    ]
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows], "l" * len(rows[0]))
