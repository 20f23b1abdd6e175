"""The layouts of papers: a trace that was made to fit the published values gives them back."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.analysis import characterize
from servescope.analysis.demand import Demand
from servescope.analysis.literature import LAYOUTS, recreate
from servescope.traces import load
from servescope.traces.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data"


def filled(layout: str, source: str) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    trace = load(source)
    tables = recreate(layout, characterize(trace), Demand.of(trace))
    return {
        title: {row["quantity"]: (row["published"], row["ours"]) for row in table.to_dicts()}
        for title, table in tables.items()
    }


def test_the_azure_code_trace_agrees_with_its_paper() -> None:
    coding = filled("azure", "azure:sample")["Coding"]
    assert coding["generated, median"] == (13, 13)
    published, ours = coding["prompt, median"]
    assert ours == pytest.approx(published, rel=0.1)


def test_the_mooncake_synthetic_trace_agrees_with_its_paper() -> None:
    synthetic = filled("mooncake", "mooncake:sample")["Synthetic"]
    assert synthetic["requests"][0] == 3993
    for name in ("input length, mean", "output length, mean"):
        assert synthetic[name][0] is not None


def test_burstgpts_classes_and_sessions_are_counted_by_hand() -> None:
    tables = filled("burstgpt", "burstgpt:sessions")
    calls = load("burstgpt:sessions").collect()
    api = calls.filter(pl.col("call_class") == "api")
    assert tables["API"]["calls"] == (5_110_404, api.height)
    assert tables["API"]["request mean"][1] == pytest.approx(api["input_tokens"].mean())
    sizes = calls.drop_nulls("program_id")["program_id"].value_counts()["count"].to_numpy()
    assert tables["Sessions"]["turns, mean"][1] == pytest.approx(sizes.mean())
    assert tables["Sessions"]["sessions of 1"][1] == pytest.approx((sizes == 1).mean())
    pauses = calls["delay_s"].drop_nulls().to_numpy()
    assert tables["Sessions"]["pause, p50"][1] == np.quantile(pauses, 0.5, method="inverted_cdf")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trace_that_cannot_say_leaves_cells_empty(layout: str) -> None:
    tables = filled(layout, "azure:sample")
    assert any(ours is None for table in tables.values() for _, ours in table.values())


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is not here")
def test_every_pool_of_clients_has_a_table_of_its_own() -> None:
    tables = filled("servegen", str(DATA / "servegen"))
    small = tables["Clients, language/m-small"]
    assert small["clients"][1] == 43
    assert small["mean rate"][1] == pytest.approx(1174, abs=1)
    assert tables["Clients, reason/deepseek-r1"]["clients"][1] == 37
    assert "Clients" not in tables


def test_every_published_value_has_a_source() -> None:
    for layout in LAYOUTS.values():
        assert layout.source
        assert layout.note


def test_an_unknown_paper_is_named_with_the_known_ones() -> None:
    trace = load("azure:sample")
    with pytest.raises(InputError, match="no layout 'splitwise'"):
        recreate("splitwise", characterize(trace), Demand.of(trace))
