"""Numbers only: metrics, SLOs, intervals, comparisons, summaries of a trace."""

from servescope.analysis.compare import Comparison, compare
from servescope.analysis.describe import Description, describe
from servescope.analysis.metrics import METRICS, Metric, summary, throughput
from servescope.analysis.slo import SLO, attainment

__all__ = [
    "METRICS",
    "SLO",
    "Comparison",
    "Description",
    "Metric",
    "attainment",
    "compare",
    "describe",
    "summary",
    "throughput",
]
