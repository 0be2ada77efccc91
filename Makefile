# Every command of the project; each creates .venv with the pinned versions if it is not there.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help run test lint verify bench

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

run: .venv/installed  ## run the stages whose inputs have changed
	dvc repro

test: lint  ## lint, types and all tests
	pytest

verify: .venv/installed  ## run everything again from nothing; fail if an output differs
	python tests/verify.py

bench: .venv/installed  ## measure the pipeline and training beside their peers
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	python tests/benchmarks/pipeline.py
	python tests/benchmarks/training.py

lint: .venv/installed  ## lint and types alone
	ruff check
	ruff format --check
	mypy

.venv/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
