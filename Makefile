# Needs Python 3.10 or newer and make. Everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all docs bench bench-quick format clean

demo: .venv/.installed  ## train, test, export and predict on handwritten digits
	$(BIN)/keras-resnet demo

test: .venv/.installed-test  ## linting and all fast tests; needs no weights or data sets
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: .venv/.installed-test  ## all tests, including the slow ones
	$(BIN)/python -m pytest -m ""

docs: .venv/.installed-docs  ## the documentation site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/.installed-bench  ## full comparison with the alternatives; takes an hour or two
	$(BIN)/python -m benchmarks

bench-quick: .venv/.installed-test  ## speed ratios on small images; takes three minutes
	$(BIN)/python -m benchmarks --quick

format: .venv/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv *.egg-info build runs

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	# The pip that ships with Python 3.10 cannot resolve these requirements.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

.venv/.installed-docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

.venv/.installed-bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	touch $@
