# Two commands are enough on a fresh machine: `make demo` and `make test`.
# PYTHON, VENV, PIP_ARGS and TRANSFORMERS can be set on the command line.
PYTHON       ?= python3
VENV         ?= .venv
EVAL_VENV    ?= $(VENV)-eval
PIP_ARGS     ?=
TRANSFORMERS ?=
BIN          := $(VENV)/bin
SAMPLE       := tam_plugin/assets/taskworld/clip1017.mp4
QUERY        ?= Which flash of the lamp comes last in the video?

export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
LLAVA_NEXT_HOME ?= $(HOME)/.cache/tam_plugin/LLaVA-NeXT
.PHONY: help demo test test-fast hosttest evaltest coverage lint format bench clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.test: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[test]' \
	    $(if $(TRANSFORMERS),&& $(BIN)/python -m pip install $(PIP_ARGS) transformers==$(TRANSFORMERS))
	@touch $@ $(VENV)/.core

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[test,dev]'
	@touch $@

demo: $(VENV)/.core  ## ask a question about a drawn clip; writes demo/contact_sheet.png
	@mkdir -p demo
	$(BIN)/tam ask $(SAMPLE) --query "$(QUERY)" --contact-sheet demo/contact_sheet.png --max-new-tokens 16

# Tiny models: more threads than one wait for each other longer than they compute.
ONE_THREAD := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}

# With a checkout of LLaVA-NeXT the tests need its requirements too; without one its tests are skipped and counted.
HOST_READY := $(if $(wildcard $(LLAVA_NEXT_HOME)/llava/__init__.py),$(VENV)/.host)

test: $(VENV)/.test $(HOST_READY)  ## run the tests (make test TRANSFORMERS=4.57.6 VENV=.venv-4.57 for another host version)
	$(ONE_THREAD) LLAVA_NEXT_HOME=$(LLAVA_NEXT_HOME) $(BIN)/python -m pytest

test-fast: $(VENV)/.test  ## run the quick tests, two at a time: none marked slow, none of LLaVA-NeXT
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not slow" --ignore=tests/llava -n 2

$(VENV)/.host: $(VENV)/.test
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[test,llava-host]'
	DS_BUILD_OPS=0 $(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt --no-build-isolation deepspeed
	@touch $@

hosttest: $(VENV)/.host  ## run the LLaVA-NeXT tests against the checkout in LLAVA_NEXT_HOME, with its own requirements
	$(ONE_THREAD) LLAVA_NEXT_HOME=$(LLAVA_NEXT_HOME) $(BIN)/python -m pytest tests/llava

# lmms-eval's own bounds fit no other environment. Its torchvision does not load beside torch's build for the CPU, and
# then breaks whatever looks for it; nothing here needs it.
$(EVAL_VENV)/.eval: setup.cfg constraints-eval.txt
	$(PYTHON) -m venv $(EVAL_VENV)
	$(EVAL_VENV)/bin/python -m pip install $(PIP_ARGS) -c constraints-eval.txt -e '.[eval,test,llava-host]'
	$(EVAL_VENV)/bin/python -c 'import torchvision' 2>/dev/null || $(EVAL_VENV)/bin/python -m pip uninstall -y torchvision
	@touch $@

evaltest: $(EVAL_VENV)/.eval  ## run the lmms-eval tests in an environment of their own
	$(ONE_THREAD) LLAVA_NEXT_HOME=$(LLAVA_NEXT_HOME) $(EVAL_VENV)/bin/python -m pytest tests/eval_lmms

coverage: $(VENV)/.test  ## run the tests and print the coverage of every file
	$(ONE_THREAD) $(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

# mypy does not read package_dir: these links show it tam_plugin.patches and tam_plugin.eval where they are installed.
lint: $(VENV)/.dev  ## style and types
	@rm -rf build/lint && mkdir -p build/lint/tam_plugin && ln -s ../../../patches ../../../eval build/lint/tam_plugin
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/.dev  ## rewrite to the project's style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(VENV)/.test  ## every benchmark, as ratios against the hosts' way
	@for b in video preprocess tower inductor; do echo "== $$b"; $(BIN)/tam bench $$b || exit 1; done

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) $(EVAL_VENV) demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
