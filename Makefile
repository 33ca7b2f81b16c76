# Everything a developer or the CI does with this repository. Needs Python >= 3.11, make and git.

# An Airflow release does not work with dependencies newer than it knows, so each is installed as of a date. Both are in
# scripts/matrix.py too, beside the other releases.
AIRFLOW := 3.3.2
AIRFLOW_DATE := 2026-11-20
COVERAGE := 95
# In the order that tests/conftest.py gives, so that the tests with a live Airflow, which mostly wait, begin early.
RUN_TESTS := -n 3 --dist loadgroup --no-loadscope-reorder
TESTS := $(RUN_TESTS) $(addprefix --ignore=tests/,benchmarks chaos distributed fuzz jobs security stores)

# What tests/stores needs. The providers come without what they depend on, of which ObjectStoragePath needs little: with
# all of it Google's alone brings ray and 60 clients.
STORES := moto[server] s3fs boto3 gcp-storage-emulator gcsfs google-api-python-client google-auth-httplib2 \
	google-cloud-secret-manager gcloud-aio-storage adlfs msrest
STORES_PROVIDERS := $(addprefix apache-airflow-providers-,amazon google microsoft-azure)
AZURITE := $(CURDIR)/.azurite/node_modules/.bin
# ruff writes the signatures of the reference.
DOCS := mkdocs-material mkdocstrings[python] ruff
# The one place that knows the version.
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' provider/machfive_provider/__init__.py)
WHEEL = $(CURDIR)/dist/airflow_provider_machfive-$(VERSION)-py3-none-any.whl
SBOM = dist/airflow_provider_machfive-$(VERSION).cdx.json
# Keys of our own are quoted in tests on purpose; these three find those, and words like "password".
NOISY := $(addprefix --disable-plugin ,KeywordDetector Base64HighEntropyString HexHighEntropyString)
# What tests/distributed needs.
DISTRIBUTED := apache-airflow-providers-celery redis psycopg2-binary asyncpg
VENV := .venv
MATRIX := .venv-matrix
BIN := $(VENV)/bin
UV := $(abspath $(BIN))/uv
# Read by `import airflow`: the test runs' home is not the user's.
TEST_HOME := $(CURDIR)/.airflow
# Airflow starts a process for each task. Without bytecode on disk each compiles all that it imports, which takes a
# second: `make test` took 318 s with this variable set, as some container images do, and 273 s without.
unexport PYTHONDONTWRITEBYTECODE

# `python3` if it is new enough, else whatever newer one there is; `make PYTHON=...` overrides.
CHECK_PYTHON = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$each" $(CHECK_PYTHON) 2>/dev/null && echo "$$each" && break; done)

.DEFAULT_GOAL := help
.PHONY: help run ui test test-jobs test-kills test-distributed test-stores test-security fuzz coverage chaos lint format docs bench test-matrix dist changelog clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed ## Run the example in a real Airflow against a sandbox of the API, show the emails, stop it all
	@$(BIN)/python -m scripts.run_example

ui: $(VENV)/.installed ## Leave such an Airflow running for the browser, with lists and tasks in every state, until Ctrl-C
	@$(BIN)/python -m scripts.run_ui

test: $(VENV)/.installed ## Run the tests, those in a real Airflow and in a browser included; 5 minutes
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest $(TESTS)

test-jobs: $(VENV)/.installed ## Run the DAGs of the documentation in a real Airflow, and see its mails, metrics and spans arrive; 4 minutes
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest tests/jobs

test-kills: $(VENV)/.installed ## Run the tests that kill processes of an Airflow: a short chaos, table to table, events; 3 minutes
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest $(RUN_TESTS) tests/chaos

test-security: $(VENV)/.installed ## Give readers anything, and look for the API key in what 1,000 errors leave behind; 1 minute
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest $(RUN_TESTS) tests/fuzz tests/security

fuzz: $(VENV)/.installed ## Give the readers of files, responses and events anything, EXAMPLES times each (5,000); 10 minutes
	AIRFLOW_HOME=$(TEST_HOME) HYPOTHESIS_PROFILE=fuzz EXAMPLES=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest -n 3 --dist load tests/fuzz

# By itself: before Python 3.12 measuring doubles what the tests cost, and a live Airflow's processes are not seen.
coverage: $(VENV)/.installed ## Say which lines the tests without a live Airflow do not reach
	AIRFLOW_HOME=$(TEST_HOME) $(BIN)/python -m pytest $(TESTS) --ignore=tests/e2e \
		--cov=machfive_provider --cov-report=term --cov-fail-under=$(COVERAGE)

test-stores: $(VENV)-stores/.installed ## Prove on servers of S3, GCS and Azure (if npm is there) what is read and written there; 1 minute
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix .azurite azurite@3.35.0; \
	else echo "npm is not installed: the tests with Azure are skipped."; fi
	AIRFLOW_HOME=$(TEST_HOME) PATH="$(AZURITE):$$PATH" NEEDED_STORES="s3 gcs $$(command -v npm >/dev/null && echo azure)" \
		$(VENV)-stores/bin/python -m pytest tests/stores

test-distributed: $(VENV)-distributed/.installed ## Prove the same on PostgreSQL, Redis and Celery with two of each, killing one of each; 8 minutes
	AIRFLOW_HOME=$(TEST_HOME) $(VENV)-distributed/bin/python -m pytest -s tests/distributed

chaos: $(VENV)/.installed ## Kill processes and break requests in a real Airflow, then check that nothing was lost or bought twice; 20 minutes
	$(BIN)/python -m tests.chaos $(CHAOS)

lint: $(VENV)/.installed ## Check style, types and what may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict scripts
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet --pedantic .github/workflows
	$(BIN)/towncrier build --draft --version $(VERSION) >/dev/null

format: $(VENV)/.installed ## Write the code the way lint wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)-docs/.installed ## Build the documentation into site/ and check its links; 15 seconds
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

bench: $(VENV)/.installed ## Measure everything beside its peers and write docs/performance.md; an hour (ONLY=heartbeat: 4)
	EXCLUDE_NEWER=$(AIRFLOW_DATE) $(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

# Longer than that the first time: it makes the environments, and for Python 3.13 and 3.14 a Debian each (by root).
test-matrix: $(UV) ## Run the tests with every supported Airflow, Python and set of dependencies (ONLY=3.3.2-3.14: one); 50 minutes
	$(BIN)/python -m scripts.matrix $(if $(ONLY),--only $(ONLY))

# Of what git knows, as it is staged: caches and a developer's own files are left out. The build tools are installed as of
# a date too, in environments that uv keeps.
dist: $(VENV)/.installed ## Build what is published, and try it in a clean Airflow: wheel, sdist, list of components (SBOM); 1 minute
	rm -rf dist build
	git ls-files -z ':!*.png' | xargs -0 $(BIN)/detect-secrets-hook --cores 2 $(NOISY)
	git checkout-index --all --prefix=build/source/
	$(UV) build --quiet --exclude-newer $(AIRFLOW_DATE) --out-dir dist build/source
	$(UV) build --quiet --exclude-newer $(AIRFLOW_DATE) --wheel --out-dir build build/source
	$(UV) tool run --quiet --exclude-newer $(AIRFLOW_DATE) twine check --strict dist/*.whl dist/*.tar.gz
	$(UV) venv --quiet --clear --python "$(PYTHON)" $(VENV)-dist
	$(UV) pip install --quiet --python $(VENV)-dist/bin/python --exclude-newer $(AIRFLOW_DATE) \
		apache-airflow==$(AIRFLOW) '$(WHEEL)'
	sed 's/^dynamic = .*/version = "$(VERSION)"/' pyproject.toml >build/pyproject.toml
	$(UV) tool run --quiet --exclude-newer $(AIRFLOW_DATE) --from cyclonedx-bom cyclonedx-py environment \
		--pyproject build/pyproject.toml --mc-type library --output-reproducible -o $(SBOM) $(VENV)-dist/bin/python
	$(VENV)-dist/bin/python -I scripts/check_dist.py dist build

changelog: $(VENV)/.installed ## Make a section of CHANGELOG.md of the fragments in changelog.d, which are deleted
	$(BIN)/towncrier build --yes --version $(VERSION)

clean: ## Remove all that the targets above made
	rm -rf $(VENV) $(VENV)-bench $(VENV)-stores $(VENV)-docs $(VENV)-distributed $(VENV)-dist $(MATRIX) .azurite .bench .run .airflow .airflow-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis .coverage dist build site
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

$(VENV)-docs/.installed: Makefile | $(UV)
	$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --exclude-newer $(AIRFLOW_DATE) $(foreach each,$(DOCS),'$(each)')
	@touch $@

$(VENV)-distributed/.installed: pyproject.toml Makefile | $(UV)
	$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --exclude-newer $(AIRFLOW_DATE) \
		apache-airflow==$(AIRFLOW) -e '.[dev,sandbox]' $(DISTRIBUTED)
	@touch $@
