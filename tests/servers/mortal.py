"""A small completions server as a process of its own, which can die, stay ill, or seem busy.

python tests/servers/mortal.py --port 8000 --dies-after 10 --ill-for 2 --busy-for 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time

from aiohttp import web
from faulty_server import DONE, LAST, TOKEN, USAGE

EXIT_CODE = 7


def app_of(options: argparse.Namespace) -> web.Application:
    began_s = time.monotonic()
    asked = 0

    async def health(_: web.Request) -> web.Response:
        ill = time.monotonic() - began_s < options.ill_for
        return web.Response(status=503 if ill else 200)

    async def metrics(_: web.Request) -> web.Response:
        running = int(time.monotonic() - began_s < options.busy_for)
        return web.Response(text=f"vllm:num_requests_running {running}\n")

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def completions(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        body = json.loads(await request.read())
        asked += 1
        if asked == options.dies_after:
            sys.stderr.write(f"dying after {asked} calls\n")
            sys.stderr.flush()
            os._exit(EXIT_CODE)
        tokens = body["max_tokens"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(tokens):
            await response.write(LAST if number == tokens - 1 else TOKEN)
            await asyncio.sleep(0.002)
        for data in (USAGE % tokens, DONE):
            await response.write(data)
        return response

    app = web.Application(client_max_size=1 << 26)
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/completions", completions)
    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dies-after", type=int, default=0, help="calls; 0 never")
    parser.add_argument("--ill-for", type=float, default=0.0, help="seconds of 503 on /health")
    parser.add_argument("--busy-for", type=float, default=0.0, help="seconds of a call in it")
    parser.add_argument("--children", action="store_true", help="start two, one in its own session")
    options = parser.parse_args()
    if options.children:
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        for alone in (False, True):
            child = subprocess.Popen(sleep, start_new_session=alone)
            sys.stderr.write(f"child {child.pid}\n")
        sys.stderr.flush()
    web.run_app(app_of(options), host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
