# The two commands: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
ROOMS := traces analysis engine loadgen reports dashboards cli
CODE := $(ROOMS) tests benchmarks examples

.PHONY: demo test check format lint types contract docs lock clean

demo: .venv/core
	$(BIN)/servescope demo

# What measures time, or is interrupted, has the machine to itself; all else runs on all cores.
TIMED := $(addprefix tests/loadgen/test_,real_traces.py runner.py calibrate.py resume.py crew.py worker.py exporter.py watch.py) \
	tests/cli/test_interrupt.py tests/dashboards/grafana/test_queries.py

# All cores are busy with tests: threads of numpy's own would only be in their way.
test: export OMP_NUM_THREADS = 1
test: export OPENBLAS_NUM_THREADS = 1
test: .venv/dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal --cov --cov-report= \
		tests $(TIMED:%=--ignore %)
	$(BIN)/python -m pytest --cov --cov-append --cov-report=term --cov-fail-under=90 $(TIMED)

check: format lint types contract test docs

format: .venv/dev
	$(BIN)/ruff format --check $(CODE)

lint: .venv/dev
	$(BIN)/ruff check $(CODE)

types: .venv/dev
	mkdir -p .cache && ln -sfn .. .cache/servescope && $(BIN)/mypy

contract: .venv/dev
	$(BIN)/lint-imports

docs: .venv/dev
	$(BIN)/mkdocs build --strict --quiet

# Everything below .venv is made from pyproject.toml and constraints.txt, and remade when they change.
.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("servescope needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt --editable .
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@

# Renew the lock in a throw-away environment: the newest versions that pyproject.toml allows and that
# are a month old, since fresh releases are sometimes withdrawn.
lock:
	rm -rf .venv/lock && $(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet --upgrade pip
	.venv/lock/bin/python -m pip install --quiet --uploaded-prior-to P30D --group dev .
	{ echo '# Pinned by "make lock": what make demo, make test and CI install.'; \
	  .venv/lock/bin/python -m pip freeze --all --exclude servescope; } > constraints.txt
	rm -rf .venv/lock

clean:
	rm -rf .venv .cache build dist site *.egg-info
