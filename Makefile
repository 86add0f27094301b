# Two commands matter: `make up` and `make test`. Both set up everything they need.
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON_BIN := .venv/bin
SHAPE ?= all-in-one
CHECKED := shared services deploy tests $(if $(wildcard ee/pyproject.toml),ee)
PYTEST := $(PYTHON_BIN)/python -m pytest -ra
# Modules side by side, each process with servers of its own; whole installations go one after the other.
BESIDE := -n logical --maxprocesses 4 --dist loadscope
QUICK := $(wildcard tests/messages tests/unit)
SERVERS := $(wildcard tests/architecture tests/integration tests/conformance)
WHOLE := $(wildcard tests/e2e tests/chaos)

# Only from the command line: a PORT that happens to be in the environment is not meant for us.
ifeq ($(origin PORT),command line)
export TIDEMILL_PORT := $(PORT)
endif

.PHONY: help up test check unit integration e2e chaos bench bench-lock lock generate format clean setup provide

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: setup ## start Tidemill; SHAPE=distributed: one process for each service; PORT=8000; Ctrl-C stops it
	@exec $(PYTHON_BIN)/tidemill up --shape $(SHAPE)

test: setup provide check ## check everything and run all tests, with a RabbitMQ of their own
	@$(PYTEST) $(BESIDE) $(QUICK) $(SERVERS)
	@$(PYTEST) $(WHOLE)

check: setup ## look for mistakes without running anything: lint, format, types, who imports whom
	$(PYTHON_BIN)/ruff check $(CHECKED)
	$(PYTHON_BIN)/ruff format --check $(CHECKED)
	$(PYTHON_BIN)/mypy $(CHECKED)
	$(PYTHON_BIN)/lint-imports

unit: setup ## run the tests that need no server
	@$(PYTEST) $(BESIDE) $(QUICK)

integration: setup provide ## run the tests that need Postgres or RabbitMQ
	@$(PYTEST) $(BESIDE) $(SERVERS)

e2e: setup provide ## drive a whole installation by its clients, in both shapes
	@$(PYTEST) $(wildcard tests/e2e)

chaos: setup provide ## kill, freeze, cut off and restart a whole installation, and see that it keeps its word
	@$(PYTEST) $(wildcard tests/chaos)

# SHAPE has a default for `make up`; only one that somebody has chosen is meant for us.
bench: setup provide ## measure all beside other engines; ONLY=p1,p4 SHAPE=all-in-one PEERS=none SAMPLES=100 for parts
	@$(PYTHON_BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(filter-out file,$(origin SHAPE)),--shape $(SHAPE)) \
		$(if $(PEERS),--peers $(PEERS)) $(if $(SAMPLES),--samples $(SAMPLES))

bench-lock: setup ## write anew which versions the other engines have
	@$(PYTHON_BIN)/python -m tests.bench.peers.lock

lock: setup ## write requirements.lock anew
	@$(PYTHON_BIN)/python deploy/allinone/dependencies.py lock

generate: setup ## write anew what is made from code: SCHEMA.md, grants, transitions, asyncapi.yaml, openapi.yaml
	@$(PYTHON_BIN)/python -m tidemill.scheduler.domain.transitions > migrations/queue/transitions.sql
	@$(PYTHON_BIN)/python -m tests.architecture.regenerate
	@$(PYTHON_BIN)/python -m tidemill.api.instance.write_openapi

format: setup ## bring all code into its one shape
	@$(PYTHON_BIN)/ruff check --fix $(CHECKED)
	@$(PYTHON_BIN)/ruff format $(CHECKED)

clean: ## remove .venv and all caches; the data folder stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@deploy/allinone/bootstrap

provide: setup
	@$(PYTHON_BIN)/python -m tidemill.allinone.provide
