# Everything a fresh machine needs comes from here: Python >= 3.11, make and the package registries.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Bytecode makes every command start two to three times faster.
export PYTHONDONTWRITEBYTECODE :=
export UV_COMPILE_BYTECODE := 1
export UV_PROJECT_ENVIRONMENT := .venv
export UV_NO_PROGRESS := 1

# Root installs it; anybody else is told what to ask for. Tests without a server skip and say so.
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
INSTALL_MARIADB = { \
  if command -v apt-get > /dev/null; then install="apt-get install -y --no-install-recommends mariadb-server"; update="apt-get update"; \
  elif command -v dnf > /dev/null; then install="dnf install -y mariadb-server"; \
  elif command -v apk > /dev/null; then install="apk add mariadb mariadb-client"; \
  elif command -v brew > /dev/null; then install="brew install mariadb"; \
  else echo "install a MariaDB server, then run this again" >&2; exit 0; fi; \
  if [ -n "$(SUDO)" ]; then echo "no MariaDB server here; install it: sudo $$install" >&2; exit 0; fi; \
  echo "installing a MariaDB server: $$install"; \
  { $$install || { $$update && $$install; }; } > /tmp/mlbatch-mariadb.log 2>&1 || { tail -5 /tmp/mlbatch-mariadb.log >&2; exit 1; }; }

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.ready ## Build .venv with everything in it, and nothing else

.venv/.ready: pyproject.toml uv.lock
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"; }
	@$(BIN)/uv sync --locked --quiet --inexact
	@touch $@

run: setup ## Empty .mlbatch and run the main job: train, infer everything, then the next day's delta
	@$(BIN)/python -m sample.demo

run-real: setup mariadb ## The same on private servers: Redshift's and S3's wires, MariaDB, MLflow
	@trap '$(BIN)/mlbatch devstack down' EXIT; trap 'exit 130' INT TERM; \
	  $(BIN)/mlbatch devstack up > /dev/null && $(BIN)/python -m sample.demo --profile devstack

mariadb: ## Install the distribution's MariaDB server, where there is none
	@command -v mariadbd > /dev/null || test -x /usr/sbin/mariadbd || $(INSTALL_MARIADB)

test: setup mariadb ## Run all tests
	@$(BIN)/python -m pytest -n auto --dist worksteal

lint: setup ## Check style, types and the floors of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Bring the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

cover: setup ## Run all tests and show what they do not reach
	@$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term --cov-fail-under=95

bench: setup mariadb bench-wires ## Measure scoring beside pandas, awswrangler, Ray, Spark, Metaflow and the floor; half an hour
	@$(BIN)/python -m benchmarks.scoring

profile: setup mariadb ## Say where the time of an inference goes, by stage; a minute
	@$(BIN)/python -m benchmarks.scoring.profiled

bench-wires: setup mariadb ## Measure the connectors against bare calls of their servers, and awswrangler
	@$(BIN)/python -m benchmarks.wires

quality: setup ## Measure both classifiers on real text, if MLBATCH_SHARED_DATA has some
	@$(BIN)/python -m benchmarks.quality

prove: setup mariadb ## Kill, stop and cut off real runs, and write docs/proof.md; minutes
	@PYTHONPATH=tests:. $(BIN)/python -m proof.report short

prove-long: setup mariadb ## The same with 1,000 kills and 10,000 commits; an hour or more
	@PYTHONPATH=tests:. $(BIN)/python -m proof.report long

prove-pairs: setup mariadb ## Kill a run at every named place, and its resume at every other; half an hour
	@PYTHONPATH=tests:. $(BIN)/python -m proof.report pairs

bad-inputs: setup ## Write docs/bad-inputs.md from the marks of the tests
	@PYTHONPATH=tests:. $(BIN)/python -m bad_inputs.page > /dev/null

check: lint test ## Exactly what CI runs

clean: ## Stop the devstack and remove what running and testing left behind: also .mlbatch, the data of the default profile
	@test ! -x $(BIN)/mlbatch || $(BIN)/mlbatch devstack down > /dev/null 2>&1 || true
	@rm -rf .mlbatch .pytest_cache .mypy_cache .ruff_cache .coverage*

.PHONY: help setup run run-real mariadb test lint format cover quality bench profile bench-wires prove prove-long prove-pairs bad-inputs check clean
