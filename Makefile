# The few commands people type. Every one builds with the same profile and features, so that RocksDB is compiled once.
SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(HOME)/.cache/flotilla/target
# A fresh rustup may not be on the PATH of this shell yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
FLOTILLA := $(CARGO_TARGET_DIR)/release/flotilla

.DEFAULT_GOAL := help
.PHONY: help setup build demo test planted run check fix bench

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Build, start three nodes, produce a real file, kill the leader half way, consume, compare, stop
	@deploy/demo.sh "$(FLOTILLA)"

# One build with what the tests need serves binary and tests: without --all-targets Cargo unifies other features, and
# would compile the workspace twice. Every suite runs, whatever fails before it: one failure must not hide another.
test: setup ## Build and run every test
	cargo build --release --workspace --all-targets
	cargo test --release --workspace --no-fail-fast

run: build ## Build and leave a node running (data in ./flotilla-data, or FLOTILLA_DATA_DIR)
	@echo "Ctrl-C stops the node."
	@"$(FLOTILLA)" server

planted: setup ## Plant bugs, one after the other, and show that the simulation finds each
	cargo run --release -p flotilla-chaos --features planted -- planted

check: setup ## Format and lints; reads only
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

fix: setup ## Format and apply what the lints suggest; writes
	cargo fmt --all
	cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged

bench: build ## Start a node and measure it, then a cluster (see docs/benchmarks.md)
	@deploy/bench.sh "$(FLOTILLA)"
	@deploy/bench-cluster.sh "$(FLOTILLA)"

build: setup ## Build the release binary
	cargo build --release --workspace

setup: ## Install what the build needs, if it is missing (Debian, Ubuntu)
	@deploy/setup.sh
