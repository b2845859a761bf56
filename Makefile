# make demo         profile this CPU, learn it, search a network for a latency target, train, export, time
# make demo-phone   the same for a phone, on one that runs on 127.0.0.1: devices, profile, fit, predict
# make test         all checks that a change must pass: ruff, mypy, import-linter, pytest
#
# Each works alone on a fresh machine with Python 3.11 or newer; demo-phone needs Linux with mksh and toybox, too. What is
# missing is said before anything is installed. PIP_ARGS adds options to pip, PYTHON chooses another Python.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-phone test test-slow clean phone
.DELETE_ON_ERROR:

demo: $(VENV)/.netlathe
	$(BIN)/netlathe demo --output runs/demo

demo-phone: phone
	@$(MAKE) --no-print-directory $(VENV)/.netlathe
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo_phone

test: $(VENV)/.netlathe-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

test-slow: $(VENV)/.netlathe-dev
	@# Equal sums need equal threads, here and in the processes that tests start.
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info

$(VENV)/.netlathe: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e .
	touch $@

$(VENV)/.netlathe-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[dev,docs,onnxruntime]"
	touch $@

$(VENV)/bin/python:
	@$(check_python)
	$(PYTHON) -m venv $(VENV)

phone:
	@[ -x $(BIN)/python ] || { $(check_python); }
	@python=$(BIN)/python; [ -x $$python ] || python='$(PYTHON)'; $$python -m tests.loopback.namespace

define check_python
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
    echo "netlathe needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
    exit 1; \
}; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
    echo "$(PYTHON) has no venv module. On Debian and Ubuntu: sudo apt install python3-venv; then again: make $(MAKECMDGOALS)"; \
    exit 1; \
}
endef
