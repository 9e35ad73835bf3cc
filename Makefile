# Needs Python 3.10 or newer and make; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all bench bench-quick format clean

demo: .venv/.installed  ## the main job: train, test, export and predict on handwritten digits
	$(BIN)/keras-resnet demo

test: .venv/.installed-test  ## everything that is quick and needs no weights or data sets
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest -n 2

test-all: .venv/.installed-test  ## the slow proofs too
	$(BIN)/python -m pytest -m ""

bench: .venv/.installed-bench  ## against everything else one might use, for an hour or two
	$(BIN)/python -m benchmarks

bench-quick: .venv/.installed-test  ## ratios on small images, in three minutes
	$(BIN)/python -m benchmarks --quick

format: .venv/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv *.egg-info build runs

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	# The pip that Python 3.10 brings along does not find its way through these requirements.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

.venv/.installed-bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	touch $@
