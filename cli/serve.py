"""`servescope serve`: the embedded engine as an OpenAI-compatible server in real time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.options import TP, Gpu, Model, Params, System
from servescope.cli.options import params as read_params


def serve(
    system: System = "sarathi",
    param: Params = None,
    model: Model = "Llama-3.1-8B",
    gpu: Gpu = "H100",
    tp: TP = 1,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8000,
    end_with_stdin: Annotated[
        bool, typer.Option("--end-with-stdin", help="End when stdin closes: with its parent.")
    ] = False,
) -> None:
    """Serve an emulated engine over HTTP as vLLM does: completions, chat, models, health, metrics.

    Example:  servescope serve --system vllm_v0 --model Llama-3.1-8B --gpu H200 --port 8000
    """
    from servescope.engine import emulate, http, make_system

    engine = emulate(make_system(system, read_params(param)), model, gpu, tp)

    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()

    def listening(url: str) -> None:
        print(f"{system} serves {model} at {url}", flush=True)
        console.say("Ctrl-C ends it.")

    http.serve(engine, model, host, port, listening)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
