# Everything runs from .venv, made here from pyproject.toml and the pinned constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
WEIGHTS ?=
EXTRAS ?= cpu,export,dev
RUN_EXTRAS ?= cpu
CACHE ?=

.PHONY: setup demo test test-slow test-faults test-gpu compose-test lint clean

# Without bytecode every process compiles PyTorch anew, which takes longer than importing it.
unexport PYTHONDONTWRITEBYTECODE

INSTALL = $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(INSTALL) -e ".[$(EXTRAS)]"
	touch .venv/.runs $@

# What the service needs to run: half of the time of `setup`, which also brings what exports and tests need. Bytecode
# comes with the first start, for what that imports.
.venv/.runs: pyproject.toml constraints.txt
	$(INSTALL) --no-compile -e ".[$(RUN_EXTRAS)]"
	touch $@

demo: .venv/.runs
	$(BIN)/reid demo $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)")

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow --timeout 1800

# FAULTS_SEED and FAULTS_ROUNDS repeat a run, or a part of it.
test-faults: setup
	$(BIN)/python -m pytest -m faults --timeout 21600 -s

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

# The stack on a real Docker engine. Ends with status 77 where none can be had. CACHE keeps stand-ins of base images.
compose-test: setup
	$(BIN)/python -m tests.compose $(if $(CACHE),--cache "$(CACHE)")

lint: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info demo-out
