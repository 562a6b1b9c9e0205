# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VLLM_VENV ?= .venv-vllm

# Spinning OpenMP threads stall every neighbour on a shared machine, and the embedded model is fastest on one.
export OMP_WAIT_POLICY := PASSIVE
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo tradeoff test test-vllm test-triton check docs wheel dist lock setup setup-test results readme clean

demo: $(VENV)/.demo  ## train the embedded reasoner with HAPO; before and after
	$(BIN)/concise-rl train method=hapo model=tiny data=chain_sum advantage.group_relative.scale=batch \
		run.dir=runs/demo overwrite=true

tradeoff: $(VENV)/.demo  ## three methods where thinking pays, and the best that is possible: five minutes of two cores
	$(BIN)/python benchmarks/tradeoff.py

test: $(VENV)/.test check  ## static checks and all tests, a process a core of two
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-vllm: $(VLLM_VENV)/.test  ## vLLM on this CPU, in an environment of its own: colocated, behind HTTP, evaluations
	$(VLLM_VENV)/bin/python -m pytest tests/vllm

test-triton: $(VENV)/.test  ## the kernels' machine code by the oldest Triton that pyproject.toml allows
	$(INSTALL) --no-deps --upgrade --target $(VENV)/triton-oldest 'triton==$(shell sed -n 's/.*"triton>=\([0-9.]*\),.*/\1/p' pyproject.toml).*'
	PYTHONPATH=$(VENV)/triton-oldest $(BIN)/python -m pytest tests/kernels/test_triton_compiled.py

check: $(VENV)/.test  ## ruff, mypy, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.demo
setup-test: $(VENV)/.test

# Everything but torch is pinned with its hash, pip and the build tools of source distributions too.
INSTALL := $(BIN)/python -m pip install -q
INSTALL_LOCKED := $(INSTALL) --no-deps --require-hashes --build-constraint requirements/build.txt
INSTALL_HERE := $(INSTALL) --no-deps --no-build-isolation -e .

$(VENV)/.pip: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the pinned versions need Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes -r requirements/build.txt
	touch $@

$(VENV)/.demo: pyproject.toml requirements/core.txt requirements/torch.txt $(VENV)/.pip
	$(INSTALL_LOCKED) -r requirements/core.txt
	$(INSTALL) -r requirements/torch.txt
	$(INSTALL_HERE)
	touch $@

$(VENV)/.test: pyproject.toml requirements/test.txt requirements/torch.txt $(VENV)/.pip
	$(INSTALL_LOCKED) -r requirements/test.txt
	$(INSTALL) -r requirements/torch.txt
	$(INSTALL_HERE)
	touch $@ $(VENV)/.demo

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-package torch -c requirements/torch.txt

lock: $(VENV)/.test  ## pin what pyproject.toml allows; what is pinned stays, unless UPGRADE=--upgrade
	$(LOCK) $(UPGRADE) requirements/build.in -o requirements/build.txt
	$(LOCK) $(UPGRADE) pyproject.toml --extra test --extra docs --extra release -o requirements/test.txt
	$(LOCK) $(UPGRADE) pyproject.toml -c requirements/test.txt -o requirements/core.txt

docs: $(VENV)/.test  ## the site, from docs/ and the docstrings, into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

DIST ?= dist

# One commit makes the same bytes wherever it is built: tracked files alone, the commit's time, and modes that no umask changes.
wheel: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
wheel: $(VENV)/.test
	rm -rf $(DIST) && mkdir -p $(DIST)/source
	git -c tar.umask=022 archive HEAD | tar -xp -C $(DIST)/source
	umask 022; $(BIN)/python -m pip wheel -q --no-deps --no-build-isolation --wheel-dir $(DIST) $(DIST)/source
	rm -rf $(DIST)/source

dist: wheel  ## the wheel and, beside it, what it was tested with as a software bill of materials (CycloneDX)
	cat requirements/torch.txt requirements/core.txt | $(BIN)/python -W ignore -m cyclonedx_py requirements - --pyproject pyproject.toml \
		--output-reproducible --output-file $(DIST)/concise_rl.cdx.json
# vLLM wants an older numpy and setuptools than the rest; the last three need a CUDA build and are not used.
$(VLLM_VENV)/.test: pyproject.toml requirements/core.txt requirements/torch.txt $(wildcard tests/vllm/cpu/*.*)
	$(PYTHON) -m venv $(VLLM_VENV)
	{ cat requirements/torch.txt requirements/core.txt | sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' | grep -vE '^(numpy|setuptools)=='; \
		echo 'numpy<2.4'; } > $(VLLM_VENV)/constraints.txt
	$(VLLM_VENV)/bin/python -m pip install -q --upgrade pip
	$(VLLM_VENV)/bin/python -m pip install -q -c $(VLLM_VENV)/constraints.txt -e '.[peft]' ./tests/vllm/cpu pytest pytest-timeout
	$(VLLM_VENV)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	touch $@

results: $(VENV)/.test  ## every method on five tasks, and its coefficient: some hours on two cores
	$(BIN)/python benchmarks/methods.py

readme: $(VENV)/.test  ## the generated parts of the README
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
