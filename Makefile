# From nothing to a tested checkout, or to a talking portrait, in one command each:
#
#   make test   set up .venv and the face models, then run all tests
#   make demo   set up the same, then build an avatar from the shipped clip and let it speak (out/demo)
#
# It needs Python >= 3.11, make, and a package index that pip can reach. On a machine whose `python3` is older, name
# another one: `make test PYTHON=python3.12`.

PYTHON ?= python3
HEADS ?= $(or $(TALK3D_HEADS),../shared/heads)
BIN := .venv/bin

.PHONY: help setup test demo lint check demo-clip truth-pack clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile
	@echo "make lint, check (lint and test), demo-clip and truth-pack (remake what ships; HEADS=DIR), clean (.venv and caches)"

setup: .venv/.models

# One install line with all versions pinned: a request for torch on its own would take the newest, multi-gigabyte build.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: talk3d needs Python >= 3.11, and $(PYTHON) is older or missing; use make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable ".[dev]"
	@touch $@

.venv/.models: .venv/.installed
	$(BIN)/talk3d models install
	@touch $@

# A gigabyte that only tests need.
.venv/.kernels: .venv/.installed
	$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable ".[kernels]"
	@touch $@

# One arithmetic thread per worker: two workers that each take all cores only get in each other's way.
test: setup .venv/.kernels
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

demo: setup
	$(BIN)/talk3d demo -o out/demo

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

demo-clip: .venv/.installed
	$(BIN)/python tools/make_demo_clip.py --heads $(HEADS)

truth-pack: .venv/.installed
	rm -rf src/talk3d/assets/truth
	$(BIN)/python tools/make_truth_pack.py --heads $(HEADS)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
