"""An asyncio server in a thread of its own, for tests that block or run other processes."""

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, TypeVar

Served = TypeVar("Served")


class Background(Generic[Served]):
    """Keeps an asynchronous context open in another thread's loop."""

    def __init__(self, context: AbstractAsyncContextManager[Served]) -> None:
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        enter = self._context.__aenter__()
        return asyncio.run_coroutine_threadsafe(enter, self._loop).result(10)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave = self._context.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(leave, self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
