from itertools import islice

import numpy as np

from servescope.loadgen.papers.semipd import SemiPD


def test_a_prompt_and_its_answer_fit_the_context_together() -> None:
    made = islice(SemiPD("longbench", context_tokens=4096).programs(np.random.default_rng(0)), 5000)
    longest = max(call.input_tokens + call.output_tokens for (call,) in made)
    assert 3000 < longest <= 4096
