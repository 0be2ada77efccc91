# Every command of the project; each creates .venv with the pinned versions if it is not there.

PYTHON ?= python3
NPM := $(shell command -v npm)
PIP := .venv/bin/pip install --quiet --disable-pip-version-check
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# What `make sweep` tries, and by how many workers; `dvc exp run --help` explains choice() and range().
SWEEP ?= train.lr=choice(0.003,0.01,0.03,0.1,0.3)
WORKERS ?= 2

.PHONY: help run pull compare sweep lint test test-all verify faults bench

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

run: .venv/installed  ## run the stages whose inputs have changed
	@python .ci/lock.py
	dvc repro

pull: .venv/installed  ## the same, but fetch what the remote has instead of running it
	@python .ci/lock.py
	dvc repro --pull

compare: .venv/installed  ## the models of the workspace, the last commit and experiments, the best first
	@python .ci/compare.py

sweep: .venv/installed  ## try values: make sweep SWEEP='train.lr=choice(0.1,0.3)' WORKERS=4
	@python .ci/sweep.py '$(WORKERS)' '$(SWEEP)'
	@$(MAKE) --no-print-directory compare

lint: .venv/tested $(if $(NPM),.ci/node_modules/installed)  ## style and types alone
	ruff check
	ruff format --check
	mypy
	$(if $(NPM)$(CI),node .ci/lint_workflows.mjs,@echo "The workflow is not checked: npm is not installed.")

test: lint  ## style, types and the quick tests: three minutes on two cores
	pytest -m 'not slow'

test-all: lint  ## all tests: also other CPUs, kills, servers, a browser; a quarter of an hour
	pytest

verify: .venv/installed  ## run everything again from nothing; fail if an output differs
	python tests/verify.py

faults: .venv/tested  ## kill, starve and feed garbage at length: an hour and a half on two cores
	dvc repro
	python tests/faults/kills.py 200 SIGKILL
	python tests/faults/kills.py 200 SIGTERM,SIGINT
	python tests/faults/fuzz.py params 2000
	python tests/faults/fuzz.py csv 2000
	python tests/faults/fuzz.py mixed 2000
	python tests/faults/fuzz.py thousands 2000
	python tests/faults/fuzz.py parquet 1000
	python tests/faults/fuzz.py safetensors 1000

bench: .venv/tested  ## measure the pipeline and training beside their peers
	$(PIP) -r requirements-bench.txt
	python tests/benchmarks/pipeline.py
	python tests/benchmarks/tables.py --figure docs/tables.svg
	python tests/benchmarks/predicting.py
	python tests/benchmarks/training.py
	python tests/benchmarks/resume.py
	python tests/benchmarks/sharing.py
	python tests/benchmarks/hosts.py

.venv/installed: requirements.txt requirements-run.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@test ! -L .venv || { echo ".venv is a link to an environment, which would be emptied: delete the link."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(PIP) -r requirements-run.txt
	touch $@

.venv/tested: .venv/installed requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@

.ci/node_modules/installed: .ci/package.json
	npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --legacy-peer-deps --prefix .ci
	touch $@
