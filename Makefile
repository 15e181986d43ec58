# Every target sets up what it needs, also on a fresh machine, and is quick when nothing is to do.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# A machine behind an authority of its own has that in the system's certificates.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

PYTHON := .venv/bin/python
LAUNCHER := src/casemate/_native/casemate-launcher
LIBRARY := src/casemate/_native/casemate-zygote.so
ADDON := src/casemate/_isolated_vm/built/isolated_vm.node
NATIVE := $(wildcard native/*.c native/*.h)
SOAK_RUNS ?= 5000
SOAK_KILLS_RUNS ?= 20000
SOAK_SERVICE_KILLS ?= 200
SOAK_JOBS ?= 2000
BENCH_ARGS ?=
PYTEST_ARGS ?=

.PHONY: help setup setup-dev packages-run packages-dev native addon demo test test-here test-user test-uml test-uml-user \
	test-no-cgroup test-warm check format bench soak clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

# Setting up -------------------------------------------------------------------------------------

setup: .venv/.ready-run $(LAUNCHER) $(LIBRARY) | packages-run ## what running needs; leaves .venv/bin/casemate
	@$(MAKE) $(ADDON) || echo 'casemate: going on without the runtime javascript; `node` runs without it' >&2

setup-dev: .venv/.ready-dev $(LAUNCHER) $(LIBRARY) $(ADDON) | packages-run packages-dev ## what tests and checks need, too

packages-run:
	@tools/packages.sh run

packages-dev: | packages-run
	@tools/packages.sh dev

# Bytecode is made here and not at the first start, which may be in an environment that forbids to write it.
.venv/.ready-run: pyproject.toml uv.lock hatch_build.py | packages-run
	tools/uv.sh sync --quiet --frozen --no-dev --inexact --compile-bytecode
	$(PYTHON) -m compileall -q src
	@touch $@

.venv/.ready-dev: pyproject.toml uv.lock hatch_build.py | packages-run packages-dev
	tools/uv.sh sync --quiet --frozen --compile-bytecode
	$(PYTHON) -m compileall -q src
	@touch .venv/.ready-run $@

native: $(LAUNCHER) ## rebuild the launcher, and the library of zygotes, if native/ has changed

$(LIBRARY): $(LAUNCHER)

$(LAUNCHER): $(NATIVE) hatch_build.py | packages-run
	python3 hatch_build.py

addon: $(ADDON) ## rebuild what JavaScript isolates need, if its lock file has changed

$(ADDON): src/casemate/_isolated_vm/package-lock.json | packages-run .venv/.ready-run
	@echo 'casemate: compiling the addon of the runtime javascript; that takes a minute' >&2
	@$(PYTHON) -m casemate.runtimes.addon

# Using it ---------------------------------------------------------------------------------------

demo: setup ## real macros over real measurements, each in a sandbox of its own
	@$(PYTHON) demo/demo.py

# Proving it -------------------------------------------------------------------------------------

test: setup-dev ## the whole suite: here, as an ordinary user, under cgroup v2 (User Mode Linux), without cgroups
	@tests/run_all.sh

test-here test-user test-no-cgroup test-warm: setup-dev
	@tests/run_all.sh $(@:test-%=%)

test-uml test-uml-user: setup-dev
	@tests/run_all.sh $(@:test-%=%)-{1..4}

check: setup-dev ## ruff, mypy, layers and the quick tests
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -m "not slow and not soak" --numprocesses auto tests/unit $(PYTEST_ARGS)

format: setup-dev ## let ruff rewrite what it can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: setup-dev ## the numbers of SPECIFICATION.md
	@$(PYTHON) -m bench.run $(BENCH_ARGS)

soak: setup-dev ## many runs in a row: nothing may grow; new examples for every property
	CASEMATE_TEST_EXPLORE=1 $(PYTHON) -m pytest -m "not slow and not soak" --numprocesses auto tests/unit tests/conformance
	@$(PYTHON) -m bench.soak --runs $(SOAK_RUNS)
	@$(PYTHON) -m bench.soak --kills --runs $(SOAK_KILLS_RUNS)
	@$(PYTHON) -m bench.service_chaos --kills $(SOAK_SERVICE_KILLS)
	@$(PYTHON) -m bench.job_chaos --jobs $(SOAK_JOBS)

clean: ## remove everything that the targets above made
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis __pycache__ \
		$(LAUNCHER) $(dir $(ADDON))
	find src tests bench demo -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
