import pytest

from servescope.traces import status
from servescope.traces.results.failures import KINDS, of_exception, of_repr


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("HTTPStatusError(\"Server error '503 Service Unavailable' for url\")", "http_503"),
        ("HTTPStatusError(\"Client error '429 Too Many Requests' for url\")", "http_429"),
        ("HTTPStatusError('odd')", "error"),
        ("RemoteProtocolError('peer closed connection')", "reset"),
        ("ReadTimeout('')", "timeout"),
        ("ConnectError('All connection attempts failed')", "connection"),
        ("ValueError('no')", "error"),
        ("", "error"),
    ],
)  # fmt: skip
def test_what_httpx_raised_has_a_status(said: str, expected: str) -> None:
    assert of_repr(said) == expected


def test_dotted_names_are_those_of_their_class() -> None:
    assert of_exception("aiohttp.client_exceptions.ServerDisconnectedError") == "reset"
    assert of_exception(None) == of_exception("Service Unavailable") == "error"


def test_every_status_is_one_that_is_known() -> None:
    assert set(KINDS.values()) <= {v for k, v in vars(status).items() if k.isupper()}
