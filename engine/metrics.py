"""The server's metrics in Prometheus' text format, under the names vLLM gives them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from servescope.engine.engine import Engine
from servescope.engine.kvcache import BLOCK_TOKENS
from servescope.engine.request import Request

# Upper bounds in seconds, those of vLLM's histograms.
FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40,
    80, 160, 640, 2560,
)  # fmt: skip
INTER_TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
REQUEST_S = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
REQUEST_TOKENS = tuple(step * 10**zeros for zeros in range(6) for step in (1, 2, 5))
BEHIND_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)


class Histogram:
    """Counts of observations by upper bound, their sum and the largest."""

    __slots__ = ("bounds", "counts", "max", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(map(float, bounds))
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.max = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        self.max = max(self.max, value)

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the upper bound of the bucket that holds this quantile, the largest at most."""
        below, wanted = 0, share * self.count
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            below += count
            if below >= wanted > 0:
                return min(bound, self.max)
        return 0.0


class Latencies:
    """The histograms of one server's requests (s, tokens), fed with those that got a token."""

    def __init__(self) -> None:
        self.first_token = Histogram(FIRST_TOKEN_S)
        self.inter_token = Histogram(INTER_TOKEN_S)
        self.per_output_token = Histogram(INTER_TOKEN_S)
        self.end_to_end = Histogram(REQUEST_S)
        self.queue = Histogram(REQUEST_S)
        self.prefill = Histogram(REQUEST_S)
        self.decode = Histogram(REQUEST_S)
        self.inference = Histogram(REQUEST_S)
        self.prompt_tokens = Histogram(REQUEST_TOKENS)
        self.generation_tokens = Histogram(REQUEST_TOKENS)

    def observe(self, emitted: Iterable[Request]) -> None:
        """Take in one step's requests, right after the step."""
        for request in emitted:
            if request.generated == 1:
                self.first_token.observe(request.token_s[0] - request.arrival_s)
                self.queue.observe((request.first_scheduled_s or 0.0) - request.arrival_s)
            else:
                self.inter_token.observe(request.gap_s)
            if request.done:
                times = request.token_s
                begun_s = request.first_scheduled_s or 0.0
                self.end_to_end.observe(times[-1] - request.arrival_s)
                self.prefill.observe(times[0] - begun_s)
                self.decode.observe(times[-1] - times[0])
                self.inference.observe(times[-1] - begun_s)
                self.prompt_tokens.observe(request.input_tokens)
                self.generation_tokens.observe(request.generated)
                if len(times) > 1:
                    mean = (times[-1] - times[0]) / (len(times) - 1)
                    self.per_output_token.observe(mean)


def exposition(
    engines: Sequence[Engine],
    inbox: int,
    latencies: Latencies,
    behind: Histogram,
    model: str,
    faults: Mapping[str, int] | None = None,
) -> str:
    """Return the text that `GET /metrics` answers, a row an engine; latencies are those of all.

    `inbox` counts who has arrived since the step on its way began: the first engine's, until it is
    known whose they are.
    """
    model = model.replace("\\", "\\\\").replace('"', '\\"')
    lines: list[str] = []
    for name, kind, told in _OF_ENGINES:
        lines.append(f"# TYPE {name} {kind}")
        for engine in engines:
            waiting = inbox if name == WAITING and engine is engines[0] else 0
            labels = f'engine="{engine.number}",model_name="{model}"'
            lines.append(f"{name}{{{labels}}} {told(engine) + waiting}")
    name = "vllm:request_success_total"
    lines.append(f"# TYPE {name} counter")
    for engine in engines:
        counters, labels = engine.counters, f'engine="{engine.number}",model_name="{model}"'
        for reason, value in (("length", counters.finished), ("abort", counters.aborted)):
            lines.append(f'{name}{{{labels},finished_reason="{reason}"}} {value}')
    name = "vllm:cache_config_info"
    lines.append(f"# TYPE {name} gauge")
    for engine in engines:
        labels = f'engine="{engine.number}",model_name="{model}",block_size="{BLOCK_TOKENS}"'
        prefixes = "True" if engine.pool.prefixes is not None else "False"
        labels += f',enable_prefix_caching="{prefixes}",num_gpu_blocks="{engine.pool.total}"'
        lines.append(f"{name}{{{labels}}} 1")
    labels = f'engine="0",model_name="{model}"'
    lines += ("# TYPE servescope_engine_behind_max_seconds gauge",
              f"servescope_engine_behind_max_seconds{{{labels}}} {behind.max}")  # fmt: skip
    if faults:
        lines.append("# TYPE servescope_faults_total counter")
        for kind, count in sorted(faults.items()):
            lines.append(f'servescope_faults_total{{{labels},kind="{kind}"}} {count}')
    for name, histogram in (
        ("vllm:time_to_first_token_seconds", latencies.first_token),
        ("vllm:inter_token_latency_seconds", latencies.inter_token),
        ("vllm:request_time_per_output_token_seconds", latencies.per_output_token),
        ("vllm:e2e_request_latency_seconds", latencies.end_to_end),
        ("vllm:request_queue_time_seconds", latencies.queue),
        ("vllm:request_prefill_time_seconds", latencies.prefill),
        ("vllm:request_decode_time_seconds", latencies.decode),
        ("vllm:request_inference_time_seconds", latencies.inference),
        ("vllm:request_prompt_tokens", latencies.prompt_tokens),
        ("vllm:request_generation_tokens", latencies.generation_tokens),
        ("servescope_engine_behind_seconds", behind),
    ):
        lines += _histogram_lines(name, histogram, labels)
    return "\n".join(lines) + "\n"


WAITING = "vllm:num_requests_waiting"
_OF_ENGINES: tuple[tuple[str, str, Callable[[Engine], float]], ...] = (
    ("vllm:num_requests_running", "gauge", lambda engine: engine.running),
    (WAITING, "gauge", lambda engine: engine.waiting),
    ("vllm:kv_cache_usage_perc", "gauge", lambda engine: engine.pool.usage),
    ("vllm:num_preemptions_total", "counter", lambda engine: engine.counters.preemptions),
    ("vllm:prompt_tokens_total", "counter", lambda engine: engine.counters.prompt_tokens),
    ("vllm:generation_tokens_total", "counter", lambda engine: engine.counters.generation_tokens),
    ("vllm:prefix_cache_queries_total", "counter", lambda engine: engine.counters.queried_tokens),
    ("vllm:prefix_cache_hits_total", "counter", lambda engine: engine.counters.found_tokens),
)


def _histogram_lines(name: str, histogram: Histogram, labels: str) -> Iterator[str]:
    yield f"# TYPE {name} histogram"
    below = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        below += count
        yield f'{name}_bucket{{{labels},le="{bound}"}} {below}'
    yield f"{name}_sum{{{labels}}} {histogram.sum}"
    yield f"{name}_count{{{labels}}} {below}"
