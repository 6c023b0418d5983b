"""What the test doubles share: a threaded HTTP server on 127.0.0.1, with TLS where a certificate is given."""
import argparse
import json
import os
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that hangs up is no news in a test of faults."""


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with connections kept open, and JSON in and out."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format, *args):
        pass

    def read_body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def reply(self, status, body=None, headers=None):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("port", type=int, help="the port of 127.0.0.1 to listen on")
    parser.add_argument("--cert", help="PEM certificate: listen with TLS")
    parser.add_argument("--key", help="PEM private key of the certificate")
    return parser


def end_with_stdin():
    """Ends this process when its standard input does, if the environment asks for that."""

    def wait():
        sys.stdin.buffer.read()
        os._exit(0)

    if os.environ.get("EMULATOR_ENDS_WITH_STDIN") == "1":
        threading.Thread(target=wait, daemon=True).start()


def serve(handler, options):
    """Listens, says so in one line, and serves until it is killed."""
    end_with_stdin()
    server = Server(("127.0.0.1", options.port), handler)
    scheme = "http"
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
        # The handshake is left to the connection's own thread, so that a slow client stops nobody else.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https"
    print(f"ready {scheme}://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
