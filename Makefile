# What a developer types; continuous integration types the same. `make demo` and `make test` are the whole set-up of a
# fresh machine: each installs what is missing first.

CARGO ?= cargo
# Everything is built in one profile with one set of features, so that RocksDB and librdkafka are compiled once.
BUILD := $(CARGO) build --workspace --all-targets
TARGET := $(or $(CARGO_TARGET_DIR),target)/debug

.PHONY: help demo test lint proof bench build parts packages format

help: ## Say what there is to make
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: build parts ## Show it working on this machine: Kafka, registry, ClickHouse engine, events, pipeline
	$(TARGET)/weir demo $(DEMO)

test: build lint parts ## Everything that continuous integration runs
	$(CARGO) test --workspace --no-fail-fast

lint: packages ## What clippy says, of which nothing may be left
	@$(CARGO) clippy --version > /dev/null 2>&1 || rustup component add clippy
	$(CARGO) clippy --workspace --all-targets -- -D warnings

proof: build parts ## The same proofs at full size, telling what they found
	WEIR_PROOF=full $(CARGO) test --workspace --no-fail-fast --test it -- --nocapture

# The profile is named, since cargo's own for benchmarks would compile RocksDB once more.
bench: build parts ## Measure the speed, with the floor beside it
	$(CARGO) bench --profile dev -p weir --bench speed --bench wide --bench beside

build: packages ## Compile everything
	$(BUILD)

parts: packages ## Fetch Kafka, the registry and the ClickHouse engine
	replay/parts/parts.sh fetch

packages: ## Install the system packages that are missing
	@replay/parts/packages.sh

format: ## Format the code
	$(CARGO) fmt --all
