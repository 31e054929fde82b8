# The two commands: `make train` and `make test`. Both work from a fresh clone with Python >= 3.11.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/classification/lenet.yaml
EXPERIMENT := $(basename $(notdir $(CONFIG)))

.PHONY: train test check format clean

train: $(VENV)/installed
	$(BIN)/python cli.py fit --config $(CONFIG) --experiment $(EXPERIMENT)
	$(BIN)/python cli.py test "$$(ls -d runs/$(EXPERIMENT)/*/ | sort -V | tail -n 1)"
	@run="$$(ls -d runs/$(EXPERIMENT)/*/ | sort -V | tail -n 1)"; \
	echo; echo "Look at:"; \
	echo "  $${run}curves.png                 learning curves"; \
	echo "  $${run}samples/                   predictions after each epoch"; \
	echo "  $${run}test/confusion_matrix.png  what is taken for what"; \
	echo "  $${run}test/samples.png           predictions on the test set"

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@ $(VENV)/installed

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/installed $(VENV)/installed-test

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
