from servescope.loadgen.endpoints import Ask, llumnix, openai
from servescope.loadgen.program import Call


def test_a_request_is_an_openai_completion_with_the_header_that_traces_it() -> None:
    ask = Ask(Call("c", "p", 0, 3, 7), "tiny", prompt=[4, 5, 6])
    assert llumnix.COMPLETIONS.body(ask) == openai.completions(ask)
    assert llumnix.COMPLETIONS.headers is not None
    assert llumnix.COMPLETIONS.headers(ask) == {"X-Llumnix-Trace": "true"}
