# What a person runs here. Each target sets up what it needs in .venv, with the versions of
# constraints.txt; nothing but packages is fetched.

SHELL  := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN    := .venv/bin
comma  := ,

# Installs this package with extras; shows the large downloads, and pip's own words if it fails.
define install
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	    --constraint constraints.txt --editable '$(1)' 2> .venv/pip.log \
	    | { grep --line-buffered -E '[0-9] [MG]B\)$$' || true; } \
	    || { cat .venv/pip.log >&2; exit 1; }
endef

export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check ruff mypy layers architecture fmt bench chaos docs fuzz install clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

demo: .venv/.installed-demo ## train a small model with RL on Ray and show what it learned
	@$(BIN)/tinker-ray demo

test: .venv/.installed-dev ## the whole suite but benchmarks and long chaos
	@$(BIN)/pytest

check: ruff mypy layers architecture ## style, types, layers and architecture
	@echo "make check: all good"

ruff: .venv/.installed-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { $(BIN)/ruff format --check; exit 1; }

mypy: .venv/.installed-dev
	@$(BIN)/mypy

layers: .venv/.installed-dev
	@$(BIN)/lint-imports --no-logo --no-cache

architecture: .venv/.installed-dev
	@$(BIN)/pytest --quiet tests/architecture

fmt: .venv/.installed-dev ## format, and mend what ruff can mend
	@$(BIN)/ruff format --quiet
	@$(BIN)/ruff check --fix

bench: .venv/.installed-dev ## the benchmarks; they print and write what they measure
	@$(BIN)/python -m tests.bench.bench_engine_sampling --model tinker_ray/engine/tiny_adder/model --out tests/bench/results/engine_sampling.json
	@$(BIN)/python -m tests.bench.bench_latency --out tests/bench/results/latency.json
	@$(BIN)/python -m tests.bench.bench_import --out tests/bench/results/import.json
	@$(BIN)/python -m tests.bench.bench_sampling_clients --out tests/bench/results/sampling_clients.json
	@$(BIN)/python -m tests.bench.bench_training_clients --out tests/bench/results/training_clients.json
	@$(BIN)/python -m tests.bench.bench_in_flight --out tests/bench/results/in_flight.json
	@$(BIN)/python -m tests.bench.bench_rollouts --local --out tests/bench/results/rollouts.json
	@$(BIN)/python -m tests.bench.bench_limits --out tests/bench/results/limits.json
	@$(BIN)/python -m tests.bench.bench_labels --out tests/bench/results/labels.json
	@$(BIN)/python -m tests.bench.bench_kills --out tests/bench/results/kills.json
	@$(BIN)/python -m tests.bench.bench_training_kills --out tests/bench/results/training_kills.json
	@$(BIN)/python -m tests.bench.sim_scale --out tests/bench/results/scale.json

chaos: .venv/.installed-dev ## the long chaos tests too; reproducible from the seed that they print
	@$(BIN)/pytest -m "chaos or soak" tests/chaos

docs: .venv/.installed-dev ## write docs/compatibility.md from the code and upstream's record
	@$(BIN)/python -m docs.generate_compatibility

fuzz: .venv/.installed-dev ## thousands of malformed requests for the engine
	@$(BIN)/pytest -m soak tests/contract/engine/test_fuzz.py

install: .venv/.installed-dev ## everything for development

clean: ## remove the environment, caches and build products; keeps runs/
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@echo "Creating .venv with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tinker-ray needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv .venv

.venv/.installed-demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing tinker-ray with what the demo needs (two to four minutes the first time)"
	$(call install,.[engine$(comma)rl])
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing tinker-ray with what development needs (two to four minutes the first time)"
	$(call install,.[dev])
	@touch .venv/.installed-demo $@
