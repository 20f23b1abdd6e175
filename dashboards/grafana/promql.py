"""The expressions that boards ask Prometheus: of the chosen jobs and instances, one series each."""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM = "{{job}} {{instance}}"  # a legend: Grafana puts the labels' values in
QUANTILES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
_CHOSEN = 'job=~"$job",instance=~"$instance"'
_WINDOW = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and what its series are called."""

    expr: str
    legend: str = SYSTEM


def chosen(name: str, where: str = "") -> str:
    """Return the series of a metric that the board's variables leave, and `where` too."""
    return f"{name}{{{','.join(filter(None, (_CHOSEN, where)))}}}"


def total(name: str, where: str = "", *, by: str = "") -> str:
    """Return a metric now, added up in each instance (and each value of the label `by`)."""
    return f"sum by ({_labels(by)}) ({chosen(name, where)})"


def average(name: str, where: str = "") -> str:
    """Return a metric now, its mean in each instance."""
    return f"avg by ({_labels()}) ({chosen(name, where)})"


def rate(name: str, where: str = "", *, by: str = "") -> str:
    """Return by how much a counter grows in a second, added up in each instance."""
    return f"sum by ({_labels(by)}) (rate({chosen(name, where)}{_WINDOW}))"


def share(part: str, whole: str) -> str:
    """Return by how much one counter grows for each that another does."""
    return f"{rate(part)} / {rate(whole)}"


def mean(name: str) -> str:
    """Return the mean of what a histogram took in of late."""
    return share(f"{name}_sum", f"{name}_count")


def quantile(share: float, name: str, where: str = "") -> str:
    """Return a quantile of what a histogram took in of late."""
    buckets = chosen(name + "_bucket", where)
    return f"histogram_quantile({share}, sum by ({_labels('le')}) (rate({buckets}{_WINDOW})))"


def quantiles(name: str, says: str = "", where: str = "") -> tuple[Query, ...]:
    """Return the queries of p50, p90 and p99 of a histogram; `says` stands before each legend."""
    return tuple(
        Query(quantile(share, name, where), f"{says} {said} {SYSTEM}".lstrip())
        for share, said in QUANTILES
    )


def buckets(name: str) -> Query:
    """Return how many values came into each bucket of a histogram of late, of all instances."""
    return Query(f"sum by (le) (increase({chosen(name + '_bucket')}{_WINDOW}))", "{{le}}")


def _labels(by: str = "") -> str:
    return ", ".join(filter(None, (by, "job", "instance")))
