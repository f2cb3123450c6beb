"""Metrics for a plain `transformers.Trainer`.

    Trainer(model, TrainingArguments(..., label_names=["labels"]), compute_metrics=metrics_for(model.config),
            preprocess_logits_for_metrics=preprocess_logits_for_metrics, ...)

logs `eval_f1`, `eval_f1_AU12`, `eval_auc`, … A model with intensities needs `label_names=["labels", "intensities"]`, a
triplet model `label_names=["triplet_types"]` and `compute_triplet_metrics`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau.errors import MetricError

from ._checks import as_array
from .intensity import au_icc, au_mae
from .occurrence import au_accuracy, au_auc, au_f1
from .triplets import triplet_accuracy


class AUMetrics:
    """A `compute_metrics` with names and thresholds of the AUs; see `metrics_for`.

    It works with `batch_eval_metrics=True` too. A fold's F1 is no mean of batch values, so it keeps the logits and
    labels of the batches (a few numbers for each frame) and scores them at the last one. In that mode the Trainer does
    not gather, so each of several processes would score its own share: use it with one. After an evaluation that was
    broken off, make a new one, or its batches are counted with the next.

    Args:
        names: AU labels in the order of the logits, or None for means only.
        thresholds: One for all AUs, or one for each.
        temperature: Logits are divided by it before the sigmoid.
    """

    def __init__(
        self, names: Sequence[str] | None = None, thresholds: ArrayLike = 0.5, temperature: float = 1.0
    ) -> None:
        self.names, self.thresholds, self.temperature = names, thresholds, temperature
        self._batches: list[list[NDArray[Any] | None]] = []

    def __call__(self, prediction: Any, compute_result: bool | None = None) -> dict[str, float]:
        """Score an `EvalPrediction`: logits, or (logits, intensities), with labels, or (labels, intensities).

        Args:
            prediction: All frames, or with `batch_eval_metrics=True` those of a batch.
            compute_result: None for all frames at once; else whether this is the last batch.

        Returns:
            "f1", "precision", "recall", "auc", "accuracy", "base_rate", "always_on_f1": means over AUs; "f1_AU01", …;
            with intensities "icc", "mae", "icc_AU01", …; {} before the last batch. Undefined scores are NaN.

        Raises:
            MetricError: As `au_f1` and `au_icc`.
        """
        values = [
            *_one_or_two(prediction.predictions, "predictions"),
            *_one_or_two(prediction.label_ids, "label_ids"),
        ]
        if compute_result is not None:
            self._batches.append(values)
            if not compute_result:
                return {}
            columns, self._batches = zip(*self._batches, strict=True), []
            values = [None if any(part is None for part in parts) else np.concatenate(parts) for parts in columns]
        return self._scores(*values)

    def _scores(self, logits: Any, intensity: Any, labels: Any, intensities: Any) -> dict[str, float]:
        if self.names is not None and np.shape(logits)[-1:] != (len(self.names),):
            raise MetricError(
                f"`predictions` must have shape (F, {len(self.names)}), one column per AU, got {np.shape(logits)}."
            )
        # The sigmoid, in the precision of the logits and without overflow.
        probabilities = 0.5 * (1 + np.tanh(0.5 * (logits / self.temperature)))
        f1 = au_f1(labels, probabilities, self.thresholds)
        means = {key: f1["mean"][key] for key in ("f1", "precision", "recall", "base_rate", "always_on_f1")}
        means |= au_auc(labels, probabilities)["mean"]
        means |= au_accuracy(labels, probabilities, self.thresholds)["mean"]
        detailed = {"f1": f1["f1"]}
        if intensity is not None and intensities is not None:
            icc, mae = au_icc(intensities, intensity), au_mae(intensities, intensity)
            means |= {**icc["mean"], **mae["mean"]}
            detailed |= {"icc": icc["icc"], "mae": mae["mae"]}
        if self.names is None:
            return means
        for score, values in detailed.items():
            means |= {f"{score}_{name}": value for name, value in zip(self.names, values.tolist(), strict=True)}
        return means


def metrics_for(config: Any) -> AUMetrics:
    """Return the `compute_metrics` of a model, with its AU names, thresholds and temperature.

    Args:
        config: A `GeaauConfig`.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(id2label={0: "AU12"}, thresholds=[0.5], temperature=1.0)
        >>> logits, labels = np.array([[2.0], [-1.0]]), np.array([[1], [0]])
        >>> scores = metrics_for(config)(SimpleNamespace(predictions=logits, label_ids=labels))
        >>> scores["f1"], scores["f1_AU12"]
        (1.0, 1.0)
    """
    names = [config.id2label[index] for index in range(len(config.id2label))]
    return AUMetrics(names, config.thresholds, getattr(config, "temperature", 1.0))


def compute_metrics(prediction: Any) -> dict[str, float]:
    """Score an `EvalPrediction` of an AU model at threshold 0.5: means over AUs, see `AUMetrics.__call__`.

    For scores by AU, the model's thresholds, or `batch_eval_metrics=True`, take `metrics_for(model.config)`.
    """
    return AUMetrics()(prediction)


def compute_triplet_metrics(prediction: Any) -> dict[str, float]:
    """Score an `EvalPrediction` of `GeaauForExpressionEmbedding`.

    Args:
        prediction: Its predictions are the distances (B, 3), its label_ids the triplet types (B,).

    Returns:
        As `triplet_accuracy`.
    """
    values = ((prediction.predictions, "predictions"), (prediction.label_ids, "label_ids"))
    return triplet_accuracy(*(_one_or_two(*value)[0] for value in values))


def preprocess_logits_for_metrics(logits: Any, labels: Any) -> Any:
    """Keep what the metrics need, before the Trainer gathers it: never the feature maps of the whole set.

    The config's `keys_to_ignore_at_inference` does so already; this holds also for a config without it.

    Args:
        logits: The model's output without the loss: logits (B, N), or a tuple that begins with them.
        labels: The labels, or (labels, intensities).

    Returns:
        The logits; with intensities among the labels and after the logits, both.
    """
    if not isinstance(logits, tuple | list):
        return logits
    asked = isinstance(labels, tuple | list) and len(labels) > 1
    has_intensities = asked and len(logits) > 1 and logits[1].shape == logits[0].shape
    return tuple(logits[:2]) if has_intensities else logits[0]


def _one_or_two(values: Any, name: str) -> tuple[Any, Any]:
    """Return the first two of a tuple, or one array and None."""
    if values is None:
        raise MetricError(f"`{name}` must hold arrays, got None. Name the label columns in `label_names`.")
    if isinstance(values, tuple | list) and len(values) and hasattr(values[0], "shape"):
        return as_array(values[0]), as_array(values[1]) if len(values) > 1 else None
    return as_array(values), None
