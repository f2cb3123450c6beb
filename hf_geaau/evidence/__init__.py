"""What a checkpoint can and cannot do, beyond one table: calibration, groups, steadiness, labelled photos, failures."""

from .gather import gather_evidence
from .rendered import score_rendered

__all__ = ["gather_evidence", "score_rendered"]
