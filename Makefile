# `make help` lists what can be asked for. CI asks for the same targets as you do.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The recipes of `test` and its like share cargo's lock and two cores: in order, one after the other.
.NOTPARALLEL:

TARGET := $(or $(CARGO_TARGET_DIR),target)
SIDECAR := $(TARGET)/release/content-factory-sidecar
# As the image has it: without libraries of the system, in the profile `dist`.
DIST := $(TARGET)/dist/content-factory-sidecar
IMAGE ?= content-factory-sidecar:dev
# The virtual environment of the tests; the script makes it when it is not there, and prints its path last.
PYTHON = $$(tests/setup/python.sh | tail -n 1)/bin/python

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Application, sidecar, receiver and traffic in one process; more flags by ARGS='--collector URL --duration 10s'
	cargo run --release -- demo $(ARGS)

.PHONY: test
test: tools release ## Install what is missing, run every test, end with counts
	SIDECAR_BIN="$(abspath $(SIDECAR))" $(PYTHON) tests/suites.py

.PHONY: test-fast
test-fast: ## Unit tests and the architecture, in seconds
	cargo test --lib --test architecture

.PHONY: e2e
e2e: tools release ## Only the end-to-end tests; choose some by ARGS='-k redis'
	SIDECAR_BIN="$(abspath $(SIDECAR))" $(PYTHON) -m pytest tests/e2e $(ARGS)

.PHONY: checklist
checklist: ## The 34 points of a correct proxy, over raw sockets; choose one by ARGS=point_08
	cargo test --test checklist -- $(ARGS)

.PHONY: oracle
oracle: ## The byte oracle: raw messages through the proxy, judged by a strict reader; nginx and HAProxy beside it
	cargo test --test oracle -- --nocapture

.PHONY: soak
soak: release ## The behaviour contract in its long form, the soak alone 32 min; `make test` runs the short one. ARGS='idle' chooses
	CONTRACT=full SIDECAR_BIN="$(abspath $(SIDECAR))" cargo test --test contract --test floods -- --test-threads 1 --nocapture $(ARGS)
	CONTRACT=full cargo test --test it -- --nocapture any_number_of_kills a_killed_holder
	CONTRACT=full SIDECAR_BIN="$(abspath $(SIDECAR))" $(PYTHON) -m pytest -s tests/e2e/test_celery_kills.py tests/e2e/test_inside_cost.py

.PHONY: fuzz-oracle
fuzz-oracle: ## Mutated messages through the proxy as long as asked, SECONDS=600 SEED=1; what fails is printed as a corpus entry
	ORACLE_FUZZ_SECONDS=$(or $(SECONDS),600) ORACLE_SEED=$(or $(SEED),1) cargo test --test oracle -- --nocapture nothing_dirty

.PHONY: fuzz
fuzz: ## One target under libFuzzer, ARGS='traceparent -- -max_total_time=30'; needs a nightly compiler and cargo-fuzz
	tests/fuzz.sh $(ARGS)

.PHONY: chart
chart: ## Lint, render and validate the Helm chart
	$(PYTHON) -m pytest tests/chart $(ARGS)

.PHONY: collector
collector: ## Build the OpenTelemetry Collector and validate each of its files with it
	tests/setup/collector.sh
	tests/setup/collector-validate.sh

.PHONY: lint
lint: ## Formatting and clippy
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings

.PHONY: deny
deny: ## Licences, bans, sources and advisories of every crate; ARGS=advisories chooses
	tests/deny.sh $(ARGS)

.PHONY: docs
docs: ## Rewrite the generated pages of docs/, and build the documentation of the code
	cargo build --quiet
	$(TARGET)/debug/content-factory-sidecar docs metrics > $(TARGET)/metrics.md
	$(TARGET)/debug/content-factory-sidecar docs configuration > $(TARGET)/configuration.md
	mkdir -p docs
	mv $(TARGET)/metrics.md $(TARGET)/configuration.md docs/
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

.PHONY: judged
judged: dist ## The byte oracle, its mutations, the checklist and the fuzzers' corpora, tried on the binary that is shipped
	tests/setup/debian.sh
	SIDECAR_BIN="$(abspath $(DIST))" cargo test --quiet --test oracle --test checklist --test fuzz

.PHONY: bench
bench: $(if $(ARGS),dist,judged) ## The sidecar and its peers side by side, a quarter of an hour: rewrites the figures of docs/performance.md; ARGS='memory start' prints parts
	tests/setup/debian.sh
	BENCH_VENV="$$(tests/setup/python.sh benches/requirements.txt | tail -n 1)" SIDECAR_BIN="$(abspath $(DIST))" \
		cargo bench --quiet --profile dev --bench cost -- $(ARGS)

.PHONY: bench-limits
bench-limits: release ## What of the cost has limits: instructions and system calls of a request, start, memory; as `make test` measures
	SIDECAR_BIN="$(abspath $(SIDECAR))" cargo bench --quiet --profile dev --bench cost -- instructions syscalls start footprint

.PHONY: text-order
text-order: ## Lay the binary out anew by what runs in it: rewrites build/text.ld (needs valgrind; minutes)
	TEXT_ORDER=off $(MAKE) dist
	SIDECAR_BIN="$(abspath $(DIST))" cargo bench --quiet --profile dev --bench cost -- order > $(TARGET)/text.ld
	mv $(TARGET)/text.ld build/text.ld

.PHONY: image
image: ## Build the container image, IMAGE=name:tag
	$$(command -v docker || command -v podman || command -v buildah || { echo "found none of docker, podman, buildah, expected one to build an image" >&2; exit 1; }) \
		build --tag $(IMAGE) .

.PHONY: release
release: ## Build the binary
	cargo build --release --quiet

# Relocations as a bitmap: half a MiB less to read, and so to keep in memory, at the start.
.PHONY: dist
dist: ## Build the binary as it is shipped: minutes
	cargo rustc --profile dist --quiet --bin content-factory-sidecar -- \
		-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs

.PHONY: tools
tools: ## Install what the tests need, outside the tree; goes on after a failure, so that all that is missing is told at once
	@failed=(); \
	for tool in debian python helm h2spec grpc-interop collector deny; do \
		tests/setup/$$tool.sh > /dev/null || failed+=($$tool); \
	done; \
	if [ $${#failed[@]} -gt 0 ]; then \
		echo "could not set up: $${failed[*]} (what each of them misses stands above)" >&2; \
		exit 1; \
	fi

.PHONY: conventions
conventions: ## Rewrite tests/data/conventions.tsv, the names of OpenTelemetry's semantic conventions
	$(PYTHON) tests/setup/conventions.py

.PHONY: requirements
requirements: ## Resolve the requirements.in of the tests and of the bench anew, with hashes
	for folder in tests/e2e tests/e2e/workers/* tests/e2e/wheel benches; do (cd $$folder && pip-compile --quiet --upgrade --generate-hashes --strip-extras --no-header --allow-unsafe \
		--no-emit-find-links --no-emit-index-url --no-emit-trusted-host --output-file requirements.txt requirements.in); done
