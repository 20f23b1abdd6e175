"""Numbers only: metrics, SLOs, intervals, comparisons, summaries of a trace.

The names are loaded when they are asked for: a replay needs the SLO, and no statistics.
"""

from typing import TYPE_CHECKING

from servescope.traces.lazy import names_of

if TYPE_CHECKING:
    from servescope.analysis.comparison import Comparison, compare
    from servescope.analysis.description import Description, describe
    from servescope.analysis.metrics import METRICS, Metric, summary, throughput
    from servescope.analysis.slo import SLO, attainment

_HOME = {
    "Comparison": "comparison",
    "compare": "comparison",
    "Description": "description",
    "describe": "description",
    "METRICS": "metrics",
    "Metric": "metrics",
    "summary": "metrics",
    "throughput": "metrics",
    "SLO": "slo",
    "attainment": "slo",
}

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

__getattr__ = names_of(__name__, _HOME)
