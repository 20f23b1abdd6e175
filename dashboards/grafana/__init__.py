"""Boards for Grafana, and the folder that shows them with a Prometheus of one's own."""

from servescope.dashboards.grafana import (
    compare,
    gpu,
    llama_cpp,
    load_generator,
    sglang,
    vllm,
)
from servescope.dashboards.grafana.board import Board, Panel, Row
from servescope.dashboards.grafana.exports import write
from servescope.dashboards.grafana.promql import Query

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        compare.BOARD,
        load_generator.BOARD,
        vllm.BOARD,
        sglang.BOARD,
        llama_cpp.BOARD,
        gpu.BOARD,
    )
}

__all__ = ["BOARDS", "Board", "Panel", "Query", "Row", "write"]
