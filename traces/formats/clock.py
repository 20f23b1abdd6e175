"""Stamps as whole nanoseconds: what a float of epoch seconds loses is kept."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal, InvalidOperation
from typing import Final

import polars as pl

NS_PER: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
# A bare number this large in a unit would lie before 1980 in the next coarser one.
_EPOCH_FROM: Final = {"ns": 10**17, "us": 10**14, "ms": 10**11, "s": 10**8}
_MOST_DIGITS = 18  # after the first one
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9})\d*)?)?"
    r"\s*(Z|UTC|[+-]\d\d:?\d\d)?"
)
_EPOCH = dt.datetime(1970, 1, 1)


def from_iso(text: str) -> tuple[int, bool] | None:
    """Return a date and time as Unix nanoseconds and whether it names its zone; None if it is none.

    Without a zone it is read as if it were UTC. Up to nine digits of a second are kept.
    """
    found = _ISO.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = dt.datetime(int(year), int(month), int(day), int(hour), int(minute))
    except ValueError:
        return None
    if int(second or 0) > 60:  # 60 is a leap second
        return None
    since = moment - _EPOCH
    seconds = since.days * 86400 + since.seconds + int(second or 0)
    if zone and zone not in ("Z", "UTC"):
        sign = -1 if zone[0] == "-" else 1
        seconds -= sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return seconds * NS_PER["s"] + int((fraction or "0").ljust(9, "0")), zone is not None


def from_number(value: float | str, unit: str) -> int | None:
    """Return a number of `unit` as whole nanoseconds, by its decimal digits; None if it is none.

    None too from 10^19 on, which no stamp of 64 bits can hold.
    """
    try:
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):  # a ValueError for an int of over 4300 digits
        return None
    if not number.is_finite() or number.adjusted() > _MOST_DIGITS:
        return None
    return int((number * NS_PER[unit]).to_integral_value())


def from_column(values: pl.Expr, unit: str) -> pl.Expr:
    """Return a column of numbers or of their texts as whole nanoseconds, by decimal digits.

    What is no number, or does not fit into 64 bits, is null.
    """
    digits = values.cast(pl.String).cast(pl.Decimal(_MOST_DIGITS + 10, 9), strict=False)
    exact = digits * NS_PER[unit]
    return exact.round(0).cast(pl.Int64, strict=False)


def to_ns(seconds: pl.Expr) -> pl.Expr:
    """Return float seconds since a trace's zero as the whole nanoseconds that they stand for.

    Beyond 2^22 s (48 days) a float cannot tell single nanoseconds, so there it is whole 100 ns.
    """
    whole = seconds.floor()
    fraction = (seconds - whole) * NS_PER["s"]
    coarse = (fraction / 100).round() * 100
    exact = pl.when(seconds.abs() < 2**22).then(fraction.round()).otherwise(coarse)
    return whole.cast(pl.Int64) * NS_PER["s"] + exact.cast(pl.Int64)


def decimal_text(ns: pl.Expr, unit: str) -> pl.Expr:
    """Write whole nanoseconds as a decimal number of `unit`, with as many digits as it takes."""
    step = NS_PER[unit]
    if step == 1:
        return ns.cast(pl.String)
    digits = (ns.abs() % step).cast(pl.String).str.zfill(len(str(step)) - 1)
    fraction = digits.str.strip_chars_end("0")
    whole = pl.concat_str(pl.when(ns < 0).then(pl.lit("-")).otherwise(pl.lit("")), ns.abs() // step)
    return (
        pl.when(fraction == "").then(whole).otherwise(pl.concat_str(whole, pl.lit("."), fraction))
    )


def guess_unit(stamp: float) -> str | None:
    """Return the unit in which a bare number is a moment between 1973 and 2286; None if none."""
    return next((unit for unit, least in _EPOCH_FROM.items() if abs(stamp) >= least), None)


def text_of(stamp_ns: int) -> str:
    """Write Unix nanoseconds as `2023-11-16 18:17:03.9799600`, as many digits as it takes."""
    seconds, fraction = divmod(stamp_ns, NS_PER["s"])
    whole = (_EPOCH + dt.timedelta(seconds=seconds)).isoformat(sep=" ")
    digits = f"{fraction:09}".rstrip("0")
    return f"{whole}.{digits}" if digits else whole
