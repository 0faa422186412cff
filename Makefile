# The two commands a newcomer needs are `make demo` and `make test`.
CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
VENV := $(TARGET)/venv-test
MODEL := all_minilm_l6_v2_int8
# What tests need besides.
TEST_MODELS := splade_tiny
SDK := mixpeek==1.3.783
FUZZER := schemathesis==4.32.5
# What the metrics of rankings are compared with.
ORACLE := pytrec_eval-terrier==0.5.11

# Tests take nothing from the user's own directories: model and Python packages live beside the build.
test crash check generated: export STRATA_MODELS := $(or $(STRATA_MODELS),$(TARGET)/models)
test crash check: export STRATA_TEST_PYTHON := $(VENV)/bin/python

.PHONY: demo test check lint crash bench compat generated prepare clean-tests

demo:
	./scripts/demo.sh

test: prepare
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace; \
	else \
	  $(CARGO) test --workspace; \
	fi

# Formatting, lints, tests and the drift of generated files; `test` compares those with what would be written.
check: lint test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# The long form of the crash tests: 30 rounds of kill -9.
crash: export STRATA_CRASH_ROUNDS := 30
crash: prepare
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --package strata --test integration --profile crash crash::; \
	else \
	  $(CARGO) test --package strata --test integration crash::; \
	fi

bench:
	$(CARGO) build --release --package strata
	STRATA_BIN=$(TARGET)/release/strata PYTHON=$(PYTHON) ./bench/run

# Files made from the code: COMPAT.md and the OpenAPI document.
compat generated:
	$(CARGO) run --quiet --package strata -- compat
	$(CARGO) run --quiet --package strata -- openapi > $(TARGET)/openapi.json
	mv $(TARGET)/openapi.json tests/contract/openapi.json

prepare: $(VENV)/ready
	$(CARGO) build --workspace
	$(CARGO) run --quiet --package strata -- models pull $(MODEL) $(TEST_MODELS)

$(VENV)/ready: Makefile
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(SDK) $(FUZZER) $(ORACLE)
	touch $@

clean-tests:
	rm -rf $(VENV)
