from itertools import islice

import numpy as np
import pytest

from servescope.loadgen.papers.burstgpt import BurstGPTApi, BurstGPTConv
from servescope.loadgen.program import Call


def sessions(count: int = 2000, **parameters: object) -> list[tuple[Call, ...]]:
    made = BurstGPTConv(**parameters).programs(np.random.default_rng(5))  # type: ignore[arg-type]
    return list(islice(made, count))


def test_the_cv_of_gaps_is_one_over_the_root_of_alpha() -> None:
    arrivals = BurstGPTApi(alpha=0.25).arrivals()
    assert (arrivals.process, arrivals.params) == ("gamma", {"burstiness": 0.25})
    assert arrivals.rate_rps == pytest.approx(0.54, abs=0.005)
    assert BurstGPTConv().arrivals().rate_rps == pytest.approx(0.025 / 4.18, rel=0.03)


def test_the_demonstration_s_lengths_are_of_a_zipf_law_clipped_at_1024() -> None:
    made = islice(BurstGPTApi(lengths="zipf").programs(np.random.default_rng(0)), 20_000)
    prompts = np.array([call.input_tokens for (call,) in made])
    # zeta(1.1) is 10.5844: so many are 1, and what is beyond 1,023 is nearly half
    assert np.mean(prompts == 1) == pytest.approx(1 / 10.5844, abs=0.01)
    assert prompts.max() == 1024
    assert np.mean(prompts == 1024) == pytest.approx(10 * 1023.5**-0.1 / 10.5844, abs=0.01)


def test_fitted_lengths_have_the_fit_s_spread() -> None:
    made = islice(BurstGPTApi(lengths="lognormal").programs(np.random.default_rng(0)), 40_000)
    logs = np.log([call.input_tokens for (call,) in made])
    assert (logs.mean(), logs.std()) == pytest.approx((np.log(326), 0.888), rel=0.02)


def test_fitted_gaps_are_lognormal() -> None:
    made = sessions(gaps="lognormal")
    logs = np.log([call.delay_s for calls in made for call in calls[1:]])
    assert (logs.mean(), logs.std()) == pytest.approx((5.18, 1.96), rel=0.03)


def test_people_pause_and_a_context_that_was_cut_shares_nothing() -> None:
    cut = 0
    for calls in sessions():
        said = 0
        for before, call in zip((None, *calls), calls, strict=False):
            if before is not None:
                assert call.pause == "user"
                anew = call.input_tokens < said
                cut += anew
                assert (call.prompt_stream != before.prompt_stream) == anew
            said = call.input_tokens + call.output_tokens
    assert cut > 100
