# Every target makes the virtual environment from the lock if it is missing.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo story test test-studies test-services test-consumer check bench lock lock-check clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Run the whole study on a phantom cohort (about 8 minutes on 2 cores)
	PATH="$(abspath $(BIN)):$$PATH" bash infra/demo_cohorts.sh demo/data 1
	$(BIN)/padflow run phantom --home demo --data demo/data

story: $(STAMP) ## A champion, new scans, a better and a worse challenger, and the way back, on phantoms
	PATH="$(abspath $(BIN)):$$PATH" bash infra/story.sh story

test: $(STAMP) check ## Pass the tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=15

test-studies: $(STAMP) ## Run whole studies on small phantoms: two published ones, on S3, with maps (minutes each)
	$(BIN)/python -m pytest -q -m studies --durations=10 tests/flows tests/infra tests/studies

test-consumer: $(STAMP) ## Load a registered model in a fresh environment of its own requirements (downloads torch)
	$(BIN)/python -m tests.fresh_consumer

test-services: $(STAMP) ## Retrain by schedule on PostgreSQL, MLflow and Prefect servers (minutes; installs PostgreSQL as root)
	@if bash tests/services/postgresql.sh; then $(BIN)/python -m pytest -q -m services tests/services; \
	else echo "SKIPPED: make test-services tested nothing, since PostgreSQL cannot be had on this machine (see above)."; fi

check: $(STAMP) ## Format, lint, types and import contracts, in under a minute
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP) ## Measure speed, scale and the demo's planted effects; BENCH="fanout rerun" runs those alone
	$(BIN)/python -m tests.benchmarks $(BENCH)

lock: $(STAMP) ## Resolve pyproject.toml into requirements.lock, for every supported Python
	$(BIN)/python -m infra.lock write
	$(BIN)/python -m infra.lock check

clean: ## Remove the virtual environment, the demo and the benchmark's cohorts
	rm -rf $(VENV) demo bench story
