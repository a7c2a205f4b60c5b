# Every target does its own set-up. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?=
STORE ?= dir
KEEP ?=
BIN := .venv/bin
WORKERS ?= 2
ROUNDS ?= 1000

export PYTHON

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Make .venv with the locked packages
	@scripts/setup

.PHONY: system
system: ## Install the Debian packages that the tests use (needs root; else says what is missing)
	@scripts/debian-packages

.PHONY: data
data: setup ## Fetch the labelled pictures of the demo once (about 140 MB)
	@$(BIN)/python -m liftgate.demo.images

.PHONY: demo
demo: data ## Run the whole story from nothing (STORE=s3: against a real S3 server; KEEP=1: leave the web page running)
	@scripts/debian-packages libnghttp2-14 bubblewrap
	@$(BIN)/liftgate demo --store $(STORE) $(if $(KEEP),--keep)

.PHONY: test
test: setup system lint ## Lint, then run every test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup tests

.PHONY: test-fast
test-fast: setup ## Run the tests that need no TensorFlow and no servers (under a minute)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/unit

.PHONY: soak
soak: setup system ## Every kill of every sweep, long races (ROUNDS=1000), 100 reloads under load; hours
	@LIFTGATE_SOAK=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup tests/faults tests/unit tests/integration/training \
	    tests/integration/hosts/test_balanced_hosts.py
	@PYTHONPATH=tests $(BIN)/python tests/faults/test_promote_race.py $(ROUNDS)
	@PYTHONPATH=tests $(BIN)/python tests/faults/test_approval_race.py $(ROUNDS)
	@PYTHONPATH=tests $(BIN)/python tests/faults/test_break_glass_race.py 100
	@scripts/debian-packages nghttp2-client
	@$(BIN)/python benchmarks/reloads.py

.PHONY: bench-gate
bench-gate: setup ## Show the gate's promise by simulation: six rules against six trainers (10 minutes)
	@$(BIN)/python benchmarks/gate.py

.PHONY: bench-training
bench-training: setup ## Measure trainings beside their limits: decoders, files, S3, workers, checkpoints (10 minutes)
	@$(BIN)/python benchmarks/training.py

.PHONY: bench
bench: setup ## Measure the model server beside its limit and its peers (installs the peers, about 2 GB; an hour)
	@scripts/debian-packages nghttp2-client
	@benchmarks/peers/install
	@$(BIN)/python benchmarks/serving.py
	@$(BIN)/python benchmarks/sharing.py

.PHONY: lint
lint: setup ## Style, types, import contracts, playbooks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@cd ansible && ../$(BIN)/ansible-lint --offline -q

.PHONY: format
format: setup ## Format the source
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: lock
lock: setup ## Resolve requirements/lock.txt anew from setup.cfg
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
	    --override requirements/overrides.txt --no-header --output-file requirements/lock.txt setup.cfg requirements/contract.in

.PHONY: clean
clean: ## Remove the environment, caches and what the demo left
	@rm -rf .venv .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
