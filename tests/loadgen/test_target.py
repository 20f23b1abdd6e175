"""Where requests go, and which secrets open it: checked before anything is written or sent."""

from pathlib import Path

import pytest

from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.target import Target
from servescope.traces.errors import InputError


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "localhost"])
def test_what_is_no_url_is_an_input_error(url: str) -> None:
    with pytest.raises(InputError, match="is not a URL of a server"):
        Target.of(EndpointSpec(base_url=url))


@pytest.mark.parametrize(
    "spec",
    [
        {"base_url": "http://me:hunter2@127.0.0.1:8000"},
        {"base_url": "http://127.0.0.1:8000/?api_key=hunter2"},
        {"base_url": "http://h:1", "path": "/v1/completions?api-key=hunter2"},
    ],
)
def test_an_address_with_a_key_in_it_is_refused_without_repeating_it(spec: dict[str, str]) -> None:
    with pytest.raises(InputError, match="would be written into the run") as caught:
        Target.of(EndpointSpec(**spec))  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_a_base_url_has_no_query_but_a_path_may() -> None:
    with pytest.raises(InputError, match="Leave out what follows"):
        Target.of(EndpointSpec(base_url="http://h:1/?api-version=2"))
    path = "/v1/completions?api-version=2"
    assert Target.of(EndpointSpec(base_url="http://h:1", path=path)).urls[0] == f"http://h:1{path}"


def test_a_base_url_may_end_in_v1() -> None:
    assert Target.of(EndpointSpec(base_url="http://h:1/v1/")).urls[0] == "http://h:1/v1/completions"


@pytest.mark.parametrize("name", ["api_key", "API-Key", "password", "secret", "access_token"])
def test_an_extra_field_that_looks_like_a_secret_is_refused(name: str) -> None:
    """Extra fields are written into experiment.toml and shown in the report."""
    with pytest.raises(InputError, match="looks like a secret") as caught:
        Target.of(EndpointSpec(base_url="http://h:1", extra_body={"auth": {name: "sk-1"}}))
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize("name", ["max_tokens", "stop_token_ids", "skip_special_tokens", "top_k"])
def test_ordinary_extra_fields_are_no_secrets(name: str) -> None:
    Target.of(EndpointSpec(base_url="http://h:1", extra_body={name: 1}))


def test_a_null_in_the_extra_fields_is_refused_wherever_it_hides() -> None:
    with pytest.raises(InputError, match=r"'a\.b' is null"):
        Target.of(EndpointSpec(base_url="http://h:1", extra_body={"a": [{"b": None}]}))


def test_a_path_begins_with_a_slash() -> None:
    with pytest.raises(InputError, match="Write it like /v1"):
        Target.of(EndpointSpec(base_url="http://h:1", path="v1/completions"))


def test_a_header_is_a_value_a_variable_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "hunter2\n")
    (tmp_path / "key").write_text("  hunter3\n")
    target = Target.of(
        EndpointSpec(
            base_url="http://h:1",
            headers={"X-Team": "research", "X-Key": "$GATEWAY_KEY", "X-File": f"@{tmp_path}/key"},
        )
    )
    assert target.headers["X-Team"] == "research"
    assert (target.headers["X-Key"], target.headers["X-File"]) == ("hunter2", "hunter3")
    assert {"hunter2", "hunter3"} <= set(target.secrets)
    assert "research" not in target.secrets


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("$NOT_SET_ANYWHERE", "environment variable NOT_SET_ANYWHERE, for the header X-Key"),
        ("@/no/such/file", "file /no/such/file, for the header X-Key"),
    ],
)
def test_a_secret_that_is_not_there_is_said(value: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Target.of(EndpointSpec(base_url="http://h:1", headers={"X-Key": value}))


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key"])
def test_a_secret_in_plain_text_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(InputError, match=r"Give it as .*=\$VARIABLE") as caught:
        Target.of(EndpointSpec(base_url="http://h:1", headers={name: "hunter2"}))
    assert "hunter2" not in str(caught.value)


def test_replicas_have_a_url_each_and_the_same_path() -> None:
    target = Target.of(EndpointSpec(base_url=("http://a:1", "http://b:2/v1"), backend="sglang"))
    assert target.base_urls == ("http://a:1", "http://b:2")
    assert target.urls == ("http://a:1/generate", "http://b:2/generate")
