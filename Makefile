# One environment, made by the first target that needs it; every target works on a fresh clone.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test fault-tests check lint format types layers engine-tests client-tests service-tests bench picture soak fuzz clean

help:                   ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r target text; do \
		printf '  make %-14s %s\n' "$$target" "$$text"; done

demo: $(STAMP)          ## show the main job on a real engine: no GPU, model or compiler needed
	@$(BIN)/orch demo

PYTEST := $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test: $(STAMP)          ## the tests but for the long faults; with T=tests/unit/core, T=FILE or T=FILE::NAME only those
	$(if $(T),$(BIN)/python -m pytest $(T),$(PYTEST) --ignore=tests/faults)

fault-tests: $(STAMP)   ## a daemon whose engine, disk, devices and clients fail, in every way of docs/faults.md
	$(PYTEST) tests/faults

check: lint types layers test fault-tests  ## everything a change must pass

lint: $(STAMP)          ## format and style, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(STAMP)        ## format the files, and repair the style where that is safe
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP)         ## mypy, strict, on sources and tests
	$(BIN)/mypy

layers: $(STAMP)        ## which layer may import which
	$(BIN)/lint-imports

engine-tests: $(STAMP)  ## tests on both real engines, which are built the first time (kept in .cache/engines)
	$(BIN)/python -m pytest -m engine tests/engines

client-tests: $(STAMP)  ## the blocks of docs/clients.md with the real clients, installed from PyPI and npm (kept in .cache/clients)
	$(BIN)/python -m pytest -m client tests/clients

service-tests: $(STAMP) ## tests on a real systemd, booted in a container (root, systemd-nspawn, debootstrap; kept in .cache/systemd)
	$(BIN)/python -m pytest -m systemd tests/systemd

bench: $(STAMP)         ## what the gateway, a switch, the CLI, the idle daemon, the dashboard and the page cost
	$(BIN)/python -m benchmarks.gateway_latency
	$(BIN)/python -m benchmarks.switch_cost
	$(BIN)/python -m benchmarks.import_cost
	$(BIN)/python -m benchmarks.idle_cost
	$(BIN)/python -m benchmarks.dashboard_cost
	$(BIN)/python -m benchmarks.page_cost

picture: $(STAMP)       ## the pictures of the dashboard and of the page; needs Chromium
	$(BIN)/python -m benchmarks.dashboard_picture
	$(BIN)/python -m benchmarks.page_picture

soak: $(STAMP)          ## 500 switches and 5000 requests with random faults
	$(BIN)/python -m benchmarks.soak

fuzz: $(STAMP)          ## 100000 mutated requests, the profile loader, and new examples for the property tests
	$(BIN)/python -m benchmarks.fuzz
	$(BIN)/python -m pytest --hypothesis-profile=default tests/unit

$(STAMP): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv sync --active --quiet --locked --all-extras --inexact
	@touch $(STAMP)

clean:                  ## remove the environment
	rm -rf $(VENV)
