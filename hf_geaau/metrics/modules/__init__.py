"""The metrics as `evaluate.Metric`, one file each, so that `evaluate.load` loads them offline.

`evaluate` parses the imports of such a file line by line: it needs one import per line and one class per file.
"""

import inspect
from typing import Any

import datasets
import evaluate


def metric_info(metric: evaluate.Metric, references: str = "float64") -> evaluate.MetricInfo:
    """Return the description of a metric from its docstring, with lists of numbers as predictions.

    Args:
        metric: The metric.
        references: "float64" for a list of labels of each frame, or the type of a single label.
    """
    purpose, _, inputs = inspect.cleandoc(metric.__doc__ or "").partition("\n\n")
    numbers = datasets.List(datasets.Value("float64"))  # float32 could push a probability over its threshold
    single = datasets.Value(references)
    features = {"predictions": numbers, "references": numbers if references == "float64" else single}
    return evaluate.MetricInfo(
        description=purpose, citation="", inputs_description=f"\n{inputs}\n", features=datasets.Features(features)
    )


def plain(scores: dict[str, Any]) -> dict[str, Any]:
    """Return scores in the form of `evaluate`: the mean under its own name, by AU under "<name>_per_au"."""
    lists = {f"{name}_per_au": values.tolist() for name, values in scores.items() if name != "mean"}
    return {**scores["mean"], **lists}
