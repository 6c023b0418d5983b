#!/usr/bin/env bash
# Installs what the tests of the KMS providers run against, into .test-env/emulators. Does nothing when all is there.
# scripts/setup-test.sh comes first: it makes the Python environment that this one uses, and calls this script.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=.test-env/emulators

scripts/emulators/test-ca.sh $home/ca

requirements=scripts/emulators/requirements.txt
if ! cmp -s $requirements $home/localstack/requirements.txt; then
    echo "installing the AWS emulator"
    rm -rf $home/localstack
    python3 -m venv --without-pip $home/localstack
    .test-env/bin/pip --python $home/localstack/bin/python install --quiet --disable-pip-version-check \
        --no-deps --no-compile --only-binary :all: -r $requirements
    # The first use compiles modules and makes a catalogue; this one saves the tests that time, and shows that it works.
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    data=$(mktemp -d)
    trap 'scripts/emulators/emulators.sh stop "$data"; rm -rf "$data"' EXIT
    scripts/emulators/emulators.sh start aws "$port" "$data"
    python3 - "$port" <<'EOF'
import sys, urllib.request
scope = "Credential=test/20300101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0"
headers = {"X-Amz-Target": "TrentService.CreateKey", "Content-Type": "application/x-amz-json-1.1",
           "Authorization": "AWS4-HMAC-SHA256 " + scope}
urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/", b"{}", headers), timeout=60)
EOF
    cp -r "$data/var/lib/localstack/cache" $home/localstack/cache
    cp $requirements $home/localstack/requirements.txt
fi
