# make demo: everything on drawn demo images, in minutes.  make test: the tests.  make test-cluster: the tests on
# three hosts made of network namespaces (root on Linux).  make check: formatter, linter, types, documentation.
# make test-long: the property tests with 10,000 examples each.  make fuzz: damaged files for the readers.
# make test-kill: commands killed, and full disks, at random instants.
# make test-ray VERSION=2.58.1: the tests that start Ray, with that Ray.
# make lock: the lock files with hashes.  make audit: known holes in the pinned packages.  make wheel: the wheel and its
# SBOM in dist/.  make wheel-test: the wheel in a fresh environment outside of the checkout.
# Each makes its own virtual environment (.venv, .venv-ray-VERSION) when there is none.

VENV := .venv
TOOLS := .venv-tools
RAY := $(shell sed -n 's/^ray==//p' constraints.txt)
BIN := $(VENV)/bin
# The first Python 3.11 to 3.13 that runs here; choose another with: make demo PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

# Two processes with a Ray each: the tests of a file share theirs.
TWO := --numprocesses 2 --dist loadfile

.PHONY: demo test test-long test-cluster test-kill test-ray fuzz check lock audit wheel wheel-test clean

demo: $(VENV)/.installed
	$(BIN)/animalclf demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not ray" --numprocesses 2
	$(BIN)/python -m pytest -m ray $(TWO)

test-long: $(VENV)/.installed
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/test_properties.py tests/test_training_properties.py

# Half an hour on 2 cores: make fuzz COUNT=1000000 SEED=0
fuzz: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m fuzz images --count $(or $(COUNT),1000000) --seed $(or $(SEED),0)
	PYTHONPATH=tests $(BIN)/python -m fuzz files --count $(or $(FILES),100000) --seed $(or $(SEED),0)

# Ten minutes on 2 cores: make test-kill COUNT=100 SEED=0; with KILLS_ON_RAY=10 also the real commands on Ray, a minute a kill.
test-kill: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m kills --count $(or $(COUNT),100) --ray $(or $(KILLS_ON_RAY),0) --seed $(or $(SEED),0)

test-cluster: $(VENV)/.installed
	ANIMALCLF_TEST_CLUSTER=1 $(BIN)/python -m pytest tests/cluster

test-ray:
	@test -n "$(VERSION)" || { echo "name the Ray to test with: make test-ray VERSION=2.58.1"; exit 1; }
	$(MAKE) VENV=.venv-ray-$(VERSION) RAY=$(VERSION) .venv-ray-$(VERSION)/.installed
	.venv-ray-$(VERSION)/bin/python -m pytest -m ray $(TWO)

# The versions are those of constraints.txt, the packages those of Linux x86-64; the hashes are those of all files of a
# version, for any Python from 3.11 to 3.13. No file names a server.
LOCK = $(TOOLS)/bin/uv pip compile pyproject.toml --constraint constraints.txt --generate-hashes --quiet \
	--python-version 3.11.5 --python-platform x86_64-unknown-linux-gnu --no-python-downloads \
	--no-annotate --no-header
lock: $(TOOLS)/.installed
	$(LOCK) --extra embedded --output-file requirements/runtime.lock
	$(LOCK) --extra dev --output-file requirements/dev.lock

# Without a vulnerability database it says so; with STRICT=1 that is an error.
audit: $(TOOLS)/.installed
	$(TOOLS)/bin/python requirements/audit.py $(if $(STRICT),--strict)

WHEEL = dist/animalclf-$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
wheel: $(TOOLS)/.installed
	$(TOOLS)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(TOOLS)/bin/cyclonedx-py requirements requirements/runtime.lock --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-file $(WHEEL).cdx.json

wheel-test: wheel
	.ci/wheel-test $(PYTHON)

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(TOOLS)/.installed: requirements/tools.txt
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/tools.txt
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "animalclf needs Python 3.11, 3.12 or 3.13; name one with: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (PyTorch and Ray: some GB, a few minutes the first time)"
	@sed 's/^ray==.*/ray==$(RAY)/' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(TOOLS) .venv-ray-* build dist site *.egg-info
