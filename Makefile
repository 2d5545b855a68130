# Everything that is done with this project. `make` alone lists the targets.

CARGO ?= cargo
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)
BINARY = $(TARGET_DIR)/release/dockersave
REGISTRY = $(TARGET_DIR)/release/examples/registry
VERSION := $(shell sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)
PREFIX ?= /usr/local
BENCH_PICTURES ?= $(TARGET_DIR)/bench
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
export DOCKERSAVE_COMMIT ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help build demo picture test lint bench crash fuzz real bare static-all static-amd64 static-arm64 static-armv7 static-riscv64 reproducible image deb release install clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program for this machine
	$(CARGO) build --release --locked

demo: ## make a sample image, pull it with a progress bar, list it, load it where an engine runs
	$(CARGO) build --release --locked --bin dockersave --example registry
	tests/demo $(BINARY) $(REGISTRY)

picture: ## record a pull in a terminal anew: tests/picture.svg
	$(CARGO) build --release --locked --bin dockersave --example registry
	tests/picture $(BINARY) $(REGISTRY) tests/picture.svg

test: ## run all tests
	$(CARGO) test --locked

lint: ## check format, clippy and the documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

bench: ## measure beside crane, skopeo, oras and curl in one run (BENCH_RUNS=7, BENCH_CASES=twelve,wan-one)
	$(CARGO) build --release --locked --bin dockersave --example registry
	CRANE=$$(tests/real/crane) ORAS=$$(tests/bench/oras) tests/bench/run --binary $(BINARY) --registry $(REGISTRY) \
		--out $(TARGET_DIR)/bench --pictures $(BENCH_PICTURES)
	tests/bench/fleet.py --binary $(BINARY) --registry $(REGISTRY) --out $(TARGET_DIR)/bench

crash: ## kill pulls at 200 random moments, and compare what comes out
	DOCKERSAVE_CRASHES=200 $(CARGO) test --locked --release --test main resume::killed -- --nocapture

fuzz: ## fuzz all parsers of foreign bytes, ten minutes each (FUZZ_SECONDS=600)
	tests/fuzz/run

real: ## real registries and real loaders (root; starts and ends its own)
	$(CARGO) build --release --locked --bin dockersave --example registry
	CRANE=$$(tests/real/crane) SID=$$(tests/real/sid) tests/real/run $(BINARY) $(REGISTRY)

static-all: ## static binaries for amd64, arm64, armv7 and riscv64 in dist/
	cross/build

static-amd64: ## one of them; likewise static-arm64, static-armv7, static-riscv64
static-amd64 static-arm64 static-armv7 static-riscv64: static-%:
	cross/build $*

bare: ## the static binaries in dist/ where there is nothing but them (root; a Docker Engine of its own)
	$(CARGO) build --release --locked --example registry
	tests/real/bare dist $(REGISTRY)

reproducible: ## build all four once more, elsewhere and as another user, and compare with dist/
	cross/reproducible

image: ## container images FROM scratch of what is in dist/
	cross/release image

deb: ## Debian packages of what is in dist/
	cross/release deb

release: static-all ## binaries, packages, images, source, recipes, inventory and checksums in dist/
	cross/release

SHARE = $(DESTDIR)$(PREFIX)/share
install: build ## install to $(DESTDIR)$(PREFIX)/bin, manual page and completions beside it
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/dockersave
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions \
		$(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(BINARY) --man >$(SHARE)/man/man1/dockersave.1
	$(BINARY) --completions bash >$(SHARE)/bash-completion/completions/dockersave
	$(BINARY) --completions zsh >$(SHARE)/zsh/site-functions/_dockersave
	$(BINARY) --completions fish >$(SHARE)/fish/vendor_completions.d/dockersave.fish

clean: ## remove what was built
	$(CARGO) clean
	rm -rf dist
