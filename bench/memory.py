#!/usr/bin/python3
"""What an idle client costs in memory, by how it says who it is; and what an empty server costs.

    bench/memory.py [--build build] [--ringcast PATH] [--only NAME,...] [--conns N] [--workers W] [--idle S]
                    [--churn S] [--maps] [--json FILE]

Everything is counted: the proportional set size (PSS) of the master and of all workers, the ring's pages and other shared
memory included. A first 500 clients come and go before the first reading, so that code and tables that every process touches
once are no client's; `bytes` is the difference of two readings, the second `--idle` seconds after the last handshake, divided
by the clients. `private` is the same without shared memory (the ring's pages, which cost nothing once it has gone round).

--churn S goes on with clients that leave and others, of new names, that come in their place, and reads PSS ten times: `slope`
is what a second of that costs. --maps prints what the server's mappings grew by.

Needs Debian's python3 alone; Redis is a server of our own on a unix socket.
"""
import argparse
import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import random
import re
import resource
import select
import signal
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SECRET = "of-the-benchmark-0123456789abcdef"
WARM = 500
PER_PROCESS = 12500
UNDERWAY = 64
HEAD = ("GET /{path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n")

NAMESPACE = """
namespace "{ns}" {{ path = "/{ns}/{{room}}"  redis_channel = "{ns}:{{room}}"  origins = {{ "*" }}  {more} }}
"""
AUTHS = {
    "query": 'type = "query"',
    "jwt": 'type = "jwt"  algorithms = { "HS256" }  keys = "%s/secret"  from = { "query:token" }',
    "hook": 'type = "hook"  url = "unix:%s/hook.sock:/hook"  recheck = 0',
    "recheck": 'type = "hook"  url = "unix:%s/hook.sock:/hook"  recheck = 10m',
}
PRESENCE = "presence = on"
QUERY = 'auth = "query"  user_query = "user"'
# name: (namespace's keys, where the client's user stands)
KINDS = {
    "shared": ("", None),
    "own": ("", None),
    "query": (QUERY, "user"),
    "jwt": ('auth = "jwt"', "token"),
    "hook": ('auth = "hook"', "cookie"),
    "recheck": ('auth = "recheck"', "cookie"),
    "presence": (QUERY + "  " + PRESENCE, "user"),
    "json": (QUERY + '  envelope = "json"', "user"),
}
BUDGET = {"shared": 256}


def token(user):
    b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()
    body = b64(b'{"alg":"HS256","typ":"JWT"}') + "." + b64(
        json.dumps({"sub": user, "exp": 4102444800}, separators=(",", ":")).encode())
    return body + "." + b64(hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).digest())


def request(kind, i):
    """What client i asks for: 'user123456' in 'room123456'."""
    where, user = KINDS[kind][1], f"user{i:06d}"
    path, more = f"{kind}/room{0 if kind == 'shared' else i:06d}", ""
    if where in ("user", "token"):
        path += f"?{where}=" + (user if where == "user" else token(user))
    elif where == "cookie":
        more = f"Cookie: session_id=0123456789abcdef; user={user}\r\nOrigin: http://bench\r\n"
    return HEAD.format(path=path, more=more).encode()


# ---- clients: one process for each PER_PROCESS of them


class Clients:
    def __init__(self, kind, target, source):
        self.kind, self.target, self.source = kind, target, source
        self.open, self.epoll = {}, select.epoll()

    def start(self, i):
        s = socket.socket()
        s.setblocking(False)
        s.bind((f"127.0.{self.source}.{1 + i // 5000 % 100}", 0))
        s.connect_ex(self.target)
        self.epoll.register(s, select.EPOLLOUT)
        self.open[s.fileno()] = s
        return s.fileno()

    def add(self, first, n):
        """Clients first .. first + n - 1; returns when each has its 101."""
        waiting, asked, began = {}, set(), 0
        until = time.monotonic() + 60
        while began < n or waiting:
            while began < n and len(waiting) < UNDERWAY:
                waiting[self.start(first + began)] = first + began
                began += 1
            for fd, _ in self.epoll.poll(1):
                if fd not in asked:
                    self.open[fd].send(request(self.kind, waiting[fd]))
                    asked.add(fd)
                    self.epoll.modify(fd, select.EPOLLIN)
                    continue
                got = self.open[fd].recv(4096)
                if not got.startswith(b"HTTP/1.1 101"):
                    raise RuntimeError(f"client {waiting[fd]}: {got[:200]!r}")
                del waiting[fd]
                asked.discard(fd)
                self.epoll.unregister(fd)
            if time.monotonic() > until:
                raise RuntimeError(f"{len(waiting)} clients have no answer")

    def drop(self, n):
        for fd in random.sample(list(self.open), n):
            self.open.pop(fd).close()


def client_process(kind, target, source, pipe):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = Clients(kind, target, source)
    try:
        while (order := pipe.recv()) is not None:
            if order[0] == "add":
                clients.add(*order[1:])
            else:
                clients.drop(order[1])
            pipe.send("done")
    except RuntimeError as e:
        pipe.send(str(e))


class Crowd:
    """Clients in as many processes as they need."""

    def __init__(self, kind, target, n):
        self.workers, self.next = [], 0
        for k in range((n + PER_PROCESS - 1) // PER_PROCESS):
            ours, theirs = multiprocessing.Pipe()
            p = multiprocessing.Process(target=client_process, args=(kind, target, k + 1, theirs))
            p.start()
            self.workers.append((p, ours))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p, pipe in self.workers:
            try:
                pipe.send(None)
            except OSError:
                pass
            p.join(5)
            if p.is_alive():
                p.kill()

    def order(self, *orders):
        for (_, pipe), order in zip(self.workers, orders):
            pipe.send(order)
        for _, pipe in self.workers[:len(orders)]:
            if not pipe.poll(90) or (answer := pipe.recv()) != "done":
                sys.exit(f"clients: {answer}")

    def add(self, n):
        share, rest = divmod(n, len(self.workers))
        orders = []
        for k in range(len(self.workers)):
            orders.append(("add", self.next, share + (k < rest)))
            self.next += share + (k < rest)
        self.order(*orders)

    def drop(self, n):
        share, rest = divmod(n, len(self.workers))
        self.order(*[("drop", share + (k < rest)) for k in range(len(self.workers))])


# ---- the hook: says yes to whoever has a cookie


class Hook(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            length, line = 0, self.rfile.readline()
            if not line:
                return
            while line.strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                line = self.rfile.readline()
            asked = json.loads(self.rfile.read(length))
            user = re.search(r"user=(\w+)", asked["headers"]["cookie"])[1]
            body = json.dumps({"allow": True, "user": user, "info": {"username": user}, "session": user}).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                             % (len(body), body))


class HookServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


# ---- the server


def tree(pid):
    """The process and its children."""
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [pid] + [int(p) for p in f.read().split()]


def rollup(pid):
    """PSS in bytes: (all, of shared memory)."""
    text = open(f"/proc/{pid}/smaps_rollup").read()
    get = lambda name: int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) * 1024
    return get("Pss"), get("Pss_Shmem")


def maps(pid):
    """PSS in KiB by mapping."""
    sums, name = {}, ""
    for line in open(f"/proc/{pid}/smaps"):
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \d+\s*(.*)", line)
        if head:
            path = head[2].replace(" (deleted)", "")
            name = os.path.basename(path) if path else "anonymous"
            if path and not path.startswith(("[", "/memfd")):
                name += " " + head[1]
        elif line.startswith("Pss:"):
            sums[name] = sums.get(name, 0) + int(line.split()[1])
    return sums


class Server:
    def __init__(self, args, kind, directory, redis):
        self.log = os.path.join(directory, "ringcast.log")
        conf = os.path.join(directory, "memory.conf")
        with open(conf, "w") as f:
            f.write('log_level = "warn"\nlisten "127.0.0.1:0" { backlog = 4096 }\nadmin "127.0.0.1:0" { }\n')
            f.write(f'redis {{ url = "unix://{redis}" }}\n')
            f.write(NAMESPACE.format(ns=kind, more=KINDS[kind][0]))
            for name, keys in AUTHS.items():
                if f'auth = "{name}"' in KINDS[kind][0]:
                    f.write(f'auth "{name}" {{ {keys.replace("%s", directory)} }}\n')
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen([args.ringcast, "-c", conf, "--workers", str(args.workers), "--log-level", "info"],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 10
        while not (found := re.search(r'event=ready [^\n]*listen="?([0-9.]+):(\d+)', open(self.log).read())):
            if self.popen.poll() is not None or time.monotonic() > until:
                sys.exit(open(self.log).read())
            time.sleep(0.02)
        self.target = (found[1], int(found[2]))

    def read(self):
        got = [rollup(pid) for pid in tree(self.popen.pid)]
        return {"all": sum(a for a, _ in got), "shared": sum(s for _, s in got), "master": got[0][0] - got[0][1],
                "workers": sum(a - s for a, s in got[1:])}

    def maps(self):
        return [maps(pid) for pid in tree(self.popen.pid)]

    def stop(self):
        self.popen.terminate()
        self.popen.wait(30)


def show_maps(before, after, scale, unit):
    for role, picks in (("master", (0, 1)), ("workers", (1, None))):
        sums = {}
        for sign, all_maps in ((-1, before), (1, after)):
            for one in all_maps[picks[0]:picks[1]]:
                for name, kib in one.items():
                    sums[name] = sums.get(name, 0) + sign * kib
        for name, kib in sorted(sums.items(), key=lambda x: -x[1]):
            if kib * scale >= (40 if unit == "KiB" else 2):
                print(f"    {role:8} {name:44} {kib * scale:9.1f} {unit}")


def measure(args, kind, directory, redis):
    server = Server(args, kind, directory, redis)
    try:
        with Crowd(kind, server.target, args.conns) as crowd:
            time.sleep(2)
            empty = server.read()
            if args.maps:
                print(f"  {kind}: empty")
                show_maps([{}], server.maps(), 1, "KiB")
            crowd.add(WARM)
            crowd.drop(WARM)
            time.sleep(1)
            before, maps_before = server.read(), server.maps()
            crowd.add(args.conns)
            time.sleep(args.idle)
            after = server.read()
            if args.maps:
                print(f"  {kind}: a client")
                show_maps(maps_before, server.maps(), 1024 / args.conns, "B")
            row = {"kind": kind, "conns": args.conns, "workers": args.workers, "empty": empty["all"],
                   "empty_private": empty["all"] - empty["shared"]}
            for name in before:
                row[name] = (after[name] - before[name]) / args.conns
            if args.churn:
                row["churn"] = churn(args, server, crowd)
    finally:
        server.stop()
    return row


def churn(args, server, crowd):
    """A tenth leaves and a tenth comes, again and again. Readings and bytes a second (least squares)."""
    began, points, last, n = time.monotonic(), [], 0, args.conns // 10
    while (now := time.monotonic() - began) < args.churn:
        crowd.drop(n)
        crowd.add(n)
        if now - last >= args.churn / 10:
            last = now
            got = server.read()
            points.append((now, got["all"] - got["shared"]))
    slope, _ = statistics.linear_regression([t for t, _ in points], [b for _, b in points])
    return {"came": crowd.next, "mib": [round(b / 2**20, 2) for _, b in points], "bytes_per_s": slope,
            "bytes_per_join": (points[-1][1] - points[0][1]) / crowd.next}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--ringcast")
    ap.add_argument("--only", default=",".join(KINDS), help="of: " + ", ".join(KINDS))
    ap.add_argument("--conns", type=int, default=20000)
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--idle", type=float, default=15)
    ap.add_argument("--churn", type=float, default=0)
    ap.add_argument("--maps", action="store_true")
    ap.add_argument("--json")
    args = ap.parse_args()
    args.ringcast = args.ringcast or args.build + "/ringcast"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows = []
    with tempfile.TemporaryDirectory(prefix="memory-") as directory:
        redis_path = os.path.join(directory, "redis.sock")
        redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", redis_path, "--save", "", "--appendonly",
                                  "no", "--dir", directory], stdout=subprocess.DEVNULL)
        with open(os.path.join(directory, "secret"), "w") as f:
            f.write(SECRET)
        hook = HookServer(os.path.join(directory, "hook.sock"), Hook)
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        try:
            until = time.monotonic() + 10
            while not os.path.exists(redis_path) and time.monotonic() < until:
                time.sleep(0.02)
            print(f"{'':9} {'bytes':>6} {'budget':>7}   {'master':>6} {'workers':>7} {'shared memory':>13}   empty server MiB "
                  "(private)")
            for kind in args.only.split(","):
                row = measure(args, kind, directory, redis_path)
                rows.append(row)
                print(f"{kind:9} {row['all']:6.0f} {BUDGET.get(kind, 512):7}   {row['master']:6.0f} {row['workers']:7.0f} "
                      f"{row['shared']:13.0f}   {row['empty'] / 2**20:.2f} ({row['empty_private'] / 2**20:.2f})", flush=True)
                if "churn" in row:
                    print("  churn:", json.dumps(row["churn"]), flush=True)
        finally:
            hook.shutdown()
            redis.terminate()
            redis.wait()
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f)


if __name__ == "__main__":
    main()
