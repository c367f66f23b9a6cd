# The front door: `make` lists what it can do. Everything is built by cargo; this only puts it in order.

# rustup's cargo first, then what an ordinary user's PATH lacks on Debian.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

# More arguments for every cargo call, such as --locked.
CARGO_FLAGS ?=
# More arguments for the tests, such as TEST_ARGS='--test lab' or TEST_ARGS='-- selector'.
TEST_ARGS ?=
# More arguments for the demo and the benches.
ARGS ?=

SCRIPTS := .ci/run tools/install-deps tools/check-namespaces tools/fetch-nft tools/fetch-vm-kernel tools/fuzz tests/vm/boot \
	tests/vm/init

.DEFAULT_GOAL := help
.PHONY: help deps namespaces build demo test check bench bench-dataplane mutants fuzz deny clean
.NOTPARALLEL:

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing: Debian packages, Rust
	@tools/install-deps

namespaces:
	@tools/check-namespaces

build: deps ## build the programs
	cargo build $(CARGO_FLAGS) --workspace --bins

# Without --package, cargo takes the features of the whole workspace, and so what `build` has built.
demo: namespaces build ## show policy at work: a small shop in network namespaces
	cargo run $(CARGO_FLAGS) --quiet --bin demo -- $(ARGS)

# One profile for all tests, dev, which Cargo.toml optimises a little. Cargo alone would build no programs of other
# crates, and the lab starts those of this build.
# What cannot be fetched is skipped, by name: listings by a newer nft, and tests that need another kernel.
test: namespaces deps ## run all tests
	@tools/fetch-nft >/dev/null || true
	@tools/fetch-vm-kernel >/dev/null || true
	cargo build $(CARGO_FLAGS) --workspace --bins --tests
	cargo test $(CARGO_FLAGS) --workspace --no-fail-fast $(TEST_ARGS)

check: deps ## check format and lints; warnings are errors
	@for script in $(SCRIPTS); do sh -n $$script || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); \
	else echo "shellcheck is not installed: the scripts are only parsed"; fi
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

bench: namespaces deps ## measure speed and memory, in release builds
	cargo build $(CARGO_FLAGS) --release --workspace --bins
	cargo run $(CARGO_FLAGS) --release --quiet --bin bench -- $(ARGS)
	cargo bench $(CARGO_FLAGS) --package tortie-rules --bench graph --bench graph-heap

bench-dataplane: namespaces deps ## measure what rules cost packets, and nftables mode under load, in release builds
	cargo build $(CARGO_FLAGS) --release --workspace --bins
	cargo run $(CARGO_FLAGS) --release --quiet --bin bench -- --parts flows,loaded,nft-codec $(ARGS)

mutants: deps ## plant faults in the compiler, and see that the tests catch them
	cargo run $(CARGO_FLAGS) --quiet --bin mutants -- $(ARGS)

fuzz: deps ## fuzz what reads text from outside, FUZZ_SECONDS each (600); ARGS chooses targets
	@tools/fuzz $(ARGS)

deny: deps ## check licences, advisories and sources of dependencies
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny check

clean: ## remove what was built
	cargo clean
