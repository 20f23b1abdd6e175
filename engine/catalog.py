"""The models, GPUs and overheads that are known by name: from files of `data/`, and the user's.

A user's folder holds files of the same names and shape: $SERVESCOPE_DATA, or servescope/ below
$XDG_CONFIG_HOME or ~/.config. What it says of a name replaces what is built in.
"""

import os
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import tomli_w
from msgspec import Meta

from servescope.traces.errors import InputError, OutputFailed

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(ge=0)]
Entry = TypeVar("Entry")


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shape of a transformer: grouped-query attention, and an MLP or several experts.

    Each of the `experts` is an MLP of `intermediate`; a token goes through `active_experts` of
    them. Layers keep `weight_bits` bits per weight; embeddings, activations, keys and values are
    of `dtype_bytes`.
    """

    layers: Count
    hidden: Count
    intermediate: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    vocabulary: Count
    context_tokens: Count
    gated: bool = True  # the MLP has three matrices (SwiGLU), else two
    experts: Count = 1
    active_experts: Count = 1
    weight_bits: Positive = 16
    dtype_bytes: Count = 2

    def __post_init__(self) -> None:
        if self.active_experts > self.experts:
            raise ValueError("active_experts cannot be more than experts")

    @property
    def attention_weights(self) -> int:
        """Parameters that every token of a layer goes through: the projections and the router."""
        router = self.hidden * self.experts if self.experts > 1 else 0
        return 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads) + router

    @property
    def expert_weights(self) -> int:
        """Parameters of one expert of a layer; of the MLP where there is only one."""
        return (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def layer_weights(self) -> int:
        """Parameters of one layer's linear operators, all experts included."""
        return self.attention_weights + self.experts * self.expert_weights

    @property
    def active_weights(self) -> int:
        """Parameters of one layer that compute one token."""
        return self.attention_weights + self.active_experts * self.expert_weights

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of one weight of a layer."""
        return self.weight_bits / 8

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights: the layers, the embedding and an untied LM head."""
        embeddings = 2 * self.vocabulary * self.hidden * self.dtype_bytes
        return self.layers * self.layer_weights * self.bytes_per_weight + embeddings

    def idle_experts(self, tokens: float) -> float:
        """Return how many experts of a layer no token of a batch is sent to, on average.

        Each token is taken to choose its experts evenly and on its own.
        """
        idle: float = (1 - self.active_experts / self.experts) ** tokens
        return self.experts * idle

    def kv_bytes_per_token(self, tp: int) -> int:
        """Bytes of keys and values that one GPU of `tp` keeps for a token."""
        heads = max(1, self.kv_heads // tp)  # with more GPUs than KV heads, heads are copied
        return 2 * self.layers * heads * self.head_dim * self.dtype_bytes


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a message between GPUs takes: a latency (s) and a bandwidth (bytes/s)."""

    latency_s: Seconds
    bandwidth: Positive


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GPU as the step-time formula sees it; `data/gpus.toml` explains and sources each field."""

    memory_bytes: Positive
    bandwidth: Positive
    peak_flops: Positive
    mbu: Share
    mfu: Share
    p: Annotated[float, Meta(ge=1)]
    layer_s: Seconds
    small_ops_s: Seconds
    small_ops_s_per_element: Seconds
    kv_mbu: Share
    attention_mfu: Share
    host_bandwidth: Positive
    all_reduce: dict[int, Link]
    send: Link


class Overhead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine's own software takes (s); `data/overheads.toml` explains and sources it.

    An `asynchronous` engine plans and launches a step while the one before runs, as
    `servescope.engine.host` says; what a launch takes counts only there.
    """

    step_s: Seconds
    sequence_s: Seconds = 0.0
    asynchronous: bool = False
    frontend_s: Seconds = 0.0
    graph_launch_s: Seconds = 0.0
    eager_launch_s: Seconds = 0.0
    graph_tokens: Count = 512


PLAIN = "plain"  # the overhead where nothing is said


def models() -> dict[str, Model]:
    """Return the known models by name; raises InputError for a user's file that is wrong."""
    return _table("models.toml", Model, data_folder())


def gpus() -> dict[str, Gpu]:
    """Return the known GPUs by name; raises InputError for a user's file that is wrong."""
    return _table("gpus.toml", Gpu, data_folder())


def overheads() -> dict[str, Overhead]:
    """Return the known overheads by name; raises InputError for a user's file that is wrong."""
    return _table("overheads.toml", Overhead, data_folder())


def data_folder() -> Path:
    """Return where the user's own models, GPUs and overheads are, if there are any."""
    asked = os.environ.get("SERVESCOPE_DATA", "").strip()
    if asked:
        return Path(asked).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME", "").strip()
    return (Path(home) if home else Path.home() / ".config") / "servescope"


def require_new(name: str, folder: Path) -> None:
    """Raise InputError when a GPU or an overhead of that name is known, or stands in a folder."""
    taken = [
        each
        for file, kind in (("gpus.toml", Gpu), ("overheads.toml", Overhead))
        for each in _table(file, kind, folder)
    ]
    if _plain(name) in map(_plain, taken):
        raise InputError(f"There is a GPU or an overhead named {name!r}.", "Choose another name.")


def add(file: Path, name: str, entry: msgspec.Struct) -> None:
    """Add an entry at the end of a user's file; raises OutputFailed if it cannot be written."""
    text = tomli_w.dumps({name: msgspec.to_builtins(entry, str_keys=True)})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as end:
            end.write(f"\n{text}" if end.tell() else text)
    except OSError as error:
        raise OutputFailed.of(file, error) from None
    _table.cache_clear()


def find_model(name: str) -> Model:
    """Return the model of that name, or say which names are near."""
    return models()[known(name, models(), "a model")]


def find_gpu(name: str) -> Gpu:
    """Return the GPU of that name, or say which names are near."""
    return gpus()[known(name, gpus(), "a GPU")]


def find_overhead(name: str) -> Overhead:
    """Return the overhead of that name, or say which names are near."""
    return overheads()[known(name, overheads(), "an overhead")]


def known(name: str, names: Iterable[str], kind: str) -> str:
    """Return `name` as `names` spells it, or raise InputError when it is none.

    Case does not count, nor whether words are joined by - or _.
    """
    spelled = {_plain(each): each for each in names}
    if _plain(name) in spelled:
        return spelled[_plain(name)]
    near = get_close_matches(_plain(name), spelled, n=3, cutoff=0.3) or sorted(spelled)
    raise InputError(
        f"{name!r} is not {kind}.", f"Near it: {', '.join(spelled[each] for each in near)}."
    )


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


@cache
def _table(name: str, kind: type[Entry], folder: Path) -> dict[str, Entry]:
    built_in = (files("servescope.engine") / "data" / name).read_text()
    table = _entries(built_in, kind, name)
    file = folder / name
    if file.is_file():
        table |= _entries(file.read_text(), kind, str(file))
    return table


def _entries(text: str, kind: type[Entry], file: str) -> dict[str, Entry]:
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file} is not TOML: {error}.", "Correct it, or move it away.") from None
    table = {}
    for name, entry in entries.items():
        try:
            # TOML has string keys only: strict=False reads the "2" of all_reduce.2 as a number.
            table[name] = msgspec.convert(entry, kind, strict=False)
        except msgspec.ValidationError as error:
            what = str(error).replace("`$.", f"`{name}.").replace("`$`", f"`{name}`")
            where = "" if name in what else f" - at `{name}`"
            raise InputError(
                f"{file} cannot be used: {what}{where}.",
                "Correct it; `servescope engine` shows the built-in ones, which have all fields.",
            ) from None
    return table
