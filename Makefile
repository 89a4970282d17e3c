# Each target sets up what it needs: a virtual environment in .venv, the locked dependencies, and
# greenboard itself. Nothing but Python >= 3.11, make and git has to be there before.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
OUT ?= runs/demo

.PHONY: help install demo test serve lint bench lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     synthetic cohort -> bundle -> policies -> report -> reviewed case (OUT=$(OUT))"
	@echo "make test     the whole test suite"
	@echo "make serve    serve the demo's bundle on http://127.0.0.1:8000"
	@echo "make lint     ruff, mypy --strict, import-linter"
	@echo "make bench    the benchmarks (real cohorts where they are found)"
	@echo "make lock     pin the dependencies again (UPGRADE=--upgrade takes newer versions)"

# torch first and by itself: a looser requirement would pull in gigabytes (see requirements.lock).
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "greenboard needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/greenboard demo --out $(OUT)

test: install
	$(BIN)/python -m pytest -n auto

serve: install
	@test -f $(OUT)/bundle/manifest.json || $(BIN)/greenboard demo --out $(OUT)
	$(BIN)/greenboard serve --bundle $(OUT)/bundle

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/main_job.py --out runs/bench

# The header stays; pip-compile's closing remark on torch goes, since the header says it better.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet 'pip<25.3' pip-tools
	cp requirements.lock $(VENV)-lock/pins
	$(VENV)-lock/bin/pip-compile $(UPGRADE) --quiet --generate-hashes --unsafe-package torch --strip-extras \
	  --no-header --no-emit-index-url --no-emit-find-links --all-extras \
	  --output-file $(VENV)-lock/pins pyproject.toml
	sed -n '/^#/p;/^[^#]/q' requirements.lock > $(VENV)-lock/header
	sed '/^# WARNING/,$$d' $(VENV)-lock/pins | cat $(VENV)-lock/header - > requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-lock dist
