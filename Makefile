# All tasks of this project. `make` alone lists them.

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
.PHONY: help build demo picture test lint bench crash fuzz real bare static-all static-amd64 static-arm64 static-armv7 static-riscv64 reproducible image deb wheel release install clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program for this machine
	$(CARGO) build --release --locked

demo: ## make a sample image, pull it with a progress bar, list it, load it if an engine runs
	$(CARGO) build --release --locked --bin dockersave --example registry
	tests/demo $(BINARY) $(REGISTRY)

picture: ## record a pull in a terminal: tests/picture.svg
	$(CARGO) build --release --locked --bin dockersave --example registry
	tests/picture $(BINARY) $(REGISTRY) tests/picture.svg

test: ## run all tests
	$(CARGO) test --locked

lint: ## check format, clippy and the documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

bench: ## compare with crane, skopeo, oras and curl (BENCH_RUNS=7, BENCH_CASES=twelve,wan-one, BENCH_UPDATE=1)
	$(CARGO) build --release --locked --bin dockersave --example registry
	CRANE=$$(tests/real/crane) ORAS=$$(tests/bench/oras) SKOPEO=$$(tests/bench/skopeo) tests/bench/run --binary $(BINARY) --registry $(REGISTRY) \
		--out $(TARGET_DIR)/bench --pictures $(BENCH_PICTURES)
	tests/bench/fleet.py --binary $(BINARY) --registry $(REGISTRY) --out $(TARGET_DIR)/bench

crash: ## kill pulls at 200 random moments, resume and compare
	DOCKERSAVE_CRASHES=200 $(CARGO) test --locked --release --test main resume::killed -- --nocapture

fuzz: ## fuzz all parsers of untrusted input, ten minutes each (FUZZ_SECONDS=600)
	tests/fuzz/run

real: ## test with real registries and loaders (root; starts and ends its own)
	$(CARGO) build --release --locked --bin dockersave --example registry
	CRANE=$$(tests/real/crane) COSIGN=$$(tests/real/cosign) SID=$$(tests/real/sid) tests/real/run $(BINARY) $(REGISTRY)

static-all: ## build static binaries for amd64, arm64, armv7 and riscv64 in dist/
	cross/build

static-amd64: ## build one of them; likewise static-arm64, static-armv7, static-riscv64
static-amd64 static-arm64 static-armv7 static-riscv64: static-%:
	cross/build $*

bare: ## run the static binaries in dist/ in an empty root directory and FROM scratch (root; its own Docker Engine)
	$(CARGO) build --release --locked --example registry
	tests/real/bare dist $(REGISTRY)

reproducible: ## build all four again, in another place and as another user, and compare with dist/
	cross/reproducible

image: ## make container images FROM scratch of the binaries in dist/
	cross/release image

deb: ## make Debian packages of the binaries in dist/
	cross/release deb

wheel: ## make Python wheels of the binaries in dist/
	cross/release wheel

release: static-all ## make binaries, packages, wheels, images, source, recipes, inventory and checksums in dist/
	cross/release

SHARE = $(DESTDIR)$(PREFIX)/share
install: build ## install to $(DESTDIR)$(PREFIX)/bin, with manual page and completions
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/dockersave
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions \
		$(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(BINARY) --man >$(SHARE)/man/man1/dockersave.1
	$(BINARY) --completions bash >$(SHARE)/bash-completion/completions/dockersave
	$(BINARY) --completions zsh >$(SHARE)/zsh/site-functions/_dockersave
	$(BINARY) --completions fish >$(SHARE)/fish/vendor_completions.d/dockersave.fish

clean: ## remove build outputs
	$(CARGO) clean
	rm -rf dist
