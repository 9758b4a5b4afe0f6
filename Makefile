PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet

.PHONY: demo dev check test test-containers unit docs bench lock clean

$(BIN)/fer-stream: pyproject.toml constraints.txt scripts/preflight.py
	$(PYTHON) scripts/preflight.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install -c constraints.txt --editable .
	$(PIP) check
	$(PIP) install --no-deps -c constraints.txt --group demo
	@touch $@

$(VENV)/dev: $(BIN)/fer-stream
	$(PIP) install -c constraints.txt --editable ".[all]" --group dev --group docs
	@touch $@

dev: $(VENV)/dev

demo: $(BIN)/fer-stream
	$(BIN)/python scripts/demo.py

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not containers"

test-containers: $(VENV)/dev
	$(BIN)/python -m pytest -m containers

unit: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m unit

docs: $(VENV)/dev
	$(BIN)/python -m scripts.reference
	$(BIN)/mkdocs build --strict

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks --json bench.json

lock:
	uv pip compile --universal --python-version 3.11 --all-extras --group demo --group dev --group docs --group gpu pyproject.toml --no-annotate --no-header -o constraints.txt
	$(BIN)/python -m scripts.role_locks

clean:
	rm -rf $(VENV) dist build demo-output site
