"""Runs llama.cpp's own server from the xllamacpp wheel: `python llama_server.py MODEL PORT`.

A server that nobody here wrote, on a random-weight model of 1.6 MB. It prints one line when it
listens.
"""

import sys
import time

import xllamacpp


def main(model: str, port: int) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = 8, 8 * 2048
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 8
    params.endpoint_metrics = True
    params.warmup = params.fit_params = False
    params.offline = True
    server = xllamacpp.Server(params)
    sys.stdout.write(f"listening {server.listening_address}\n")
    sys.stdout.flush()
    time.sleep(300)  # bounded: no test needs it longer


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
