# The commands that the README names. `make help` lists them.

CARGO ?= cargo
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
DESTDIR ?=
# Names of functions stay, for backtraces; line tables, which are most of the size, do not. STRIP=true keeps them too.
STRIP ?= strip --strip-debug
TARGET := $(or $(CARGO_TARGET_DIR),target)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Writes the completions of a shell: $(call completions,SHELL,FILE below share).
completions = install -d "$(DESTDIR)$(PREFIX)/share/$(dir $(2))" && \
	$(TARGET)/strongroom completions $(1) >"$(DESTDIR)$(PREFIX)/share/$(2)"

.PHONY: help build demo test lint bench header man install clean

help: ## Lists these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

build: ## Builds the library and the command
	$(CARGO) build --release

demo: ## Makes a token and keys, signs, lets OpenSSL verify, rotates, verifies the audit trail; needs a Rust toolchain, Python 3 and OpenSSL
	@scripts/demo.sh

test: ## Sets up what the tests need, and runs all of them
	@scripts/test.sh

lint: ## Checks formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

bench: build ## Measures the library against the bare cryptographic library, and a trail of 1 GiB
	$(CARGO) bench --profile release --package bench
	$(CARGO) test --release --lib -- --ignored --nocapture audit::tests::measure

header: ## Writes include/strongroom.h anew from the exported functions
	$(CARGO) run --release --package ffi-tests --bin header

man: ## Writes dist/strongroom.1 and docs/kms/matrix.md anew from what the command says of itself
	STRONGROOM_WRITE_MAN=1 $(CARGO) test --release --bin strongroom up_to_date

install: build ## Installs to PREFIX (default /usr/local), below DESTDIR
	install -D -m 755 $(TARGET)/libstrongroom.so "$(DESTDIR)$(LIBDIR)/libstrongroom.so"
	install -D -m 755 $(TARGET)/strongroom "$(DESTDIR)$(PREFIX)/bin/strongroom"
	$(STRIP) "$(DESTDIR)$(LIBDIR)/libstrongroom.so" "$(DESTDIR)$(PREFIX)/bin/strongroom"
	install -D -m 644 include/strongroom.h "$(DESTDIR)$(PREFIX)/include/strongroom/strongroom.h"
	install -D -m 644 include/pkcs11.h "$(DESTDIR)$(PREFIX)/include/strongroom/pkcs11.h"
	install -D -m 644 dist/strongroom.1 "$(DESTDIR)$(PREFIX)/share/man/man1/strongroom.1"
	install -D -m 644 LICENSE-APACHE "$(DESTDIR)$(PREFIX)/share/doc/strongroom/LICENSE-APACHE"
	install -D -m 644 LICENSE-MIT "$(DESTDIR)$(PREFIX)/share/doc/strongroom/LICENSE-MIT"
	install -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(PREFIX)/share/p11-kit/modules" "$(DESTDIR)$(UNITDIR)"
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|' dist/strongroom.pc.in \
		>"$(DESTDIR)$(LIBDIR)/pkgconfig/strongroom.pc"
	sed 's|^module:.*|module: $(LIBDIR)/libstrongroom.so|' dist/strongroom.module \
		>"$(DESTDIR)$(PREFIX)/share/p11-kit/modules/strongroom.module"
	sed 's|@PREFIX@|$(PREFIX)|' dist/strongroom-rotate.service >"$(DESTDIR)$(UNITDIR)/strongroom-rotate.service"
	install -m 644 dist/strongroom-rotate.timer "$(DESTDIR)$(UNITDIR)/strongroom-rotate.timer"
	install -D -m 644 dist/strongroom.sysusers "$(DESTDIR)$(SYSUSERSDIR)/strongroom.conf"
	$(call completions,bash,bash-completion/completions/strongroom)
	$(call completions,fish,fish/vendor_completions.d/strongroom.fish)
	$(call completions,zsh,zsh/site-functions/_strongroom)

clean: ## Removes what was built and the test environment
	$(CARGO) clean
	rm -rf .test-env
