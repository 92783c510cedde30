# make demo    environment, install, a first conversion with a picture
# make test    environment if needed, then the whole suite
# make check   ruff, mypy

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
# processes that share the suite, a file of tests at a time
JOBS   ?= 2
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check vectors clean

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.all: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(PIP) install -q -c constraints.txt -e ".[all]"
	touch $@

$(VENV)/.dev: $(VENV)/.all
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	touch $@

demo: $(VENV)/.all
	$(BIN)/python -m tools.demo demo-output

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

vectors: $(VENV)/.dev
	$(BIN)/python -m tools.vectors

clean:
	rm -rf $(VENV) .venv-read demo-output .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
