"""The metrics as `evaluate.Metric`, one file each, so that `evaluate.load` loads them offline.

`evaluate` parses the imports of such a file line by line: it needs one import per line and one class per file.
"""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import datasets
import evaluate
from numpy.typing import ArrayLike


class AUMetric(evaluate.Metric):
    """A metric that calls a function of `hf_geaau.metrics`, with its further arguments as keywords.

    Attributes:
        scorer: The function. Its means have their own names in the result, its arrays "<name>_per_au".
        reference_type: "float64" for a list of labels of each frame, or the type of a single label.
    """

    scorer: Callable[..., dict[str, Any]]
    reference_type: ClassVar[str] = "float64"

    def _info(self) -> evaluate.MetricInfo:
        purpose, _, inputs = inspect.cleandoc(self.__doc__ or "").partition("\n\n")
        numbers = datasets.List(datasets.Value("float64"))  # float32 could push a probability over its threshold
        references = numbers if self.reference_type == "float64" else datasets.Value(self.reference_type)
        features = datasets.Features({"predictions": numbers, "references": references})
        return evaluate.MetricInfo(
            description=purpose, citation="", inputs_description=f"\n{inputs}\n", features=features
        )

    def _compute(self, predictions: ArrayLike, references: ArrayLike, **options: Any) -> dict[str, Any]:
        scores = self.scorer(references, predictions, **options)
        lists = {f"{name}_per_au": values.tolist() for name, values in scores.items() if name != "mean"}
        return {**scores["mean"], **lists}
