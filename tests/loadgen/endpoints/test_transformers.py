from servescope.loadgen.endpoints import Ask, openai, transformers
from servescope.loadgen.program import Call


def test_no_field_is_sent_that_the_server_would_refuse() -> None:
    """It answers ignore_eos, min_tokens and stream_options with an error."""
    call = Call("c", "p", 0, 3, 7, priority=1)
    messages = [{"role": "user", "content": "a b c"}]
    assert transformers.CHAT.body(Ask(call, "tiny", messages=messages, usage_each=True)) == {
        "model": "tiny",
        "messages": messages,
        "max_tokens": 7,
        "temperature": 0,
        "stream": True,
    }


def test_usage_on_the_chunk_that_ends_the_answer_is_read() -> None:
    last = (
        b'{"choices":[{"delta":{},"index":0,"finish_reason":"length"}],"object":'
        b'"chat.completion.chunk","usage":{"completion_tokens":7,"prompt_tokens":3,"total_tokens":10}}'
    )
    (piece,) = transformers.CHAT.read([last])
    assert (piece.finish, piece.prompt_tokens, piece.completion_tokens) == ("length", 3, 7)
    assert transformers.CHAT.read is openai.read
