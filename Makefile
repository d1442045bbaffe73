# Three commands matter: `make demo`, `make test` and `make docs`. Each makes the environment first; a second time that is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-gpu quick trials widths tiles docs check dist dist-test install format clean

demo: install
	$(BIN)/cellwise forecast demo --out runs/demo --overwrite

test: install
	$(BIN)/python -m pytest -n auto

# On a machine with a GPU, whose torch is installed already: every case and what torch does around them, in five minutes
# at most. A line for each test as it ends; what failed is in gpu-failures.txt as soon as it has, also of a run cut off.
test-gpu:
	CUBLAS_WORKSPACE_CONFIG=:4096:8 timeout -s INT -k 20 300 \
	  $(PYTHON) -m pytest -n auto -vv --failures=gpu-failures.txt tests/gpu tests/nn/test_cuda.py

# One small part of every layer, for the hand: tests/quick.txt lists it.
quick: install
	$(BIN)/python -m pytest -n 2 `grep -v '^#' tests/quick.txt`

# What `make test` tries a little, at length and with figures: random cells, kills, full disks, damage. Hours.
trials: install
	for trial in tests/trials/trial_*.py; do $(BIN)/python $$trial || exit 1; done

# What depends on the kernels, with those of machines whose vectors are of 16, 32 and 64 bytes (SSE, AVX2, AVX-512).
widths: install
	for bytes in 16 32 64; do \
	  CELLWISE_VECTOR_BYTES=$$bytes $(BIN)/python -m pytest -n auto tests/backends tests/nn tests/plan tests/testing || exit 1; \
	done

# The same with loops in place of AMX's tile registers, for whoever changes what surrounds them.
tiles: install
	CELLWISE_AMX=loops $(BIN)/python -m pytest -n auto tests/backends tests/nn tests/plan tests/testing

# -E: every page is made anew, since its figures come from code that Sphinx does not watch. -W: a warning is an error.
docs: install
	$(BIN)/python -m sphinx -E -W -q -b html docs docs/build/html
	@echo "the book: docs/build/html/index.html"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The sdist, and the wheel from what is in the sdist.
dist: install
	rm -rf dist
	$(BIN)/python -m build --outdir dist . > /dev/null

# Installs the wheel into a fresh environment and runs the README's examples outside the checkout.
dist-test: dist
	$(BIN)/python tools/try_wheel.py dist/*.whl

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.installed

# torch is pinned before the rest: an open range would bring several gigabytes of CUDA packages on Linux.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cellwise needs Python 3.11 or newer; '$(PYTHON)' is `$(PYTHON) --version`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
