"""The scores as `evaluate.Metric` classes.

`evaluate.load(path)` takes one file per metric, and the first metric class that it finds in there: hence the files of
this folder, which import one class each.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import datasets
import evaluate

from hf_geaau.metrics import (
    au_accuracy,
    au_auc,
    au_f1,
    au_icc,
    au_mae,
    expected_calibration_error,
)
from hf_geaau.metrics import (
    triplet_accuracy as compute_triplet_accuracy,  # the file of that name becomes an attribute of this package
)

_PROBABILITIES = "predictions: probabilities in [0, 1], a list of N for each frame. "
_LABELS = "references: labels 1, 0, or -1 (not labeled), a list of N for each frame."
_INTENSITIES = (
    "predictions: intensities, a list of N for each frame. references: coded intensities 0 to 5, or -1 (missing)."
)


class _FunctionMetric(evaluate.Metric):
    """A metric that calls a function of this package; the class docstring describes it."""

    function: ClassVar[Callable[..., dict[str, Any]]]
    inputs: ClassVar[str]
    references: ClassVar[Any] = datasets.List(datasets.Value("float64"))

    def _info(self) -> evaluate.MetricInfo:
        # float64, because float32 could lift a probability over its threshold.
        features = {"predictions": datasets.List(datasets.Value("float64")), "references": self.references}
        return evaluate.MetricInfo(
            description=self.__doc__, citation="", inputs_description=self.inputs, features=datasets.Features(features)
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        scores = type(self).function(references, predictions, **options)
        if "mean" not in scores:
            return scores
        by_unit = {f"{name}_per_au": values.tolist() for name, values in scores.items() if name != "mean"}
        return {**scores["mean"], **by_unit}


class AUF1(_FunctionMetric):
    """F1, precision and recall of each action unit, with base rate and the F1 of predicting always on."""

    function = staticmethod(au_f1)
    inputs = f"{_PROBABILITIES}{_LABELS} threshold: one, or N. zero_division: what 0 / 0 becomes."


class AUAccuracy(_FunctionMetric):
    """Share of correctly decided frames of each action unit."""

    function = staticmethod(au_accuracy)
    inputs = f"{_PROBABILITIES}{_LABELS} threshold: one, or N."


class AUAUC(_FunctionMetric):
    """Area under the ROC curve of each action unit."""

    function = staticmethod(au_auc)
    inputs = f"{_PROBABILITIES}{_LABELS}"


class ExpectedCalibrationError(_FunctionMetric):
    """Distance of probabilities from observed frequencies, for each action unit."""

    function = staticmethod(expected_calibration_error)
    inputs = f"{_PROBABILITIES}{_LABELS} bins: their number."


class AUICC(_FunctionMetric):
    """Intraclass correlation ICC(3,1) of the intensity of each action unit."""

    function = staticmethod(au_icc)
    inputs = _INTENSITIES


class AUMAE(_FunctionMetric):
    """Mean absolute error of the intensity of each action unit."""

    function = staticmethod(au_mae)
    inputs = _INTENSITIES


class TripletAccuracy(_FunctionMetric):
    """Share of expression triplets whose most similar pair is the one that people chose."""

    @staticmethod
    def function(references: Any, predictions: Any) -> dict[str, Any]:
        """Call `triplet_accuracy`, whose distances come first."""
        return compute_triplet_accuracy(predictions, references)

    inputs = (
        "predictions: squared distances d12, d13, d23 of each triplet. references: 0 one-class, 1 two-class, 2"
        " three-class."
    )
    references = datasets.Value("int64")
