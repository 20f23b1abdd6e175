from collections.abc import AsyncIterator

import pytest
from faulty_server import Faulty, serving, well_behaved


@pytest.fixture
async def faulty() -> AsyncIterator[Faulty]:
    async with serving(Faulty(script=well_behaved)) as server:
        yield server
