# The tasks of this repository. Each installs what it needs first, so that on a fresh Debian machine
# `sudo make run` and `sudo make test` are the two commands.

SHELL := /bin/bash
# Outside the checkout, so that a fresh clone finds what was built before.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/binnacle/target
TOOLS := $(CARGO_TARGET_DIR)/tools
# Under sudo the toolchain is often the caller's. Our own Node.js is there only where the machine's is too old.
CALLER_HOME := $(if $(SUDO_USER),$(shell getent passwd $(SUDO_USER) | cut -d: -f6),$(HOME))
export PATH := $(TOOLS)/node/bin:$(PATH):$(CALLER_HOME)/.cargo/bin
export RUSTUP_HOME ?= $(CALLER_HOME)/.rustup
BIN := $(CARGO_TARGET_DIR)/release/binnacle
# Naming the target keeps the static flag away from build scripts and macros.
HOST := $(shell PATH="$(PATH)" RUSTUP_HOME="$(RUSTUP_HOME)" rustc -vV | sed -n 's/^host: //p')
SHOP := $(CARGO_TARGET_DIR)/static/$(HOST)/release/shop
SHOP_IMAGE := $(CARGO_TARGET_DIR)/images/shop.tar
KUBECTL := $(TOOLS)/kubectl
PYTHON := $(TOOLS)/python
COMPAT := $(TOOLS)/compat

PACKAGES_RUN := protobuf-compiler libprotobuf-dev containerd runc nftables iproute2 busybox-static ca-certificates gcc libc6-dev
PACKAGES_TEST := chromium python3-pip unzip docker-registry skopeo prometheus prometheus-alertmanager prometheus-node-exporter rsyslog rsyslog-elasticsearch etcd-server

.PHONY: help run build web test test-faults lint fuzz bench bench-metrics bench-logs bench-api image kubectl python browser node packages-run packages-test test-compat

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: build image ## build what is missing, import the example image, start a one-machine cluster
	@$(BIN) image import $(SHOP_IMAGE) $(UP_FLAGS) >&2
	@exec $(BIN) up $(UP_FLAGS)

packages-run:
	@./tools/rust.sh
	@./tools/apt-install.sh $(PACKAGES_RUN)

packages-test:
	@./tools/apt-install.sh $(PACKAGES_TEST)

build: packages-run web ## the binary, with the web UI inside
	@echo "== building binnacle (the first time takes a while)" >&2
	@cargo build --release -p orchestrator

node:
	@./tools/node.sh $(TOOLS)

web: node ## the web UI, if it changed
	@./tools/build-web.sh

image: packages-run $(SHOP_IMAGE) ## the example shop's image

$(SHOP_IMAGE): tools/shop-image.sh $(shell find examples/shop -name '*.rs' -o -name Cargo.toml)
	@echo "== building the shop's image" >&2
	@RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/static \
	  cargo build --release -p shop --target $(HOST)
	@./tools/shop-image.sh $(SHOP) $@

kubectl: $(KUBECTL)

# Made anew where an older script has left less.
$(KUBECTL): tools/get-kubectl.sh
	@./tools/get-kubectl.sh $(TOOLS)
	@touch $@

python: packages-test $(PYTHON)/requirements.txt

# The packages that tests/clients uses, in a directory of their own.
$(PYTHON)/requirements.txt: tests/clients/requirements.txt
	@python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --upgrade --target $(PYTHON) -r $<
	@cp $< $@

# The suites of others, with packages of their own.
$(COMPAT)/requirements.txt: tests/compat/requirements.txt
	@python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --upgrade --target $(COMPAT) -r $<
	@cp $< $@

test-compat: packages-run packages-test web kubectl $(COMPAT)/requirements.txt ## suites that others wrote, against a real cluster
	@cargo build --release -p orchestrator
	@PYTHONPATH=$(COMPAT) python3 tests/compat/run.py $(BIN) $(KUBECTL) $(COMPAT)

browser: packages-test node
	@./tools/browser-deps.sh

test: packages-run packages-test web kubectl image browser python ## every test, the end-to-end run included
	@cargo build --release -p orchestrator
	@BINNACLE_BIN=$(BIN) BINNACLE_KUBECTL=$(KUBECTL) BINNACLE_SHOP_IMAGE=$(SHOP_IMAGE) \
	  BINNACLE_PYTHON=$(PYTHON) cargo test --release --workspace

lint: packages-run ## formatting, clippy, layers; warnings are errors
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- -D warnings

test-faults: packages-run packages-test ## the store under 200 kills (BINNACLE_FAULTS_LIVES), every history checked; minutes
	@BINNACLE_FAULTS_LIVES=$${BINNACLE_FAULTS_LIVES:-200} cargo test --release -p store -p orchestrator --test faults -- --nocapture

fuzz: build ## a minute for each fuzz target (FUZZ_SECONDS), with coverage
	@./tools/apt-install.sh g++
	@./tools/fuzz.sh $(FUZZ_TARGETS)

bench: build image kubectl ## start, memory, pod start, HPA and API figures of this machine
	@BINNACLE_BIN=$(BIN) BINNACLE_KUBECTL=$(KUBECTL) BINNACLE_SHOP_IMAGE=$(SHOP_IMAGE) \
	  cargo bench -p tests

bench-metrics: build ## the metrics engine beside Debian's Prometheus and VictoriaMetrics; answers compared
	@python3 tools/bench-metrics.py $(BIN)

bench-logs: build ## the log index beside ClickHouse (chdb-core of PyPI); 10 GB of lines, 10 million spans
	@python3 tools/bench-logs.py $(BIN)

bench-api: build ## the API server beside Debian's etcd on the same disk (BENCH_DIR): writes, reads, watchers, memory, start
	@./tools/apt-install.sh etcd-server
	@BINNACLE_BIN=$(BIN) cargo bench -p apiserver -p orchestrator --bench api
