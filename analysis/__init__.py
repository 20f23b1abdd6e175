"""Numbers only: metrics, SLOs, intervals, comparisons, summaries of a trace.

The names are loaded when they are asked for: a replay needs the SLO, and no statistics.
"""

from typing import TYPE_CHECKING

from servescope.traces.lazy import names_of

if TYPE_CHECKING:
    from servescope.analysis.attainment import Attainment, attained
    from servescope.analysis.characterization import Characterization, characterize
    from servescope.analysis.comparison import Comparison, compare
    from servescope.analysis.measured import Measured
    from servescope.analysis.metrics import METRICS, Metric
    from servescope.analysis.slo import SLO
    from servescope.analysis.totals import TOTALS, Total, Whole, totals_of

_HOME = {
    "Comparison": "comparison",
    "compare": "comparison",
    "Characterization": "characterization",
    "characterize": "characterization",
    "Measured": "measured",
    "METRICS": "metrics",
    "Metric": "metrics",
    "SLO": "slo",
    "Attainment": "attainment",
    "attained": "attainment",
    "TOTALS": "totals",
    "Total": "totals",
    "Whole": "totals",
    "totals_of": "totals",
}

__all__ = [
    "METRICS",
    "SLO",
    "TOTALS",
    "Attainment",
    "Characterization",
    "Comparison",
    "Measured",
    "Metric",
    "Total",
    "Whole",
    "attained",
    "characterize",
    "compare",
    "totals_of",
]

__getattr__ = names_of(__name__, _HOME)
