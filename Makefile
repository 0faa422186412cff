# The two commands a newcomer needs are `make demo` and `make test`.
.PHONY: test check

test:
	cargo nextest run --workspace --no-tests=pass

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(MAKE) test
