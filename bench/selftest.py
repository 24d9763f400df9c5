#!/usr/bin/python3
"""Does the load client see what it is there to see?

A small WebSocket server with one planted fault at a time, and what ringcast-bench must say about each. A client
that finds nothing proves a server right only if it finds these.

    bench/selftest.py BUILD-DIRECTORY
"""
import asyncio
import json
import struct
import subprocess
import sys

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # ringcast-bench always asks with the sample key of RFC 6455
AT, WHO, MESSAGES = 50, 2, 120  # the fault meets client WHO at message AT of MESSAGES


def frame(text, opcode=1, fin=0x80):
    n = len(text)
    head = struct.pack("!BB", fin | opcode, n) if n < 126 else struct.pack("!BBH", fin | opcode, 126, n)
    return head + text


class Server:
    """Serves clients and a publish port. `fault` names what goes wrong, once."""

    def __init__(self, fault):
        self.fault = fault
        self.clients = []  # (number, channel, writer)
        self.opened = 0
        self.n = 0
        self.held = {}

    async def client(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        channel = int(head.split()[1].rsplit("room", 1)[1])
        number, self.opened = self.opened, self.opened + 1
        if self.fault == "refuse" and number == WHO:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        accept = "x" * 28 if self.fault == "wrong accept" and number == WHO else ACCEPT
        writer.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      f"Sec-WebSocket-Accept: {accept}\r\n\r\n").encode())
        if self.fault == "late member" and self.n > 0:
            await asyncio.sleep(0.03)
        entry = (number, channel, writer)
        self.clients.append(entry)
        try:
            while (data := await reader.read(4096)):
                if data[0] & 0x0F == 8:
                    break
        except ConnectionError:
            pass
        if entry in self.clients:
            self.clients.remove(entry)
        writer.close()

    def damaged(self, number, channel, text):
        """The bytes for one client at the moment of the fault."""
        good, fault = frame(text), self.fault
        if fault == "drop":
            return b""
        if fault == "repeat":
            return good + good
        if fault == "swap":
            self.held[number] = good
            return b""
        if fault == "flip fill":
            return frame(text[:-1] + bytes([text[-1] ^ 1]))
        if fault == "flip head":
            return frame(text[:20] + bytes([text[20] ^ 2]) + text[21:])
        if fault == "cut":
            return frame(text[:-1])
        if fault == "opcode":
            return frame(text, opcode=2)
        if fault == "fragment":
            return frame(text[:60], fin=0) + frame(text[60:], opcode=0)
        if fault == "other head":
            return frame(b"@@@@@@@@" + text[8:]) + good
        if fault == "reserved":
            return frame(text, fin=0xC0)
        if fault == "close":
            return good + frame(struct.pack("!H", 1013) + b"slow", opcode=8)
        if fault == "ping":
            return frame(b"are you there", opcode=9) + good
        return good

    async def publish(self, text, channel):
        for entry in list(self.clients):
            number, mine, writer = entry
            if mine != channel and not (self.fault == "misroute" and number == WHO and self.n == AT + 1):
                continue
            out = frame(text)
            if number == WHO and self.n == AT:
                out = self.damaged(number, channel, text)
            elif number in self.held:
                out += self.held.pop(number)
            if self.fault == "tail" and number == WHO and self.n == MESSAGES - 1:
                continue
            if self.fault == "pieces" and number == WHO:
                for i in range(0, len(out), 1 + self.n % 7):
                    writer.write(out[i:i + 1 + self.n % 7])
                    await asyncio.sleep(0.0002)
            else:
                writer.write(out)
            if number == WHO and self.n == AT and self.fault in ("reset", "close"):
                self.clients.remove(entry)
                if self.fault == "reset":
                    writer.transport.abort()
        self.n += 1

    async def publisher(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = int(head.split("Content-Length:")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(size))
                await self.publish(body["text"].encode(), int(body["channel"].rsplit("room", 1)[1]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


# fault -> more options, expected status, what the report must hold
CASES = [
    ("none", [], 0, {"lost": 0, "deliveries": 6 * MESSAGES}),
    ("pieces", [], 0, {"lost": 0, "deliveries": 6 * MESSAGES}),
    ("ping", [], 0, {"lost": 0}),
    ("other head", [], 1, {"lost": 0, "corrupt": 1}),
    ("drop", [], 1, {"lost": 1, "never_came": 0}),
    ("repeat", [], 1, {"repeated": 1, "lost": 0}),
    ("swap", [], 1, {"late": 1, "lost": 0}),
    ("flip fill", [], 1, {"corrupt": 1}),
    ("flip head", [], 1, {"corrupt": 1}),
    ("cut", [], 1, {"corrupt": 1}),
    ("opcode", [], 1, {"corrupt": 1}),
    ("fragment", [], 1, {"corrupt": 2}),
    ("reserved", [], 1, {"closed": 1, "closed_by": {"protocol": 1}}),
    ("tail", ["--drain", "0.5"], 1, {"never_came": 1, "lost": 1}),
    ("misroute", ["--channels", "2"], 1, {"misrouted": 1}),
    ("close", [], 1, {"closed_by": {"1013": 1}}),
    ("close", ["--may-close"], 0, {"closed_by": {"1013": 1}, "lost": 0}),
    ("reset", [], 1, {"closed": 1}),
    ("close", ["--reconnect", "--rate", "200"], 0, {"closed_by": {"1013": 1}, "joins": 1, "lost": 0}),
    ("refuse", [], 1, {"failed": 1, "opened": 5}),
    ("wrong accept", [], 1, {"failed": 1, "opened": 5}),
    ("none", ["--churn", "5:20"], 0, {"lost": 0}),
    ("late member", ["--churn", "5:60"], 1, {"corrupt": 0}),
]


async def run_case(build, fault, options):
    server = Server(fault)
    clients = await asyncio.start_server(server.client, "127.0.0.1", 0)
    publishers = await asyncio.start_server(server.publisher, "127.0.0.1", 0)
    port = lambda s: s.sockets[0].getsockname()[1]
    load = await asyncio.create_subprocess_exec(
        build + "/ringcast-bench", "--json", "--conns", "6", "--publish", "http", "--rate", "400",
        "--messages", str(MESSAGES), "--concurrency", "1", "--max-seconds", "20", "--run", "4660",
        "--target", f"127.0.0.1:{port(clients)}", "--http", f"127.0.0.1:{port(publishers)}", *options,
        stdout=subprocess.PIPE)
    out, _ = await load.communicate()
    clients.close()
    publishers.close()
    return load.returncode, json.loads(out)


def problems(fault, status, want_status, report, want):
    found = [f"{k} is {report[k]}, not {v}" for k, v in want.items() if report[k] != v]
    if status != want_status:
        found.append(f"status {status}, not {want_status} ({report['why']})")
    if fault == "late member" and report["lost"] == 0:
        found.append("nothing lost")
    return found


def main():
    failed = 0
    for fault, options, want_status, want in CASES:
        status, report = asyncio.run(run_case(sys.argv[1], fault, options))
        found = problems(fault, status, want_status, report, want)
        failed += bool(found)
        print(f"{'FAIL' if found else 'ok':4} {fault} {' '.join(options)} {'; '.join(found)}")
    print(f"{len(CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
