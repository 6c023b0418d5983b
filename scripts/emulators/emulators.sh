#!/usr/bin/env bash
# Runs the KMS emulators and test doubles on 127.0.0.1, one process each, with their data in a folder of the caller's:
#
#   emulators.sh run NAME PORT FOLDER [OPTION...]     in the foreground: this process becomes the emulator
#   emulators.sh start NAME PORT FOLDER [OPTION...]   in the background; prints the address when it answers
#   emulators.sh stop FOLDER                          kills what was started with that folder
#   emulators.sh status FOLDER                        says whether it runs
#
# NAME: aws, azure, google, drongo, or faults, whose options are --cloud aws|azure|google --upstream http(s)://127.0.0.1:PORT.
# With EMULATOR_ENDS_WITH_STDIN=1 an emulator ends when its standard input does, so with whoever holds the other end.
# azure listens with TLS, and so does faults before an https upstream; clients trust .test-env/emulators/ca/ca.pem.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home=$root/.test-env/emulators

usage() {
    sed -n '3,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# The process must not outlive this script's caller unnoticed, so it replaces the shell.
run() {
    local name=$1 port=$2 folder=$3 tls=(--cert "$home/ca/server.pem" --key "$home/ca/server.key")
    shift 3
    local python=$root/.test-env/bin/python programs=$root/tests/emulators
    mkdir -p "$folder"
    case $name in
        aws)
            mkdir -p "$folder/tmp" "$folder/var/lib/localstack"
            # What setup.sh kept of a first use: the catalogue of AWS's services takes ten seconds to make.
            [ ! -d "$home/localstack/cache" ] || cp -r "$home/localstack/cache" "$folder/var/lib/localstack/"
            # The server named by default listens on every address; hypercorn keeps to the one it is given.
            export GATEWAY_LISTEN=127.0.0.1:$port GATEWAY_SERVER=hypercorn LOCALSTACK_HOST=localhost:$port
            export SERVICES=kms,sts EAGER_SERVICE_LOADING=0 DISABLE_EVENTS=1 DNS_ADDRESS=0 SKIP_SSL_CERT_DOWNLOAD=1
            # Compiled modules are kept whatever the environment says: without them every start takes ten seconds.
            export PYTHONDONTWRITEBYTECODE=''
            # In a container it takes itself for the one of its makers, and writes to /var/lib.
            export OVERRIDE_IN_DOCKER=0 FILESYSTEM_ROOT=$folder TMPDIR=$folder/tmp DOCKER_HOST=unix:///nonexistent
            exec "$home/localstack/bin/python" "$programs/localstack_main.py"
            ;;
        azure) exec "$python" "$programs/azure_vault.py" "$port" "${tls[@]}" "$@" ;;
        drongo) exec "$root/.test-env/bin/drongo" server --host 127.0.0.1 --port "$port" ;;
        google) exec "$python" "$programs/google_kms.py" "$port" "$@" ;;
        faults)
            [[ "$*" == *https://* ]] || tls=()
            exec "$python" "$programs/fault_proxy.py" "$port" "${tls[@]}" "$@"
            ;;
        *) usage ;;
    esac
}

runs() {
    [ -f "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null
}

start() {
    local name=$1 port=$2 folder=$3 scheme=http
    runs "$folder" && { echo "$folder: already started" >&2; return 1; }
    mkdir -p "$folder"
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && { echo "port $port is taken" >&2; return 1; }
    setsid "${BASH_SOURCE[0]}" run "$@" >"$folder/log" 2>&1 </dev/null &
    echo $! >"$folder/pid"
    [[ $name == azure || "$*" == *https://* ]] && scheme=https
    local deadline=$((SECONDS + 60))
    while runs "$folder" && [ $SECONDS -lt $deadline ]; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$name: $scheme://127.0.0.1:$port"
            return
        fi
        sleep 0.1
    done
    echo "$name did not start:" >&2
    tail "$folder/log" >&2
    stop "$folder"
    return 1
}

# Nothing that it holds is worth a clean end, and the AWS one ignores the polite signals.
stop() {
    if [ -f "$1/pid" ]; then
        kill -KILL "$(cat "$1/pid")" 2>/dev/null || true
        rm -f "$1/pid"
    fi
}

case "${1:-} $#" in
    "run "[4-9] | "run "1[0-9]) run "${@:2}" ;;
    "start "[4-9] | "start "1[0-9]) start "${@:2}" ;;
    "stop 2") stop "$2" ;;
    "status 2") if runs "$2"; then echo running; else echo stopped; exit 1; fi ;;
    *) usage ;;
esac
