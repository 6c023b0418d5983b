#!/usr/bin/env bash
# A tour in one minute: a token, two keys, signatures that OpenSSL verifies on its own, a rotation, a look into the database and the audit trail.
# Everything happens in a temporary folder that is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

command -v openssl >/dev/null || need_packages openssl
if [ "${STRONGROOM_DEMO_BUILD:-yes}" = yes ]; then
    echo "Building the library and the command (minutes the first time, nothing later) ..."
    cargo build --release --quiet
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export XDG_DATA_HOME=$folder/data XDG_CONFIG_HOME=$folder/config STRONGROOM_LIBRARY=$release/libstrongroom.so
export SO_PIN="administer-$RANDOM$RANDOM" USER_PIN="use-the-keys-$RANDOM$RANDOM"
export PYTHONPATH=bindings/python PYTHONDONTWRITEBYTECODE=1
unset STRONGROOM_CONFIG STRONGROOM_LOG
database=$XDG_DATA_HOME/strongroom/strongroom.db

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
strongroom() { "$release/strongroom" "$@"; }
verify_coin() { openssl dgst -sha256 -verify "$folder/coin.pem" -signature "$folder/coin.sig" "$1"; }
verify_version() { openssl dgst -sha256 -verify "$folder/alice-$1.pem" -signature "$folder/alice-$2.sig" "$folder/message"; }
verify_node() { openssl pkeyutl -verify -pubin -inkey "$folder/node.pem" -rawin -in "$1" -sigfile "$folder/node.sig"; }

say "1. A token is a safe with two PINs: one to administer it, one to use its keys. No configuration is needed."
show strongroom token init --label demo --so-pin-source env:SO_PIN --pin-source env:USER_PIN

say "2. Keys are made inside. Only the public half ever comes out."
show strongroom key generate --token demo --type secp256k1 --label coin --pin-source env:USER_PIN
show strongroom key generate --token demo --type ed25519 --label node --pin-source env:USER_PIN

say "3. A program signs with them. It holds handles, never the keys."
printf 'pay 1 to Alice\n' >"$folder/message"
python3 scripts/demo.py sign demo "$folder" "$folder/message"

say "4. OpenSSL alone, without Strongroom, verifies the signatures with the public keys:"
verify_coin "$folder/message"
verify_node "$folder/message"
printf 'pay 1000 to Mallory\n' >"$folder/forged"
if verify_coin "$folder/forged" >/dev/null 2>&1 || verify_node "$folder/forged" >/dev/null 2>&1; then
    echo "an altered message was accepted" >&2
    exit 1
fi
echo "An altered message is refused."

say "5. Another process uses the same keys; they rest in the database."
printf 'pay 2 to Bob\n' >"$folder/message"
python3 scripts/demo.py sign demo "$folder" "$folder/message"
verify_coin "$folder/message"
verify_node "$folder/message"

say "6. A key of an owner has versions. A new one takes the place of the old one, whose signatures stay good."
show strongroom key create --token demo --owner alice --asset btc --pin-source env:USER_PIN
python3 scripts/demo.py sign_managed demo "$folder" "$folder/message"
show strongroom key rotate --token demo --owner alice --asset btc --pin-source env:USER_PIN
python3 scripts/demo.py sign_managed demo "$folder" "$folder/message"
for version in 1 2; do
    echo "OpenSSL, with the public key of version $version: $(verify_version $version $version)"
done
if verify_version 2 1 >/dev/null 2>&1; then
    echo "the new version's key verifies the old version's signature" >&2
    exit 1
fi

say "7. Asking for a private key:"
python3 scripts/demo.py ask demo

say "8. Is anything secret readable in the database? To search for a key one must know it, and nobody knows those above."
echo "So a key made outside is brought into a second token, whose policy allows that, and its bytes are searched for."
mkdir -p "$XDG_CONFIG_HOME/strongroom"
printf '[[token]]\nlabel = "imports"\nplaintext = "import"\n' >"$XDG_CONFIG_HOME/strongroom/strongroom.toml"
strongroom token init --label imports --so-pin-source env:SO_PIN --pin-source env:USER_PIN
python3 scripts/demo.py search imports "$database"

say "9. Everything that was done is on record, in a chain that shows if one record is altered, cut out or added:"
show strongroom audit verify --token demo --pin-source env:USER_PIN

say "10. Where everything stands:"
show strongroom key list --token demo --pin-source env:USER_PIN
show strongroom doctor --token demo --sign --pin-source env:USER_PIN

say "Done. Everything was in $folder, which is removed now."
