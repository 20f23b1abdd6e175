"""TLS with a certificate that nobody has signed: refused, until the user trusts it."""

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_server import Faulty, serving, well_behaved

from servescope.traces import Run

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs openssl to make a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 and its key, for a day."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return made, key


async def replay(url: str, out: Path, **environment: str) -> tuple[int, str]:
    """Replay as a user does; returns the exit code and what was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servescope.cli", "replay", "--base-url", url, "-q"),
        *("--isl", "16", "--osl", "4", "--num-prompts", "20", "--request-rate", "inf"),
        *("--out", str(out)),
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )
    said = (await process.communicate())[1]
    return process.returncode or 0, said.decode()


async def test_a_certificate_that_nobody_signed_is_refused_until_it_is_trusted(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with serving(Faulty(script=well_behaved), context) as server:
        code, said = await replay(server.url, tmp_path / "refused")
        assert code == 3
        assert "certificate verify failed: self-signed certificate" in said
        assert "SSL_CERT_FILE" in said  # how to mend it
        assert not server.bodies
        assert not (tmp_path / "refused").exists()
        code, said = await replay(
            server.url, tmp_path / "trusted", SSL_CERT_FILE=str(certificate[0])
        )
        assert code in (0, 1), said  # on a busy machine the client itself may be in doubt
        assert len(server.bodies) >= 20
    calls = Run.open(tmp_path / "trusted").trace.collect()
    assert calls["status"].to_list() == ["ok"] * 20
