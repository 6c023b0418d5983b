"""A test double of Azure Key Vault (keys) and of its token issuer: the REST calls that the provider makes, as the API
reference describes them.

    python azure_vault.py PORT --cert CERT --key KEY

It proves nothing about the real service. It keeps state in memory, does real cryptography and answers errors in the
documented form. Tokens: POST /TENANT/oauth2/v2.0/token with the client id and the secret or assertion below (client credentials), or
GET /metadata/identity/oauth2/token and /msi/token (managed identity). POST /_expire makes all tokens given so far
expire.
"""
import base64
import json
import os
import re
import secrets
import threading
import time
from urllib.parse import parse_qs, urlsplit

import common
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT_ID = "22222222-2222-2222-2222-222222222222"
CLIENT_SECRET = "test-secret"
CLIENT_ASSERTION = "test-assertion"

CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "P-256K": ec.SECP256K1}
# A curve signs with one algorithm alone.
EC_SIGNATURES = {"ES256": ("P-256", hashes.SHA256), "ES384": ("P-384", hashes.SHA384),
                 "ES512": ("P-521", hashes.SHA512), "ES256K": ("P-256K", hashes.SHA256)}
RSA_SIGNATURES = {f"{kind}{bits}": (kind, digest) for kind in ("RS", "PS")
                  for bits, digest in ((256, hashes.SHA256), (384, hashes.SHA384), (512, hashes.SHA512))}
RSA_ENCRYPTION = {
    "RSA1_5": padding.PKCS1v15(),
    "RSA-OAEP": padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),
    "RSA-OAEP-256": padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
}
OPERATIONS = {"EC": ["sign", "verify"], "oct": ["encrypt", "decrypt", "wrapKey", "unwrapKey"],
              "RSA": ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]}
VERBS = {"sign": "sign", "verify": "verify", "encrypt": "encrypt", "decrypt": "decrypt", "wrapkey": "wrapKey",
         "unwrapkey": "unwrapKey"}


class Refused(Exception):
    def __init__(self, status, code, message, inner=None):
        super().__init__(message)
        error = {"code": code, "message": message}
        if inner:
            error["innererror"] = {"code": inner}
        self.status, self.body = status, {"error": error}


def bad(message):
    return Refused(400, "BadParameter", message)


def not_found(name):
    return Refused(404, "KeyNotFound", f"A key with (name/id) {name} was not found in this key vault. If you recently "
                   "deleted this key you may be able to recover it using the correct recovery command.")


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(body, field):
    text = body.get(field)
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise bad(f"Property  has invalid value: {field} must be base64url.")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(value, size=None):
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class Version:
    def __init__(self, name, body, secret=None):
        self.name, self.version = name, secrets.token_hex(16)
        self.kty = body.get("kty", "")
        self.kind = self.kty.removesuffix("-HSM")
        if self.kind not in OPERATIONS:
            raise bad(f"Property  has invalid value: kty {self.kty}")
        self.size, self.curve = body.get("key_size"), body.get("crv")
        self.secret = secret or self.generate()
        self.operations = body.get("key_ops") or OPERATIONS[self.kind]
        self.created = self.updated = int(time.time())
        self.attributes, self.tags = {"enabled": True}, {}
        self.change(body)

    def generate(self):
        if self.kind == "RSA":
            self.size = self.size or 2048
            if self.size not in (2048, 3072, 4096):
                raise bad(f"Key size {self.size} is not supported.")
            return rsa.generate_private_key(65537, self.size)
        if self.kind == "EC":
            self.curve = self.curve or "P-256"
            if self.curve not in CURVES:
                raise bad(f"Curve {self.curve} is not supported.")
            return ec.generate_private_key(CURVES[self.curve]())
        self.size = self.size or 256
        if self.size not in (128, 192, 256):
            raise bad(f"Key size {self.size} is not supported.")
        return os.urandom(self.size // 8)

    def change(self, body):
        self.attributes.update({k: v for k, v in (body.get("attributes") or {}).items() if k in ("enabled", "exp", "nbf")})
        if body.get("tags") is not None:
            self.tags = body["tags"]
        if body.get("key_ops"):
            self.operations = body["key_ops"]
        self.updated = int(time.time())

    def kid(self, base):
        return f"{base}/keys/{self.name}/{self.version}"

    def properties(self):
        return {"attributes": {**self.attributes, "created": self.created, "updated": self.updated,
                               "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90, "exportable": False},
                "tags": self.tags}

    def bundle(self, base):
        key = {"kid": self.kid(base), "kty": self.kty, "key_ops": self.operations}
        if self.kind == "RSA":
            numbers = self.secret.public_key().public_numbers()
            key.update(n=number(numbers.n), e=number(numbers.e))
        elif self.kind == "EC":
            numbers = self.secret.public_key().public_numbers()
            size = (self.secret.curve.key_size + 7) // 8
            key.update(crv=self.curve, x=number(numbers.x, size), y=number(numbers.y, size))
        return {"key": key, **self.properties()}

    def use(self, verb, body):
        """What the operation gives, after it was checked that the key may be used for it now."""
        if not self.attributes["enabled"]:
            raise Refused(403, "Forbidden", f"Operation {verb} is not allowed on a disabled key.", "KeyDisabled")
        if verb not in self.operations:
            raise Refused(403, "Forbidden", f"Operation {verb} is not permitted on this key.", "KeyOperationForbidden")
        reads = verb in ("verify", "decrypt", "unwrapKey")
        if not reads and self.attributes.get("exp") and self.attributes["exp"] <= time.time():
            raise Refused(403, "Forbidden", f"Operation {verb} is not allowed on an expired key.", "KeyExpired")
        if not reads and self.attributes.get("nbf") and self.attributes["nbf"] > time.time():
            raise Refused(403, "Forbidden", f"Operation {verb} is not allowed before the key is valid.", "KeyNotYetValid")
        algorithm = body.get("alg")
        if verb in ("sign", "verify"):
            return self.signature(verb, algorithm, body)
        if self.kind == "RSA" and algorithm in RSA_ENCRYPTION:
            return {"value": encode(self.rsa_encryption(verb, RSA_ENCRYPTION[algorithm], decode(body, "value")))}
        if self.kind == "oct" and str(algorithm).startswith(f"A{self.size}"):
            return self.aes(verb, algorithm.removeprefix(f"A{self.size}"), decode(body, "value"), body)
        raise bad(f"Key and signing algorithm are incompatible. Key type: {self.kty}, algorithm: {algorithm}")

    def rsa_encryption(self, verb, scheme, value):
        try:
            if verb in ("encrypt", "wrapKey"):
                return self.secret.public_key().encrypt(value, scheme)
            return self.secret.decrypt(value, scheme)
        except ValueError:
            raise bad("The parameter is incorrect.") from None

    def aes(self, verb, mode, value, body):
        forward = verb in ("encrypt", "wrapKey")
        if (mode == "KW") != (verb in ("wrapKey", "unwrapKey")):
            raise bad(f"The algorithm does not go with {verb}.")
        try:
            if mode == "KW":
                wrap = keywrap.aes_key_wrap if forward else keywrap.aes_key_unwrap
                return {"value": encode(wrap(self.secret, value))}
            if mode == "GCM":
                aad = decode(body, "aad") if body.get("aad") else b""
                if forward:
                    nonce = os.urandom(12)
                    sealed = AESGCM(self.secret).encrypt(nonce, value, aad)
                    return {"value": encode(sealed[:-16]), "iv": encode(nonce), "tag": encode(sealed[-16:]),
                            "aad": encode(aad)}
                sealed = value + decode(body, "tag")
                return {"value": encode(AESGCM(self.secret).decrypt(decode(body, "iv"), sealed, aad))}
            if mode in ("CBC", "CBCPAD"):
                iv = decode(body, "iv")
                cipher, pad = Cipher(algorithms.AES(self.secret), modes.CBC(iv)), block_padding.PKCS7(128)
                work = cipher.encryptor() if forward else cipher.decryptor()
                if mode == "CBCPAD" and forward:
                    padder = pad.padder()
                    value = padder.update(value) + padder.finalize()
                value = work.update(value) + work.finalize()
                if mode == "CBCPAD" and not forward:
                    unpadder = pad.unpadder()
                    value = unpadder.update(value) + unpadder.finalize()
                return {"value": encode(value), "iv": encode(iv)} if forward else {"value": encode(value)}
        except (ValueError, InvalidTag, keywrap.InvalidUnwrap):
            raise bad("The parameter is incorrect.") from None
        raise bad(f"The algorithm {body['alg']} is not supported.")

    def signature(self, verb, algorithm, body):
        digest = decode(body, "value" if verb == "sign" else "digest")
        if self.kind == "EC" and EC_SIGNATURES.get(algorithm, ("",))[0] == self.curve:
            hashed = EC_SIGNATURES[algorithm][1]()
        elif self.kind == "RSA" and algorithm in RSA_SIGNATURES:
            hashed = RSA_SIGNATURES[algorithm][1]()
        else:
            raise bad(f"Key and signing algorithm are incompatible. Key type: {self.kty}, algorithm: {algorithm}")
        if len(digest) != hashed.digest_size:
            raise bad(f"Invalid length of 'value': {len(digest)} bytes. '{algorithm}' requires {hashed.digest_size} bytes.")
        if self.kind == "EC":
            size, scheme = (self.secret.curve.key_size + 7) // 8, [ec.ECDSA(utils.Prehashed(hashed))]
        else:
            pss = padding.PSS(padding.MGF1(hashed), hashed.digest_size)
            scheme = [pss if algorithm.startswith("PS") else padding.PKCS1v15(), utils.Prehashed(hashed)]
        if verb == "sign":
            signature = self.secret.sign(digest, *scheme)
            if self.kind == "EC":
                signature = b"".join(part.to_bytes(size, "big") for part in utils.decode_dss_signature(signature))
            return {"value": encode(signature)}
        signature = decode(body, "value")
        if self.kind == "EC":
            half = len(signature) // 2
            signature = utils.encode_dss_signature(*(int.from_bytes(p, "big") for p in (signature[:half], signature[half:])))
        try:
            self.secret.public_key().verify(signature, digest, *scheme)
        except InvalidSignature:
            return {"value": False}
        return {"value": True}


def private_key(jwk):
    """The private key in a JWK that is imported."""
    def value(field):
        return int.from_bytes(decode(jwk, field), "big")

    try:
        if jwk.get("kty", "").startswith("RSA"):
            public = rsa.RSAPublicNumbers(value("e"), value("n"))
            return rsa.RSAPrivateNumbers(*(value(f) for f in ("p", "q", "d", "dp", "dq", "qi")), public).private_key()
        if jwk.get("kty", "").startswith("EC") and jwk.get("crv") in CURVES:
            return ec.derive_private_key(value("d"), CURVES[jwk["crv"]]())
        return decode(jwk, "k")
    except ValueError:
        raise bad("Invalid JWK.") from None


class Vault:
    def __init__(self):
        self.keys, self.deleted, self.tokens, self.lock = {}, {}, {}, threading.RLock()
        self.token_seconds = 3600

    def token(self):
        expires_in = self.token_seconds
        token = secrets.token_urlsafe(32)
        self.tokens[token] = time.time() + expires_in
        return {"access_token": token, "token_type": "Bearer", "expires_in": expires_in, "ext_expires_in": expires_in,
                "expires_on": str(int(time.time()) + expires_in), "resource": "https://vault.azure.net"}

    def versions(self, name):
        if name not in self.keys:
            raise not_found(name)
        return self.keys[name]

    def find(self, name, version=None):
        for candidate in reversed(self.versions(name)):
            if version in (None, candidate.version):
                return candidate
        raise not_found(f"{name}/{version}")

    def add(self, name, body, secret=None):
        if not re.fullmatch(r"[0-9A-Za-z-]{1,127}", name):
            raise bad(f"The request URI contains an invalid name: {name}")
        with self.lock:
            if name in self.deleted:
                raise Refused(409, "Conflict", f"Key {name} is currently in a deleted but recoverable state, and its name "
                              "cannot be reused; in this state, the key can only be recovered or purged.",
                              "ObjectIsDeletedButRecoverable")
            made = Version(name, body, secret)
            self.keys.setdefault(name, []).append(made)
        return made

    def deleted_bundle(self, name, base):
        if name not in self.deleted:
            raise not_found(name)
        versions, when = self.deleted[name]
        return {**versions[-1].bundle(base), "recoveryId": f"{base}/deletedkeys/{name}", "deletedDate": when,
                "scheduledPurgeDate": when + 90 * 86400}

    def call(self, method, parts, body, base):
        match method, *parts:
            case "GET", "keys":
                return self.page([k[-1] for k in self.keys.values()], base, latest=True)
            case "POST", "keys", name, "create":
                return self.add(name, body).bundle(base)
            case "POST", "keys", name, "rotate":
                last = self.find(name)
                return self.add(name, {"kty": last.kty, "key_size": last.size, "crv": last.curve, "tags": last.tags,
                                       "key_ops": last.operations}).bundle(base)
            case "PUT", "keys", name:
                jwk = body.get("key") or {}
                secret = private_key(jwk)
                size = len(secret) * 8 if isinstance(secret, bytes) else secret.key_size
                return self.add(name, {**body, **jwk, "key_size": size}, secret).bundle(base)
            case "GET", "keys", name, "versions":
                return self.page(self.versions(name), base)
            case "GET", "keys", name, *version:
                return self.find(name, *version).bundle(base)
            case "PATCH", "keys", name, *version:
                key = self.find(name, *version)
                key.change(body)
                return key.bundle(base)
            case "DELETE", "keys", name:
                with self.lock:
                    self.deleted[name] = self.versions(name), int(time.time())
                    del self.keys[name]
                return self.deleted_bundle(name, base)
            case "GET", "deletedkeys", name:
                return self.deleted_bundle(name, base)
            case "DELETE", "deletedkeys", name:
                self.deleted_bundle(name, base)
                del self.deleted[name]
                return None
            case "POST", "deletedkeys", name, "recover":
                self.deleted_bundle(name, base)
                with self.lock:
                    self.keys[name], _ = self.deleted.pop(name)
                return self.find(name).bundle(base)
            case "POST", "keys", name, *version, verb if verb.lower() in VERBS and len(version) < 2:
                key = self.find(name, *version)
                answer = key.use(VERBS[verb.lower()], body)
                return answer if verb.lower() == "verify" else {"kid": key.kid(base), **answer}
            case "POST", "rng":
                return {"value": encode(os.urandom(body.get("count", 0)))}
        raise Refused(404, "NotFound", "The resource was not found.")

    @staticmethod
    def page(versions, base, latest=False):
        value = [{"kid": v.kid(base).removesuffix("/" + v.version) if latest else v.kid(base), **v.properties()}
                 for v in versions]
        return {"value": value, "nextLink": None}


def handler(scheme, token_seconds=3600):
    vault = Vault()
    vault.token_seconds = token_seconds

    class AzureVault(common.Handler):
        def handle_request(self):
            raw = self.read_body()
            url = urlsplit(self.path)
            host = self.headers.get("Host", "")
            base = f"{scheme}://{host}"
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            parts = [part for part in url.path.split("/") if part]
            if parts[1:] == ["oauth2", "v2.0", "token"]:
                return self.client_credentials(parse_qs(raw.decode()))
            if parts[-1:] == ["token"] and self.command == "GET":
                if self.headers.get("Metadata") != "true":
                    return self.reply(400, {"error": "invalid_request", "error_description": "Metadata header is missing"})
                return self.reply(200, vault.token())
            if parts[1:] == ["v2.0", ".well-known", "openid-configuration"] or parts[:2] == ["common", "discovery"]:
                issuer = f"{base}/{TENANT}"
                return self.reply(200, {"issuer": issuer + "/v2.0", "token_endpoint": issuer + "/oauth2/v2.0/token",
                                        "authorization_endpoint": issuer + "/oauth2/v2.0/authorize"})
            if parts == ["_expire"]:
                vault.tokens = dict.fromkeys(vault.tokens, 0)
                return self.reply(200, {})
            try:
                self.check_token()
                if "api-version" not in query:
                    raise bad("api-version must be specified")
                answer = vault.call(self.command, parts, json.loads(raw or b"{}"), base)
            except Refused as refused:
                headers = {}
                if refused.status == 401:
                    headers["WWW-Authenticate"] = (
                        f'Bearer authorization="{base}/{TENANT}", resource="https://vault.azure.net"')
                return self.reply(refused.status, refused.body, headers)
            except (ValueError, TypeError, AttributeError) as error:
                return self.reply(400, bad(f"The request body is invalid: {error}").body)
            self.reply(204 if answer is None else 200, answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

        def check_token(self):
            kind, _, token = self.headers.get("Authorization", "").partition(" ")
            if kind != "Bearer":
                raise Refused(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
            if token not in vault.tokens:
                raise Refused(401, "Unauthorized", "AKV10032: Invalid issuer.")
            if vault.tokens[token] < time.time():
                raise Refused(401, "Unauthorized", "[TokenExpired] Error validating token: 'IDX10223'.")

        def client_credentials(self, form):
            def field(name):
                return form.get(name, [""])[0]

            proof = field("client_secret"), field("client_assertion")
            if field("client_id") != CLIENT_ID or proof not in ((CLIENT_SECRET, ""), ("", CLIENT_ASSERTION)):
                return self.reply(401, {"error": "invalid_client", "error_description":
                                        "AADSTS7000215: Invalid client secret provided.", "error_codes": [7000215]})
            if field("scope") != "https://vault.azure.net/.default":
                return self.reply(400, {"error": "invalid_scope", "error_description":
                                        "AADSTS70011: The provided value for the input parameter 'scope' is not valid.",
                                        "error_codes": [70011]})
            self.reply(200, vault.token())

    return AzureVault


def main():
    parser = common.arguments("A test double of Azure Key Vault")
    parser.add_argument("--token-seconds", type=int, default=3600, help="how long a token is good for")
    options = parser.parse_args()
    common.serve(handler("https" if options.cert else "http", options.token_seconds), options)


if __name__ == "__main__":
    main()
