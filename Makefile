# `make` says what there is. Every target does the set-up it needs: none has to be run before another.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where cargo builds; the demo and libtorch are in target/ whatever this says.
CARGO_TARGET := $(or $(CARGO_TARGET_DIR),$(CARGO_BUILD_TARGET_DIR),target)
RELEASE := $(CARGO_TARGET)/release

# Where `make demo` leaves what `make check-python` reads.
DEMO := target/demo
DEMO_MODEL := $(DEMO)/run/best
DEMO_RESULTS := $(DEMO)/run/results.json
DEMO_DATA := --test $(DEMO)/data/test.safetensors --select $(DEMO)/data/select.safetensors

# Where `make check-python` fine-tunes a zoo of each vision family, and where `demo --make-zoo` does of each that it knows.
VISION := target/vision
MADE := $(VISION)/made

# One profile for all of it: torch-sys takes minutes to compile, and its result is shared only within a profile.
CARGO_ALL := --workspace --release

.PHONY: help setup setup-servers build demo pool test chart deployment faults soak fuzz lint deny bench bench-pool experiments check-python check-zoos python record ci-status clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## check the prerequisites and install libtorch in target/, unless LIBTORCH names yours
	@scripts/setup.sh

setup-servers: ## install Redis, RabbitMQ and Prometheus for the tests, unless they are there or the environment names some
	@scripts/setup-servers.sh

build: setup ## build both programs
	cargo build $(CARGO_ALL)

demo: build ## the main job: fine-tune a small zoo on UCI digits, sweep every method, print the table
	$(RELEASE)/mehl-soup demo

pool: build setup-servers ## a pool on this machine: RabbitMQ, Redis, scheduler, two workers; the demo's sweep over it
	@scripts/pool.sh

test: setup setup-servers ## every test
	cargo test $(CARGO_ALL)
	@scripts/chart.sh
	@scripts/deployment.sh
	@scripts/faults.sh
	@scripts/check-ci.sh

chart: setup-servers ## the tests of the Helm chart, the Dockerfiles and the compose file alone
	@scripts/chart.sh

deployment: build setup-servers ## start what the chart renders and what compose files and docs say, with the real programs and servers
	@scripts/deployment.sh

faults: build setup-servers ## the fault suite alone: pools of the real programs, and servers, workers and inputs that fail
	@scripts/faults.sh

soak: build setup-servers ## a pool of processes, some with the real engine, for SOAK_SECONDS (600) with a fault every few seconds; prints a report
	MEHL_SOUP_SOAK_PROGRAMS=$(abspath $(RELEASE)) \
		cargo test --release -p mehl-soup --test soak -- --ignored --exact for_long --nocapture

fuzz: ## each fuzz target for FUZZ_SECONDS (60), or property tests over the same corpora where no fuzzer can be built
	@scripts/fuzz.sh

lint: setup ## format, clippy, rustdoc and the root package's dependency graph
	cargo fmt --all --check
	cargo clippy $(CARGO_ALL) --all-targets -- -D warnings
	RUSTDOCFLAGS="$${RUSTDOCFLAGS:-} -D warnings" cargo doc $(CARGO_ALL) --no-deps
	scripts/check-graph.sh

deny: ## bans, licences and sources of the dependencies; advisories where their database can be had
	@scripts/deny.sh

bench: build ## images/s beside torchvision; iterations and memory beside bare loops and PyTorch scripts; writes docs/benchmarks.md
	@RELEASE=$(RELEASE) scripts/bench.sh

bench-pool: setup-servers ## speed of a pool with tasks that compute nothing, beside Celery with the same servers; some minutes
	CELERY_PYTHON="$$(scripts/setup-celery.sh)" \
		cargo test --release -p mehl-soup --test bench_pool -- --ignored --exact bench --nocapture

experiments: build ## seven experiments over zoos of five seeds, or ten; writes docs/experiments.md; takes long. QUICK=1: one seed of small parts, a check only
	python="$$(scripts/setup-experiments.sh)"; \
	"$$python" experiments/run.py --program $(RELEASE)/mehl-soup $(if $(QUICK),--quick,--torch-python "$$(scripts/setup-python-check.sh)"); \
	$(if $(QUICK),,"$$python" experiments/report.py)

check-python: ## after `make demo`: do best models score in transformers, timm, torchvision and open_clip what results.json says? Is the yardstick straight?
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
	"$$python" workers/tests/python/vision_zoos.py check $(VISION)

python: ## the Python package: format, lint, types, tests
	@scripts/python.sh

check-zoos: build ## do zoos of `demo --make-zoo` score in transformers, timm and torchvision what results.json says?
	python="$$(scripts/setup-python-check.sh)"; \
	rm -rf $(MADE) && "$$python" workers/tests/python/vision_zoos.py images $(VISION); \
	for family in vit timm-vit resnet; do \
		$(RELEASE)/mehl-soup demo --make-zoo $(MADE)/$$family --family $$family --images $(VISION)/data/tune \
			--ingredients 3 --epochs 4..8; \
		sed -i 's/^method = .*/method = ["best", "uniform", "mehl"]/' $(MADE)/$$family/sweep.toml; \
		$(RELEASE)/mehl-soup run $(MADE)/$$family/sweep.toml --out $(MADE)/$$family/run; \
	done; \
	"$$python" workers/tests/python/made_zoos.py $(MADE)

record: ## run the heavy stages of CI that STAGE names, and write the records of those that pass (docs/ci.md)
	@python3 -B scripts/ci record $(or $(STAGE),$(error name a stage, as in `make record STAGE=fuzz`; `make ci-status` lists them))

ci-status: ## which heavy stages of CI have a record of the inputs as they are now?
	@python3 -B scripts/ci status

clean: ## remove the build folder, with libtorch and the demo's results in it
	cargo clean
	rm -rf target
