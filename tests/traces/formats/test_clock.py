import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.traces.formats import clock

moments = st.integers(-(2**63), 2**63 - 1)
UNITS = list(clock.NS_PER)


@pytest.mark.parametrize(
    ("text", "stamp_ns", "zoned"),
    [
        ("1970-01-01 00:00:00", 0, False),
        ("1970-01-01T00:00", 0, False),
        ("2023-11-16 18:17:03.9799600", 1_700_158_623_979_960_000, False),
        ("2023-11-16T18:17:03.123456789Z", 1_700_158_623_123_456_789, True),
        ("2023-11-16T18:17:03,5 UTC", 1_700_158_623_500_000_000, True),
        ("2023-11-16T20:17:03+02:00", 1_700_158_623_000_000_000, True),
        ("2023-11-16T12:47:03-0530", 1_700_158_623_000_000_000, True),
        (" 2023-11-16 18:17:03.1234567899 ", 1_700_158_623_123_456_789, False),
        ("1969-12-31 23:59:59.999999999", -1, False),
        ("2016-12-31 23:59:60Z", 1_483_228_800_000_000_000, True),  # a leap second
    ],
)
def test_a_date_and_time_is_read_to_the_nanosecond(text: str, stamp_ns: int, zoned: bool) -> None:
    assert clock.from_iso(text) == (stamp_ns, zoned)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2023-11-16",
        "2023-13-01 00:00:00",
        "2023-02-29 00:00:00",
        "2023-11-16 24:00:00",
        "2023-11-16 18:60:00",
        "2023-11-16 18:17:61",
        "2023-11-16 18:17:03.",
        "2023-11-16 18:17:03 CET",
        "2023-11-16 18:17:03+2",
        "1700000000",
        "0000-01-01 00:00:00",
    ],
)
def test_what_is_no_date_and_time_is_none(text: str) -> None:
    assert clock.from_iso(text) is None


@given(moments)
def test_what_is_written_as_a_date_is_read_as_the_same_nanosecond(stamp_ns: int) -> None:
    assert clock.from_iso(clock.text_of(stamp_ns)) == (stamp_ns, False)


@given(st.datetimes(timezones=st.timezones()).filter(lambda moment: moment.utcoffset() is not None))
def test_zones_are_those_of_the_standard_library(moment: dt.datetime) -> None:
    """Offsets of odd seconds (before 1900) have no place in the notation and are left out."""
    offset = moment.utcoffset() or dt.timedelta()
    if offset % dt.timedelta(minutes=1):
        return
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    exact = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
    assert clock.from_iso(moment.isoformat()) == (exact, True)


@pytest.mark.parametrize(
    ("stamp_ns", "text"),
    [
        (0, "1970-01-01 00:00:00"),
        (1_700_158_623_979_960_000, "2023-11-16 18:17:03.97996"),
        (-1, "1969-12-31 23:59:59.999999999"),
    ],
)
def test_a_date_is_written_with_as_many_digits_as_it_takes(stamp_ns: int, text: str) -> None:
    assert clock.text_of(stamp_ns) == text


@pytest.mark.parametrize(
    ("value", "unit", "stamp_ns"),
    [
        (1700000000.123457, "s", 1_700_000_000_123_457_000),
        ("1700000000.123456789", "s", 1_700_000_000_123_456_789),
        (1_700_000_000_123, "ms", 1_700_000_000_123_000_000),
        ("1e3", "us", 1_000_000),
        (1_700_000_000_123_456_789, "ns", 1_700_000_000_123_456_789),
        (-0.5, "s", -500_000_000),
    ],
)
def test_a_number_keeps_its_decimal_digits(value: float | str, unit: str, stamp_ns: int) -> None:
    assert clock.from_number(value, unit) == stamp_ns


@pytest.mark.parametrize(
    "value",
    ["", "x", "nan", "-inf", float("nan"), float("inf"), "1e19", "1e99999999", "1e1e1", 10**5000],
    ids=lambda value: str(value)[:9] if isinstance(value, str | float) else "5,001 digits",
)
def test_what_is_no_number_or_beyond_all_time_is_none(value: float | str) -> None:
    """The last power of ten of a huge number is not computed: that would take hours."""
    assert clock.from_number(value, "s") is None


@given(moments, st.sampled_from(UNITS))
def test_a_moment_written_as_a_number_of_any_unit_comes_back(stamp_ns: int, unit: str) -> None:
    whole, fraction = divmod(abs(stamp_ns), clock.NS_PER[unit])
    digits = len(str(clock.NS_PER[unit])) - 1
    text = f"{'-' * (stamp_ns < 0)}{whole}" + (f".{fraction:0{digits}}" if digits else "")
    assert clock.from_number(text, unit) == stamp_ns


@given(
    st.lists(st.none() | st.floats() | st.floats(0, 4e9), min_size=1, max_size=20),
    st.sampled_from(UNITS),
)
def test_a_column_is_read_as_its_numbers_are(values: list[float | None], unit: str) -> None:
    column = pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)})
    assert column.select(clock.from_column(pl.col("x"), unit))["x"].to_list() == [
        None if v is None else in_64_bits(clock.from_number(v, unit)) for v in values
    ]


@given(
    st.lists(st.decimals(allow_nan=False, places=9, min_value=-(2**62), max_value=2**62).map(str)),
    st.sampled_from(UNITS),
)
def test_a_column_of_texts_is_read_as_its_numbers_are(values: list[str], unit: str) -> None:
    column = pl.DataFrame({"x": pl.Series([*values, "x", "", "1e40", "9" * 60], dtype=pl.String)})
    expected = [in_64_bits(clock.from_number(v, unit)) for v in values]
    found = column.select(clock.from_column(pl.col("x"), unit))["x"].to_list()
    assert found == [*expected, None, None, None, None]


def in_64_bits(stamp_ns: int | None) -> int | None:
    return stamp_ns if stamp_ns is not None and -(2**63) <= stamp_ns < 2**63 else None


@pytest.mark.parametrize(
    ("stamp", "unit"),
    [
        (1_700_000_000, "s"),
        (1_700_000_000.5, "s"),
        (1_700_000_000_123, "ms"),
        (1_700_000_000_123_456, "us"),
        (1_700_000_000_123_456_789, "ns"),
        (100_000_000, "s"),
        (99_999_999, None),
        (99_999_999_999, "s"),
        (100_000_000_000, "ms"),
        (0, None),
        (float("nan"), None),
    ],
)
def test_the_unit_of_an_epoch_is_guessed_by_its_size(stamp: float, unit: str | None) -> None:
    assert clock.guess_unit(stamp) == unit
