"""Processes that hold many WebSocket connections, for bench/feeds.py: as little per frame as Python allows.

A process is driven through a pipe by ClientProcess: connect(), begin(), report(), churn(). Sources are spread over
addresses of 127.0.0.0/8, so that ports do not run out. Each frame's "n" must grow on its connection; "t" is the time
at which it was published, in ns.
"""
import array
import base64
import multiprocessing
import os
import re
import select
import socket
import struct
import time
import traceback

STAMP = re.compile(rb'"n": ?(\d+), ?"t": ?(\d+)')
WAVE = 32  # connections that are being opened at a time


class Connection:
    __slots__ = ("sock", "buf", "state", "request", "count", "last")

    def __init__(self, sock, request):
        self.sock, self.request = sock, request
        self.buf, self.state = b"", "connecting"
        self.count, self.last = 0, -1


class Sockets:
    def __init__(self):
        self.epoll = select.epoll()
        self.by_fd = {}
        self.open = self.refused = self.ended = self.disorder = 0
        self.latencies = array.array("d")

    def start(self, port, path, headers, source):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((source, 0))
        request = ("GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n" % (
                       path, port, base64.b64encode(os.urandom(16)).decode(),
                       "".join("%s: %s\r\n" % pair for pair in headers))).encode()
        connection = Connection(sock, request)
        sock.connect_ex(("127.0.0.1", port))
        self.by_fd[sock.fileno()] = connection
        self.epoll.register(sock.fileno(), select.EPOLLOUT)
        return connection

    def turn(self, timeout, others=()):
        """One round of epoll. Returns the foreign descriptors that are ready."""
        ready = []
        for fd, events in self.epoll.poll(timeout, 512):
            if fd in others:
                ready.append(fd)
                continue
            connection = self.by_fd.get(fd)
            if connection is None:
                continue
            if connection.state == "connecting" and events & select.EPOLLOUT:
                try:
                    connection.sock.send(connection.request)
                except OSError:
                    self.drop(connection)
                    continue
                connection.state = "handshake"
                self.epoll.modify(fd, select.EPOLLIN)
            elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self.read(connection)
        return ready

    def read(self, connection):
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(connection)
            return
        now = time.time_ns()
        if connection.buf:
            data = connection.buf + data
        if connection.state == "handshake":
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                connection.buf = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.refused += 1
                self.drop(connection)
                return
            connection.state = "open"
            self.open += 1
        self.frames(connection, data, now)

    def frames(self, connection, data, now):
        at, end = 0, len(data)
        while end - at >= 2:
            opcode, size, begin = data[at] & 15, data[at + 1] & 127, at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, = struct.unpack_from("!H", data, at + 2)
                begin = at + 4
            elif size == 127:
                if end - at < 10:
                    break
                size, = struct.unpack_from("!Q", data, at + 2)
                begin = at + 10
            if end - begin < size:
                break
            if opcode == 1:
                self.text(connection, data[begin:begin + size], now)
            elif opcode == 9:
                connection.sock.send(bytes([0x8a, 0x80 | size, 0, 0, 0, 0]) + data[begin:begin + size])
            elif opcode == 8:
                self.drop(connection)
                return
            at = begin + size
        connection.buf = data[at:]

    def text(self, connection, payload, now):
        found = STAMP.search(payload)
        if not found:
            return
        n = int(found.group(1))
        if n <= connection.last:
            self.disorder += 1
        connection.last = n
        connection.count += 1
        self.latencies.append((now - int(found.group(2))) / 1e6)

    def drop(self, connection):
        fd = connection.sock.fileno()
        if fd in self.by_fd:
            del self.by_fd[fd]
            if connection.state == "open":
                self.open -= 1
                self.ended += 1
            connection.state = "closed"
            connection.sock.close()

    # ---- commands

    def connect(self, jobs, patience=120):
        """jobs: (port, path, headers, source). Returns when all are open; who is refused (a busy hook: 503) tries again."""
        jobs, under_way, deadline = list(reversed(jobs)), [], time.monotonic() + patience
        while jobs or under_way:
            while jobs and len(under_way) < WAVE:
                job = jobs.pop()
                under_way.append((self.start(*job), job))
            self.turn(0.05)
            jobs += [job for c, job in under_way if c.state == "closed"]
            under_way = [(c, job) for c, job in under_way if c.state in ("connecting", "handshake")]
            if time.monotonic() > deadline:
                raise TimeoutError("%d connections are not open" % (len(jobs) + len(under_way)))
        return self.open

    def begin(self):
        self.latencies = array.array("d")
        self.disorder = self.ended = 0
        for connection in self.by_fd.values():
            connection.count, connection.last = 0, -1
        return True

    def report(self):
        return {"open": self.open, "ended": self.ended, "disorder": self.disorder, "refused": self.refused,
                "counts": [c.count for c in self.by_fd.values()], "latencies": self.latencies.tolist()}


def serve(pipe):
    """Life of the process: turn, and obey. "churn" (jobs): open and close these, one after the other, until
    told. "sleep": read nothing more."""
    sockets, churn, churned, current, is_asleep = Sockets(), None, 0, None, False
    sockets.epoll.register(pipe.fileno(), select.EPOLLIN)
    while True:
        if churn and (current is None or current.state in ("open", "closed")):
            if current is not None and current.state == "open":
                sockets.drop(current)
            churned += 1
            current = sockets.start(*churn[churned % len(churn)])
        if not is_asleep and not sockets.turn(0.02, {pipe.fileno()}):
            continue
        name, arguments = pipe.recv()
        try:
            if name == "end":
                return
            if name == "churn":
                churn, answer = arguments[0], churned
            elif name == "sleep":
                is_asleep, answer = arguments[0], True
            else:
                answer = getattr(sockets, name)(*arguments)
            pipe.send((True, answer))
        except Exception:
            pipe.send((False, traceback.format_exc()))


class ClientProcess:
    def __init__(self):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=serve, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def ask(self, name, *arguments):
        self.pipe.send((name, arguments))

    def answer(self, seconds=180):
        if not self.pipe.poll(seconds):
            raise TimeoutError("a client process does not answer")
        good, value = self.pipe.recv()
        if not good:
            raise RuntimeError(value)
        return value

    def call(self, name, *arguments):
        self.ask(name, *arguments)
        return self.answer()

    def stop(self):
        self.pipe.send(("end", ()))
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
