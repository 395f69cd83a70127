# make demo and make test work on a fresh clone of a fresh machine: each creates .venv and installs what it needs.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test levels lint docs release-check wheel results clean chromium

demo: .venv/.installed-demo
	$(BIN)/prorank rank --query "how do vaccines create immunity" --documents examples/passages.jsonl --format table

test: .venv/.installed-dev chromium
	$(BIN)/python tools/suite.py

# Tests of scores at every instruction-set level that this machine has, from AVX2 to AMX.
levels: .venv/.installed-dev
	$(BIN)/python tools/suite.py --levels

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: .venv/.installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python docs/build_site.py

# Wheel and sdist, their contents, and a ranking in a clean environment of every Python at hand.
release-check: .venv/.installed-dev
	$(PIP) install --quiet --constraint constraints.txt --group release
	$(BIN)/python tools/release_check.py

# dist/*.whl with our own engine compiled for every system (by PyPI's ziglang, 100 MB, in an environment of its own).
wheel: .venvs/wheel/bin/python
	.venvs/wheel/bin/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

.venvs/wheel/bin/python: pyproject.toml
	$(PYTHON) -m venv .venvs/wheel
	$@ -m pip --disable-pip-version-check install --quiet --upgrade "pip>=25.1"
	$@ -m pip --disable-pip-version-check install --quiet --group wheel
	touch $@

# The last record in float32. FLAGS="--dtype bfloat16" asks for other settings; they must be those of a committed record.
results: .venv/.installed-dev
	$(BIN)/python -m benchmarks.runs.results --check --dtype float32 $(FLAGS)

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade "pip>=25.1"

.venv/.installed-demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed-demo
	$(PIP) install --quiet --constraint constraints.txt --editable ".[all]" --group dev --group clients --group browser \
	--group docs --group engines --group ecosystem
	touch $@

# The page's tests skip without a browser: one is installed where that takes no password (a container), or not at all.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || [ "$$(id -u)" != 0 ] \
	|| ! command -v apt-get >/dev/null || { echo "installing chromium" && export DEBIAN_FRONTEND=noninteractive \
	&& timeout 300 sh -c "apt-get update && apt-get install --yes --no-install-recommends chromium" >/dev/null 2>&1; } \
	|| echo "no chromium: the page's tests will be skipped"

clean:
	rm -rf .venv
