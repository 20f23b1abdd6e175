"""Which runs of other tools are known to have been sent the same."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.traces.errors import InputError
from servescope.traces.results import Result, requests
from servescope.traces.run import Run

LENGTHS = tuple(range(100, 130))


def a_run(path: Path, name: str, tool: str = "vllm", **facts: Any) -> Run:
    """An imported run of calls with these lengths and prompts; None is a call that failed."""
    lengths = facts.pop("lengths", LENGTHS)
    prompts = facts.pop("prompts", (None,) * len(lengths))
    rows = [
        {
            "call_id": str(n),
            "program_id": str(n),
            "turn": 0,
            "parents": [],
            "due_s": float(n),
            "sent_s": float(n),
            "status": "error" if length is None else "ok",
            "input_tokens": length,
            "prompt_sha256": prompt,
        }
        for n, (length, prompt) in enumerate(zip(lengths, prompts, strict=True))
    ]
    told = {"title": "vLLM", "file": f"{name}.json", "sha256": name, "load": {"rate": 5}, **facts}
    return Result.of(rows, name, tool=tool, **told).write(path / name, name)


def test_lengths_are_as_telling_as_their_order_is_unlikely() -> None:
    assert requests.bits([]) == requests.bits([512] * 1000) == 0.0
    assert requests.bits([1, 2] * 10) == pytest.approx(20.0)  # twenty throws of a coin
    assert requests.bits(list(range(8))) == pytest.approx(8 * math.log2(8))


def test_a_prompt_is_what_is_asked_and_not_how_nor_of_whom() -> None:
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    other = {"messages": [{"content": "hi", "role": "user"}], "model": "b", "stream": False}
    assert requests.prompt_sha256(body) == requests.prompt_sha256(other)
    answered = [*other["messages"], {"role": "assistant", "content": "ho"}]  # type: ignore[misc]
    assert requests.prompt_sha256({"messages": answered}) == requests.prompt_sha256(body)
    longer = {**body, "max_tokens": 5}
    assert requests.prompt_sha256(longer) != requests.prompt_sha256(body)
    assert requests.asked_tokens(longer) == 5
    assert requests.asked_tokens({"max_completion_tokens": "five"}) is None


def test_the_same_lengths_in_the_same_order_are_the_same_requests(tmp_path: Path) -> None:
    a, b = a_run(tmp_path, "a"), a_run(tmp_path, "b")
    assert a.info.plan_sha256 == b.info.plan_sha256
    requests.refuse_unlike(a, b)
    assert requests.unknown(a, b) == 0


def test_calls_that_failed_do_not_count_against_it(tmp_path: Path) -> None:
    a = a_run(tmp_path, "a", lengths=(None, *LENGTHS[1:]))
    b = a_run(tmp_path, "b", lengths=(*LENGTHS[:-1], None))
    assert a.info.plan_sha256 != b.info.plan_sha256
    requests.refuse_unlike(a, b)
    assert requests.unknown(a, b) == 2


def test_equal_prompts_are_the_same_requests_though_their_lengths_are_alike(
    tmp_path: Path,
) -> None:
    prompts = tuple("abcdefghij")
    a = a_run(tmp_path, "a", lengths=(512,) * 10, prompts=prompts)
    b = a_run(tmp_path, "b", lengths=(512,) * 10, prompts=(*prompts[:9], None))
    requests.refuse_unlike(a, b)
    assert requests.unknown(a, b) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ({}, {"tool": "aiperf"}, "is a run of vllm and .* one of aiperf"),
        ({}, {"load": {"rate": 9}}, "same load: rate 5 against 9"),
        ({}, {"lengths": LENGTHS[::-1]}, "their lengths differ"),
        ({}, {"lengths": LENGTHS[:-1]}, "their lengths differ"),
        ({}, {"lengths": (512,) * 30}, "b shows which requests it was sent: vllm kept no prompts"),
        ({"lengths": (512,) * 30}, {"lengths": (512,) * 30}, "too much alike to tell"),
        ({"prompts": tuple("a" * 30)}, {"prompts": tuple("a" * 29 + "b")}, "their prompts differ"),
        (
            {"prompts": tuple("a" * 30)},
            {"prompts": (*"a" * 15, *(None,) * 15)},
            "their prompts differ",
        ),
        (
            {"lengths": (*LENGTHS[:15], *(None,) * 15)},
            {"lengths": (*(None,) * 15, *LENGTHS[15:])},
            "their lengths differ",
        ),
    ],
)
def test_others_are_refused_in_a_sentence(
    ours: dict[str, Any], theirs: dict[str, Any], says: str, tmp_path: Path
) -> None:
    a, b = a_run(tmp_path, "a", **ours), a_run(tmp_path, "b", **theirs)
    assert a.info.plan_sha256 != b.info.plan_sha256
    with pytest.raises(InputError, match=says):
        requests.refuse_unlike(a, b)


def test_a_run_of_ours_is_not_known_to_be_like_an_imported_one(tmp_path: Path) -> None:
    a = a_run(tmp_path, "a")
    b = a_run(tmp_path, "b", load={"rate": 6})
    import msgspec

    b.write_info(msgspec.structs.replace(b.info, imported=None))
    for pair in ((a, b), (b, a)):
        with pytest.raises(InputError, match="of servescope"):
            requests.refuse_unlike(*pair)


def test_what_a_file_does_not_show_is_like_itself_alone(tmp_path: Path) -> None:
    one = {"lengths": (512,) * 30, "sha256": "one", "file": "one.json"}
    a, again = a_run(tmp_path, "a", **one), a_run(tmp_path, "b", **one)
    other = a_run(tmp_path, "c", lengths=(512,) * 30)
    assert a.info.imported is not None
    assert a.info.imported.known_by is None
    requests.refuse_unlike(a, again)
    assert requests.unknown(a, again) == requests.unknown(a, other) == 0
    with pytest.raises(InputError, match="too much alike"):
        requests.refuse_unlike(a, other)


def test_later_turns_and_failed_calls_have_no_length_in_the_plan(tmp_path: Path) -> None:
    rows = [
        {"call_id": f"0/{n}", "program_id": "0", "turn": n, "due_s": n, "status": status}
        for n, status in enumerate(("ok", "ok"))
    ]
    rows.append(
        {"call_id": "1/0", "program_id": "1", "turn": 0, "due_s": 0.5, "status": "http_503"}
    )
    for row in rows:
        row["input_tokens"] = 7
    plan = Result.of(rows, "here", tool="aiperf").plan
    assert plan.filter(pl.col("input_tokens").is_not_null())["call_id"].to_list() == ["0/0"]
