"""Who asks: shares by rank, none of which rests on a few calls."""

import numpy as np
import pytest

from servescope.analysis.models.clients import Clients, named


def test_clients_have_the_shares_of_their_calls_and_small_ones_share_alike() -> None:
    clients = Clients.fit(np.array([30, 5, 60, 5]))
    assert clients == Clients(shares=(0.6, 0.3), others=2)
    assert clients.summary() == ["4 clients; the largest has 60 % of the calls."]


def test_draws_have_these_shares() -> None:
    clients = Clients(shares=(0.6, 0.3), others=4)
    ranks = clients.sample(np.random.default_rng(0), 100_000)
    found = np.bincount(ranks, minlength=7)[1:] / len(ranks)
    assert found == pytest.approx([0.6, 0.3, *4 * [0.025]], abs=0.005)


def test_without_others_all_calls_are_those_of_the_large_ones() -> None:
    """Shares of six digits need not add up to one: 0.333333 three times."""
    clients = Clients.fit(np.array([100, 100, 100]))
    assert clients.others == 0
    assert set(clients.sample(np.random.default_rng(0), 10_000)) == {1, 2, 3}


def test_one_client_asks_all() -> None:
    clients = Clients.fit(np.array([50]))
    assert set(clients.sample(np.random.default_rng(0), 100)) == {1}


def test_none_is_large_enough() -> None:
    clients = Clients.fit(np.full(20, 3), min_count=10)
    assert clients == Clients(shares=(), others=20)
    ranks = clients.sample(np.random.default_rng(0), 50_000)
    assert np.bincount(ranks, minlength=21)[1:] / 50_000 == pytest.approx(
        np.full(20, 0.05), abs=0.005
    )
    assert clients.summary() == ["20 clients; the largest has 5 % of the calls."]


def test_names_say_the_rank() -> None:
    assert named(np.array([1, 12])).to_list() == ["client-1", "client-12"]
