"""`hf_geaau.metrics.au_icc` as an `evaluate.Metric`."""

from typing import Any

import evaluate
from numpy.typing import ArrayLike

from hf_geaau.metrics import au_icc
from hf_geaau.metrics.modules import metric_info, plain


class AUICC(evaluate.Metric):
    """Intraclass correlation ICC(3,1) of the intensity of each action unit.

    predictions: intensities, a list of N for each frame. references: coded intensities 0 to 5, or -1 (missing).
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self)

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, Any]:
        return plain(au_icc(references, predictions))
