#!/usr/bin/env bash
# Sets up what the tests need beyond Rust, gcc, make and Python 3: PKCS #11 clients to test with, and a Python
# environment in .test-env. Does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

packages=(binutils gnutls-bin libengine-pkcs11-openssl opensc openssl p11-kit pkg-config softhsm2)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
if command -v dpkg-query >/dev/null; then
    need_packages "${packages[@]}"
else
    for tool in pkcs11-tool p11tool openssl p11-kit softhsm2-util nm pkg-config; do
        command -v "$tool" >/dev/null || { echo "missing: $tool; install it and run this again" >&2; exit 1; }
    done
fi

requirements=tests/python/requirements.txt
if ! cmp -s $requirements .test-env/requirements.txt; then
    rm -rf .test-env
    python3 -m venv .test-env
    .test-env/bin/pip install --quiet --disable-pip-version-check -r $requirements
    cp $requirements .test-env/requirements.txt
fi

scripts/emulators/setup.sh
