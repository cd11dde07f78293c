# Needs nothing but make and python3. Everything is installed into .venv, with the versions that
# were tested (constraints.txt).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GROKSCOPE := $(BIN)/grokscope
# Where the demo writes its run.
DEMO := runs/demo

.PHONY: demo test test-slow bench clean

demo: $(VENV)/.installed
	$(GROKSCOPE) run anti-grokking --out $(DEMO)
	@echo
	@echo "Open $(CURDIR)/$(DEMO)/report.html in a browser."

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/spectra.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("grokscope needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
