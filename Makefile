# make demo: install and tell the whole story on real digits.  make test: install and test.
# make check: style, types, layers.  make docs: the pages, into site/.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check docs settings-page clean
.DEFAULT_GOAL := demo

# The stamps are newer than the files they depend on, so an install is repeated only when it must be.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/all: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[all]'
	@touch $@

.venv/test: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[all,test]'
	@touch $@ .venv/all

.venv/docs: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[all,docs]'
	@touch $@ .venv/all

demo: .venv/all
	$(BIN)/twinned demo

test: .venv/test
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# After a change of the options, recipes or rules of training.
settings-page: .venv/test
	$(BIN)/python docs/settings.py

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the pages lie in site/"

clean:
	rm -rf .venv build site .mypy_cache .ruff_cache .pytest_cache
