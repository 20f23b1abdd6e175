from collections.abc import AsyncIterator, Iterator

import pytest
from faulty_server import Faulty, serving, well_behaved
from llama import llama_server


@pytest.fixture
async def faulty() -> AsyncIterator[Faulty]:
    async with serving(Faulty(script=well_behaved)) as server:
        yield server


@pytest.fixture(scope="module")
def llama_url() -> Iterator[str]:
    """llama.cpp's own server, with a cache that nobody has warmed."""
    with llama_server() as url:
        yield url
