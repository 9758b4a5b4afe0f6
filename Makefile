PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo check test unit docs bench lock clean

$(BIN)/fer-stream: pyproject.toml constraints.txt scripts/preflight.py
	$(PYTHON) scripts/preflight.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable . --group dev --group docs
	$(BIN)/python -m pip check
	@touch $@

demo: $(BIN)/fer-stream
	$(BIN)/python scripts/demo.py

check: $(BIN)/fer-stream
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(BIN)/fer-stream
	$(BIN)/python -m pytest -n 2 --dist loadfile

unit: $(BIN)/fer-stream
	$(BIN)/python -m pytest -n 2 --dist loadfile -m unit

docs: $(BIN)/fer-stream
	$(BIN)/python -m scripts.reference
	$(BIN)/mkdocs build --strict

bench: $(BIN)/fer-stream
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks --json bench.json

lock:
	uv pip compile --universal --python-version 3.11 --group dev --group docs --group gpu pyproject.toml --no-annotate --no-header -o constraints.txt
	$(BIN)/python -m scripts.role_locks

clean:
	rm -rf $(VENV) dist build demo-output site
