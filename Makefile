# Each target makes the environment that it needs; only git, make and Python 3.11+ are expected to be there.
PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= results/demo
WORKERS ?= 2

.PHONY: demo test test-all lint bench freeze clean

demo: .venv/installed
	$(BIN)/python scripts/sweep.py --config configs/demo.py --workdir $(WORKDIR)
	$(BIN)/python scripts/report.py $(WORKDIR)

# without LLVM's optimizations, which are most of what compiling takes; test-all has them
test: .venv/installed
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow"

test-all: .venv/installed .venv-bench/installed
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: .venv/installed .venv-bench/installed
	$(BIN)/python benchmarks/train_step.py

# constraints.txt records the versions that the tests last passed with: rewrite it after they pass with newer ones
freeze: .venv/installed
	$(BIN)/python -m pip freeze --exclude-editable | grep -v '^-e ' > constraints.txt

.venv/installed: setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv-bench/installed: benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install -q --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-bench .jax_cache .pytest_cache .ruff_cache build *.egg-info
