"""How far a synthetic trace is from the real one it stands for."""

from servescope.analysis.fidelity.comparison import ASPECTS, Fidelity, compare
from servescope.analysis.fidelity.scores import Measure, Score
from servescope.analysis.fidelity.sides import split, spread

__all__ = ["ASPECTS", "Fidelity", "Measure", "Score", "compare", "split", "spread"]
