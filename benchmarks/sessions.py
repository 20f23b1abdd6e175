"""How long a folder of agentic sessions takes to load. Goal: the 360 files of WEKA under 10 s.

python benchmarks/sessions.py FOLDER
"""

import resource
import sys
import time

from servescope.traces import load

begun = time.perf_counter()
trace = load(sys.argv[1])
took_s = time.perf_counter() - begun
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
files = trace.provenance.files or 1
print(f"{trace.provenance.rows_kept:,} calls of {files} files: {took_s:.2f} s, {peak_mb:.0f} MB")
