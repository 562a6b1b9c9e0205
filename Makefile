# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Spinning OpenMP threads stall every neighbour on a shared machine, and the embedded model is fastest on one.
export OMP_WAIT_POLICY := PASSIVE
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo tradeoff test check setup setup-test results readme clean

demo: $(VENV)/.demo  ## train the embedded reasoner with HAPO; before and after
	$(BIN)/concise-rl train method=hapo model=tiny data=chain_sum advantage.group_relative.scale=batch \
		run.dir=runs/demo overwrite=true

tradeoff: $(VENV)/.demo  ## three methods where thinking pays, and the best that is possible: five minutes of two cores
	$(BIN)/python benchmarks/tradeoff.py

test: $(VENV)/.test check  ## static checks and all tests, a process a core of two
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.test  ## ruff, mypy, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.demo
setup-test: $(VENV)/.test

# A pip that resolves and unpacks twice as fast as the one that Python ships; everything else as CI pins it.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.demo

results: $(VENV)/.test  ## every method on five tasks, and its coefficient: some hours on two cores
	$(BIN)/python benchmarks/methods.py

readme: $(VENV)/.test  ## the generated parts of the README
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
