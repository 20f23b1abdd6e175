"""`servescope engine`: the models and GPUs that the emulated engine knows, and one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servescope.cli import console
from servescope.cli.options import PP, TP, ContextTokens, Gpu, Json, Model, Overhead, Params, params

if TYPE_CHECKING:
    from servescope.engine.calibrate import Calibration, Error, Part

app = typer.Typer(
    no_args_is_help=True,
    help="The models, GPUs and overheads that the emulated engine knows, and fits to your own.",
)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models whose shape is known.

    Example:  servescope engine models
    """
    from servescope.engine import models

    def row(model: Any) -> dict[str, str]:
        return {
            "layers": f"{model.layers}",
            "hidden": f"{model.hidden}",
            "KV heads": f"{model.kv_heads}",
            "weights GB": f"{model.weight_bytes / 1e9:.1f}",
            "KV kB/token": f"{model.kv_bytes_per_token(1) / 1e3:.0f}",
            "context": f"{model.context_tokens}",
        }

    _list(models(), row, "models.toml", as_json)


@app.command()
def gpus(as_json: Json = False) -> None:
    """List the GPUs whose figures are known.

    Example:  servescope engine gpus
    """
    from servescope.engine import gpus

    def row(gpu: Any) -> dict[str, str]:
        return {
            "memory GB": f"{gpu.memory_bytes / 1e9:.0f}",
            "TB/s": f"{gpu.bandwidth / 1e12:.2f}",
            "TFLOP/s": f"{gpu.peak_flops / 1e12:.0f}",
            "of them read": f"{gpu.mbu:.0%}",
            "computed": f"{gpu.mfu:.0%}",
            "tp": ", ".join(["1", *map(str, sorted(gpu.all_reduce))]),
        }

    _list(gpus(), row, "gpus.toml", as_json)


@app.command()
def overheads(as_json: Json = False) -> None:
    """List what the software of an engine takes, by name.

    Example:  servescope engine overheads
    """
    from servescope.engine import overheads

    def row(overhead: Any) -> dict[str, str]:
        return {
            "a step, ms": f"{overhead.step_s * 1e3:.2f}",
            "a request in it, us": f"{overhead.sequence_s * 1e6:.1f}",
            "front end, ms": f"{overhead.frontend_s * 1e3:.1f}",
            "asynchronous": "yes" if overhead.asynchronous else "no",
        }

    _list(overheads(), row, "overheads.toml", as_json)


@app.command()
def calibrate(
    run: Annotated[list[Path], typer.Argument(help="Run directories of one real endpoint.")],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            "--held-out",
            help="Runs to check on that nothing is fitted to; without any, the later half of each.",
        ),
    ] = None,
    model: Model = "Llama-3.1-8B",
    gpu: Gpu = "H100",
    tp: TP = 1,
    pp: PP = 1,
    system: Annotated[str, typer.Option(help="How the endpoint schedules.")] = "vllm_v1",
    param: Params = None,
    overhead: Overhead = "vllm-0.26",
    context_tokens: ContextTokens = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the fitted GPU and overhead, to use them by.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of gpus.toml and overheads.toml; your own one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit the cost model to measured runs, and say how wrong it is on what it has not seen.

    The fit begins at --gpu and --overhead. With --name, what was fitted is added to your own GPUs
    and overheads.

    Example:  servescope engine calibrate runs/a runs/b --held-out runs/c --gpu h200 --name mine

    Example:  servescope simulate azure:sample --gpu mine --overhead mine
    """
    from servescope.engine import find_gpu, find_model, find_overhead, make_system
    from servescope.engine.calibrate import Part, Setup, halves, measured
    from servescope.engine.calibrate import calibrate as fit
    from servescope.engine.catalog import add, data_folder, require_new
    from servescope.traces import Run

    folder = out or data_folder()
    if name is not None:
        require_new(name, folder)
    setup = Setup(
        find_model(model), find_gpu(gpu), find_overhead(overhead),
        make_system(system, params(param)), tp, pp, context_tokens,
    )  # fmt: skip
    seen: list[Part] = []
    checked: list[Part] = []
    for path in run:
        calls = measured(Run.open(path))
        if held_out:
            seen.append(Part(str(path), calls, slice(None)))
        else:
            first, second = halves(str(path), calls)
            seen.append(first)
            checked.append(second)
    for path in held_out or ():
        checked.append(Part(str(path), measured(Run.open(path)), slice(None)))
    with console.counting("Fitting") as told:
        found = fit(setup, seen, checked, told)
    if as_json:
        console.json(_json(found))
    else:
        _tell(found)
    if name is not None:
        add(folder / "gpus.toml", name, found.gpu)
        add(folder / "overheads.toml", name, found.overhead)
        console.say(f"Added {name} to {folder / 'gpus.toml'} and overheads.toml.")


def _list(entries: Mapping[str, Any], row: Any, file: str, as_json: bool) -> None:
    import msgspec

    from servescope.engine.catalog import data_folder

    if as_json:
        console.json({name: msgspec.to_builtins(entry) for name, entry in entries.items()})
        return
    rows = [{"name": name, **row(entry)} for name, entry in entries.items()]
    console.table(list(rows[0]), [list(each.values()) for each in rows])
    console.say(f"Your own go into {data_folder() / file}, in the shape of --json's.")


def _tell(found: Calibration) -> None:
    console.table(
        ["coefficient", "began", "fitted"],
        [
            [name, f"{found.began[name]:.4g}", f"{value:.4g}"]
            for name, value in found.fitted.items()
        ],
    )
    for title, errors in (("fitted to", found.seen), ("held out", found.held_out)):
        console.table([title, "measured", "emulated", "error"], [_row(error) for error in errors])


def _row(error: Error) -> list[str]:
    name = f"{error.part}: {error.measure.upper()} p{error.quantile * 100:g}"
    measured, emulated = (f"{s * 1e3:.4g} ms" for s in (error.measured_s, error.emulated_s))
    return [name, measured, emulated, f"{error.relative:+.1%}"]


def _json(found: Calibration) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(found, str_keys=True)
    for part in ("seen", "held_out"):
        for row, error in zip(plain[part], getattr(found, part), strict=True):
            row["relative"] = error.relative
    return plain
