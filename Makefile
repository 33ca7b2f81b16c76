# Everything a developer or the CI does with this repository. Needs Python >= 3.11, make and git.

# An Airflow release does not work with dependencies newer than it knows, so each is installed as of a date. Both are in
# scripts/matrix.py too, beside the other releases.
AIRFLOW := 3.3.2
AIRFLOW_DATE := 2026-11-20
COVERAGE := 95
# In the order that tests/conftest.py gives, so that the tests with a live Airflow, which mostly wait, begin early.
RUN_TESTS := -n 3 --dist loadgroup --no-loadscope-reorder
TESTS := $(RUN_TESTS) --ignore=tests/benchmarks --ignore=tests/stores --ignore=tests/chaos

# What tests/stores needs. The providers come without what they depend on, of which ObjectStoragePath needs little: with
# all of it Google's alone brings ray and 60 clients.
STORES := moto[server] s3fs boto3 gcp-storage-emulator gcsfs google-api-python-client google-auth-httplib2 \
	google-cloud-secret-manager gcloud-aio-storage adlfs msrest
STORES_PROVIDERS := $(addprefix apache-airflow-providers-,amazon google microsoft-azure)
AZURITE := $(CURDIR)/.azurite/node_modules/.bin
VENV := .venv
MATRIX := .venv-matrix
BIN := $(VENV)/bin
UV := $(abspath $(BIN))/uv
# Read by `import airflow`: the test runs' home is not the user's.
TEST_HOME := $(CURDIR)/.airflow

# `python3` if it is new enough, else whatever newer one there is; `make PYTHON=...` overrides.
CHECK_PYTHON = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$each" $(CHECK_PYTHON) 2>/dev/null && echo "$$each" && break; done)

.DEFAULT_GOAL := help
.PHONY: help run ui test test-kills test-stores coverage chaos lint format bench test-matrix clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed ## Run the example in a real Airflow against a sandbox of the API, show the emails, stop it all
	@$(BIN)/python -m scripts.run_example

ui: $(VENV)/.installed ## Leave such an Airflow running for the browser, with lists and tasks in every state, until Ctrl-C
	@$(BIN)/python -m scripts.run_ui

test: $(VENV)/.installed ## Run the tests, those in a real Airflow and in a browser included; 5 minutes
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest $(TESTS)

test-kills: $(VENV)/.installed ## Run the tests that kill processes of an Airflow: a short chaos, table to table, events; 3 minutes
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest $(RUN_TESTS) tests/chaos

# By itself: before Python 3.12 measuring doubles what the tests cost, and a live Airflow's processes are not seen.
coverage: $(VENV)/.installed ## Say which lines the tests without a live Airflow do not reach
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest $(TESTS) --ignore=tests/e2e \
		--cov=machfive_provider --cov-report=term --cov-fail-under=$(COVERAGE)

test-stores: $(VENV)-stores/.installed ## Prove on servers of S3, GCS and Azure (if npm is there) what is read and written there; 1 minute
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix .azurite azurite@3.35.0; \
	else echo "npm is not installed: the tests with Azure are skipped."; fi
	AIRFLOW_HOME=$(TEST_HOME) PATH="$(AZURITE):$$PATH" NEEDED_STORES="s3 gcs $$(command -v npm >/dev/null && echo azure)" \
		$(VENV)-stores/bin/python -m pytest tests/stores

chaos: $(VENV)/.installed ## Kill processes and break requests in a real Airflow, then check that nothing was lost or bought twice; 20 minutes
	$(BIN)/python -m tests.chaos $(CHAOS)

lint: $(VENV)/.installed ## Check style, types and what may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict scripts
	$(BIN)/lint-imports

format: $(VENV)/.installed ## Write the code the way lint wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed ## Measure everything beside its peers and write docs/performance.md; an hour (ONLY=heartbeat: 4)
	EXCLUDE_NEWER=$(AIRFLOW_DATE) $(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

# Longer than that the first time: it makes the environments, and for Python 3.13 and 3.14 a Debian each (by root).
test-matrix: $(UV) ## Run the tests with every supported Airflow, Python and set of dependencies (ONLY=3.3.2-3.14: one); an hour
	$(BIN)/python -m scripts.matrix $(if $(ONLY),--only $(ONLY))

clean: ## Remove all that the targets above made
	rm -rf $(VENV) $(VENV)-bench $(VENV)-stores $(MATRIX) .azurite .bench .run .airflow .airflow-* .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis .coverage dist build
	find provider scripts tests example_dags -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments: made once, and again when what they are made of changes

.PHONY: check-python
check-python:
	@if ! "$(PYTHON)" $(CHECK_PYTHON) 2>/dev/null; then \
		echo "Python 3.11 or newer is needed; '$(or $(PYTHON),python3)' is not there or older." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 run" >&2; exit 1; fi

$(UV): | check-python
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.installed: pyproject.toml Makefile | $(UV)
	@echo "Installing Airflow $(AIRFLOW) and this provider into $(VENV), some 400 MB; this is done once ..."
	$(UV) pip install --quiet --python $(BIN)/python --exclude-newer $(AIRFLOW_DATE) \
		apache-airflow==$(AIRFLOW) -e '.[dev,sandbox]'
	@touch $@

$(VENV)-stores/.installed: pyproject.toml Makefile | $(UV)
	$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --exclude-newer $(AIRFLOW_DATE) \
		apache-airflow==$(AIRFLOW) -e '.[dev,sandbox]' $(STORES)
	$(UV) pip install --quiet --python $(@D)/bin/python --exclude-newer $(AIRFLOW_DATE) --no-deps $(STORES_PROVIDERS)
	@touch $@
