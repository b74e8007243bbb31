# make demo    install, then attack, judge and measure the embedded checkpoint; ends with a PDF
# make test    every test; `make fast` leaves out those that load a checkpoint
# make check   ruff and mypy
# make adapters  train the adapters that ship (vanilla, derta) again, by their recipes
# make clean   remove the environment and caches (runs/ stays)
#
# STACK=gpu|cpu   which pinned set to install (default: gpu where nvidia-smi is found)
# TORCH_INDEX=URL an index that carries CPU builds of torch; without one, the first index that has torch serves

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
STACK ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check install $(if $(CI),--quiet)

.PHONY: demo test fast check adapters clean install

demo: $(VENV)/.$(STACK)
	$(VENV)/bin/harness run --model smollm2-135m --adapter vanilla --adapter derta --profile demo

test: $(VENV)/.dev
	$(RUN) pytest

fast: $(VENV)/.dev
	$(RUN) pytest -m "not slow"

check: $(VENV)/.dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

adapters: $(VENV)/.$(STACK)
	$(VENV)/bin/python ci/ship_adapters.py vanilla derta

install: $(VENV)/.$(STACK)
	$(VENV)/bin/harness doctor

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each stage: what is installed is not installed again until its pins change.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("harness needs Python 3.11 or newer: make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: requirements/cpu.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing the CPU stack into $(VENV): 4 GB, 2 to 10 minutes"
	$(PIP) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0+cpu || $(PIP) torch==2.13.0
	$(PIP) --no-deps -r requirements/cpu.txt
	$(PIP) --no-deps -e .
	@touch $@

$(VENV)/.gpu: requirements/gpu.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing the GPU stack into $(VENV)"
	$(PIP) -r requirements/gpu.txt -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.$(STACK)
	$(PIP) -r requirements/dev.txt
	@touch $@
