#!/usr/bin/python3
"""Does the load client do what its options say, towards a server that is none of ours?

The server here speaks WebSocket and little else. It notes what it was asked and told, and misbehaves where that is what shows that an
option works. Each case says so when the option does nothing.

    bench/selftest_options.py BUILD-DIRECTORY
"""
import asyncio
import contextlib
import json
import resource
import socket
import struct
import subprocess
import sys

from selftest import ACCEPT, frame

MESSAGES = 120


class Server:
    """Subscribers at any path but /pub: whatever comes to /pub (POST, or as a WebSocket message) goes to all of them."""

    host = "127.0.0.1"
    protocol = ""     # of the answer
    pieces = False    # the 101 comes in pieces, the last with a message behind it
    welcome = b""     # each subscriber's first message
    delay = 0.0       # before the 101
    into = None       # bytes -> bytes: what a message becomes on its way
    damage = None     # (subscriber, number of the message, bytes) -> bytes
    hiccup = 0.0      # seconds without life, at message 10
    refuse = 0        # handshakes from number `refuse_from` on that are refused
    refuse_from = 0
    close_at = 0      # bytes that wait for a subscriber before it is closed with 1013

    def __init__(self, **options):
        self.__dict__.update(options)
        self.requests, self.peers, self.texts, self.subscribers = [], set(), [], {}
        self.n = 0

    async def client(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.serve(reader, writer)
        writer.close()

    async def serve(self, reader, writer):
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            head = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
            head["path"] = lines[0].split()[1]
            if lines[0].startswith("POST"):
                body = await reader.readexactly(int(head["content-length"]))
                await self.publish(body)
                writer.write(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            else:
                return await self.websocket(head, reader, writer)

    async def websocket(self, head, reader, writer):
        number = len(self.requests)
        self.requests.append(head)
        self.peers.add(writer.get_extra_info("peername")[0])
        self.texts.append([])
        if self.refuse_from <= number < self.refuse_from + self.refuse:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            return
        await asyncio.sleep(self.delay)
        protocol = f"Sec-WebSocket-Protocol: {self.protocol}\r\n" if self.protocol else ""
        answer = (f"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n"
                  f"{protocol}sec-websocket-accept: {ACCEPT}\r\n\r\n").encode()
        behind = frame(self.welcome) if self.welcome else b""
        if not head["path"].startswith("/pub"):
            writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            self.subscribers[number] = writer
        for i in range(0, len(answer), 30 if self.pieces else len(answer)):
            part = answer[i:i + 30] if self.pieces else answer
            writer.write(part + (behind if i + len(part) >= len(answer) else b""))
            await asyncio.sleep(0.001 if self.pieces else 0)
        try:
            await self.messages(number, head, reader, writer)
        finally:
            self.subscribers.pop(number, None)

    async def messages(self, number, head, reader, writer):
        while True:
            first, size = await reader.readexactly(2)
            size &= 0x7F
            if size == 126:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
            mask, data = await reader.readexactly(4), await reader.readexactly(size)
            data = bytes(b ^ mask[i & 3] for i, b in enumerate(data))
            if first & 15 == 8:
                return
            if first & 15 == 1:
                self.texts[number].append(data.decode())
                if head["path"].startswith("/pub") and not data.startswith(b"hello"):
                    await self.publish(data)

    async def publish(self, data):
        if self.n == 10:
            await asyncio.sleep(self.hiccup)
        for order, (number, writer) in enumerate(list(self.subscribers.items())):
            out = frame(self.into(data) if self.into else data)
            writer.write(self.damage(order, self.n, out) if self.damage else out)
            if self.close_at and writer.transport.get_write_buffer_size() > self.close_at:
                del self.subscribers[number]
                writer.write(frame(struct.pack("!H", 1013), opcode=8))
        self.n += 1


def limit_files(n):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


async def bench(build, server, options, files=0):
    listener = await asyncio.start_server(server.client, server.host, 0, backlog=4096)
    port = listener.sockets[0].getsockname()[1]
    target = f"[{server.host}]:{port}" if ":" in server.host else f"{server.host}:{port}"
    argv = [build + "/ringcast-bench", "--json", "--quiet", "--target", target, "--http", target, "--max-seconds", "30"]
    if "--publish" not in options:
        argv += ["--publish", "http", "--raw", "--publish-path", "/pub"]
    if "--duration" not in options:
        argv += ["--messages", str(MESSAGES)]
    for name, value in (("--conns", "6"), ("--rate", "400"), ("--path", "/ws")):
        argv += [] if name in options else [name, value]
    load = await asyncio.create_subprocess_exec(*argv, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                                preexec_fn=limit_files(files) if files else None)
    out, err = await load.communicate()
    listener.close()
    return load.returncode, json.loads(out) if out.strip() else None, err.decode()


# ---- the cases: server, options, what must be true of (server, status, report)


def all_well(_server, status, r):
    return status == 0 and r["lost"] == r["corrupt"] == 0 and r["deliveries"] >= 6 * MESSAGES


def templates(server, status, r):
    clients = [i for i, q in enumerate(server.requests) if not q["path"].startswith("/pub")]
    for i in clients:
        q = server.requests[i]
        n = int(q["path"].split("u=")[1].split("&")[0])
        good = (q["path"] == f"/ws/room{n % 2}?u={n}&x=%41%C3" and q["cookie"] == f"id={n}; room={n % 2}" and
                q["x-more"] == "100%" and q["host"] == "example.test" and
                server.texts[i] == [f"hello {n}", f"room {n % 2}"])
        if not good:
            return False
    publishers = [server.texts[i][0] for i in range(len(server.requests)) if i not in clients]
    return status == 0 and len(clients) == 6 and sorted(publishers) == ["hello 6", "hello 7"]


def refused(server, status, r):
    return status == 1 and r["failed"] == 6 and r["opened"] == 0


def storms(server, status, r):
    n = r["storm_us"]["n"]
    return status == 0 and n >= 3 and r["joins"] == 4 * n and len(server.requests) == 10 + 4 * n and r["storm_us"]["p50"] >= 50e3


def is_slow(r, **ends):
    return r["slow"]["closed_by"] == ends


WS = ["--publish", "ws", "--publish-path", "/pub"]
QUOTED = ['--wrap', '{"data":"%s"}', '--unwrap', '{"to":"all","data":"%s"}!']
UNWRAP = lambda data: b'{"to":"all",' + data[1:] + b"!"
SLOW = ["--slow", "1:20000", "--conns", "2", "--size", "4000"]
LAST = ["--conns", "4", "--slow", "1:100000"]


def lose_for_last(order, n, out):
    return b"" if order == 4 and n == 50 else out


CASES = [
    ("templates, headers, first frames", {"into": lambda d: d},
     ["--publish", "ws", "--publish-path", "/pub?n=%c", "--channels", "2", "--no-check", "--path", "/ws/room%d?u=%c&x=%%41%C3",
      "--header", "Cookie: id=%c; room=%d", "--header", "X-More: 100%%", "--header", "Host: example.test",
      "--first-frame", "hello %c", "--first-frame", "room %d", "--concurrency", "1"], templates),
    ("a subprotocol that was asked for", {"protocol": "b"}, ["--subprotocol", "a, b"],
     lambda s, status, r: all_well(s, status, r) and s.requests[0]["sec-websocket-protocol"] == "a, b"),
    ("another subprotocol", {"protocol": "c"}, ["--subprotocol", "a, b"], refused),
    ("no subprotocol", {}, ["--subprotocol", "a"], refused),
    ("an answer in pieces, a message behind it", {"pieces": True, "welcome": b"welcome"}, ["--ignore", "welc"],
     lambda s, status, r: all_well(s, status, r) and r["ignored"] == 6),
    ("a message that is not ours", {"welcome": b"welcome"}, ["--ignore", "other"],
     lambda s, status, r: status == 1 and r["corrupt"] == 6 and r["ignored"] == 0),
    ("messages in an envelope", {"into": UNWRAP}, WS + QUOTED, all_well),
    ("a wrong envelope", {"into": UNWRAP, "damage": lambda order, n, out: out[:-1] + b"?" if (order, n) == (2, 50) else out}, WS + QUOTED,
     lambda s, status, r: status == 1 and r["corrupt"] == 1),
    ("a damaged byte within it", {"into": UNWRAP, "damage": lambda order, n, out: out[:99] + b"~" + out[100:] if (order, n) == (2, 50) else out},
     WS + QUOTED, lambda s, status, r: status == 1 and r["corrupt"] == 1),
    ("JSON that needs escapes", {"into": lambda d: json.loads(d)["text"].encode()},
     ["--publish", "http", "--publish-path", "/pub", "--wrap", '{"a\\":"%s"}'], all_well),
    ("a slow reader that is closed", {"close_at": 65536}, SLOW,
     lambda s, status, r: status == 0 and is_slow(r, **{"1013": 1}) and r["deliveries"] >= 2 * MESSAGES),
    ("one that is fast enough", {"close_at": 65536}, SLOW + ["--slow", "1:900000000", "--rcvbuf", "0"],
     lambda s, status, r: status == 0 and is_slow(r) and r["slow"]["got"] == MESSAGES),
    ("a slow reader gets everything", {}, LAST, lambda s, status, r: status == 0 and r["slow"]["got"] == MESSAGES),
    ("a slow reader that misses one", {"damage": lose_for_last}, LAST + ["--concurrency", "1"],
     lambda s, status, r: status == 1 and r["lost"] == 1),
    ("one that may", {"damage": lose_for_last}, LAST + ["--concurrency", "1", "--may-skip"],
     lambda s, status, r: status == 0 and r["lost"] == 0 and r["stalled"]["skipped"] == 1),
    ("storms", {"delay": 0.05}, ["--storm", "4:200", "--duration", "1.5"], storms),
    ("a storm that is refused at first", {"refuse_from": 10, "refuse": 3}, ["--storm", "4:300", "--duration", "1"],
     lambda s, status, r: status == 0 and r["storm_refused"] == 3 and r["storm_us"]["n"] >= 2),
    ("a loss after a storm", {"damage": lambda order, n, out: b"" if order == 8 and 300 < n < 305 else out},
     ["--storm", "4:500", "--duration", "1"], lambda s, status, r: status == 1 and r["lost"] == 4),
    ("a publisher that was held up", {"hiccup": 0.5}, [],
     lambda s, status, r: status == 0 and r["latency_us"]["p50"] > 200e3 and r["schedule_late_max_us"] > 400e3),
    ("handshakes at a rate, answered late", {"delay": 0.4}, ["--conns", "400", "--conn-rate", "2000", "--messages", "1"],
     lambda s, status, r: status == 0 and r["behind_us"]["n"] == 400 and r["connect_s"] < 1.6 and r["offered_per_s"] < 2100),
    ("handshakes no faster than asked", {}, ["--conns", "50", "--conn-rate", "100", "--messages", "1"],
     lambda s, status, r: status == 0 and r["connect_s"] >= 0.45),
    ("given source addresses", {}, ["--source-list", "127.0.3.1-127.0.3.2,127.0.9.9"],
     lambda s, status, r: all_well(s, status, r) and s.peers == {"127.0.3.1", "127.0.3.2", "127.0.9.9"}),
    ("IPv6", {"host": "::1"}, ["--source-list", "::1"],
     lambda s, status, r: all_well(s, status, r) and s.peers == {"::1"} and s.requests[0]["host"].startswith("[::1]:")),
]

# options, limit on open files, what it says; it must not run
WRONG = [
    (["--conns", "2000", "--procs", "1"], 1100, "one may open 1000"),
    (["--conns", "200", "--procs", "1", "--sources", "1"], 150, "one may open 50"),
    (["--conns", "100000", "--sources", "1"], 0, "more sources"),
    (["--source-list", "::1"], 0, "kind"),
    (["--source-list", "127.0.0.9-127.0.0.1"], 0, "kind"),
    (["--target", "[::1]:80", "--sources", "4"], 0, "--source-list"),
    (["--target", "localhost:80"], 0, "no names"),
    (["--path", "x"], 0, "begins with /"),
    (["--header", "nothing"], 0, "Name: value"),
    (["--header", "a: b\r\nc: d"], 0, "one line"),
    (["--wrap", "without"], 0, "%s once"),
    (["--wrap", "x" * 65 + "%s"], 0, "at most 64"),
    (["--raw", "--publish", "none"], 0, "--publish http"),
]


def main():
    build, failed = sys.argv[1], 0

    def verdict(name, good, detail):
        print(f"{'ok' if good else 'FAIL':4} {name}{'' if good else ': ' + detail}", flush=True)
        return not good

    for name, faults, options, check in CASES:
        server = Server(**faults)
        status, report, err = asyncio.run(bench(build, server, options))
        failed += verdict(name, report and check(server, status, report), f"status {status} {json.dumps(report)[:1500]} {err}")
    status, report, err = asyncio.run(bench(build, Server(), ["--conns", "61"], files=130))
    failed += verdict("61 clients where a process may open 30", status == 0 and report["opened"] == 61, f"status {status} {err}")
    for options, files, says in WRONG:
        status, report, err = asyncio.run(bench(build, Server(), options, files))
        failed += verdict(f"refused: {' '.join(options)[:60]!r}", status == 2 and report is None and says in err, f"status {status} {err}")
    total = len(CASES) + 1 + len(WRONG)
    print(f"{total - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
