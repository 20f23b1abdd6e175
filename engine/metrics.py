"""The server's metrics in Prometheus' text format, under the names vLLM gives them."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from servescope.engine.engine import Engine
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
    """The latency histograms of one server (s), fed with the requests that got a token."""

    def __init__(self) -> None:
        self.first_token = Histogram(FIRST_TOKEN_S)
        self.inter_token = Histogram(INTER_TOKEN_S)
        self.per_output_token = Histogram(INTER_TOKEN_S)
        self.end_to_end = Histogram(REQUEST_S)
        self.queue = Histogram(REQUEST_S)

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
                self.end_to_end.observe(times[-1] - request.arrival_s)
                if len(times) > 1:
                    mean = (times[-1] - times[0]) / (len(times) - 1)
                    self.per_output_token.observe(mean)


def exposition(
    engine: Engine, waiting: int, latencies: Latencies, behind: Histogram, model: str
) -> str:
    """Return the text that `GET /metrics` answers.

    `waiting` counts the queue and who has arrived since the step on its way began.
    """
    labels = f'engine="0",model_name="{model}"'
    counters = engine.counters
    gauges = (
        ("vllm:num_requests_running", engine.running),
        ("vllm:num_requests_waiting", waiting),
        ("vllm:kv_cache_usage_perc", engine.pool.usage),
        ("servescope_engine_behind_max_seconds", behind.max),
    )
    totals = (
        ("vllm:num_preemptions_total", counters.preemptions),
        ("vllm:prompt_tokens_total", counters.prompt_tokens),
        ("vllm:generation_tokens_total", counters.generation_tokens),
    )
    histograms = (
        ("vllm:time_to_first_token_seconds", latencies.first_token),
        ("vllm:inter_token_latency_seconds", latencies.inter_token),
        ("vllm:request_time_per_output_token_seconds", latencies.per_output_token),
        ("vllm:e2e_request_latency_seconds", latencies.end_to_end),
        ("vllm:request_queue_time_seconds", latencies.queue),
        ("servescope_engine_behind_seconds", behind),
    )
    lines: list[str] = []
    for name, value in gauges:
        lines += (f"# TYPE {name} gauge", f"{name}{{{labels}}} {value}")
    for name, value in totals:
        lines += (f"# TYPE {name} counter", f"{name}{{{labels}}} {value}")
    name = "vllm:request_success_total"
    lines.append(f"# TYPE {name} counter")
    for reason, value in (("length", counters.finished), ("abort", counters.aborted)):
        lines.append(f'{name}{{{labels},finished_reason="{reason}"}} {value}')
    for name, histogram in histograms:
        lines += _histogram_lines(name, histogram, labels)
    return "\n".join(lines) + "\n"


def _histogram_lines(name: str, histogram: Histogram, labels: str) -> Iterator[str]:
    yield f"# TYPE {name} histogram"
    below = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        below += count
        yield f'{name}_bucket{{{labels},le="{bound}"}} {below}'
    yield f"{name}_sum{{{labels}}} {histogram.sum}"
    yield f"{name}_count{{{labels}}} {below}"
