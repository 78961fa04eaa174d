# Every target sets up what it needs by itself; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh

BIN := .venv/bin
# One more than small machines have cores: a third of the time, tests wait for browsers, databases and deadlines.
WORKERS ?= 3
# For instance: make test ARGS="-k budget -x"
ARGS ?=
# Some containers forbid bytecode files; then each of the many programs that tests start compiles all it imports anew,
# which takes two thirds of its time. Here there is a place for them, and `make clean` removes them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test lint format bench proof docs docs-site clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## Make the virtual environment, install locked dependencies, find or install a browser.
	@sh scripts/setup

demo: setup ## Run the demo: real Chromium, a budget that runs out, the report. ARGS="--help" shows options.
	@$(BIN)/tabkeeper demo $(ARGS)

test: setup ## Run all tests, real Chromium and PostgreSQL included.
	@sh scripts/clients
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: setup ## Check format, style, types, layers, migrations and generated documents.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/check_migrations.py
	@$(BIN)/python scripts/gen_config_docs.py --check
	@$(BIN)/python scripts/gen_provider_docs.py --check
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -W ignore -m mkdocs build --quiet --strict --site-dir site

format: setup ## Format the code and apply the safe fixes.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: ## Run the benchmarks beside their peers; results go to benchmarks/results/.
	@sh scripts/setup bench
	@$(BIN)/python -m benchmarks $(ARGS)

proof: setup ## Run the long proofs at full count; results go to benchmarks/results/.
	@sh scripts/clients browser-use
	@$(BIN)/python scripts/proof.py $(ARGS)

docs: setup ## Write the generated documents again.
	@$(BIN)/python scripts/gen_config_docs.py
	@$(BIN)/python scripts/gen_provider_docs.py

docs-site: setup ## Build the documentation as a site in site/; a warning is an error.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -W ignore -m mkdocs build --quiet --strict --site-dir site

clean: ## Remove the virtual environment, caches and build output.
	rm -rf .venv build dist site demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
