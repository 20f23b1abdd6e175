"""From a call to its bytes and its replica, without a socket."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from faulty_server import Faulty
from setups import setup_of

from servescope.loadgen.board import Board
from servescope.loadgen.program import Call, Program
from servescope.loadgen.requests import Requests

URLS = ["http://a/v1/completions", "http://b/v1/completions"]
FIRST = Call("p0", "p", 0, 12, 3, prompt_stream="p", priority=4, last=False)
SECOND = Call("p1", "p", 1, 20, 3, parents=("p0",), prompt_stream="p", number=1)
PROGRAM = Program("p", 0.0, (FIRST, SECOND))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Board.create(tmp_path / "board", 1, len(URLS))
    return tmp_path


def requests_of(folder: Path, **options: Any) -> Requests:
    return Requests(setup_of(Faulty(), folder, **{"urls": URLS, **options}))


def body(requests: Requests, call: Call) -> dict[str, Any]:
    return msgspec.json.decode(requests.made(call, PROGRAM, 0.0)[0])  # type: ignore[no-any-return]


def test_a_prompt_has_its_tokens_and_the_next_turn_begins_with_it(folder: Path) -> None:
    requests = requests_of(folder)
    first, second = body(requests, FIRST), body(requests, SECOND)
    assert len(first["prompt"]) == 12
    assert len(second["prompt"]) == 20
    assert second["prompt"][:12] == first["prompt"]
    assert first["max_tokens"] == 3


def test_the_user_s_own_fields_win(folder: Path) -> None:
    asked = body(requests_of(folder, extra_body={"temperature": 0.7, "top_k": 5}), FIRST)
    assert (asked["temperature"], asked["top_k"]) == (0.7, 5)


def test_a_priority_is_sent_only_by_a_policy(folder: Path) -> None:
    assert "priority" not in body(requests_of(folder), FIRST)
    assert body(requests_of(folder, priority="trace"), FIRST)["priority"] == 4


def test_calls_in_flight_are_counted_by_replica_until_they_have_landed(folder: Path) -> None:
    requests = requests_of(folder, dispatch="least-outstanding")
    board = Board(folder / "board", 1, 2)
    assert [requests.pick(FIRST), requests.pick(SECOND)] == [0, 1]
    assert [(each.calls, each.tokens) for each in board.replicas()] == [(1, 15), (1, 23)]
    requests.landed(FIRST, 0)
    assert [each.calls for each in board.replicas()] == [0, 1]
    assert requests.pick(FIRST) == 0


def test_a_generated_history_holds_what_was_said_until_the_program_has_ended(folder: Path) -> None:
    chat = requests_of(folder, backend="openai-chat", history="generated")
    chat.answered(FIRST, "the very words")
    said = body(chat, SECOND)["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[1]["content"] == "the very words"
    chat.forget(PROGRAM)
    assert body(chat, SECOND)["messages"][1]["content"] != "the very words"


def test_what_was_sent_before_a_run_went_on_is_not_named_to_the_server(folder: Path) -> None:
    """Continuum refuses the name of a call that it has not seen."""
    requests = requests_of(folder, backend="continuum")
    assert body(requests, SECOND)["last_func_call"]
    resumed = msgspec.structs.replace(PROGRAM, ended={"p0": 1.0})
    made = msgspec.json.decode(requests.made(SECOND, resumed, 0.0)[0])
    assert not made["last_func_call"]
