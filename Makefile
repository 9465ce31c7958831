PYTHON ?= python3
BIN := .venv/bin
# Two workers of one thread each: two threads each would wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

.PHONY: demo test check bench docs notebooks clean

demo: .venv/demo
	$(BIN)/rivals demo

test: .venv/dev
	$(PYTEST)

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: .venv/dev
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m benchmarks

docs: .venv/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d .venv/doctrees docs site
	@echo "site/index.html"

# All of them, or some: make notebooks ONLY=3
notebooks: .venv/notebooks
	$(BIN)/python notebooks/make.py $(ONLY)

clean:
	rm -rf .venv site

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@ .venv/demo

.venv/docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

.venv/notebooks: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[demo,notebooks]'
	touch $@
