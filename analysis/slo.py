"""Service level objectives: a small language of conditions on metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from servescope.analysis.metrics import METRICS, Metric
from servescope.traces.errors import InputError

Per = Literal["calls", "programs"]

# What a group of conditions can be asked of, and the column that says it.
SELECTORS = {
    "class": "call_class",
    "client": "client_id",
    "tenant": "client_id",
    "model": "model",
    "turn": "turn",
    "priority": "priority",
}
_ALIASES = {"e2el": "e2e"}  # vLLM's name
_BETWEEN = ", \t\r\n"
_MEND = "Write it like ttft<500ms or p99(tbt)<100ms, several with commas between."

_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_TERM = rf"{_NUMBER}\s*(?:ms|s)?(?:\s*\*\s*\w+)?"
_FLAGS = re.IGNORECASE | re.ASCII
_CONDITION = re.compile(
    rf"(?:(?P<statistic>p{_NUMBER}|\w+)\s*\(\s*(?P<inner>\w+)\s*\)|(?P<name>\w+))"
    rf"\s*(?P<sign><=|<|:)\s*(?P<bound>{_TERM}(?:\s*\+\s*{_TERM})*)(?=[\s,;]|$)",
    _FLAGS,
)
_FLUIDITY = re.compile(
    rf"fluidity\s*\(\s*(?P<first>{_NUMBER}\s*(?:ms|s))\s*,\s*(?P<gap>{_NUMBER}\s*(?:ms|s))\s*\)"
    rf"\s*(?:>=|>)\s*(?P<share>{_NUMBER})\s*(?P<percent>%)?(?=[\s,;]|$)",
    _FLAGS,
)
_PART = re.compile(rf"({_NUMBER})\s*(ms|s)?(?:\s*\*\s*(\w+))?", _FLAGS)
_HEADER = re.compile(r'\s*((?:\w+\s*=\s*(?:"[^"]*"|[^\s:;,"]+)\s*)+):', _FLAGS)
_PAIR = re.compile(r'(\w+)\s*=\s*("[^"]*"|[^\s:;,"]+)', _FLAGS)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a metric must stay below, in its unit: a constant, and so much for each token."""

    constant: float
    per_input: float = 0.0
    per_output: float = 0.0

    def scaled(self, factor: float) -> Bound:
        """Return the bound times a factor."""
        return Bound(self.constant * factor, self.per_input * factor, self.per_output * factor)


@dataclass(frozen=True, slots=True)
class Condition:
    """A metric below a bound: of every call or program, or a statistic of them all.

    `statistic` is None, "mean", or a quantile in (0, 1).
    """

    metric: str
    bound: Bound
    statistic: float | Literal["mean"] | None = None

    def __str__(self) -> str:
        metric = METRICS[self.metric]
        seconds = metric.unit != "ratio"
        told = [_told(self.bound.constant, seconds=seconds)] if self.bound.constant else []
        for value, word in ((self.bound.per_input, "input"), (self.bound.per_output, "output")):
            if value:
                told.append(f"{_told(value, seconds=seconds)} x {word} tokens")
        name = metric.label
        if self.statistic is not None:
            mean = self.statistic == "mean"
            name += " mean" if mean else f" p{float(self.statistic) * 100:g}"
        return f"{name} < {' + '.join(told)}"


@dataclass(frozen=True, slots=True)
class Fluidity:
    """The least share of a call's token deadlines that must be met (Etalon's fluidity-index).

    The first token is due `first_s` after the request was sent, every other one `gap_s` after the
    one before.
    """

    first_s: float
    gap_s: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.share:.4g} of token deadlines ({_told(self.first_s)}, {_told(self.gap_s)}) met"
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions that must all hold, for calls whose columns have the values of `where`."""

    conditions: tuple[Condition, ...] = ()
    fluidity: tuple[Fluidity, ...] = ()
    where: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        told = " and ".join(map(str, (*self.conditions, *self.fluidity)))
        return f"{told} where {self.whose}" if self.where else told

    @property
    def whose(self) -> str:
        """Which calls it is for, in words."""
        return " and ".join(f"{key} is {value}" for key, value in self.where)

    def asked_of(self, per: Literal["call", "program"]) -> list[Condition]:
        """Return the conditions on every call, or on every program."""
        return [c for c in self.conditions if c.statistic is None and METRICS[c.metric].per == per]


@dataclass(frozen=True, slots=True)
class SLO:
    """Groups of conditions, each asked of the calls that it is for.

    Conditions on a statistic, such as p99(tbt), are asked of the run. With a condition on a metric
    of programs (jct) the SLO is a program's, which meets it if all its calls do too.
    """

    groups: tuple[Group, ...]
    text: str = field(default="", compare=False)  # as it was asked

    def __str__(self) -> str:
        return "; ".join(map(str, self.groups))

    @property
    def per(self) -> Per:
        """What the share of those that meet it is counted of."""
        of_programs = any(group.asked_of("program") for group in self.groups)
        return "programs" if of_programs else "calls"

    @property
    def each(self) -> SLO:
        """What is asked of every call or program, without what is asked of the run alone."""
        groups = (
            replace(group, conditions=tuple(c for c in group.conditions if c.statistic is None))
            for group in self.groups
        )
        return SLO(tuple(group for group in groups if group.conditions or group.fluidity))

    @property
    def of_each(self) -> bool:
        """Whether anything is asked of every call or program, rather than of the run alone."""
        return any(g.asked_of("call") or g.asked_of("program") or g.fluidity for g in self.groups)

    def scaled(self, factor: float) -> SLO:
        """Return the SLO with every bound and deadline times a factor."""
        return SLO(
            tuple(
                replace(
                    group,
                    conditions=tuple(
                        replace(c, bound=c.bound.scaled(factor)) for c in group.conditions
                    ),
                    fluidity=tuple(
                        replace(f, first_s=f.first_s * factor, gap_s=f.gap_s * factor)
                        for f in group.fluidity
                    ),
                )
                for group in self.groups
            )
        )

    @classmethod
    def parse(cls, text: str) -> SLO:
        """Read `ttft<2s, p99(tbt)<100ms`, or vLLM's goodput form `ttft:500 tpot:50` (milliseconds).

        `class=chat: ttft<1s; class=batch: e2e<60s+5ms*input` asks different things of different
        calls. `<=` means the same as `<`; capitals do not matter. Raises InputError for text
        without a condition, an unknown metric, or a bound that is not above 0.
        """
        groups = tuple(_group(part) for part in text.split(";") if part.strip(_BETWEEN))
        if not groups:
            raise InputError("The SLO holds no condition.", _MEND)
        return cls(groups, text)


def _group(text: str) -> Group:
    where: tuple[tuple[str, str], ...] = ()
    header = _HEADER.match(text)
    if header:
        where = tuple(_selector(*pair) for pair in _PAIR.findall(header[1]))
        text = text[header.end() :]
    found = list(_conditions(text))
    if not found:
        raise InputError("The SLO holds no condition.", _MEND)
    return Group(
        tuple(each for each in found if isinstance(each, Condition)),
        tuple(each for each in found if isinstance(each, Fluidity)),
        where,
    )


def _conditions(text: str) -> Iterator[Condition | Fluidity]:
    rest = text.lstrip(_BETWEEN)
    while rest:
        fluid, match = _FLUIDITY.match(rest), _CONDITION.match(rest)
        if fluid:
            yield _fluidity(fluid)
        elif match:
            yield _condition(match)
        else:
            wrong = rest.split(",")[0].strip()
            raise InputError(f"'{wrong}' is not a condition of an SLO.", _MEND)
        rest = rest[(fluid or match).end() :].lstrip(_BETWEEN)  # type: ignore[union-attr]


def _selector(key: str, value: str) -> tuple[str, str]:
    if key.lower() not in SELECTORS:
        raise InputError(
            f"An SLO cannot be asked of calls by their '{key}'.",
            f"Choose among {', '.join(SELECTORS)}.",
        )
    return key.lower(), value.strip('"')


def _condition(match: re.Match[str]) -> Condition:
    name = (match["inner"] or match["name"]).lower()
    name = _ALIASES.get(name, name)
    statistic = _statistic(match["statistic"])
    metric = METRICS.get(name)
    if metric is None or not _can_be_asked(metric, statistic):
        known = ", ".join(m for m, each in METRICS.items() if _can_be_asked(each, statistic))
        raise InputError(f"An SLO cannot be asked of '{name}'.", f"Choose among {known}.")
    bound = _bound(metric, match["sign"], match["bound"])
    if statistic is not None and (bound.per_input or bound.per_output):
        raise InputError(
            f"'{match[0]}' bounds a statistic of many calls by the tokens of one.",
            f"Ask it of every call: {name}{match['sign']}{match['bound']}.",
        )
    return Condition(name, bound, statistic)


def _statistic(text: str | None) -> float | Literal["mean"] | None:
    if text is None:
        return None
    if text.lower() == "mean":
        return "mean"
    if text[0] in "pP" and text[1:].replace(".", "", 1).isdigit() and 0 < float(text[1:]) < 100:
        return float(text[1:]) / 100
    raise InputError(f"'{text}' is no statistic.", "Write mean(...), or p99(...) and the like.")


def _bound(metric: Metric, sign: str, text: str) -> Bound:
    parts = {"": 0.0, "input": 0.0, "output": 0.0}
    for number, unit, tokens in _PART.findall(text):
        word = tokens.lower()
        if word not in parts:
            raise InputError(
                f"'{tokens}' is nothing that a bound can grow with.", "Choose input or output."
            )
        if metric.unit == "ratio":
            if unit:
                raise InputError(
                    f"'{metric.name}' is a ratio and has no unit.", f"Write {metric.name}<{number}."
                )
            parts[word] += float(number)
            continue
        if not unit and sign != ":":
            raise InputError(
                f"'{metric.name}{sign}{text}' has no unit.",
                f"Write {metric.name}<{number}ms or {metric.name}<{number}s.",
            )
        parts[word] += _seconds(number + (unit or "ms"))
    if not any(parts.values()):
        raise InputError(f"No {metric.name} is below 0.", "Give a bound above 0.")
    return Bound(parts[""], parts["input"], parts["output"])


def _fluidity(match: re.Match[str]) -> Fluidity:
    share = float(match["share"]) / (100 if match["percent"] else 1)
    first_s, gap_s = _seconds(match["first"]), _seconds(match["gap"])
    if not 0 < share <= 1 or not first_s or not gap_s:
        raise InputError(
            f"'{match[0]}' asks for what no call can have.",
            "Deadlines are above 0 and the share is in (0, 1], as in fluidity(500ms,50ms)>=0.9.",
        )
    return Fluidity(first_s, gap_s, share)


def _seconds(text: str) -> float:
    text = text.lower().replace(" ", "")
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])


def _can_be_asked(metric: Metric, statistic: object) -> bool:
    """Not of a single gap, and not of what the client itself did."""
    return (statistic is not None or metric.per != "gap") and not metric.of_client


def _told(value: float, *, seconds: bool = True) -> str:
    if not seconds:
        return f"{value:g}"
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"
