"""An authorization hook: the application's side, in plain Python, that answers as the test says.

    hook = Hook()
    hook.answer = lambda request: {"allow": True, "user": 7}      # a dict or bytes: 200; (status, dict or bytes)
    hook.answer = lambda request: hook.hang()                     # not before hook.release(), or the end of the test
    hook.requests                                                 # the JSON of all that came
"""
import http.server
import json
import os
import socket
import socketserver
import ssl
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        with self.server.hook.lock:
            self.server.hook.connections.append(self.connection)

    def do_POST(self):
        hook = self.server.hook
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body)
        with hook.lock:
            hook.requests.append(request)
            hook.heads.append(dict(self.headers, path=self.path, port=self.client_address[1] if self.client_address else 0))
        answer = hook.answer(request)
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # it did not wait

    def address_string(self):
        return "hook"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass  # who was asking has gone


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def get_request(self):
        request, _ = super().get_request()
        return request, ("", 0)


class UnixHandler(Handler):
    disable_nagle_algorithm = False


class Hook:
    def __init__(self, port=0, unix=None, cert=None):
        """cert: a PEM file with certificate and key: then it speaks TLS."""
        self.lock = threading.Lock()
        self.requests, self.heads, self.connections = [], [], []
        self.released = threading.Event()
        self.answer = lambda request: {"allow": True}
        self.unix = unix
        self.server = UnixServer(unix, UnixHandler) if unix else Server(("127.0.0.1", port), Handler)
        self.server.hook = self
        self.scheme = "https" if cert else "http"
        if cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = None if unix else self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return "unix:%s:/hook" % self.unix if self.unix else "%s://127.0.0.1:%d/hook" % (self.scheme, self.port)

    def hang(self, seconds=60):
        self.released.wait(seconds)
        return {"allow": False}

    def release(self):
        self.released.set()

    def events(self, event):
        with self.lock:
            return [r for r in self.requests if r["event"] == event]

    def stop(self):
        self.release()
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # over already
        if self.unix:
            os.unlink(self.unix)
