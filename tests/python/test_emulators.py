"""The emulators and test doubles that the providers are tested on: that they start, refuse what they must, and die."""

import base64
import http.client
import json
import os
import pathlib
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/emulators/emulators.sh"
CA = ROOT / ".test-env/emulators/ca/ca.pem"
KEY = "/v1/projects/p/locations/global/keyRings/r/cryptoKeys/k"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def request(method, url, body=None, headers=None, timeout=30):
    """Status, headers and raw body of an answer, whatever the status."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    ask = urllib.request.Request(url, data, headers or {}, method=method)
    context = ssl.create_default_context(cafile=CA) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(ask, timeout=timeout, context=context) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def b64(data):
    return base64.b64encode(data).decode()


class EmulatorTest(unittest.TestCase):
    """Starts what a class names, once for all of its tests."""

    @classmethod
    def run_emulator(cls, name, *options, scheme="http"):
        port = free_port()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        process = subprocess.Popen([SCRIPT, "run", name, str(port), folder.name, *options],
                                   env={**os.environ, "EMULATOR_ENDS_WITH_STDIN": "1"}, stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(process.wait, 10)
        cls.addClassCleanup(process.stdin.close)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return f"{scheme}://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"{name} did not start")

    def call(self, method, path, body=None, headers=None, status=200):
        code, _, data = request(method, self.url + path, body, headers)
        self.assertEqual(code, status, data)
        return json.loads(data)


class AwsTest(EmulatorTest):
    @classmethod
    def setUpClass(cls):
        cls.url = cls.run_emulator("aws")

    def kms(self, operation, status=200, **body):
        headers = {"X-Amz-Target": f"TrentService.{operation}", "Content-Type": "application/x-amz-json-1.1",
                   "Authorization": "AWS4-HMAC-SHA256 Credential=test/20300101/us-east-1/kms/aws4_request, "
                   "SignedHeaders=host, Signature=0"}
        return self.call("POST", "/", body, headers, status)

    def test_a_key_encrypts_and_rotates_and_refuses_tampered_data(self):
        key = self.kms("CreateKey")["KeyMetadata"]["KeyId"]
        context = {"token": "wallet"}
        sealed = self.kms("Encrypt", KeyId=key, Plaintext=b64(b"secret"), EncryptionContext=context)["CiphertextBlob"]
        self.kms("RotateKeyOnDemand", KeyId=key)
        opened = self.kms("Decrypt", CiphertextBlob=sealed, EncryptionContext=context)
        self.assertEqual(opened["Plaintext"], b64(b"secret"))
        error = self.kms("Decrypt", 400, CiphertextBlob=sealed, EncryptionContext={"token": "other"})
        self.assertEqual(error["__type"], "InvalidCiphertextException")
        tampered = bytearray(base64.b64decode(sealed))
        tampered[-1] ^= 1
        error = self.kms("Decrypt", 400, CiphertextBlob=b64(tampered), EncryptionContext=context)
        self.assertEqual(error["__type"], "InvalidCiphertextException")


class GoogleTest(EmulatorTest):
    @classmethod
    def setUpClass(cls):
        cls.url = cls.run_emulator("google")
        ring = KEY.partition("/cryptoKeys/")[0]
        request("POST", cls.url + ring.rpartition("/")[0] + "?keyRingId=r", {})
        request("POST", cls.url + ring + "/cryptoKeys?cryptoKeyId=k", {"purpose": 1})

    def refused(self, method, path, body, status):
        self.assertEqual(self.call(method, path, body, status=400)["error"]["status"], status)

    def test_tampered_data_wrong_context_and_wrong_checksums_are_refused(self):
        sealed = self.call("POST", KEY + ":encrypt", {"plaintext": b64(b"hello"), "additionalAuthenticatedData": b64(b"a"),
                                                      "plaintextCrc32c": "2591144780"})
        self.assertTrue(sealed["verifiedPlaintextCrc32c"])
        ciphertext = sealed["ciphertext"]
        opened = self.call("POST", KEY + ":decrypt", {"ciphertext": ciphertext, "additionalAuthenticatedData": b64(b"a")})
        self.assertEqual(opened["plaintext"], b64(b"hello"))
        self.refused("POST", KEY + ":decrypt", {"ciphertext": ciphertext}, "INVALID_ARGUMENT")
        tampered = bytearray(base64.b64decode(ciphertext))
        tampered[-1] ^= 1
        self.refused("POST", KEY + ":decrypt", {"ciphertext": b64(tampered), "additionalAuthenticatedData": b64(b"a")},
                     "INVALID_ARGUMENT")
        self.refused("POST", KEY + ":encrypt", {"plaintext": b64(b"hello"), "plaintextCrc32c": "1"}, "INVALID_ARGUMENT")

    def test_a_version_decrypts_after_rotation_until_it_is_disabled(self):
        ciphertext = self.call("POST", KEY + ":encrypt", {"plaintext": b64(b"hello")})["ciphertext"]
        new = self.call("POST", KEY + "/cryptoKeyVersions", {})["name"].rpartition("/")[2]
        key = self.call("POST", KEY + ":updatePrimaryVersion", {"cryptoKeyVersionId": new})
        self.assertTrue(key["primary"]["name"].endswith(new))
        self.assertNotIn("usedPrimary", self.call("POST", KEY + ":decrypt", {"ciphertext": ciphertext}))
        first = KEY + "/cryptoKeyVersions/1"
        self.call("PATCH", first + "?updateMask=state", {"state": "DISABLED"})
        self.refused("POST", KEY + ":decrypt", {"ciphertext": ciphertext}, "FAILED_PRECONDITION")
        self.call("PATCH", first + "?updateMask=state", {"state": "ENABLED"})

    def test_lists_have_pages_and_a_filter(self):
        ring = KEY.partition("/cryptoKeys/")[0]
        mac = {"purpose": "MAC", "versionTemplate": {"algorithm": "HMAC_SHA256"}}
        for name in "ab":
            self.call("POST", f"{ring}/cryptoKeys?cryptoKeyId=list-{name}", mac)
        names, token = [], ""
        while True:
            page = self.call("GET", f"{ring}/cryptoKeys?pageSize=2&pageToken={token}")
            self.assertLessEqual(len(page["cryptoKeys"]), 2)
            names += [key["name"].rpartition("/")[2] for key in page["cryptoKeys"]]
            token = page.get("nextPageToken")
            if not token:
                break
        self.assertEqual(sorted(names), ["k", "list-a", "list-b"])
        versions = f"{ring}/cryptoKeys/list-a/cryptoKeyVersions"
        self.call("PATCH", versions + "/1?updateMask=state", {"state": "DISABLED"})
        self.assertEqual(len(self.call("GET", versions)["cryptoKeyVersions"]), 1)
        self.assertNotIn("cryptoKeyVersions", self.call("GET", versions + "?filter=state%3DENABLED"))
        self.refused("GET", versions + "/1/publicKey", None, "FAILED_PRECONDITION")

    def test_enums_are_numbers_where_the_client_asks_for_them(self):
        self.assertEqual(self.call("GET", KEY)["purpose"], "ENCRYPT_DECRYPT")
        self.assertEqual(self.call("GET", KEY + "?$alt=json;enum-encoding=int")["purpose"], 1)


class AzureTest(EmulatorTest):
    @classmethod
    def setUpClass(cls):
        cls.url = cls.run_emulator("azure", scheme="https")

    def token(self, secret="test-secret", status=200):
        form = ("grant_type=client_credentials&scope=https%3A%2F%2Fvault.azure.net%2F.default"
                f"&client_id=22222222-2222-2222-2222-222222222222&client_secret={secret}").encode()
        return self.call("POST", "/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token", form, status=status)

    def vault(self, method, path, body=None, status=200, token=None):
        token = token or self.token()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self.call(method, f"{path}?api-version=7.4", body, headers, status)

    def test_only_a_token_of_its_own_opens_the_vault(self):
        self.assertEqual(self.token("wrong", 401)["error"], "invalid_client")
        code, headers, _ = request("GET", self.url + "/keys?api-version=7.4")
        self.assertEqual(code, 401)
        self.assertIn('resource="https://vault.azure.net"', headers["WWW-Authenticate"])
        token = self.token()["access_token"]
        self.vault("GET", "/keys", token=token)
        self.call("POST", "/_expire", {})
        self.vault("GET", "/keys", status=401, token=token)

    def test_a_key_signs_until_it_is_disabled(self):
        key = self.vault("POST", "/keys/k1/create", {"kty": "EC", "crv": "P-256K"})["key"]
        path = key["kid"].removeprefix(self.url)
        digest = base64.urlsafe_b64encode(bytes(33)).decode()[:43]
        signed = self.vault("POST", path + "/sign", {"alg": "ES256K", "value": digest})
        self.assertEqual((signed["kid"], len(signed["value"])), (key["kid"], 86))
        check = {"alg": "ES256K", "digest": digest, "value": signed["value"]}
        self.assertTrue(self.vault("POST", path + "/verify", check)["value"])
        self.assertEqual(self.vault("POST", path + "/sign", {"alg": "ES256", "value": digest}, 400)["error"]["code"],
                         "BadParameter")
        self.vault("PATCH", path, {"attributes": {"enabled": False}})
        refused = self.vault("POST", path + "/sign", {"alg": "ES256K", "value": digest}, 403)
        self.assertEqual(refused["error"]["innererror"]["code"], "KeyDisabled")

    def test_wrapped_keys_come_back_whole_and_tampered_ones_do_not(self):
        path = self.vault("POST", "/keys/k2/create", {"kty": "RSA"})["key"]["kid"].removeprefix(self.url)
        wrapped = self.vault("POST", path + "/wrapkey", {"alg": "RSA-OAEP-256", "value": "AAAA"})["value"]
        self.vault("POST", "/keys/k2/rotate")
        unwrap = {"alg": "RSA-OAEP-256", "value": wrapped}
        self.assertEqual(self.vault("POST", path + "/unwrapkey", unwrap)["value"], "AAAA")
        unwrap["value"] = ("A" if wrapped[0] != "A" else "B") + wrapped[1:]
        self.vault("POST", path + "/unwrapkey", unwrap, 400)


class FaultProxyTest(EmulatorTest):
    """Every fault, over plain HTTP and over TLS."""

    @classmethod
    def setUpClass(cls):
        google = cls.run_emulator("google")
        azure = cls.run_emulator("azure", scheme="https")
        ring = KEY.partition("/cryptoKeys/")[0]
        request("POST", google + ring.rpartition("/")[0] + "?keyRingId=r", {})
        request("POST", google + ring + "/cryptoKeys?cryptoKeyId=k", {"purpose": 1})
        cls.proxies = {
            "google": cls.run_emulator("faults", "--cloud", "google", "--upstream", google),
            "aws": cls.run_emulator("faults", "--cloud", "aws", "--upstream", google),
            "azure": cls.run_emulator("faults", "--cloud", "azure", "--upstream", azure, scheme="https"),
        }

    def setUp(self):
        for cloud, url in self.proxies.items():
            request("DELETE", url + "/_faults")
        self.url = self.proxies["google"]

    def ask(self, cloud="google", timeout=30):
        """A request of the cloud's own kind, and what came of it."""
        method, path, body, headers = {
            "google": ("POST", KEY + ":encrypt", {"plaintext": b64(b"x" * 1000)}, {"Authorization": "Bearer x"}),
            "aws": ("POST", "/", {}, {"X-Amz-Target": "TrentService.Encrypt"}),
            "azure": ("POST", "/keys/k/1/sign?api-version=7.4", {}, {}),
        }[cloud]
        return request(method, self.proxies[cloud] + path, body, headers, timeout)

    def inject(self, cloud="google", **rule):
        code, _, _ = request("POST", self.proxies[cloud] + "/_faults", rule)
        self.assertEqual(code, 200)

    def test_requests_pass_and_are_counted(self):
        self.assertEqual(self.ask()[0], 200)
        self.assertEqual(self.call("GET", KEY)["purpose"], "ENCRYPT_DECRYPT")
        state = self.call("GET", "/_faults")
        self.assertEqual(state["hits"], {"encrypt": 1, "getCryptoKey": 1})
        self.assertEqual((state["injected"], state["authorized"]), ({}, 1))

    def test_a_rule_holds_for_its_operation_and_times(self):
        self.inject(fault="throttle", operation="decrypt")
        self.inject(fault="unavailable", operation="encrypt", times=2, skip=1)
        self.assertEqual([self.ask()[0] for _ in range(4)], [200, 503, 503, 200])
        self.assertEqual(self.call("GET", "/_faults")["injected"], {"encrypt": {"unavailable": 2}})
        self.inject(fault="internal", times=0)
        self.assertEqual([self.ask()[0] for _ in range(3)], [500, 500, 500])
        request("DELETE", self.url + "/_faults")
        self.assertEqual(self.ask()[0], 200)
        self.assertEqual(request("POST", self.url + "/_faults", {"fault": "nonsense"})[0], 400)

    def test_errors_have_each_clouds_own_form(self):
        expected = {
            "aws": {"throttle": (400, "ThrottlingException"), "internal": (500, "KMSInternalException"),
                    "unauthorized": (400, "UnrecognizedClientException"), "forbidden": (400, "AccessDeniedException"),
                    "expired": (400, "ExpiredTokenException")},
            "azure": {"throttle": (429, "Throttled"), "internal": (500, "InternalServerError"),
                      "unauthorized": (401, "Unauthorized"), "forbidden": (403, "Forbidden"),
                      "expired": (401, "Unauthorized")},
            "google": {"throttle": (429, "RESOURCE_EXHAUSTED"), "internal": (500, "INTERNAL"),
                       "unauthorized": (401, "UNAUTHENTICATED"), "forbidden": (403, "PERMISSION_DENIED"),
                       "expired": (401, "UNAUTHENTICATED")},
        }
        for cloud, faults in expected.items():
            for fault, (status, name) in faults.items():
                with self.subTest(cloud=cloud, fault=fault):
                    self.inject(cloud, fault=fault)
                    code, headers, body = self.ask(cloud)
                    body = json.loads(body)
                    found = body["__type"] if cloud == "aws" else body["error"]["code" if cloud == "azure" else "status"]
                    self.assertEqual((code, found), (status, name))
                    if cloud == "azure" and status in (401, 429):
                        self.assertIn("WWW-Authenticate" if status == 401 else "Retry-After", headers)

    def test_connections_fail_in_each_way(self):
        for fault in ("drop", "lost", "cut"):
            with self.subTest(fault=fault):
                self.inject(fault=fault)
                with self.assertRaises((OSError, http.client.HTTPException)):
                    self.ask()
        # A key's description, unlike a ciphertext, is the same each time.
        description = lambda: request("GET", self.url + KEY, None, {"Authorization": "Bearer x"})[2]
        whole = description()
        self.inject(fault="truncate")
        self.assertEqual(description(), whole[:len(whole) // 2])
        self.inject(fault="garbage")
        with self.assertRaises(ValueError):
            json.loads(self.ask()[2])
        self.inject(fault="hang")
        with self.assertRaises(TimeoutError):
            self.ask(timeout=0.3)
        self.inject(fault="slow", delay=0.3)
        start = time.monotonic()
        self.assertEqual(self.ask()[0], 200)
        self.assertGreaterEqual(time.monotonic() - start, 0.3)

    def test_a_connection_over_tls_is_cut_too(self):
        self.assertEqual(self.ask("azure")[0], 401)
        self.inject("azure", fault="cut")
        with self.assertRaises((OSError, http.client.HTTPException)):
            self.ask("azure")


class ScriptTest(unittest.TestCase):
    def test_an_emulator_is_started_and_killed(self):
        port = str(free_port())
        with tempfile.TemporaryDirectory() as folder:
            started = subprocess.run([SCRIPT, "start", "google", port, folder], capture_output=True, text=True, timeout=60)
            self.assertEqual(started.stdout, f"google: http://127.0.0.1:{port}\n", started.stderr)
            subprocess.run([SCRIPT, "stop", folder], check=True)
            self.assertEqual(subprocess.run([SCRIPT, "status", folder], capture_output=True).returncode, 1)


