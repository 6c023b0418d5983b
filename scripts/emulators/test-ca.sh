#!/usr/bin/env bash
# Makes a CA for tests and a server certificate from it, unless they are there: test-ca.sh FOLDER
# FOLDER/ca.pem is what clients trust; FOLDER/server.pem and FOLDER/server.key are what servers use.
set -euo pipefail
folder=${1:?usage: test-ca.sh FOLDER}
names="DNS:localhost,IP:127.0.0.1,IP:::1,DNS:*.vault.azure.net,DNS:login.microsoftonline.com"
names+=",DNS:cloudkms.googleapis.com,DNS:kms.us-east-1.amazonaws.com"
# Made anew a month before it would expire.
openssl x509 -in "$folder/server.pem" -noout -checkend 2592000 >/dev/null 2>&1 && exit
mkdir -p "$folder"
cd "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Test CA" \
    -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr 2>/dev/null
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 800 -out server.new 2>/dev/null -extfile \
    <(printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n' "$names")
rm server.csr
mv server.new server.pem
