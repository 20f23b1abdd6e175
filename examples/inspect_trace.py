"""Look at a trace: where it came from, what the traffic is like, and one hour of it."""

from servescope.analysis import characterize
from servescope.analysis.summary import sentences
from servescope.traces import inspect, load

trace = load("burstgpt:sessions")  # or the path of a file of your own
print(f"{trace.provenance.source}: {trace.provenance.attribution}")

found = characterize(trace)
for sentence in sentences(found):
    print(sentence.text)
print(found.tables["turns"].head(3))
for doubt in inspect(trace).doubts:
    print(f"doubt: {doubt}")

hour = trace.window(0, 3600)  # a new trace; the first one is unchanged
print(f"first hour: {hour.collect().height} calls, {'; '.join(hour.provenance.steps)}")
