# make quickstart: sets everything up, then trains on 448 languages and leaves a Hugging Face checkpoint
# make test:       sets everything up, then checks style, types and layers, and runs the tests
# make test-cpp:   of these the C++ ones only, under AddressSanitizer and UBSan; needs nothing but a compiler

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := .venv/.installed
LAUNCHERS := .venv/.launchers

CPP_FILES := $(wildcard csrc/*.h csrc/*.cpp tests/cpp/*.h tests/cpp/*.cpp)
# Everything in csrc that knows no Python; each tests/cpp/test_*.cpp is a program of its own.
CPP_OBJECTS := $(patsubst csrc/%.cpp,build/cpp/%.o,$(filter-out csrc/bindings%,$(wildcard csrc/*.cpp)))
CPP_TESTS := $(patsubst tests/cpp/%.cpp,build/cpp/%,$(wildcard tests/cpp/test_*.cpp))
CPP_FLAGS := -std=c++17 -O1 -g -Wall -Wextra -Werror -ffp-contract=off -pthread -Icsrc \
	-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

.PHONY: quickstart test test-cpp lint format bench install install-launchers clean-quickstart

install: $(INSTALLED)

# torch comes first: what is installed after it then takes it as it is, instead of a build of its own choice.
$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt torch pip setuptools pybind11
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[hf,corpus,dev]"
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
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

test: lint test-cpp
	$(BIN)/pytest

test-cpp: $(CPP_TESTS)
	@set -e; for test in $^; do echo $$test; $$test; done

.SECONDARY: $(CPP_OBJECTS)

build/cpp/%.o: csrc/%.cpp $(wildcard csrc/*.h)
	@echo $@
	@mkdir -p $(@D)
	@$(CXX) $(CPP_FLAGS) -c $< -o $@

build/cpp/test_%: tests/cpp/test_%.cpp $(CPP_OBJECTS) tests/cpp/testing.h
	@echo $@
	@$(CXX) $(CPP_FLAGS) $< $(CPP_OBJECTS) -o $@

bench: $(INSTALLED)
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/preprocess.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/optimizer.py
	$(BIN)/python benchmarks/duplicates.py
	$(BIN)/python benchmarks/labels.py
	$(BIN)/python benchmarks/corpus.py
	$(BIN)/python benchmarks/cleaning.py
