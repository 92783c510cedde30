# make demo    environment, install, a first conversion with a picture
# make test    environment if needed, then the whole suite
# make check   ruff, mypy
# make web     the viewer of the page in the browser: NiiVue, bundled; needs npm and its registry

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
# processes that share the suite, a file of tests at a time
JOBS   ?= 2
BIN    := $(VENV)/bin
VIEWER := inrstore/views/web/dist/niivue.js
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check web viewer vectors clean

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.all: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(PIP) install -q -c constraints.txt -e ".[all]"
	touch $@

$(VENV)/.dev: $(VENV)/.all
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	touch $@

$(VIEWER): tools/web/package-lock.json tools/web/build.js tools/web/niivue.js tools/web/niivue-license.txt
	cd tools/web && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=0 --fetch-timeout=60000 && npm run -s build

web: $(VIEWER)

# As web, but a machine without npm or its registry has all else.
viewer:
	@$(MAKE) -s web >/dev/null 2>&1 || echo "no viewer in the browser: npm or its registry is missing (make web says which)"

demo: $(VENV)/.all viewer
	$(BIN)/python -m tools.demo demo-output

test: $(VENV)/.dev viewer
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

vectors: $(VENV)/.dev
	$(BIN)/python -m tools.vectors

clean:
	rm -rf $(VENV) .venv-read tools/web/node_modules inrstore/views/web/dist demo-output .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
