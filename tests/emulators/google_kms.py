"""A test double of Google Cloud KMS: the REST calls that the provider makes, as the API reference describes them.

    python google_kms.py PORT [--require-token]

It proves nothing about the real service. It keeps state in memory, does real cryptography, checks CRC32C both ways and
answers errors in the documented form. POST /token gives access tokens to whoever asks, as a service account's
`token_uri` or the metadata server would; --require-token refuses requests that carry no bearer token.
"""
import base64
import datetime
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from urllib.parse import parse_qs, unquote, urlsplit

import common
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PURPOSES = {"ENCRYPT_DECRYPT": 1, "ASYMMETRIC_SIGN": 5, "ASYMMETRIC_DECRYPT": 6, "MAC": 9}
STATES = {"ENABLED": 1, "DISABLED": 2, "DESTROYED": 3, "DESTROY_SCHEDULED": 4}
LEVELS = {"SOFTWARE": 1, "HSM": 2}
FORMATS = {"PEM": 1}
# name: (number, purpose, kind, size or curve, hash)
ALGORITHMS = {
    "GOOGLE_SYMMETRIC_ENCRYPTION": (1, "ENCRYPT_DECRYPT", "aes", 32, None),
    "EC_SIGN_P256_SHA256": (12, "ASYMMETRIC_SIGN", "ec", ec.SECP256R1, "sha256"),
    "EC_SIGN_P384_SHA384": (13, "ASYMMETRIC_SIGN", "ec", ec.SECP384R1, "sha384"),
    "EC_SIGN_SECP256K1_SHA256": (31, "ASYMMETRIC_SIGN", "ec", ec.SECP256K1, "sha256"),
    "EC_SIGN_ED25519": (40, "ASYMMETRIC_SIGN", "ed25519", None, None),
    "HMAC_SHA1": (33, "MAC", "hmac", 20, "sha1"),
    "HMAC_SHA224": (36, "MAC", "hmac", 28, "sha224"),
    "HMAC_SHA256": (32, "MAC", "hmac", 32, "sha256"),
    "HMAC_SHA384": (34, "MAC", "hmac", 48, "sha384"),
    "HMAC_SHA512": (35, "MAC", "hmac", 64, "sha512"),
}
for bits, numbers in {2048: (2, 5, 28, 8), 3072: (3, 6, 29, 9), 4096: (4, 7, 30, 10)}.items():
    pss, pkcs1, raw, oaep = numbers
    ALGORITHMS[f"RSA_SIGN_PSS_{bits}_SHA256"] = (pss, "ASYMMETRIC_SIGN", "pss", bits, "sha256")
    ALGORITHMS[f"RSA_SIGN_PKCS1_{bits}_SHA256"] = (pkcs1, "ASYMMETRIC_SIGN", "pkcs1", bits, "sha256")
    ALGORITHMS[f"RSA_SIGN_RAW_PKCS1_{bits}"] = (raw, "ASYMMETRIC_SIGN", "raw", bits, None)
    ALGORITHMS[f"RSA_DECRYPT_OAEP_{bits}_SHA256"] = (oaep, "ASYMMETRIC_DECRYPT", "oaep", bits, "sha256")
    ALGORITHMS[f"RSA_DECRYPT_OAEP_{bits}_SHA1"] = (oaep + 29, "ASYMMETRIC_DECRYPT", "oaep", bits, "sha1")
ALGORITHMS["RSA_DECRYPT_OAEP_4096_SHA512"] = (17, "ASYMMETRIC_DECRYPT", "oaep", 4096, "sha512")
ALGORITHMS["RSA_SIGN_PSS_4096_SHA512"] = (15, "ASYMMETRIC_SIGN", "pss", 4096, "sha512")
ALGORITHMS["RSA_SIGN_PKCS1_4096_SHA512"] = (16, "ASYMMETRIC_SIGN", "pkcs1", 4096, "sha512")
NUMBERS = {"purpose": PURPOSES, "state": STATES, "protectionLevel": LEVELS, "publicKeyFormat": FORMATS,
           "algorithm": {name: row[0] for name, row in ALGORITHMS.items()}}
HASHES = {"sha1": hashes.SHA1, "sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}

CRC_TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    CRC_TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for octet in data:
        crc = CRC_TABLE[(crc ^ octet) & 0xFF] ^ crc >> 8
    return str(crc ^ 0xFFFFFFFF)


class Refused(Exception):
    CODES = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401, "NOT_FOUND": 404,
             "ALREADY_EXISTS": 409}

    def __init__(self, status, message):
        super().__init__(message)
        code = self.CODES[status]
        self.code, self.body = code, {"error": {"code": code, "message": message, "status": status}}


def invalid(message):
    return Refused("INVALID_ARGUMENT", message)


def enum(field, value, default=None):
    """An enum's name, from its name or number, as both are good in a request."""
    table = NUMBERS[field]
    if value in (None, 0, ""):
        value = default
    for name, number in table.items():
        if value in (name, number):
            return name
    raise invalid(f"Invalid value for {field}: {value}")


def numbered(value):
    """An answer with its enums as numbers, which `$alt=json;enum-encoding=int` asks for."""
    if isinstance(value, dict):
        return {k: NUMBERS[k][v] if k in NUMBERS and isinstance(v, str) else numbered(v) for k, v in value.items()}
    return [numbered(v) for v in value] if isinstance(value, list) else value


def encode(data):
    return base64.b64encode(data).decode()


def decode(body, field):
    """The bytes of a field, and whether a checksum came with them; a wrong one is refused."""
    text = body.get(field, "")
    try:
        data = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise invalid(f"Invalid base64 in {field}") from None
    checksum = body.get(field + "Crc32c")
    if checksum is not None and str(checksum) != crc32c(data):
        raise invalid(f"The checksum in field {field}_crc32c did not match the data in field {field}.")
    return data, checksum is not None


def now(days=0):
    time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def without_defaults(answer):
    """JSON of the service leaves out what is false or empty."""
    return {name: value for name, value in answer.items() if value not in (False, "", None, {}, [])}


class Version:
    def __init__(self, key, number):
        self.key, self.number, self.state, self.created, self.destroy = key, number, "ENABLED", now(), None
        _, _, self.kind, size, self.hash = ALGORITHMS[key.algorithm]
        if self.kind == "ec":
            self.secret = ec.generate_private_key(size())
        elif self.kind == "ed25519":
            self.secret = ed25519.Ed25519PrivateKey.generate()
        elif self.kind in ("aes", "hmac"):
            self.secret = os.urandom(size)
        else:
            self.secret = rsa.generate_private_key(65537, size)

    @property
    def name(self):
        return f"{self.key.name}/cryptoKeyVersions/{self.number}"

    def resource(self):
        return without_defaults({
            "name": self.name, "state": self.state, "protectionLevel": self.key.level, "algorithm": self.key.algorithm,
            "createTime": self.created, "generateTime": self.created, "destroyTime": self.destroy})

    def usable(self, kinds):
        if self.kind not in kinds:
            raise Refused("FAILED_PRECONDITION",
                          f"Operation requested for Key {self.name} has incorrect key purpose: {self.key.purpose}")
        if self.state != "ENABLED":
            raise Refused("FAILED_PRECONDITION", f"{self.name} is not enabled, current state is: {self.state}.")
        return self

    def public_pem(self):
        return self.secret.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, digest, data):
        if self.kind == "ed25519":
            return self.secret.sign(data)
        if self.kind == "raw":
            return self.secret.sign(data, padding.PKCS1v15(), utils.NoDigestInfo())
        algorithm = HASHES[self.hash]()
        digest = digest or hashlib.new(self.hash, data).digest()
        if len(digest) != algorithm.digest_size:
            raise invalid("The digest has the wrong length.")
        hashed = utils.Prehashed(algorithm)
        if self.kind == "ec":
            return self.secret.sign(digest, ec.ECDSA(hashed))
        scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size) if self.kind == "pss" else padding.PKCS1v15()
        return self.secret.sign(digest, scheme, hashed)


class Key:
    def __init__(self, name, body):
        template = body.get("versionTemplate", {})
        self.name, self.created, self.labels = name, now(), body.get("labels", {})
        self.purpose = enum("purpose", body.get("purpose"))
        default = "GOOGLE_SYMMETRIC_ENCRYPTION" if self.purpose == "ENCRYPT_DECRYPT" else None
        self.algorithm = enum("algorithm", template.get("algorithm"), default)
        self.level = enum("protectionLevel", template.get("protectionLevel"), "SOFTWARE")
        if ALGORITHMS[self.algorithm][1] != self.purpose:
            raise invalid(f"Algorithm {self.algorithm} does not go with purpose {self.purpose}.")
        if self.algorithm == "EC_SIGN_SECP256K1_SHA256" and self.level != "HSM":
            raise invalid("EC_SIGN_SECP256K1_SHA256 is only supported at protection level HSM.")
        self.versions, self.primary, self.lock = {}, None, threading.Lock()

    def add_version(self):
        with self.lock:
            version = Version(self, len(self.versions) + 1)
            self.versions[version.number] = version
        return version

    def resource(self):
        answer = {"name": self.name, "purpose": self.purpose, "createTime": self.created, "labels": self.labels,
                  "versionTemplate": {"algorithm": self.algorithm, "protectionLevel": self.level},
                  "destroyScheduledDuration": "2592000s"}
        if self.purpose == "ENCRYPT_DECRYPT" and self.primary:
            answer["primary"] = self.primary.resource()
        return without_defaults(answer)


class Service:
    """The state, and a method for each call."""

    def __init__(self):
        self.rings, self.keys, self.lock = {}, {}, threading.RLock()

    def key(self, name):
        if name not in self.keys:
            raise Refused("NOT_FOUND", f"CryptoKey {name} not found.")
        return self.keys[name]

    def version(self, name):
        key, _, number = name.partition("/cryptoKeyVersions/")
        version = self.key(key).versions.get(int(number) if number.isdecimal() else 0)
        if not version:
            raise Refused("NOT_FOUND", f"CryptoKeyVersion {name} not found.")
        return version

    def create(self, table, name, make):
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,63}", name.rpartition("/")[2]):
            raise invalid(f"Invalid resource id in {name}.")
        with self.lock:
            if name in table:
                raise Refused("ALREADY_EXISTS", f"{name} already exists.")
            table[name] = made = make()
        return made

    def create_ring(self, name):
        return self.create(self.rings, name, lambda: {"name": name, "createTime": now()})

    def create_key(self, name, body, query):
        if name.partition("/cryptoKeys/")[0] not in self.rings:
            raise Refused("NOT_FOUND", f"KeyRing {name.partition('/cryptoKeys/')[0]} not found.")
        key = self.create(self.keys, name, lambda: Key(name, body))
        if query.get("skipInitialVersionCreation") != "true":
            key.primary = key.add_version()
        return key.resource()

    def listing(self, field, resources, query):
        """A page of a list, and the token of the next one; of the filters, `state=…` is known."""
        wanted = query.get("filter", "").removeprefix("state=")
        rows = [row for row in resources if not wanted or row["state"] == wanted]
        start, size = int(query.get("pageToken") or 0), int(query.get("pageSize") or 0) or 100
        end = start + size
        return without_defaults({field: rows[start:end], "nextPageToken": str(end) if end < len(rows) else "",
                                 "totalSize": len(rows)})

    def list_keys(self, ring, query):
        if ring not in self.rings:
            raise Refused("NOT_FOUND", f"KeyRing {ring} not found.")
        return self.listing("cryptoKeys", [k.resource() for n, k in self.keys.items() if n.startswith(ring + "/")], query)

    def update_primary(self, key, body):
        key.primary = self.version(f"{key.name}/cryptoKeyVersions/{body.get('cryptoKeyVersionId')}").usable(["aes"])
        return key.resource()

    def update_version(self, version, body, query):
        state = enum("state", body.get("state"))
        if query.get("updateMask") != "state" or state not in ("ENABLED", "DISABLED"):
            raise invalid("Only the state can be changed, to ENABLED or DISABLED.")
        if version.state not in ("ENABLED", "DISABLED"):
            raise Refused("FAILED_PRECONDITION", f"{version.name} is in state {version.state}.")
        version.state = state
        return version.resource()

    def destroy(self, version, _body):
        if version.state not in ("ENABLED", "DISABLED"):
            raise Refused("FAILED_PRECONDITION", f"{version.name} is in state {version.state}.")
        version.state, version.destroy = "DESTROY_SCHEDULED", now(30)
        return version.resource()

    def restore(self, version, _body):
        if version.state != "DESTROY_SCHEDULED":
            raise Refused("FAILED_PRECONDITION", f"{version.name} is in state {version.state}.")
        version.state, version.destroy = "DISABLED", None
        return version.resource()

    def encrypt(self, name, body):
        version = self.version(name) if "/cryptoKeyVersions/" in name else self.key(name).primary
        if not version:
            raise Refused("FAILED_PRECONDITION", f"{name} has no primary version.")
        version.usable(["aes"])
        plaintext, checked = decode(body, "plaintext")
        aad, aad_checked = decode(body, "additionalAuthenticatedData")
        if len(plaintext) > 65536 or len(aad) > 65536:
            raise invalid("The plaintext or additional authenticated data is larger than 64KiB.")
        nonce = os.urandom(12)
        ciphertext = version.number.to_bytes(4, "big") + nonce + AESGCM(version.secret).encrypt(nonce, plaintext, aad)
        return without_defaults({
            "name": version.name, "ciphertext": encode(ciphertext), "ciphertextCrc32c": crc32c(ciphertext),
            "verifiedPlaintextCrc32c": checked, "verifiedAdditionalAuthenticatedDataCrc32c": aad_checked,
            "protectionLevel": version.key.level})

    def decrypt(self, name, body):
        key = self.key(name)
        ciphertext, _ = decode(body, "ciphertext")
        aad, _ = decode(body, "additionalAuthenticatedData")
        version = key.versions.get(int.from_bytes(ciphertext[:4], "big"))
        if not version or len(ciphertext) < 32:
            raise invalid("Decryption failed: verify that 'name' refers to the correct CryptoKey.")
        version.usable(["aes"])
        try:
            plaintext = AESGCM(version.secret).decrypt(ciphertext[4:16], ciphertext[16:], aad)
        except InvalidTag:
            raise invalid("Decryption failed: the ciphertext is invalid.") from None
        return {"plaintext": encode(plaintext), "plaintextCrc32c": crc32c(plaintext), "protectionLevel": key.level,
                **without_defaults({"usedPrimary": version is key.primary})}

    def public_key(self, version):
        pem = version.usable(["ec", "ed25519", "pss", "pkcs1", "raw", "oaep"]).public_pem()
        return {"name": version.name, "pem": pem.decode(), "pemCrc32c": crc32c(pem), "algorithm": version.key.algorithm,
                "protectionLevel": version.key.level, "publicKeyFormat": "PEM"}

    def sign(self, version, body):
        version.usable(["ec", "ed25519", "pss", "pkcs1", "raw"])
        data, data_checked = decode(body, "data")
        digest, digest_checked = b"", False
        if "digest" in body:
            if set(body["digest"]) != {version.hash}:
                raise invalid(f"The digest must be the one of {version.key.algorithm}.")
            digest = decode(body["digest"], version.hash)[0]
            decode({"digest": encode(digest), "digestCrc32c": body.get("digestCrc32c")}, "digest")
            digest_checked = body.get("digestCrc32c") is not None
        if bool(digest) == ("data" in body):
            raise invalid("Either a digest or data is needed.")
        signature = version.sign(digest, data)
        return without_defaults({
            "name": version.name, "signature": encode(signature), "signatureCrc32c": crc32c(signature),
            "verifiedDigestCrc32c": digest_checked, "verifiedDataCrc32c": data_checked,
            "protectionLevel": version.key.level})

    def asymmetric_decrypt(self, version, body):
        version.usable(["oaep"])
        ciphertext, checked = decode(body, "ciphertext")
        try:
            algorithm = HASHES[version.hash]()
            plaintext = version.secret.decrypt(ciphertext, padding.OAEP(padding.MGF1(algorithm), algorithm, None))
        except ValueError:
            raise invalid("Decryption failed: the ciphertext is invalid.") from None
        return without_defaults({"plaintext": encode(plaintext), "plaintextCrc32c": crc32c(plaintext),
                                 "verifiedCiphertextCrc32c": checked, "protectionLevel": version.key.level})

    def mac_sign(self, version, body):
        version.usable(["hmac"])
        data, checked = decode(body, "data")
        mac = hmac.digest(version.secret, data, version.hash)
        return without_defaults({"name": version.name, "mac": encode(mac), "macCrc32c": crc32c(mac),
                                 "verifiedDataCrc32c": checked, "protectionLevel": version.key.level})

    def mac_verify(self, version, body):
        version.usable(["hmac"])
        (data, checked), (mac, mac_checked) = decode(body, "data"), decode(body, "mac")
        success = hmac.compare_digest(mac, hmac.digest(version.secret, data, version.hash))
        return without_defaults({"name": version.name, "success": success, "verifiedSuccessIntegrity": success,
                                 "verifiedDataCrc32c": checked, "verifiedMacCrc32c": mac_checked,
                                 "protectionLevel": version.key.level})

    def call(self, method, path, query, body):
        location, ring, key, version = (
            r"projects/[^/:]+/locations/[^/:]+", r"/keyRings/[^/:]+", r"/cryptoKeys/[^/:]+", r"/cryptoKeyVersions/[^/:]+")
        ring = location + ring
        key = ring + key
        version = key + version
        on_version = {"asymmetricSign": self.sign, "asymmetricDecrypt": self.asymmetric_decrypt,
                      "macSign": self.mac_sign, "macVerify": self.mac_verify,
                      "destroy": self.destroy, "restore": self.restore}
        name, _, verb = path.partition(":")

        def matches(wanted, pattern):
            return method == wanted and re.fullmatch(pattern, path)

        if matches("POST", location + ":generateRandomBytes"):
            data = os.urandom(int(body.get("lengthBytes", 0)))
            return {"data": encode(data), "dataCrc32c": crc32c(data)}
        if matches("POST", location + "/keyRings"):
            return self.create_ring(f"{path}/{query.get('keyRingId', '')}")
        if matches("GET", ring):
            if path not in self.rings:
                raise Refused("NOT_FOUND", f"KeyRing {path} not found.")
            return self.rings[path]
        if matches("POST", ring + "/cryptoKeys"):
            return self.create_key(f"{path}/{query.get('cryptoKeyId', '')}", body, query)
        if matches("GET", ring + "/cryptoKeys"):
            return self.list_keys(path.rpartition("/")[0], query)
        if matches("GET", key):
            return self.key(path).resource()
        if matches("POST", f"(?:{key}|{version}):encrypt"):
            return self.encrypt(name, body)
        if matches("POST", key + ":decrypt"):
            return self.decrypt(name, body)
        if matches("POST", key + ":updatePrimaryVersion"):
            return self.update_primary(self.key(name), body)
        if matches("POST", key + "/cryptoKeyVersions"):
            return self.key(path.rpartition("/")[0]).add_version().resource()
        if matches("GET", key + "/cryptoKeyVersions"):
            versions = [v.resource() for v in self.key(path.rpartition("/")[0]).versions.values()]
            return self.listing("cryptoKeyVersions", versions, query)
        if matches("GET", version + "/publicKey"):
            return self.public_key(self.version(path.rpartition("/")[0]))
        if matches("GET", version):
            return self.version(path).resource()
        if matches("PATCH", version):
            return self.update_version(self.version(path), body, query)
        if verb in on_version and matches("POST", version + ":" + verb):
            return on_version[verb](self.version(name), body)
        raise Refused("NOT_FOUND", f"Method not found: {method} {path}")


def handler(require_token):
    service = Service()

    class GoogleKms(common.Handler):
        def reply_text(self, text):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def handle_request(self):
            raw = self.read_body()
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if url.path.endswith("/universe/universe-domain"):
                return self.reply_text("googleapis.com")
            if url.path == "/token" or url.path.startswith("/computeMetadata/"):
                return self.reply(200, {"access_token": secrets.token_urlsafe(), "expires_in": 3600,
                                        "token_type": "Bearer"}, {"Metadata-Flavor": "Google"})
            try:
                if require_token and not self.headers.get("Authorization", "").startswith("Bearer "):
                    raise Refused("UNAUTHENTICATED", "Request is missing required authentication credential.")
                answer = service.call(self.command, unquote(url.path).removeprefix("/v1/"), query,
                                      json.loads(raw or b"{}"))
            except Refused as refused:
                return self.reply(refused.code, refused.body)
            except (ValueError, TypeError, AttributeError) as error:
                refused = invalid(f"Invalid JSON payload received: {error}")
                return self.reply(refused.code, refused.body)
            as_numbers = "enum-encoding=int" in query.get("$alt", "")
            self.reply(200, numbered(answer) if as_numbers else answer)

        do_GET = do_POST = do_PATCH = handle_request

    return GoogleKms


def main():
    parser = common.arguments("A test double of Google Cloud KMS")
    parser.add_argument("--require-token", action="store_true")
    options = parser.parse_args()
    common.serve(handler(options.require_token), options)


if __name__ == "__main__":
    main()
