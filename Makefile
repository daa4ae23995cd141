# One environment, made by the first target that needs it; every target works on a fresh clone.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check lint types layers bench clean

demo: $(STAMP)          ## show the main job on a real engine: no GPU, model or compiler needed
	@$(BIN)/orch demo

test: $(STAMP)          ## run the tests
	$(BIN)/python -m pytest

check: lint types layers test  ## everything a change must pass

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python benchmarks/gateway_latency.py

$(STAMP): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv sync --active --quiet --locked --all-extras --inexact
	@touch $(STAMP)

clean:
	rm -rf $(VENV)
