"""Look at a trace: where it came from, what the traffic is like, and one hour of it."""

from servescope.analysis import describe
from servescope.traces import inspect, load

trace = load("burstgpt:sessions")  # or the path of a file of your own
print(f"{trace.provenance.source}: {trace.provenance.attribution}")

found = describe(trace)
print(f"{found.calls} calls in {found.programs} programs over {found.span_s:,.0f} s")
for what, spread in (("input", found.input_tokens), ("output", found.output_tokens)):
    if spread:
        print(f"{what} tokens: mean {spread.mean:.0f}, p50 {spread.p50:.0f}, p99 {spread.p99:.0f}")
for doubt in inspect(trace).doubts:
    print(f"doubt: {doubt}")

hour = trace.window(0, 3600)  # a new trace; the first one is unchanged
print(f"first hour: {hour.collect().height} calls, {'; '.join(hour.provenance.steps)}")
