# `make quickstart` and `make test` are all that a fresh machine needs; both call `make install` first.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed

.PHONY: install quickstart test test-slow lint format clean

install: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lorgnette needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Next: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(if $(CONSTRAINTS),$(PIP) $(shell grep -h '^torch==' $(CONSTRAINTS)))
	$(PIP) $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/lorgnette quickstart

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs results
