# Two commands do all the set-up: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
PY := .venv/bin/python
export ECOLOGY_HOME ?= $(CURDIR)/.ecology
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help install run test test-slow check format bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

install: .venv/installed ## make .venv with everything pinned

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch .venv/installed

run: install ## the main job on a real model: breed, sign, judge, promote, report
	@$(PY) -m ecology run || [ $$? -eq 1 ]  # 1: nothing was let through, which is a result and no failure of the job

test: install ## the whole test suite but what is marked slow
	$(PY) -m pytest -n 2 -m 'not slow'

test-slow: install ## tests that need the real base model or minutes: kills, concurrent sweeps, careless input
	$(PY) -m pytest -n 2 --dist worksteal -m slow --durations=20

check: install ## format, lint, types, floors, docstrings, documents, tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m interrogate -q ecology
	$(PY) -m pytest -n 2 -m 'not slow'

format: install ## rewrite the sources as check wants them
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: install ## the figures that the README quotes
	for file in benchmarks/*.py; do $(PY) "$$file"; done

clean: ## remove what the other targets made, the state of runs included
	rm -rf .venv .ecology build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache outputs/20*
