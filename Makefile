# The two commands a newcomer needs are `make demo` and `make test`.
CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
VENV := $(TARGET)/venv-test
MODEL := all_minilm_l6_v2_int8
# What tests need besides.
TEST_MODELS := splade_tiny media_tools conse_minilm_l6_v2 faces speech whisper_tiny_en pp_ocr_v6_small
SDK := mixpeek==1.3.783
FUZZER := schemathesis==4.32.5
# What the metrics of rankings are compared with.
ORACLE := pytrec_eval-terrier==0.5.11
# An object store that speaks S3, for backups.
S3 := 'moto[s3]==5.2.5' flask==3.1.3 flask-cors==6.0.5

# Tests take nothing from the user's own directories: model and Python packages live beside the build.
test crash soak load schemathesis check generated fixtures: export STRATA_MODELS := $(or $(STRATA_MODELS),$(TARGET)/models)
test crash soak load schemathesis check: export STRATA_TEST_PYTHON := $(VENV)/bin/python
# Real photos, recordings, videos and PDFs.
test crash soak load schemathesis check bench: export STRATA_TEST_FILES := $(or $(STRATA_TEST_FILES),$(TARGET)/test-files)

.PHONY: demo test check lint crash soak load schemathesis fuzz bench compat generated fixtures prepare clean-tests

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
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny check; \
	else \
	  echo "not checked: licences, sources and advisories; \`$(CARGO) install --locked cargo-deny\` gets what does" >&2; \
	fi
	@if $(CARGO) audit --version >/dev/null 2>&1; then \
	  $(CARGO) audit; \
	else \
	  echo "not checked: advisories of \`Cargo.lock\`; \`$(CARGO) install --locked cargo-audit\` gets what does" >&2; \
	fi

# The long form of the crash tests: 1,000 rounds of kill -9, most of an hour.
crash: export STRATA_CRASH_ROUNDS := 1000
crash: prepare
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace --test integration --profile crash crash::; \
	else \
	  $(CARGO) test --workspace --test integration crash::; \
	fi

# The long form of the comparison with a model: 200,000 operations.
soak: export STRATA_MODEL_OPERATIONS := 200000
soak: prepare
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace --test integration --profile crash model::; \
	else \
	  $(CARGO) test --workspace --test integration model::; \
	fi

# The long form of the overload: ten times what this machine can do, for five minutes.
load: export STRATA_LOAD_SECONDS := $(or $(STRATA_LOAD_SECONDS),300)
load: export STRATA_LOAD_FACTOR := $(or $(STRATA_LOAD_FACTOR),10)
load: prepare
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace --test integration --profile crash --no-capture load::overload::; \
	else \
	  $(CARGO) test --workspace --test integration load::overload:: -- --nocapture; \
	fi

# The long form of the requests that are made up from the OpenAPI document, and of chains of them: half an hour.
schemathesis: export STRATA_FUZZ_SECONDS := $(or $(STRATA_FUZZ_SECONDS),1800)
schemathesis: export STRATA_FUZZ_EXAMPLES := $(or $(STRATA_FUZZ_EXAMPLES),50)
schemathesis: prepare
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace --test integration --profile crash --no-fail-fast --test-threads 5 contract::fuzzed::; \
	else \
	  $(CARGO) test --workspace --test integration contract::fuzzed:: -- --test-threads 5; \
	fi

# Looks for templates, filters and plans that panic, hang, or are not refused as the caller's. What it reaches is kept in
# fuzz/corpus, what fails in fuzz/artifacts. No nightly compiler is needed: the counters go into this project's crates only.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= templates filters plans
FUZZ_DIR := $(or $(FUZZ_TARGET_DIR),$(TARGET)/fuzz)
fuzz:
	RUSTC_WRAPPER=$(CURDIR)/fuzz/rustc.sh $(CARGO) build --manifest-path fuzz/Cargo.toml --target-dir $(FUZZ_DIR)
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$target fuzz/artifacts && \
	  $(FUZZ_DIR)/debug/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=25 -rss_limit_mb=4096 -max_len=512 \
	    -artifact_prefix=fuzz/artifacts/$$target- -print_final_stats=1 fuzz/corpus/$$target || exit 1; \
	done

bench:
	$(CARGO) build --release --package strata
	STRATA_BIN=$(TARGET)/release/strata PYTHON=$(PYTHON) ./bench/run

# Files made from the code: COMPAT.md and the OpenAPI document.
compat generated:
	$(CARGO) run --quiet --package strata -- compat
	$(CARGO) run --quiet --package strata -- openapi > $(TARGET)/openapi.json
	mv $(TARGET)/openapi.json tests/contract/openapi.json

# What is missing of the fixtures of stored formats, made by this program; what is there stays.
fixtures: prepare
	$(PYTHON) tests/fixtures/formats/make.py $(TARGET)/debug/strata

prepare: $(VENV)/ready
	$(CARGO) build --workspace
	$(CARGO) run --quiet --package strata -- models pull $(MODEL) $(TEST_MODELS)
	PYTHON=$(PYTHON) ./scripts/fetch-test-files.sh

$(VENV)/ready: Makefile
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(SDK) $(FUZZER) $(ORACLE) $(S3)
	touch $@

clean-tests:
	rm -rf $(VENV)
