"""What a worker of a test is told."""

from pathlib import Path
from typing import Any

from faulty_server import Faulty

from servescope.loadgen.messages import Setup


def setup_of(server: Faulty, folder: Path, **options: Any) -> Setup:
    fields: dict[str, Any] = {
        "worker": 0, "workers": 1, "urls": [server.url + "/v1/completions"], "backend": "openai",
        "model": "tiny", "headers": {}, "secrets": (), "seed": 0, "block_tokens": None,
        "tokenizer": None, "history": "planned", "ignore_eos": True, "min_tokens": False,
        "usage_each": False, "refused": (), "extra_body": {}, "timeout_s": 60.0, "idle_s": 60.0,
        "retries": 0, "reuse": True, "done": False, "max_concurrency": None, "users": None,
        "dispatch": "round-robin", "dispatch_params": {}, "priority": "none",
        "priority_params": {}, "board": str(folder / "board"),
        "programs": str(folder / "programs"), "sent": str(folder / "sent"),
    }  # fmt: skip
    return Setup(**{**fields, **options})
