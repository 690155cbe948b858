# make demo      install, then train and use a model on printed letters
# make test      install, then run the fast tests          make test-all   all tests
# make coverage  the fast tests with coverage, which must not fall
# make check     style, types, import layers               make docs       the documentation, into site/
# make pages     docs/settings.md and docs/cli.md, which come from the program
# make dist      wheel and source distribution, into dist/
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --durations 20

.PHONY: demo test test-all coverage check docs course pages dist clean
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
	$(PYTEST) -m "not slow and not data and not browser"

test-all: .venv/test
	$(PYTEST)

coverage: .venv/test
	$(PYTEST) -m "not slow and not data and not browser" --cov --cov-report term:skip-covered

check: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# After a change of commands, options, recipes or rules of training.
pages: .venv/test
	$(BIN)/python docs/settings.py
	$(BIN)/python docs/cli.py

# After a change of the course (docs/learn): outputs, notebooks, pictures.
course: .venv/test
	$(BIN)/python docs/learn/chapters.py
	$(BIN)/python docs/learn/pictures.py

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the documentation is in site/"

dist: .venv/test
	$(PIP) build
	$(BIN)/python -m build

clean:
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache
