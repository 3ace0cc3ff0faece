# Everything starts with `make run`. Works with GNU make 3.81 and later.
#
# PYTHON            which Python .venv is made with (3.11 or newer; default: the newest found)
# TORCH_INDEX_URL   package index to take torch from (default: where pip takes all else from)
# TESTS             what `make test` runs (default: tests)
# ADAPTER           what `make train` trains: reader, reranker or cross_encoder
# CHAOS             what `make chaos` is told, such as --seed 7 --kills 20

TESTS ?= tests
PYTEST := .venv/bin/python -m pytest

export PYTHON TORCH_INDEX_URL

.DEFAULT_GOAL := help
.PHONY: help run setup test test-unit test-integration lint types format protos bench bench-quality \
	train chaos clean

help:
	@echo 'make run               start everything on http://127.0.0.1:8080 (Ctrl-C stops it)'
	@echo 'make test              lint, types and every test'
	@echo 'make test-unit         tests of single parts: seconds, nothing is started'
	@echo 'make test-integration  tests over real processes, stores and models'
	@echo 'make lint              ruff, and the format of the code'
	@echo 'make types             mypy --strict'
	@echo 'make format            put the code into its format'
	@echo 'make protos            write the stubs of protos/ again'
	@echo 'make bench             measure speed and quality'
	@echo 'make bench-quality     measure retrieval, reranking and answers; fail if they got worse'
	@echo 'make train             train an adapter (ADAPTER=reader) and write its model card: two hours'
	@echo 'make chaos             kill processes 260 times while documents are written and rebuilt'
	@echo 'make clean             remove .venv, caches and build output; data/ stays'

# Cheap when nothing changed: the script compares its stamp and leaves.
run:
	@scripts/setup
	@exec .venv/bin/python -m deploy.local

setup:
	@scripts/setup dev

test: lint types
	$(PYTEST) $(TESTS)

test-unit: setup
	$(PYTEST) tests/unit

test-integration: setup
	$(PYTEST) tests/contract tests/integration tests/e2e tests/chaos

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: setup
	.venv/bin/mypy

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

protos: setup
	.venv/bin/python scripts/protos.py

bench: setup
	.venv/bin/python -m bench

# QUICK=1 takes the smallest collections and few questions: a few minutes.
bench-quality: setup
	.venv/bin/python -m bench retrieval reranked reading $(if $(QUICK),--quick)

# Goes on where it was broken off; docs/training.md.
train: setup
	.venv/bin/python -m training $(or $(ADAPTER),$(error ADAPTER=reader says what is trained))

# CHAOS='--seed 7 --kills 20' repeats a run, or makes it shorter.
chaos: setup
	PYTHONPATH=.:protos:tests .venv/bin/python -m chaos $(CHAOS)

clean:
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
