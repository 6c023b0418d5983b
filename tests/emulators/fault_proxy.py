"""A reverse proxy that makes a cloud fail: it forwards every request as it is, but for those a test wants to go wrong.

    python fault_proxy.py PORT --upstream http://127.0.0.1:4566 --cloud aws

The test steers it on the same port:

    POST   /_faults  a rule, or a list of them, is added:
                     {"fault": "throttle", "operation": "Encrypt", "times": 2, "skip": 1, "delay": 0.5, "retry_after": 1}
                     operation: none = every one; times: default 1, 0 = until it is deleted; skip: so many pass first
    GET    /_faults  {"rules": [...], "hits": {operation: requests}, "injected": {operation: {fault: times}},
                     "authorized": requests that had an Authorization header}
    DELETE /_faults  forgets rules and counters

Faults: throttle, internal (500), unavailable (503), unauthorized, forbidden and expired answer in the cloud's own form
and keep the request from the upstream; so do drop (the connection is closed without an answer) and hang (no answer in
`delay` seconds, default 3600). The upstream carries the request out, but its answer is lost (closed without one), cut
(closed half way through the body), slow (late by `delay` seconds), truncate (a whole HTTP answer with half of the
body) or garbage (a whole HTTP answer that is not JSON).
"""
import http.client
import json
import re
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

import common

CONTROL = "/_faults"
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
FORWARDED = {"lost", "cut", "slow", "truncate", "garbage"}

AWS = {
    "throttle": (400, "ThrottlingException", "Rate exceeded"),
    "internal": (500, "KMSInternalException", "The request was rejected because an internal exception occurred."),
    "unavailable": (503, "ServiceUnavailableException", "The service is unavailable."),
    "unauthorized": (400, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "forbidden": (400, "AccessDeniedException", "User is not authorized to perform this operation on this resource."),
    "expired": (400, "ExpiredTokenException", "The security token included in the request is expired"),
}
AZURE = {
    "throttle": (429, "Throttled", "Request was not processed because too many requests were received. "
                 "Reason: VaultRequestTypeLimitReached", None),
    "internal": (500, "InternalServerError", "An internal server error occurred.", None),
    "unavailable": (503, "ServiceUnavailable", "The service is temporarily unavailable.", None),
    "unauthorized": (401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.", None),
    "forbidden": (403, "Forbidden", "Caller is not authorized to perform action on resource.", "ForbiddenByRbac"),
    "expired": (401, "Unauthorized", "[TokenExpired] Error validating token: 'IDX10223'.", None),
}
GOOGLE = {
    "throttle": (429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Cryptographic requests' of service "
                 "'cloudkms.googleapis.com'.", "RATE_LIMIT_EXCEEDED"),
    "internal": (500, "INTERNAL", "Internal error encountered.", None),
    "unavailable": (503, "UNAVAILABLE", "The service is currently unavailable.", None),
    "unauthorized": (401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", "CREDENTIALS_MISSING"),
    "forbidden": (403, "PERMISSION_DENIED", "Permission denied on resource (or it may not exist).",
                  "IAM_PERMISSION_DENIED"),
    "expired": (401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED"),
}
ERRORS = {"aws": AWS, "azure": AZURE, "google": GOOGLE}


def error_answer(cloud, fault, rule, host):
    """Status, headers and body of a fault in the form that the cloud documents."""
    if cloud == "aws":
        status, kind, message = AWS[fault]
        body = {"__type": kind, "message": message}
        return status, {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": "fault"}, body
    status, code, message, reason = ERRORS[cloud][fault]
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if fault == "throttle" and (cloud == "azure" or "retry_after" in rule):
        headers["Retry-After"] = str(rule.get("retry_after", 1))
    if cloud == "azure":
        if status == 401:
            challenge = f'Bearer authorization="https://{host}/test-tenant", resource="https://vault.azure.net"'
            headers["WWW-Authenticate"] = challenge + (', error="invalid_token"' if fault == "expired" else "")
        error = {"code": code, "message": message}
        if reason:
            error["innererror"] = {"code": reason}
        return status, headers, {"error": error}
    error = {"code": status, "message": message, "status": code}
    if reason:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason,
                             "domain": "googleapis.com", "metadata": {"service": "cloudkms.googleapis.com"}}]
    return status, headers, {"error": error}


def operation(cloud, method, path, headers):
    """The name that a test gives a request: Encrypt (AWS), sign or get (Azure), asymmetricSign (Google)."""
    path = urlsplit(path).path
    if cloud == "aws":
        return headers.get("X-Amz-Target", "").rpartition(".")[2] or method
    if "/token" in path:
        return "token"
    if cloud == "google":
        last = path.rpartition("/")[2]
        if ":" in last:
            return last.rpartition(":")[2]
        if last == "publicKey":
            return "getPublicKey"
    elif method == "POST":
        return path.rpartition("/")[2].lower()
    parts = [part for part in path.split("/") if part]
    # Resources alternate between a collection and a name: with a name at the end it is one thing, else all of them.
    if cloud == "google":
        collection = parts[-1] if len(parts) % 2 == 0 else parts[-2]
        verb = {"GET": "list" if len(parts) % 2 == 0 else "get", "POST": "create", "PATCH": "update"}.get(method, method)
        name = collection[0].upper() + collection[1:]
        return verb + (name if verb == "list" else name[:-1])
    return {"GET": "get", "PUT": "import", "PATCH": "update", "DELETE": "delete"}.get(method, method)


class Faults:
    """The rules in force and what was counted."""

    def __init__(self):
        self.lock = threading.Lock()
        self.clear()

    def clear(self):
        with self.lock:
            self.rules, self.hits, self.injected, self.authorized = [], {}, {}, 0

    def add(self, rules):
        rules = rules if isinstance(rules, list) else [rules]
        for rule in rules:
            if rule.get("fault") not in AWS.keys() | FORWARDED | {"drop", "hang"}:
                raise ValueError(f"no such fault: {rule.get('fault')}")
        with self.lock:
            self.rules += [{"times": 1, "skip": 0, **rule} for rule in rules]

    def take(self, name, authorized):
        """Counts a request, and gives the rule that it falls under."""
        with self.lock:
            self.hits[name] = self.hits.get(name, 0) + 1
            self.authorized += authorized
            for rule in self.rules:
                if rule.get("operation", name) != name:
                    continue
                if rule["skip"] > 0:
                    rule["skip"] -= 1
                    continue
                if rule["times"] > 0:
                    rule["times"] -= 1
                    if rule["times"] == 0:
                        self.rules.remove(rule)
                counts = self.injected.setdefault(name, {})
                counts[rule["fault"]] = counts.get(rule["fault"], 0) + 1
                return rule
        return None

    def state(self):
        with self.lock:
            return {"rules": self.rules, "hits": self.hits, "injected": self.injected, "authorized": self.authorized}


def proxy(upstream, cloud):
    """The handler of a proxy before `upstream`."""
    target = urlsplit(upstream)
    faults = Faults()
    context = ssl.create_default_context()
    # Both ends are on this machine, and what is tested is the client of the proxy.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    class Proxy(common.Handler):
        def handle_request(self):
            body = self.read_body()
            if self.path == CONTROL:
                return self.control(body)
            name = operation(cloud, self.command, self.path, self.headers)
            rule = faults.take(name, "Authorization" in self.headers)
            fault = rule and rule["fault"]
            if fault in (None, *FORWARDED):
                return self.forward(body, fault, rule)
            if fault == "hang":
                time.sleep(rule.get("delay", 3600))
            if fault in ("hang", "drop"):
                return self.hang_up()
            time.sleep(rule.get("delay", 0))
            status, headers, answer = error_answer(cloud, fault, rule, self.headers.get("Host", ""))
            self.send_answer(status, headers.items(), json.dumps(answer).encode())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_request

        def control(self, body):
            try:
                if self.command == "POST":
                    faults.add(json.loads(body))
                elif self.command == "DELETE":
                    faults.clear()
            except ValueError as error:
                return self.reply(400, {"error": str(error)})
            self.reply(200, faults.state())

        def forward(self, body, fault, rule):
            try:
                status, headers, answer = self.ask_upstream(body)
            except OSError as error:
                return self.reply(502, {"error": f"the upstream failed: {error}"})
            if fault == "slow":
                time.sleep(rule.get("delay", 1))
            elif fault == "lost":
                return self.hang_up()
            elif fault == "truncate":
                answer = answer[:len(answer) // 2]
            elif fault == "garbage":
                answer = b"\x00\xff<html>not what was asked for"
            self.send_answer(status, headers, answer, cut=fault == "cut")

        def ask_upstream(self, body):
            if target.scheme == "https":
                connection = http.client.HTTPSConnection(target.hostname, target.port, timeout=60, context=context)
            else:
                connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for header, value in self.headers.items():
                    if header.lower() not in HOP_BY_HOP:
                        connection.putheader(header, value)
                connection.endheaders(body)
                response = connection.getresponse()
                return response.status, response.getheaders(), response.read()
            finally:
                connection.close()

        def send_answer(self, status, headers, body, cut=False):
            self.send_response_only(status)
            for header, value in headers:
                if header.lower() not in HOP_BY_HOP | {"content-length"}:
                    self.send_header(header, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if cut:
                self.wfile.write(body[:len(body) // 2])
                return self.hang_up()
            if self.command != "HEAD":
                self.wfile.write(body)

        def hang_up(self):
            self.close_connection = True
            try:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was first

    return Proxy


def main():
    parser = common.arguments("A reverse proxy that makes a cloud fail")
    parser.add_argument("--upstream", required=True, help="http:// or https:// address of the emulator")
    parser.add_argument("--cloud", required=True, choices=sorted(ERRORS))
    options = parser.parse_args()
    if not re.fullmatch(r"https?://127\.0\.0\.1:\d+", options.upstream):
        parser.error("the upstream must be a port of 127.0.0.1")
    common.serve(proxy(options.upstream, options.cloud), options)


if __name__ == "__main__":
    main()
