# Everything that a person types. `make demo` and `make test` are the two to begin with.

PYTHON ?= python3
CARGO ?= cargo
STACK := $(PYTHON) stack/stack.py

# Compiled in. The same for builds and tests, which would otherwise compile all of it twice.
export CREDITSTREAM_REVISION := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)

# More for the benches, for example BENCH="--events 300000 --rounds 3".
BENCH ?=

.PHONY: help build release demo dashboards charts chaos chaos-short test test-python test-build test-one bench bench-short bench-ledger bench-mixes bench-growth bench-soak bench-month bench-alerts bench-rebalance bench-restore bench-verify bench-clickhouse bench-sink lint deny stack-up stack-down stack-status stack-wipe

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: ## Build the binary, target/release/creditstream
	@$(STACK) install
	$(CARGO) build --release --locked

release: stack-up ## Build the binary to deploy, compiled with a profile of its own work: target/optimised/creditstream
	@.stack/venv/bin/python benches/optimise.py

demo: build stack-up ## Real events through a real Kafka, ClickHouse and Prometheus, with a proof at the end
	@.stack/venv/bin/python demo/demo.py

dashboards: ## Make dashboards/*.json anew, after a change of the program beside them
	@$(STACK) install
	@.stack/dashboards/bin/python dashboards/build.py

charts: stack-up ## Draw docs/images/*.svg from what the last demo left in ClickHouse
	@$(PYTHON) -B dashboards/charts.py

# Minutes of faults, and what decides them.
MINUTES ?= 10
SEED ?= 1
# Brokers: 1, or 3 with every partition on all of them.
BROKERS ?= 1

CHAOS = .stack/venv/bin/python chaos/chaos.py --seed $(SEED) --brokers $(BROKERS)

chaos: build ## Faults on Kafka, ClickHouse and three instances, and a proof: make chaos MINUTES=10 SEED=1 (root)
	@$(CHAOS) --minutes $(MINUTES)

# A run without a verdict (75) is made once more; one that failed is not.
chaos-short: build ## The same for three minutes: every kind of fault at least once
	@$(CHAOS) --minutes 3 || { [ $$? -eq 75 ] && echo "once more" && $(CHAOS) --minutes 3; }

# Lives of wallets that are compared with the oracle.
ORACLE_LIVES ?= 10000

# Runs of the ledger stage against model brokers: a minute or less on two cores.
SIMULATION_SEEDS ?= 1000

# Tests of a binary at a time: those on the real components wait more than they compute.
TEST_THREADS ?= 4

test: build stack-up ## All tests, on the real components
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-python test-build
	CREDITSTREAM_ORACLE_LIVES=$(ORACLE_LIVES) SIMULATION_SEEDS=$(SIMULATION_SEEDS) RUST_TEST_THREADS=$(TEST_THREADS) \
	  $(CARGO) test --release --locked --lib --bins --tests
	RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --release --locked --features fault-points --test crashes

test-python:
	@.stack/venv/bin/python -m unittest discover --start-directory stack --pattern 'test_*.py'
	@.stack/venv/bin/python -m unittest discover --start-directory tests/alerting --pattern 'test_*.py'
	@.stack/venv/bin/python -m unittest discover --start-directory chaos --pattern 'test_*.py'
	@.stack/venv/bin/python -m unittest discover --start-directory benches --pattern 'test_*.py'
	@.stack/venv/bin/python -m unittest discover --start-directory tests/clickhouse --pattern 'test_*.py'
	@.stack/dashboards/bin/python -B -m unittest discover --start-directory tests/dashboards --pattern 'test_*.py'
	@$(PYTHON) tests/oracle/main.py selftest

# The compiler's work, beside the waiting of the tests in Python.
test-build: build
	$(CARGO) test --release --locked --lib --bins --tests --no-run
	$(CARGO) test --release --locked --features fault-points --test crashes --no-run

test-one: ## One test by a part of its name, with the stack already up: make test-one T=late_usage
	@test -n "$(T)" || { echo "which test? make test-one T=part_of_its_name"; exit 2; }
	$(CARGO) test --release --locked -- $(T)

bench: build stack-up ## The whole job beside what Kafka and ClickHouse allow, 25 minutes: figures, ratios, profile (BENCH="--help")
	$(CARGO) build --release --locked --example pass_through
	@.stack/venv/bin/python benches/speed.py $(BENCH)

bench-short: ## The same in a minute, without the sink: shows that it works
	@$(MAKE) bench BENCH=--short

bench-ledger: build stack-up ## What an event costs in the ledger stage: events/s, CPU per event (BENCH="--help")
	$(CARGO) build --release --locked --example pass_through
	@.stack/venv/bin/python benches/ledger_stage.py --pass-through target/release/examples/pass_through $(BENCH)

bench-mixes: build stack-up ## Other mixes of events, more workers, and how late balances are under live load (BENCH="--help")
	@.stack/venv/bin/python benches/mixes.py $(BENCH)

bench-growth: build stack-up ## How speed, memory and restores grow with wallets, identities, batches, half an hour (BENCH="--help")
	@.stack/venv/bin/python benches/growth.py $(BENCH)

bench-soak: build stack-up ## 100,000,000 identities at full load, then 30 minutes live: what grows, 65 minutes (BENCH="--help")
	@.stack/venv/bin/python benches/soak.py $(BENCH)

bench-month: build stack-up ## A million allocations due in one second, while usage goes on (BENCH="--help")
	@.stack/venv/bin/python benches/first_of_month.py $(BENCH)

bench-alerts: build stack-up ## From an event to the webhook that tells of it, under live load (BENCH="--help")
	@.stack/venv/bin/python benches/alert_latency.py $(BENCH)

bench-rebalance: build stack-up ## How long shards stand still while instances come, go and die, under load (BENCH="--help")
	@.stack/venv/bin/python benches/rebalance.py $(BENCH)

bench-restore: build stack-up ## How long a start takes with the local store, and without any (BENCH="--help")
	@.stack/venv/bin/python benches/restore.py $(BENCH)

bench-verify: build stack-up ## How fast verify compares everything (BENCH="--help")
	@.stack/venv/bin/python benches/verify.py $(BENCH)

bench-clickhouse: stack-up ## What the tables take and how fast the views answer, on 10,000,000 entries (BENCH="--help")
	@.stack/venv/bin/python -B benches/clickhouse.py $(BENCH)

bench-sink: build stack-up ## How fast the sink writes, and how fast ClickHouse takes the same inserts (BENCH="--help")
	@.stack/venv/bin/python benches/sink.py $(BENCH)

lint: ## Formatting, clippy, and file rules
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets --features fault-points -- -D warnings

deny: ## Licences, bans and sources of all dependencies
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny@0.20.2
	cargo deny check licenses bans sources

stack-up: ## Start the local Kafka, ClickHouse, Prometheus and Alertmanager
	@$(STACK) up

stack-down: ## Stop them; their data stays
	@$(STACK) down

stack-status: ## What runs, where
	@$(STACK) status

stack-wipe: ## Stop them and delete their data
	@$(STACK) wipe
