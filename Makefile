# Every command of the project; `make` alone lists them. What a command needs is installed on first use, and again
# when a lock changes: .venv/.runtime marks an environment that runs the pipeline, .venv/.dev one that checks it,
# .venv/.browser one that tests it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Each run is a process of its own: without byte code it compiles every import again, which doubles its start.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# dagster.yaml turns telemetry off; this also does where another DAGSTER_HOME is used.
export DAGSTER_DISABLE_TELEMETRY := yes

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import ensurepip, venv' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
# --no-deps: the locks are complete, and pip's hash mode stumbles over an extra that a dependency asks for.
INSTALL := $(BIN)/pip install --quiet --no-deps
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	--python-version 3.11
LOCKED_LINE := ^([a-z0-9._-]+==[^ ]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?)$$

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.runtime ## See it work: real data through the whole pipeline, and the reports it publishes
	$(BIN)/ss-pipeline demo

.PHONY: up
up: .venv/.runtime ## Start the pipeline: daemon and Dagster UI, until Ctrl-C
	$(BIN)/ss-pipeline up

.PHONY: up-postgres
up-postgres: .venv/.dev ## Start it on PostgreSQL: the one at SS_JOB_STORE_POSTGRES_DSN, or one that is started, too
	$(BIN)/ss-pipeline up --postgres

.PHONY: test
test: .venv/.browser ## Run all tests, with branch coverage (at least 85 %)
	$(BIN)/pytest -m 'not stack and not soak' -n 2 --dist loadfile --cov --cov-report= --cov-fail-under=0
	$(BIN)/pytest -m 'stack and not soak' --cov --cov-append --cov-report=term --cov-report=lcov:coverage.lcov

.PHONY: check
check: .venv/.dev ## Check format, lint, types, imports, definitions, generated pages and locks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@mkdir -p .venv/dagster && cp dagster.yaml .venv/dagster/
	DAGSTER_HOME=$(CURDIR)/.venv/dagster $(BIN)/dg check defs
	$(BIN)/python docs/generate.py --check
	$(BIN)/pip check
	@! grep -nvE '$(LOCKED_LINE)' requirements*.lock || { echo "a lock has a line that is no pin with hashes" >&2; exit 1; }

.PHONY: bench
bench: .venv/.dev ## Measure what Dagster costs beside the bare work, on this machine (20 minutes)
	$(BIN)/python -m ss_pipeline.bench pipeline

.PHONY: eval
eval: .venv/.runtime ## Score the drafts on the benchmark of real data sets
	$(BIN)/python -m ss_pipeline.evaluation

.PHONY: docs
docs: .venv/.runtime ## Write the generated pages: errors, events, configuration, commands
	$(BIN)/python docs/generate.py

.PHONY: lock
lock: .venv/.dev ## Write the locks for what pyproject.toml asks (newest versions: make lock UPGRADE=--upgrade)
	$(COMPILE) $(UPGRADE) pyproject.toml -o requirements.lock
	$(COMPILE) $(UPGRADE) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(COMPILE) $(UPGRADE) - -c requirements-dev.lock -o requirements-build.lock

.PHONY: clean
clean: ## Remove the environment, caches and what the demo left (never var/, where jobs live)
	rm -rf .venv .demo dist htmlcov .coverage .coverage.* coverage.lcov \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: requirements.lock requirements-build.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv found: install one, or make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) --require-hashes -r requirements.lock -r requirements-build.lock
	$(INSTALL) --no-build-isolation --editable .
	$(BIN)/python -m compileall -q ss_pipeline
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

.venv/.browser: .venv/.dev
	.ci/install-browser
	@touch $@
