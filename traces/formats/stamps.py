"""Arrivals in whatever way a table writes them: numbers of some unit, or dates and times."""

from __future__ import annotations

from typing import Final, Literal

import polars as pl

from servescope.traces.formats import clock
from servescope.traces.formats.cells import unit_of

UNITS: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
MIXED = "Some times name a zone and some do not; those without are read as if they were UTC."
_ISO = "%Y-%m-%d %H:%M:%S%.f"
_ZONE = r"\s*(Z|UTC|[+-]\d\d:?\d\d)$"
_HOURS, _MINUTES = r"([+-]\d\d):?\d\d$", r"[+-]\d\d:?(\d\d)$"


class Stamps:
    """Turns a column of times into whole nanoseconds, and remembers how it was written.

    The unit of bare numbers is what the user says, what the column's name says (`ts_ms`), the unit
    in which the first of them is a date of our days, or else seconds.
    """

    def __init__(self, column: str, unit: str | None) -> None:
        self.unit = unit or unit_of(column)
        self._why = "as the user says" if unit else "as the column's name says"
        self._doubts: list[str] = []
        self._kinds: set[str] = set()  # number, utc, local

    def read(self, values: pl.Series) -> pl.Series:
        """Return nanoseconds; null where a value is no time."""
        if values.dtype in (pl.Date, pl.Datetime):
            self._kinds.add("utc" if getattr(values.dtype, "time_zone", None) else "local")
            return values.dt.epoch("ns")
        if values.dtype == pl.String:
            values = values.replace("", None)
        numbers = values.cast(pl.Float64, strict=False).drop_nulls()
        if len(numbers):
            self._settle(float(numbers[0]))
            self._kinds.add("number")
        stamps = pl.select(clock.from_column(pl.lit(values), self.unit or "s")).to_series()
        if values.dtype != pl.String or stamps.null_count() == values.null_count():
            return stamps
        return stamps.fill_null(self._dates(values))

    def one(self, value: float | str) -> int | None:
        """Return one time as nanoseconds; None if it is none."""
        if isinstance(value, str) and (moment := clock.from_iso(value)):
            self._kinds.add("utc" if moment[1] else "local")
            return moment[0]
        if clock.from_number(value, "s") is None:
            return None
        self._settle(float(value))
        self._kinds.add("number")
        stamp = clock.from_number(value, self.unit or "s")
        return stamp if stamp is not None and abs(stamp) < 2**63 else None

    def _settle(self, first: float) -> None:
        if self.unit is not None:
            return
        guessed = clock.guess_unit(first)
        self.unit = guessed or "s"
        self._why = "guessed" if guessed else "assumed"
        self._doubts.append(
            f"The times are bare numbers, read as {UNITS[self.unit]}"
            + (" since 1970, which makes them dates of our days" if guessed else "")
            + "; name another unit with --unit."
        )

    def _dates(self, texts: pl.Series) -> pl.Series:
        text = pl.col("t")
        base = text.str.replace(_ZONE, "").str.replace("T", " ", literal=True)
        frame = pl.DataFrame({"t": texts}).select(
            text,
            at=base.str.to_datetime(_ISO, time_unit="ns", strict=False).to_physical(),
            zoned=text.str.contains(_ZONE),
            hours=text.str.extract(_HOURS).cast(pl.Int64).fill_null(0),
            minutes=text.str.extract(_MINUTES).cast(pl.Int64).fill_null(0),
            behind=text.str.contains(r"-\d\d:?\d\d$"),
        )
        minutes = pl.col("minutes") * pl.when("behind").then(-1).otherwise(1)
        offset = (pl.col("hours") * 60 + minutes) * (60 * clock.NS_PER["s"])
        frame = frame.with_columns(at=pl.col("at") - pl.when("zoned").then(offset).otherwise(0))
        odd = (frame["at"].is_null() & frame["t"].is_not_null()).arg_true()
        if len(odd):  # without seconds, with a comma, or none at all
            found = [clock.from_iso(text) for text in frame["t"].gather(odd)]
            at = frame["at"].scatter(odd, [moment[0] if moment else None for moment in found])
            frame = frame.with_columns(at)
        read = frame.filter(pl.col("at").is_not_null())
        self._kinds |= {"utc" if zoned else "local" for zoned in read["zoned"].unique()}
        return frame["at"]

    @property
    def doubts(self) -> list[str]:
        """What was assumed of the times."""
        mixed = [MIXED] if {"utc", "local"} <= self._kinds else []
        return self._doubts + mixed

    @property
    def units(self) -> str:
        """The unit in words, and how it is known."""
        words = "dates and times"
        if "number" not in self._kinds:
            return words
        number = f"{UNITS[self.unit or 's']}, {self._why}"
        return number if len(self._kinds) == 1 else f"{number}, and {words}"

    def clock(self, first_ns: int) -> Literal["utc", "local", "source"]:
        """Return the clock that the stamps are on, of which this is the first."""
        if "local" in self._kinds:
            return "local"
        return "utc" if "utc" in self._kinds or clock.guess_unit(first_ns) == "ns" else "source"

    def t0(self, first_ns: int) -> str:
        """Return the first moment in words."""
        match self.clock(first_ns):
            case "source":
                unit = self.unit or "s"
                return f"{first_ns / clock.NS_PER[unit]:.15g} {unit} on the source's own clock"
            case "utc":
                return f"{clock.text_of(first_ns)} UTC"
            case _:
                return f"{clock.text_of(first_ns)}, no zone given"
