"""Where requests go: checked URLs, the dialect spoken there, and the secrets that open it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from servescope.loadgen import dispatch as policies
from servescope.loadgen import endpoints
from servescope.loadgen import experiment as experiments
from servescope.loadgen.client import Client
from servescope.loadgen.endpoints import Dialect
from servescope.loadgen.experiment import EndpointSpec
from servescope.traces.errors import InputError


@dataclass(frozen=True)
class Target:
    """An endpoint's replicas, ready to be asked; `headers` and `secrets` are never written down."""

    spec: EndpointSpec
    base_urls: tuple[str, ...]
    urls: tuple[str, ...]
    dialect: Dialect
    headers: dict[str, str]
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, spec: EndpointSpec) -> Target:
        """Check an endpoint and read its key; raises InputError for what cannot be one."""
        experiments.refuse_unwritable(spec.extra_body)
        dialect = endpoints.named(spec.backend)
        policies.dispatch(spec.dispatch, spec.dispatch_params, len(spec.urls))
        policies.priority(spec.priority, spec.priority_params)
        bases = tuple(_base_url(url) for url in spec.urls)
        path = _path(spec.path or dialect.path)
        headers, secrets = {}, []
        key = os.environ.get(spec.api_key_env, "").strip()
        if key:
            headers["Authorization"] = f"Bearer {key}"
            secrets.append(key)
        for name, value in spec.headers.items():
            headers[name] = _revealed(name, value)
            if headers[name] != value:
                secrets.append(headers[name])
        return cls(
            spec=spec,
            base_urls=bases,
            urls=tuple(base + path for base in bases),
            dialect=dialect,
            headers=headers,
            secrets=tuple(secrets),
        )

    def client(self, *, reuse: bool = True) -> Client:
        """Return a client for it; `reuse` says whether connections outlive a call."""
        return Client(
            headers=self.headers,
            timeout_s=self.spec.timeout_s,
            idle_s=self.spec.idle_s,
            reuse=reuse,
            secrets=self.secrets,
        )


def _revealed(name: str, value: str) -> str:
    """Return a header's value: as it is, or from the variable or the file that it names."""
    if value[:1] == "$":
        found = os.environ.get(value[1:], "").strip()
        where = f"environment variable {value[1:]}"
    elif value[:1] == "@":
        try:
            found = Path(value[1:]).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError):
            found = ""
        where = f"file {value[1:]}"
    elif experiments.SECRET.search(f"{name} {value}"):
        raise InputError(
            f"The header {name} looks like a secret and would be written into the run.",
            f"Give it as {name}=$VARIABLE or {name}=@FILE.",
        )
    else:
        return value
    if not found:
        raise InputError(
            f"The {where}, for the header {name}, is empty or cannot be read.",
            "Set it, or leave the header out.",
        )
    return found


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise InputError(f"'{path}' is not a path of an endpoint.", f"Write it like /{path}.")
    if experiments.SECRET.search(path):
        raise _secret_in("path")
    return path


def _secret_in(what: str) -> InputError:
    return InputError(
        f"The {what} holds what looks like a key or password, which would be written into the run.",
        "Put the key into an environment variable and name it with --api-key-env.",
    )


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(
            f"'{url}' is not a URL of a server.", "Write it like http://127.0.0.1:8000."
        )
    if parts.username or parts.password or experiments.SECRET.search(parts.query):
        raise _secret_in("URL")
    if parts.query or parts.fragment:
        raise InputError(
            f"'{url}' has more than a host and a path.", "Leave out what follows '?' or '#'."
        )
    return url.rstrip("/").removesuffix("/v1")
