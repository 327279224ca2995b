# make quickstart: sets everything up, then trains on 448 languages and leaves a Hugging Face checkpoint
# make test:       sets everything up, then checks style, types and layers, and runs the tests

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := .venv/.installed
LAUNCHERS := .venv/.launchers

.PHONY: quickstart test lint format bench install install-launchers clean-quickstart

install: $(INSTALLED)

# torch comes first: what is installed after it then takes it as it is, instead of a build of its own choice.
$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt torch pip setuptools pybind11
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[hf,dev]"
	touch $@

install-launchers: $(LAUNCHERS)

$(LAUNCHERS): $(INSTALLED)
	DS_BUILD_OPS=0 $(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[launchers]"
	touch $@

quickstart: $(INSTALLED)
	$(BIN)/python examples/udhr/quickstart.py

clean-quickstart:
	rm -rf runs/quickstart

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror csrc/*.h csrc/*.cpp

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*.h csrc/*.cpp

test: lint
	$(BIN)/pytest

bench: $(INSTALLED)
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/preprocess.py
