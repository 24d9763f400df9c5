"""A WebSocket client for tests that can say anything, and believes nothing.

It is a blocking socket, a frame builder that will build wrong frames on request, and a frame reader that checks
each frame of the server against RFC 6455 (no mask, no reserved bits, minimal length, legal control frames).

    with Client(host, port, "/echo") as ws:
        ws.send(frame(TEXT, "hel", fin=False) + frame(PING, b"x") + frame(CONT, "lo"))
        assert ws.recv_frame() == (PONG, b"x")
        assert ws.recv_message() == (TEXT, b"hello")
        ws.close(1000)

Each receiving call has a deadline (`timeout` of the client, seconds); Timeout says that it passed.
"""
import base64
import hashlib
import os
import socket
import struct
import time

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {CONT: "CONT", TEXT: "TEXT", BINARY: "BINARY", CLOSE: "CLOSE", PING: "PING", PONG: "PONG"}
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DEFAULT_MASK = b"\xa5\x00\xff\x3c"


class Timeout(Exception):
    """Nothing came in time."""


class Ended(Exception):
    """The server ended the TCP connection (FIN or RST)."""


class Violation(AssertionError):
    """The server broke RFC 6455."""


class Refused(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status, headers, body):
        super().__init__(f"{status} {body[:100]!r}")
        self.status, self.headers, self.body = status, headers, body


def to_bytes(payload):
    return payload.encode() if isinstance(payload, str) else bytes(payload)


def mask_bytes(payload, key):
    """Payload XOR the repeated key; as one big number, so that 16 MiB take milliseconds."""
    n = len(payload)
    if n == 0 or key == b"\0\0\0\0":
        return payload
    pad = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big")


def frame(opcode, payload=b"", fin=True, rsv=0, mask=DEFAULT_MASK, announce=None, form=None):
    """The bytes of one frame. mask: 4 bytes, or None for no mask. announce: a length that may lie.
    form: 7, 16 or 64 bits for the length, be that minimal or not."""
    payload = to_bytes(payload)
    n = len(payload) if announce is None else announce
    form = form or (7 if n < 126 else 16 if n < 65536 else 64)
    mask_bit = 0 if mask is None else 0x80
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if form == 7:
        head += bytes([mask_bit | n])
    elif form == 16:
        head += struct.pack("!BH", mask_bit | 126, n)
    else:
        head += struct.pack("!BQ", mask_bit | 127, n)
    if mask is None:
        return head + payload
    return head + mask + mask_bytes(payload, mask)


def fragments(opcode, payload, size, between=b""):
    """One message in frames of at most `size` bytes; `between` is put behind each but the last."""
    payload = to_bytes(payload)
    parts = [payload[i:i + size] for i in range(0, len(payload), size)] or [b""]
    last = len(parts) - 1
    return b"".join(
        frame(opcode if i == 0 else CONT, part, fin=i == last) + (between if i < last else b"")
        for i, part in enumerate(parts))


def close_payload(code=None, reason=""):
    return b"" if code is None else struct.pack("!H", code) + to_bytes(reason)


class Client:
    def __init__(self, host, port, path="/echo", headers=(), timeout=15.0, unix=None, handshake=True):
        self.timeout = timeout
        self.buf = bytearray()
        self.sent_close = False
        if unix is not None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(timeout)
            self.sock.connect(unix)
        else:
            self.sock = socket.create_connection((host, port), timeout=timeout)
            # Each send() shall be a segment of its own, or chopping means nothing.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if handshake:
            try:
                self.handshake(f"{host}:{port}" if unix is None else "localhost", path, headers)
            except BaseException:
                self.sock.close()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    # --- handshake

    def handshake(self, host, path, headers=()):
        key = base64.b64encode(os.urandom(16))
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key.decode()}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        status, answer = self.recv_head()
        if status != 101:
            raise Refused(status, answer, self.recv_rest())
        want = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        if answer.get("sec-websocket-accept") != want:
            raise Violation(f"wrong Sec-WebSocket-Accept: {answer}")
        if answer.get("upgrade", "").lower() != "websocket" or "upgrade" not in answer.get("connection", "").lower():
            raise Violation(f"Upgrade or Connection missing: {answer}")
        for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
            if name in answer:
                raise Violation(f"the server chose what nobody offered: {name}")

    def recv_head(self):
        """Read an HTTP response head. Returns (status, {lower-case name: value})."""
        deadline = time.monotonic() + self.timeout
        while b"\r\n\r\n" not in self.buf:
            self.fill(deadline)
        head, _, rest = bytes(self.buf).partition(b"\r\n\r\n")
        self.buf = bytearray(rest)
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def recv_rest(self):
        """What is left until the server ends the connection."""
        deadline = time.monotonic() + self.timeout
        try:
            while True:
                self.fill(deadline)
        except Ended:
            return bytes(self.buf)

    # --- sending

    def send(self, data, chop=None, pause=0.0):
        """Send bytes as they are; with `chop`, so many in each send(), `pause` seconds between two."""
        self.sock.settimeout(self.timeout)
        if chop is None:
            self.sock.sendall(data)
            return
        view = memoryview(data)
        for i in range(0, len(view), chop):
            self.sock.sendall(view[i:i + chop])
            if pause:
                time.sleep(pause)

    def send_frame(self, opcode, payload=b"", **how):
        self.send(frame(opcode, payload, **how))

    def send_text(self, text):
        self.send(frame(TEXT, text))

    def send_binary(self, data):
        self.send(frame(BINARY, data))

    # --- receiving

    def fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout(f"nothing in {self.timeout} s; unread: {bytes(self.buf[:64])!r}")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(1 << 18)
        except socket.timeout:
            raise Timeout(f"nothing in {self.timeout} s; unread: {bytes(self.buf[:64])!r}") from None
        except (ConnectionResetError, BrokenPipeError) as e:
            raise Ended(str(e)) from None
        if not data:
            raise Ended("FIN")
        self.buf += data

    def recv_bytes(self, n, deadline):
        while len(self.buf) < n:
            self.fill(deadline)
        data = bytes(self.buf[:n])
        del self.buf[:n]
        return data

    def recv_raw_frame(self):
        """One frame of the server, checked. Returns (opcode, payload, fin)."""
        deadline = time.monotonic() + self.timeout
        b0, b1 = self.recv_bytes(2, deadline)
        opcode, n = b0 & 15, b1 & 127
        if b1 & 0x80:
            raise Violation("the server masks")
        if b0 & 0x70:
            raise Violation(f"reserved bits: {b0:#x}")
        if opcode not in NAMES:
            raise Violation(f"opcode {opcode}")
        if opcode >= 8 and (n > 125 or not b0 & 0x80):
            raise Violation("a control frame that is long or fragmented")
        if n == 126:
            n, = struct.unpack("!H", self.recv_bytes(2, deadline))
            if n < 126:
                raise Violation("length is not minimal")
        elif n == 127:
            n, = struct.unpack("!Q", self.recv_bytes(8, deadline))
            if n < 65536 or n >> 63:
                raise Violation("length is not minimal")
        return opcode, self.recv_bytes(n, deadline), bool(b0 & 0x80)

    def recv_frame(self):
        """One unfragmented frame: (opcode, payload)."""
        opcode, payload, fin = self.recv_raw_frame()
        if not fin or opcode == CONT:
            raise Violation("a fragment where a whole frame was expected")
        return opcode, payload

    def recv_message(self):
        """The next data message, put together: (opcode, payload). The server's pings are answered and its pongs
        skipped; a Close raises Ended."""
        kind, parts = None, []
        while True:
            opcode, payload, fin = self.recv_raw_frame()
            if opcode == PING:
                self.send(frame(PONG, payload))
            elif opcode == CLOSE:
                raise Ended(f"Close {parse_close(payload)}")
            elif opcode != PONG:
                if (opcode == CONT) != (kind is not None):
                    raise Violation("fragments out of order")
                kind = opcode if kind is None else kind
                parts.append(payload)
                if fin:
                    data = b"".join(parts)
                    if kind == TEXT:
                        data.decode("utf-8")
                    return kind, data

    def recv_close(self, skip=()):
        """Expect the server's Close, after any frames of the opcodes in `skip`. Returns (code, reason)."""
        while True:
            opcode, payload = self.recv_frame()
            if opcode == CLOSE:
                return parse_close(payload)
            if opcode not in skip:
                raise AssertionError(f"expected Close, got {NAMES[opcode]} {payload[:40]!r}")

    def recv_end(self):
        """Expect that the server ends the TCP connection, and sends nothing before."""
        try:
            self.fill(time.monotonic() + self.timeout)
        except Ended:
            return
        raise AssertionError(f"expected the end, got {bytes(self.buf[:40])!r}")

    def is_silent(self, seconds):
        """True if nothing comes, not even the end, for so long."""
        try:
            self.fill(time.monotonic() + seconds)
        except Timeout:
            return True
        except Ended:
            pass
        return False

    # --- closing

    def send_close(self, code=None, reason=""):
        self.sent_close = True
        self.send(frame(CLOSE, close_payload(code, reason)))

    def close(self, code=1000, reason=""):
        """The whole closing handshake, begun by us. Returns the code that the server answered."""
        self.send_close(code, reason)
        answer, _ = self.recv_close(skip=(TEXT, BINARY, PONG, PING))
        self.recv_end()
        return answer

    def expect_failure(self, *codes, skip=()):
        """The server must fail the connection: its Close with one of `codes`, then the end."""
        code, _ = self.recv_close(skip)
        assert code in codes, f"closed with {code}, expected {codes}"
        if not self.sent_close:
            try:
                self.send_close(code)
            except OSError:
                pass  # it may have ended the connection already
        self.recv_end()


def parse_close(payload):
    """(code, reason) of a Close, 1005 for an empty one; checked."""
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise Violation("a Close of one byte")
    code, = struct.unpack("!H", payload[:2])
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise Violation(f"close code {code} may not travel")
    return code, payload[2:].decode("utf-8")
