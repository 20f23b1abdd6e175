import pytest
from aiohttp import web
from faulty_server import DONE, LAST, TOKEN, USAGE, Faulty

from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.probe import probe
from servescope.loadgen.target import Target
from servescope.traces.errors import EndpointError


async def test_a_good_endpoint_shows_its_model_and_that_connections_can_be_reused(
    faulty: Faulty,
) -> None:
    found = await probe(Target.of(EndpointSpec(base_url=faulty.url)))
    assert (found.model, found.reuse) == ("tiny", True)
    assert (found.input_tokens, found.output_tokens) == (16, 4)
    assert found.doubts == ()


async def test_a_server_that_closes_connections_is_found_out(faulty: Faulty) -> None:
    async def and_close(request: web.Request, response: web.StreamResponse) -> None:
        for data in (TOKEN, TOKEN, TOKEN, LAST, USAGE % 4, DONE):
            await response.write(data)
        await response.write_eof()
        assert request.transport is not None
        request.transport.close()

    faulty.script = and_close
    found = await probe(Target.of(EndpointSpec(base_url=faulty.url)))
    assert not found.reuse
    assert "closes every connection" in found.doubts[0]


async def test_a_server_that_reports_no_usage_is_doubted(faulty: Faulty) -> None:
    async def uncounted(_: web.Request, response: web.StreamResponse) -> None:
        for data in (TOKEN, TOKEN, TOKEN, LAST, DONE):
            await response.write(data)

    faulty.script = uncounted
    found = await probe(Target.of(EndpointSpec(base_url=faulty.url)))
    assert found.output_tokens is None
    assert found.doubts == ("The server reports no usage, so chunks are counted as tokens.",)


async def test_a_server_that_does_not_honour_ignore_eos_is_doubted(faulty: Faulty) -> None:
    async def short(_: web.Request, response: web.StreamResponse) -> None:
        for data in (TOKEN, LAST, USAGE % 2, DONE):
            await response.write(data)

    faulty.script = short
    found = await probe(Target.of(EndpointSpec(base_url=faulty.url)))
    assert found.output_tokens == 2
    assert any("stopped after 2 of 4 tokens" in doubt for doubt in found.doubts)


async def test_a_field_that_is_refused_inside_the_stream_is_found_out(faulty: Faulty) -> None:
    """vLLM says 200 before it looks at some fields."""

    async def refusing(_: web.Request, response: web.StreamResponse) -> None:
        if b'"ignore_eos"' in faulty.bodies[-1]:
            await response.write(b'data: {"error": {"message": "no ignore_eos"}}\n\n' + DONE)
            return
        for data in (TOKEN, TOKEN, TOKEN, LAST, USAGE % 4, DONE):
            await response.write(data)

    faulty.script = refusing
    found = await probe(Target.of(EndpointSpec(base_url=faulty.url)))
    assert found.refused == ("ignore_eos",)


async def test_nobody_there_is_an_error_with_the_url_and_a_mend() -> None:
    with pytest.raises(EndpointError, match=r"Nothing answers at http://127\.0\.0\.1:9 .*Start"):
        await probe(Target.of(EndpointSpec(base_url="http://127.0.0.1:9")))
    with pytest.raises(EndpointError, match=r"Nothing answers"):
        await probe(Target.of(EndpointSpec(base_url="http://127.0.0.1:9", model="named")))


async def test_a_wrong_path_says_which_path_answered_what(faulty: Faulty) -> None:
    with pytest.raises(EndpointError, match=r"/nope answered 404: .* Check the path"):
        await probe(Target.of(EndpointSpec(base_url=faulty.url, path="/nope")))


async def test_a_base_url_without_models_asks_for_the_model(faulty: Faulty) -> None:
    with pytest.raises(EndpointError, match=r"names no model\. .*--model"):
        await probe(Target.of(EndpointSpec(base_url=f"{faulty.url}/elsewhere")))


@pytest.mark.parametrize(
    ("status", "says"), [(401, "OPENAI_API_KEY"), (500, "server's log"), (429, "server's log")]
)
async def test_a_refusal_says_what_to_look_at(faulty: Faulty, status: int, says: str) -> None:
    faulty.status = status
    with pytest.raises(EndpointError, match=says):
        await probe(Target.of(EndpointSpec(base_url=faulty.url)))
