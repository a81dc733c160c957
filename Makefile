# Everything a fresh machine needs comes from here: Python >= 3.11, make and the package registries.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Bytecode makes every command start two to three times faster.
export PYTHONDONTWRITEBYTECODE :=
export UV_COMPILE_BYTECODE := 1
export UV_PROJECT_ENVIRONMENT := .venv
export UV_NO_PROGRESS := 1

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/.ready ## Build .venv with everything in it, and nothing else

.venv/.ready: pyproject.toml uv.lock
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"; }
	@$(BIN)/uv sync --locked --quiet --inexact
	@touch $@

run: setup ## Run the main job: train, infer everything, then the next day's delta
	@$(BIN)/python -m sample.demo

test: setup ## Run all tests
	@$(BIN)/python -m pytest -n auto

lint: setup ## Check style, types and the floors of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Bring the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

cover: setup ## Run all tests and show what they do not reach
	@$(BIN)/python -m pytest -n auto --cov --cov-report=term --cov-fail-under=95

quality: setup ## Measure both classifiers on real text, if MLBATCH_SHARED_DATA has some
	@$(BIN)/python -m benchmarks.quality

check: lint test ## Exactly what CI runs

clean: ## Remove what running and testing left behind
	@rm -rf .mlbatch .pytest_cache .mypy_cache .ruff_cache .coverage*

.PHONY: help setup run test lint format cover quality check clean
