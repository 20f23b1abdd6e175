from servescope.loadgen.endpoints import Ask, continuum, openai
from servescope.loadgen.program import Call

FIRST = Call("c0", "agent-7", 0, 3, 7, last=False)
LAST = Call("c1", "agent-7", 1, 12, 7, parents=("c0",), pause="tool", last=True)
NAMES = ("job_id", "is_last_step", "last_func_call", "this_func_call")


def told(call: Call, before: Call | None = None) -> tuple[object, ...]:
    body = continuum.COMPLETIONS.body(Ask(call, "tiny", prompt=[4], before=before))
    return tuple(body[name] for name in NAMES)


def test_a_program_is_a_job_whose_calls_pause_for_a_tool_until_the_last() -> None:
    assert told(FIRST) == ("agent-7", False, None, "tool")
    assert told(LAST, before=FIRST) == ("agent-7", True, "tool", None)


def test_a_call_whose_program_the_server_does_not_know_names_no_earlier_tool() -> None:
    """The server stops at such a name, also in a run that goes on where another was cut off."""
    assert told(LAST) == ("agent-7", True, None, None)


def test_all_else_is_vllms_completion() -> None:
    ask = Ask(FIRST, "tiny", prompt=[4, 5, 6])
    body = continuum.COMPLETIONS.body(ask)
    assert {name: body[name] for name in body if name not in NAMES} == openai.completions(ask)
    assert continuum.COMPLETIONS.path == "/v1/completions"
