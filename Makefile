# calllab: every target prepares what it needs; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench soak scenarios pages check format lab serve lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"calllab needs Python 3.11 or newer, this is {v[0]}.{v[1]}: try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP) ## prepare .venv from the lock file (the command is .venv/bin/calllab)

demo: $(STAMP) ## one real call, broken on purpose, recorded and explained (about a minute)
	$(BIN)/calllab demo

check: $(STAMP) ## lint, types, layers, clean notebooks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/nbstripout --verify notebooks/*.ipynb

test: check ## everything: check, then the whole test suite, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

bench: $(STAMP) ## measure speed and memory, as ratios within one run (about fifteen minutes)
	$(BIN)/python -m tests.benchmarks

soak: $(STAMP) ## every scenario twice, and a thousand random calls: too long for make test (about thirteen minutes)
	$(BIN)/pytest -m soak

scenarios: $(STAMP) ## every scenario in virtual time, and whether all that it expects holds (about four minutes)
	$(BIN)/calllab run --all

pages: $(STAMP) ## write the generated pages of docs anew
	$(BIN)/python -m tests.rtc.conformance.page

format: $(STAMP) ## put the code into its standard form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/nbstripout notebooks/*.ipynb

lab: $(STAMP) ## JupyterLab on the notebooks
	$(BIN)/calllab lab

serve: $(STAMP) ## the relay, accounts and TURN service on its own
	$(BIN)/calllab serve

lock: ## write requirements.lock anew from pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements.lock

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache runs
