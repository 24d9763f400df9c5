"""The scenarios of the benchmark: what runs, beside what, and which figure is taken.

A part (C1, C2 ...) is measured in rounds. One round runs each of its sides once, in an order that alternates from
round to round, and gives each of its rows one pair; bench/run.py repeats rounds and judges the rows (bench/stats.py).
The server's CPU is that of all its processes and of ksoftirqd, so that a side that pushes work to kernel threads
(io_uring does) pays for it. A run with a message lost, repeated, out of order or corrupt has no figures.
"""
import json
import re
import statistics
import subprocess
import threading
import time
import urllib.request

from harness import Bench, Failed, Process
from stats import Row

SINGLE = 0.99  # sends a delivery from which on a run counts as "one frame a send"
WIDE = 19500   # clients of C3
OWN_CHANNEL = '''auth "query" { type = "query" }
namespace "own" { path = "/own"   room = "{conn}"   auth = "query"   user_query = "user_id:int"   origins = { "*" } }
'''


class Sides(Bench):
    """Servers to compare, and one run of the load client against each."""

    def floor_http(self, *args):
        server = Process([self.build + "/bench-floor", "--workers", "2", "--publish", "127.0.0.1:0", *args],
                         self.path("floor"), r"listen (\d+)\npublish (\d+)\n")
        server.target, server.admin = f"127.0.0.1:{server.found[1]}", f"127.0.0.1:{server.found[2]}"
        return server

    def ringcast(self, *args):
        server = super().ringcast(*args)
        server.admin = server.find(r"event=ready [^\n]*admin=\"?([0-9.]+:\d+)")[1]
        return server

    def metrics(self, server):
        """Each counter's sum over its labels."""
        with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        sums = {}
        for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? ([0-9.e+]+)$", text, re.M):
            sums[name] = sums.get(name, 0) + float(value)
        return sums

    def floor_counts(self, server):
        server.stop()
        found = server.find(r"sends (\d+) deliveries (\d+)")
        if not found:
            raise Failed(f"bench-floor does not end well: {server.text()[-500:]}")
        return int(found[1]), int(found[2])

    def run(self, start, *args, **options):
        """One server, one run: the load client's report, with the server's sends a delivery besides."""
        server = start(*args)
        try:
            if options.get("publish") == "http":
                options["http"] = server.admin
            report = self.load(server, **options)
            if start == self.ringcast:
                report["metrics"] = m = self.metrics(server)
                sends, deliveries = m["ringcast_sends_total"], m["ringcast_deliveries_total"]
            else:
                sends, deliveries = self.floor_counts(server)
            report["sends_per_delivery"] = sends / deliveries if deliveries else 0
            return report
        finally:
            server.stop()

    def round(self, i, sides):
        """sides: {name: (start, args, options)}. Runs each, in turns from the front and from the back."""
        names = list(sides) if i % 2 == 0 else list(reversed(sides))
        return {name: self.run(sides[name][0], *sides[name][1], **sides[name][2]) for name in names}


def cpu(report):
    server = report["server"]
    return server["cpu_us_per_delivery"] + server["softirq_us_per_delivery"]


def message_cpu(report, with_redis):
    """Server and, where it is what feeds it, Redis: us a message of one delivery."""
    return cpu(report) * report["deliveries"] / report["published"] + \
        (report["redis_us_per_message"] if with_redis else 0)


def workers(n):
    return ("--workers", str(n))


# ---- C1 and C2, and with other sizes and workers C11


class Broadcast:
    """1,000 clients on one channel: paced, and flat out. Sizes, workers and the pace vary."""

    def __init__(self, goal, label="", size=128, n_workers=2, rate=100):
        self.goal, self.label, self.size, self.workers, self.rate = goal, label, size, n_workers, rate

    def paced_rows(self):
        name = f"1,000 clients, {self.rate}/s{self.label}: "
        return [Row(self.goal + ".cpu", name + "CPU per delivery, one frame a send", "us", most=1.02),
                Row(self.goal + ".cpu-joining", name + "CPU per delivery, floor joins what is due", "us", most=1.02),
                Row(self.goal + ".p50", name + "latency p50, one frame a send", "ms", most=1.1),
                Row(self.goal + ".p50-joining", name + "latency p50, floor joins what is due", "ms", most=1.1),
                Row(self.goal + ".p99", name + "latency p99", "ms"),
                Row(self.goal + ".sends", name + "sends a delivery", "")]

    def paced(self, b, out, i):
        """Two premises. While each message is with all clients before the next is due, every delivery is a send
        of its own on both sides; such rounds make the first row. Where the machine is too slow for that, ringcast
        joins the messages that are due to a client, as a server should; the bare floor never does and would pay
        more. So the floor that joins, too, runs in the same round, and its row keeps all rounds."""
        options = dict(publish="redis", conns=1000, rate=self.rate, duration=2, size=self.size)
        got = b.round(i, {"floor": (b.floor, workers(self.workers), options),
                          "joins": (b.floor, workers(self.workers) + ("--batch", "64"), options),
                          "ringcast": (b.ringcast, workers(self.workers), options)})
        floor, joins, ours = got["floor"], got["joins"], got["ringcast"]
        p50 = lambda report: report["latency_us"]["p50"] / 1000
        if ours["sends_per_delivery"] >= SINGLE and floor["sends_per_delivery"] >= SINGLE:
            out.pair(self.goal + ".cpu", cpu(floor), cpu(ours))
            out.pair(self.goal + ".p50", p50(floor), p50(ours))
        else:
            out.drop(self.goal + ".cpu")
            out.drop(self.goal + ".p50")
        out.pair(self.goal + ".cpu-joining", cpu(joins), cpu(ours))
        out.pair(self.goal + ".p50-joining", p50(joins), p50(ours))
        out.pair(self.goal + ".p99", joins["latency_us"]["p99"] / 1000, ours["latency_us"]["p99"] / 1000)
        out.pair(self.goal + ".sends", joins["sends_per_delivery"], ours["sends_per_delivery"])

    def flat_rows(self):
        rows = []
        for way, name in (("redis", "Redis"), ("http", "the HTTP API")):
            name = f"1,000 clients, flat out by {name}{self.label}: "
            rows += [Row(f"{self.goal}.{way}", name + "deliveries", "1/s", least=0.9, reference="floor --batch 64"),
                     Row(f"{self.goal}.{way}-cpu", name + "CPU per delivery", "us"),
                     Row(f"{self.goal}.{way}-p99", name + "latency p99", "ms")]
        return rows

    def flat(self, b, out, i):
        """64 messages under way. ringcast answers a request to publish when it knows who has got the message, and the
        next on that connection after it; so 64 publishers with one message each make the 64."""
        n = workers(self.workers)
        base = dict(conns=1000, rate=0, duration=2, size=self.size)
        redis = dict(base, publish="redis", inflight=64)
        http = dict(base, publish="http", inflight=1, publishers=64)
        got = b.round(i, {"redis-floor": (b.floor, n + ("--batch", "64"), redis), "redis": (b.ringcast, n, redis),
                          "http-floor": (b.floor_http, n + ("--batch", "64"), http), "http": (b.ringcast, n, http)})
        for way in ("redis", "http"):
            floor, ours = got[way + "-floor"], got[way]
            out.pair(f"{self.goal}.{way}", floor["deliveries_per_s"], ours["deliveries_per_s"])
            out.pair(f"{self.goal}.{way}-cpu", cpu(floor), cpu(ours))
            out.pair(f"{self.goal}.{way}-p99", floor["latency_us"]["p99"] / 1000, ours["latency_us"]["p99"] / 1000)


# ---- C3


def wide_rows():
    slow, fast = "19,500 clients, 2/s: ", "19,500 clients, 20/s: "
    return [Row("C3.cpu", slow + "CPU per delivery", "us", most=1.0),
            Row("C3.last", slow + "to the last client, p50", "ms", most=1.0),
            Row("C3.last-p99", slow + "to the last client, p99", "ms"),
            Row("C3.rate", fast + "deliveries, floor joins what is due", "1/s", least=0.98),
            Row("C3.rate-cpu", fast + "CPU per delivery, floor joins what is due", "us"),
            Row("C3.uring-cpu", slow + "CPU per delivery, send() | io_uring", "us"),
            Row("C3.uring-last", slow + "to the last client, p50, send() | io_uring", "ms"),
            Row("C3.uring-fast", fast + "CPU per delivery, joined, send() | io_uring", "us")]


def wide(b, out, i):
    slow = dict(publish="redis", conns=WIDE, rate=2, duration=3, procs=2, concurrency=256)
    fast = dict(slow, rate=20)
    joins = ("--batch", "64")
    got = b.round(i, {"floor": (b.floor, (), slow), "uring": (b.floor, ("--io-uring",), slow),
                      "ours": (b.ringcast, (), slow), "floor-fast": (b.floor, joins, fast),
                      "uring-fast": (b.floor, joins + ("--io-uring",), fast), "ours-fast": (b.ringcast, (), fast)})
    last = lambda name, q: got[name]["last_us"][q] / 1000
    out.pair("C3.cpu", cpu(got["floor"]), cpu(got["ours"]))
    out.pair("C3.last", last("floor", "p50"), last("ours", "p50"))
    out.pair("C3.last-p99", last("floor", "p99"), last("ours", "p99"))
    out.pair("C3.rate", got["floor-fast"]["deliveries_per_s"], got["ours-fast"]["deliveries_per_s"])
    out.pair("C3.rate-cpu", cpu(got["floor-fast"]), cpu(got["ours-fast"]))
    out.pair("C3.uring-cpu", cpu(got["floor"]), cpu(got["uring"]))
    out.pair("C3.uring-last", last("floor", "p50"), last("uring", "p50"))
    out.pair("C3.uring-fast", cpu(got["floor-fast"]), cpu(got["uring-fast"]))


# ---- C4: memory of idle connections


def pss_bytes(pid, ring):
    """PSS of a server's processes; `ring`: that of the message ring's pages alone, else of all others."""
    total = 0
    for one in [pid] + children(pid):
        with open(f"/proc/{one}/smaps") as f:
            is_ring = False
            for text in f:
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", text):
                    is_ring = "memfd:ringcast-ring" in text
                elif text.startswith("Pss:") and is_ring == ring:
                    total += int(text.split()[1]) * 1024
    return total


def children(pid):
    found = []
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        for child in f.read().split():
            found += [int(child)] + children(int(child))
    return found


def idle_rows():
    rows = []
    for n, w in (("20,000", 2), ("100,000", 8)):
        at = f"C4.{'20k' if w == 2 else '100k'}"
        rows += [Row(at + ".shared", f"{n} idle clients, {w} workers, one channel: memory each", "B", 256, kind="value"),
                 Row(at + ".own", f"{n} idle clients, {w} workers, a user and a channel each: memory each", "B", 512,
                     kind="value"),
                 Row(at + ".base", f"the empty server, {w} workers, without its ring", "B", 8 << 20, kind="value")]
    return rows


class Idle:
    """PSS of all processes, 15 s after the last handshake less that before the first, over the clients."""

    def __init__(self, goal, conns, n_workers):
        self.goal, self.conns, self.workers = goal, conns, n_workers

    def measure(self, b, out, _i):
        config = b.path("own")
        with open(config, "w") as f:
            f.write(OWN_CHANNEL)
        options = dict(publish="none", conns=self.conns, duration=0.01, idle=15, conn_rate=12000, max_seconds=120)
        for name, args, path in (("shared", (), {}), ("own", ("-c", config), {"path": "/own?user_id=%d", "channels": 0})):
            server = b.ringcast(*workers(self.workers), *args)
            try:
                if name == "shared":
                    out.value(self.goal + ".base", pss_bytes(server.pid, ring=False))
                out.value(f"{self.goal}.{name}", b.load(server, **options, **path)["server"]["pss_bytes_per_conn"])
            finally:
                server.stop()


def churn_rows():
    return [Row("C4.churn", "2,000 clients come and go, 500 ms each: growth of memory a minute", "B", 64 << 10,
                kind="value")]


def churn(b, out, _i, seconds=45):
    """PSS once a second while clients come and go; the first third is left to warm up, and of the rest the
    slope through the medians of its halves counts. Ten minutes: --churn-seconds 600."""
    server, samples, over = b.ringcast(), [], threading.Event()
    began = time.monotonic()

    def watch():
        while not over.wait(1):
            samples.append((time.monotonic() - began, pss_bytes(server.pid, False) + pss_bytes(server.pid, True)))

    thread = threading.Thread(target=watch)
    try:
        thread.start()
        b.load(server, publish="redis", rate=10, conns=100, churn="2000:500", duration=seconds, max_seconds=seconds + 60)
    finally:
        over.set()
        thread.join()
        server.stop()
    rest = [s for s in samples if samples[0][0] + seconds / 3 <= s[0] <= samples[0][0] + seconds - 2]
    half = len(rest) // 2
    middle = lambda part, k: statistics.median(s[k] for s in part)
    early, late = rest[:half], rest[half:]
    slope = (middle(late, 1) - middle(early, 1)) / (middle(late, 0) - middle(early, 0))
    out.value("C4.churn", slope * 60)


# ---- C5: handshakes


def handshake_rows():
    return [Row("C5.cpu", "CPU per handshake", "us", most=1.1),
            Row("C5.rate", "handshakes, 64 at once", "1/s"),
            Row("C5.lost", "refused or lost of 15,000, 30,000 a second asked for", "", most=0, kind="value")]


def handshakes(b, out, i):
    fast = dict(publish="none", conns=16000, duration=0.01, concurrency=64)
    got = b.round(i, {"floor": (b.floor, (), fast), "ringcast": (b.ringcast, (), fast)})
    floor, ours = got["floor"], got["ringcast"]
    out.pair("C5.cpu", floor["server"]["cpu_us_per_handshake"], ours["server"]["cpu_us_per_handshake"])
    out.pair("C5.rate", floor["opened"] / floor["connect_s"], ours["opened"] / ours["connect_s"])
    asked = b.run(b.ringcast, publish="none", conns=15000, duration=0.01, concurrency=4000, conn_rate=30000)
    out.value("C5.lost", asked["failed"] + asked["closed"] + 15000 - asked["opened"])


# ---- C6: many channels


def channel_rows():
    name = "10,000 channels, one client each, 256 in flight: "
    return [Row("C6.cpu", name + "CPU per message, floor by HTTP", "us", most=1.0),
            Row("C6.redis", name + "CPU per message, floor by Redis too", "us"),
            Row("C6.rate", name + "messages, floor by HTTP", "1/s")]


def channels(b, out, i):
    """Redis' CPU is counted where Redis feeds; the floor by HTTP has none, but answers requests (four connections,
    up to 64 pipelined on each)."""
    base = dict(conns=10000, channels=0, rate=0, duration=2, concurrency=256)
    redis = dict(base, publish="redis", inflight=256, redis_pid=b.redis.pid)
    http = dict(base, publish="http", publishers=4, inflight=64, pipeline=64)
    many = ("--channels", "10000")
    got = b.round(i, {"http": (b.floor_http, many, http), "redis": (b.floor, many, redis),
                      "ringcast": (b.ringcast, (), redis)})
    ours = message_cpu(got["ringcast"], True)
    out.pair("C6.cpu", message_cpu(got["http"], False), ours)
    out.pair("C6.redis", message_cpu(got["redis"], True), ours)
    out.pair("C6.rate", got["http"]["deliveries_per_s"], got["ringcast"]["deliveries_per_s"])


def growth_rows():
    return [Row("C6.growth", "CPU per delivery, 8 workers, a client a channel: 1,000 | 100,000 channels", "us", most=1.2),
            Row("C6.growth-floor", "the same of the floor, by Redis: 1,000 | 100,000 channels", "us")]


def growth(b, out, i):
    few = dict(publish="redis", conns=1000, channels=0, rate=0, inflight=256, duration=2, concurrency=256, max_seconds=120)
    many = dict(few, conns=100000)
    n = workers(8)
    sides = {"few": (b.ringcast, n, few), "many": (b.ringcast, n, many)}
    if i < 3:
        sides.update({"floor-few": (b.floor, n + ("--channels", "1000"), few),
                      "floor-many": (b.floor, n + ("--channels", "100000"), many)})
    got = b.round(i, sides)
    out.pair("C6.growth", cpu(got["few"]), cpu(got["many"]))
    if i < 3:
        out.pair("C6.growth-floor", cpu(got["floor-few"]), cpu(got["floor-many"]))


# ---- C9: the ring without sockets


def ring_rows():
    return [Row("C9.wake", "ring: commit to a woken reader, p50, against an eventfd ping-pong", "us", most=1.3),
            Row("C9.records", "ring: 128-byte records to one reader", "1/s", least=10e6, kind="value"),
            Row("C9.share", "ring: records to one reader | to each of two", "1/s", least=0.8)]


def ring(b, out, _i):
    run = subprocess.run([b.build + "/bench-ring", "--json", "--size", "128", "--seconds", "0.5"], stdout=subprocess.PIPE, timeout=120)
    if run.returncode != 0:
        raise Failed(f"bench-ring: status {run.returncode}")
    r = json.loads(run.stdout)
    out.pair("C9.wake", r["pingpong_p50_ns"] / 1000, r["wake_p50_ns"] / 1000)
    out.value("C9.records", r["records_per_s"])
    out.pair("C9.share", r["records_per_s"], r["records_per_s_2"])


# ---- the list


class Part:
    """One thing to run: its rows, the function of one round, how many rounds it wants, and their seconds."""

    def __init__(self, name, rows, measure, seconds, rounds=None):
        self.name, self.rows, self.measure, self.seconds, self.rounds = name, rows, measure, seconds, rounds


def broadcast_parts(c1, c2, paced_goal, flat_goal, label="", **settings):
    paced, flat = Broadcast(paced_goal, label, **settings), Broadcast(flat_goal, label, **settings)
    return [Part(c1, paced.paced_rows(), paced.paced, 12), Part(c2, flat.flat_rows(), flat.flat, 14)]


def all_parts():
    parts = broadcast_parts("C1", "C2", "C1", "C2")
    parts += [Part("C3", wide_rows(), wide, 45),
              Part("C4-20k", idle_rows()[:3], Idle("C4.20k", 20000, 2).measure, 45, 1),
              Part("C4-100k", idle_rows()[3:], Idle("C4.100k", 100000, 8).measure, 75, 1),
              Part("C4-churn", churn_rows(), churn, 50, 1),
              Part("C5", handshake_rows(), handshakes, 6),
              Part("C6", channel_rows(), channels, 15),
              Part("C6-growth", growth_rows(), growth, 40),
              Part("C9", ring_rows(), ring, 6)]
    for tag, label, settings in (("1k", ", 1 KiB", {"size": 1024}), ("16k", ", 16 KiB", {"size": 16384, "rate": 20}),
                                 ("w1", ", 1 worker", {"n_workers": 1}), ("w4", ", 4 workers", {"n_workers": 4})):
        parts += broadcast_parts(f"C11-{tag}-paced", f"C11-{tag}-flat", f"C11.{tag}.paced", f"C11.{tag}.flat", label,
                                 **settings)
    return parts
