# From a bare machine with python3 (3.11 or newer) and make: `make demo`, `make test`.
# Everything lives in .venv; it is made again when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
WORKERS ?= $$(( 2 * $$(nproc 2>/dev/null || echo 2) ))  # the tests of Kafka wait for brokers
# bytecode is made of what is imported, when it is: of all that is installed it took half the time
PIP := $(RUN) pip install --quiet --quiet --no-compile --disable-pip-version-check

# Without bytecode on the disk each of hundreds of processes compiles all sources anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test cuda lint types docs bench bench-peers coverage soak reproduce results clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: $(VENV)/.core  ## replay real data and a drifting stream: metrics on screen, a report in build/demo.html
	@sh examples/demo.sh $(VENV)/bin/streamlearn

test: $(VENV)/.dev  ## run the tests
	$(RUN) pytest -n $(WORKERS)

cuda: $(VENV)/.dev  ## run the CUDA kernels in numba's simulator
	NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 $(RUN) pytest -q -W ignore::RuntimeWarning tests/cuda

coverage: $(VENV)/.dev  ## lines that the tests reach, kernels as plain Python, without the brokers' tests
	NUMBA_DISABLE_JIT=1 $(RUN) pytest -q -n auto --cov --cov-report=term -W ignore::RuntimeWarning \
	    -m "not soak and not broker"

soak: $(VENV)/.dev  ## run the long tests alone: millions of events, every kill
	$(RUN) pytest -m soak

lint: $(VENV)/.dev  ## check style and format
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(VENV)/.dev  ## check types
	$(RUN) mypy streamlearn tests

docs: $(VENV)/.dev  ## build the documentation, offline, into build/docs/index.html
	@rm -rf build/docs
	$(RUN) sphinx -W -n --keep-going -q -d build/doctrees docs build/docs

bench: $(VENV)/.dev  ## measure everything: docs/benchmarks.md, docs/costs.md, tables of README.md, plots in build/
	$(RUN) benchmarks

bench-peers: $(VENV)/.dev .venv-peers/.made  ## other packages beside ours on the same stream, in the same run
	$(RUN) benchmarks --only peers

reproduce: $(VENV)/.dev  ## run the tables of the papers again, into docs/reproduction.md
	$(RUN) benchmarks.reproduce

results: $(VENV)/.dev  ## every model on every real stream, into docs/results.md
	$(RUN) benchmarks.every_operator

clean:  ## remove what was built; the next target starts from nothing
	rm -rf $(VENV) .venv-* build dist *.egg-info .coverage .*_cache .hypothesis
	find . -name __pycache__ -type d -exec rm -rf {} +

.venv-peers/.made: benchmarks/peers.txt | $(VENV)/.made
	@$(PYTHON) -m venv --clear .venv-peers
	@while read -r package; do \
	    .venv-peers/bin/python -m pip install --quiet --quiet --disable-pip-version-check "$$package" \
	    || echo "cannot be installed here, and will be skipped: $$package" >&2; done < $<
	@command -v java >/dev/null || echo "there is no java: CapyMOA will be skipped" >&2
	@touch $@

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "There is no $(PYTHON); install Python 3.11 or newer, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "streamlearn needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	        "name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
	    echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@touch $@

$(VENV)/.core: pyproject.toml | $(VENV)/.made
	@echo "Installing streamlearn into $(VENV) (a minute where nothing is cached) ..."
	@$(PIP) --editable ".[report]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	@echo "Installing streamlearn and its tools into $(VENV) (some minutes where nothing is cached) ..."
	@$(PIP) --editable ".[dev]"
	@touch $@ $(VENV)/.core
