#!/usr/bin/python3
"""Redis to ring: what the master takes in, beside a bare hiredis subscriber, in pairs.

    bench/intake.py [--build build] [--ringcast PATH] [--pairs 9] [--seconds 5] [--size 128] [--workers 1]
                    [--client stall|read] [--json FILE]

redis-benchmark publishes as fast as it can (-P 64) through a redis-server of our own, whose pubsub output limit is 0: what a
subscriber does not take waits in Redis, for ever. In turn, a bare subscriber (bench-intake: blocking recv, redisReader, count) and ringcast
have the channel. A rate is what was taken in --seconds, from half a second after the start. Then the publisher is stopped, and
everything that Redis says was published must arrive, or the run fails.

ringcast has one client, since the master commits nothing that nobody wants. It never reads (--client stall, slow = "skip"): the
worker walks the records, and the figure is the master's. Or it reads and counts (--client read): all of the way, and it must have
had everything, too; on a small machine the worker and the client then take CPU from the master.

Beside the rate stands the CPU per message of the process in question (the scheduler's nanoseconds), which does not depend on how
many processes share the machine. Needs redis-server and redis-benchmark.
"""
import argparse
import json
import mmap
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

from harness import Failed, Process, machine

WARM, DRAIN = 0.5, 60  # seconds
CONFIG = """
workers = %d
listen "127.0.0.1:0" { }
admin "127.0.0.1:0" { }
redis { url = "unix://%s" }
namespace "feed" { path = "/feed"   redis_channel = "feed"   opcode = "binary"   publish = { "redis" }   slow = "%s"   origins = { "*" } }
"""


def cpu_ns(pid):
    """All threads of a process."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0])
    return total


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(p) for p in f.read().split()]


class Counter:
    """Eight bytes that another process writes."""

    def __init__(self, path):
        with open(path, "w+b") as f:
            f.write(bytes(8))
            f.flush()
            self.map = mmap.mmap(f.fileno(), 8)

    def value(self):
        return struct.unpack("<Q", self.map[:8])[0]


class Redis:
    def __init__(self, directory):
        self.path = os.path.join(directory, "redis.sock")
        self.server = Process(["redis-server", "--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "no",
                               "--client-output-buffer-limit", "pubsub 0 0 0", "--dir", directory],
                              os.path.join(directory, "redis.log"), r"eady to accept connections")

    def ask(self, command):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(self.path)
            f = s.makefile("rwb")
            f.write(command.encode() + b"\r\n")
            f.flush()
            head = f.readline()
            if head[:1] != b"$":
                return head.decode()
            return f.read(int(head[1:])).decode()

    def published(self):
        """PUBLISH commands so far."""
        found = re.search(r"cmdstat_publish:calls=(\d+)", self.ask("INFO commandstats"))
        return int(found[1]) if found else 0

    def all_published(self):
        """The same once nobody publishes any more: what clients had sent is worked off after they have gone, and a replica
        tells the others when it starts."""
        last, until = -1, time.monotonic() + DRAIN
        while time.monotonic() < until:
            n = self.published()
            if n == last:
                return n
            last = n
            time.sleep(0.3)
        raise Failed("the publisher does not end")


class Bare:
    name = "bare"

    def __init__(self, b):
        count = b.file("count")
        self.counter = Counter(count)
        self.process = Process([b.build + "/bench-intake", "--redis", b.redis.path, "--channel", "feed", "--count", count],
                               b.file("bare.log"), r"ready")

    pid = property(lambda self: self.process.pid)

    def taken(self):
        return self.counter.value()

    def delivered(self):
        return None

    def stop(self):
        self.process.stop()


class Ringcast:
    name = "ringcast"

    def __init__(self, b):
        config = b.file("conf")
        with open(config, "w") as f:
            f.write(CONFIG % (b.workers, b.redis.path, "skip" if b.client == "stall" else "disconnect"))
        self.process = Process([b.ringcast_bin, "-c", config], b.file("ringcast.log"),
                               r"event=ready [^\n]*listen=\"?127.0.0.1:(\d+)\"? admin=\"?127.0.0.1:(\d+)")
        self.admin = self.process.found[2]
        self.client = None
        try:
            count = b.file("count")
            self.counter = Counter(count)
            self.client = Process([b.build + "/bench-intake", "--ws", self.process.found[1], "--path", "/feed", "--count",
                                   count] + (["--stall"] if b.client == "stall" else []), b.file("ws.log"), r"ready")
        except BaseException:
            self.stop()
            raise
        self.is_read = b.client == "read"
        self.before = self.taken_in_all()

    pid = property(lambda self: self.process.pid)

    def taken_in_all(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=30) as r:
            text = r.read().decode()
        return int(float(re.search(r'ringcast_publications_total{namespace="feed",source="redis"} (\S+)', text)[1]))

    def taken(self):
        return self.taken_in_all() - self.before

    def delivered(self):
        return self.counter.value() if self.is_read else None

    def stop(self):
        if self.client is not None:
            self.client.stop()
        self.process.stop()


class Bench:
    def __init__(self, args, directory):
        self.build, self.ringcast_bin = args.build, args.ringcast or args.build + "/ringcast"
        self.client, self.workers, self.seconds, self.size = args.client, args.workers, args.seconds, args.size
        self.directory, self.n, self.published_before = directory, 0, 0
        self.redis = Redis(directory)

    def file(self, name):
        self.n += 1
        return os.path.join(self.directory, f"{self.n}.{name}")

    def publish(self):
        return subprocess.Popen(["redis-benchmark", "-s", self.redis.path, "-P", "64", "-n", "2000000000", "-q", "PUBLISH", "feed",
                                 "x" * self.size], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def watch(self, side):
        """Take figures over the window: messages and CPU."""
        pids = {"self": [side.pid], "children": children(side.pid), "redis": [self.redis.server.pid]}
        cpu = lambda: {k: sum(cpu_ns(p) for p in v) for k, v in pids.items()}
        time.sleep(WARM)
        n, start, used = side.taken(), time.monotonic(), cpu()
        time.sleep(self.seconds)
        n2, stop, used2 = side.taken(), time.monotonic(), cpu()
        taken = n2 - n
        if taken <= 0:
            raise Failed(f"{side.name} takes nothing")
        return {"per_s": taken / (stop - start), "behind": self.redis.published() - self.published_before - n2,
                **{f"{k}_us": (used2[k] - used[k]) / taken / 1000 for k in pids}}

    def drain(self, side):
        """Everything that was published must come."""
        published, until = self.redis.all_published() - self.published_before, time.monotonic() + DRAIN
        done = lambda: side.taken() == published and side.delivered() in (None, published)
        while not done():
            if time.monotonic() > until:
                raise Failed(f"{side.name}: {published} published, {side.taken()} taken in, {side.delivered()} delivered")
            time.sleep(0.1)
        return published

    def run(self, kind):
        side = kind(self)
        try:
            self.published_before = self.redis.all_published()
            publisher = self.publish()
            try:
                figures = self.watch(side)
            finally:
                publisher.kill()
                publisher.wait()
            figures["messages"] = self.drain(side)
            return figures
        finally:
            side.stop()


def quartiles(v):
    return statistics.quantiles(v, n=4, method="inclusive") if len(v) > 1 else v * 3


def line(n, got):
    ratio = got["ringcast"]["per_s"] / got["bare"]["per_s"]
    cells = [f"{got[k]['per_s'] / 1e3:9.0f} k/s {got[k]['self_us']:6.3f} us {got[k]['behind'] / 1e3:8.0f} k"
             for k in ("bare", "ringcast")]
    return (f"{n:4}  {cells[0]}  {cells[1]}  {got['ringcast']['children_us']:6.3f} us  {got['ringcast']['redis_us']:6.3f} us"
            f"  {ratio:6.3f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--ringcast", help="another binary")
    ap.add_argument("--pairs", type=int, default=9)
    ap.add_argument("--seconds", type=float, default=5)
    ap.add_argument("--size", type=int, default=128)
    ap.add_argument("--workers", type=int, default=1)
    ap.add_argument("--client", choices=("stall", "read"), default="stall")
    ap.add_argument("--json", help="write the pairs to this file")
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    pairs = []
    print(machine())
    print(f"pair  bare: taken, CPU a message, behind at the end; ringcast: the same for the master, CPU of workers, of Redis; ratio")
    with tempfile.TemporaryDirectory(prefix="intake-") as directory:
        b = Bench(args, directory)
        try:
            for i in range(args.pairs):
                kinds = (Bare, Ringcast) if i % 2 == 0 else (Ringcast, Bare)
                pairs.append({kind.name: b.run(kind) for kind in kinds})
                print(line(i + 1, pairs[-1]), flush=True)
        except Failed as e:
            print(f"intake: {e}", file=sys.stderr)
            return 1
        finally:
            b.redis.server.stop()
    low, ratio, high = quartiles([p["ringcast"]["per_s"] / p["bare"]["per_s"] for p in pairs])
    cpu = quartiles([p["ringcast"]["self_us"] / p["bare"]["self_us"] for p in pairs])
    print(f"taken in, ringcast / bare: {ratio:.3f} [{low:.3f}-{high:.3f}] of {len(pairs)} pairs (budget >= 0.9), nothing lost\n"
          f"CPU per message, master / bare: {cpu[1]:.3f} [{cpu[0]:.3f}-{cpu[2]:.3f}]")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"machine": machine(), "ratio": ratio, "low": low, "high": high, "cpu_ratio": cpu[1], "pairs": pairs}, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
