# What the README says, one target each. `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEPLOYMENT ?= examples/smollm2.yaml
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv dev demo test lint format typecheck bench clean

help: ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

venv: $(VENV)/.runtime ## Create .venv with the package, quantization and the CPU engine.

dev: $(VENV)/.dev ## The same with the tools of development.

demo: $(VENV)/.runtime ## Build, deploy, validate and measure a small model for real.
	@build_scripts/demo.sh $(BIN)/toolkit $(DEPLOYMENT)

test: lint typecheck ## Everything that has to pass: style, types, layers, all tests.
	$(BIN)/python -m pytest

lint: $(VENV)/.dev ## Style and import layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Put the style right.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.dev ## mypy, strict.
	$(BIN)/mypy

bench: $(VENV)/.runtime ## Measure the deployment (DEPLOYMENT=file.yaml).
	$(BIN)/toolkit bench $(DEPLOYMENT)

clean: ## Remove what this file made.
	rm -rf $(VENV) .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamps are newer than what decides the installation, or it is done again.
$(VENV)/bin/python:
	@build_scripts/check_machine.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e ".[quantize,cpu]"
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP_INSTALL) -e ".[quantize,cpu,traces,dev]"
	@touch $@
