#!/usr/bin/python3
"""The five feeds measured: ringcast beside the original's manager (B5), and targets among many (B6).

    bench/feeds.py [--build build] [--only manager,churn,slow,user,room] [--pairs N] [--conns N] [--json FILE]

manager  the original's WebSocketManager in 2 uvicorn processes against ringcast with 2 workers, etc/feeds.conf and the
         application's hook, in pairs one after the other whose order alternates: latency from PUBLISH to the client's
         read, server CPU per delivery (the processes that hold the sockets; Redis apart), memory per socket (PSS)
churn    the same while other users connect and leave all the time: what did steady clients miss?
slow     churn, messages of 100 KB, and two clients that never read: what did the steady ones miss, and when did they get it?
user     CPU per message to 1 user of 20,000 against 1 of 200; budget 2x
room     CPU per message to 1 room of 10,000 against 1 of 100; budget 2x

Everything is loopback; each process is ended by its id. Figures are of this machine and this moment: trust ratios.
"""
import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TOP, "bench"), os.path.join(TOP, "tests/feeds"), os.path.join(TOP, "tests/integ")]

from feeds_clients import ClientProcess  # noqa: E402

CALM_CLIENTS = 2  # processes that hold the sockets
RATE, SECONDS = 10, 8


def cpu_ns(pids):
    """CPU time of these processes with all their threads, by the scheduler's own nanoseconds."""
    total = 0
    for pid in pids:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                total += int(f.read().split()[0])
    return total


def pss_kb(pids):
    total = 0
    for pid in pids:
        with open("/proc/%d/smaps_rollup" % pid) as f:
            total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
    return total


def quantile(values, q):
    return values[min(int(len(values) * q), len(values) - 1)] if values else float("nan")


class Side:
    """What is under test, with its sockets: pids, ports, redis."""

    def __init__(self, directory, clients=CALM_CLIENTS):
        self.directory = Path(directory)
        self.clients = [ClientProcess() for _ in range(clients)]

    def headers(self, session):
        return [("Cookie", "session_id=" + session)]

    def users(self, count):
        """(id, session) of new users, in one transaction."""
        self.stack.data.db.execute("BEGIN")
        found = []
        for _ in range(count):
            user = self.stack.data.add_user()
            found.append((user, self.stack.data.add_session(user)))
        self.stack.data.db.execute("COMMIT")
        return found

    def jobs(self, path, users, at=0):
        return [(self.ports[(at + i) % len(self.ports)], path % user, self.headers(session), "127.0.0.%d" % (2 + i % 8))
                for i, (user, session) in enumerate(users)]

    def connect(self, jobs):
        share = [jobs[i::len(self.clients)] for i in range(len(self.clients))]
        for client, part in zip(self.clients, share):
            client.ask("connect", part)
        return sum(client.answer() for client in self.clients)

    def pace(self, channel, messages, rate):
        """Publish at times fixed beforehand (an open loop), each stamped with the moment of its PUBLISH."""
        began = time.monotonic()
        for n, body in enumerate(messages):
            wait = began + n / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self.stack.redis_client.publish(channel, '{"type":"x","n":%d,"t":%d,%s}' % (n, time.time_ns(), body))

    def reports(self):
        for client in self.clients:
            client.ask("report")
        return [client.answer() for client in self.clients]

    def drained(self, wanted, seconds=30):
        """Reports once `wanted` deliveries have come, or nothing has come for two seconds."""
        last, since = -1, time.monotonic()
        while True:
            found = self.reports()
            have = sum(sum(r["counts"]) for r in found)
            if have >= wanted or time.monotonic() - since > 2:
                return found
            if have != last:
                last, since = have, time.monotonic()
            time.sleep(0.2)

    def begin(self):
        for client in self.clients:
            client.call("begin")

    def stop(self):
        for client in self.clients:
            client.stop()
        self.end()


class Ringcast(Side):
    name = "ringcast"

    def __init__(self, directory, changes=(), **options):
        super().__init__(directory, **options)
        from stack import Stack
        self.stack = Stack(self.directory / "ringcast", workers=2, changes=changes).start()
        self.ports = [self.stack.server.port]

    @property
    def pids(self):
        return [self.stack.server.pid] + self.stack.server.worker_pids()

    def end(self):
        problems = self.stack.finish()
        if problems:
            raise SystemExit("\n".join(problems))


class Original(Side):
    name = "original"

    def __init__(self, directory, **options):
        super().__init__(directory, **options)
        from data import Data
        from redisproc import Redis
        from stack import App

        class Parts:
            pass
        self.stack = Parts()
        home = self.directory / "original"
        home.mkdir()
        self.stack.redis = Redis(home / "redis")
        self.stack.redis.start()
        self.stack.redis_client = self.stack.redis.client()
        self.stack.data = Data(str(home / "app.db"))
        self.apps = [App(home / ("app%d" % i), self.stack.redis.url, home / "app.db", factory="original:create_app") for i in range(2)]
        for app in self.apps:
            app.launch()
        for app in self.apps:
            app.wait_started()
        self.ports = [app.port for app in self.apps]

    @property
    def pids(self):
        return [app.process.pid for app in self.apps]

    def end(self):
        for app in self.apps:
            app.kill()
        self.stack.redis.kill()
        self.stack.data.close()


BROADCASTS = "/api/creator/broadcast/ws?user_id=%d"
BIG = '"pad":"%s"' % ("p" * 100000)
BODY = '"broadcast":{"id":"00000000-0000-4000-8000-000000000000","message":"%s","message_type":"info"}' % ("m" * 60)


def measure(side, conns, with_churn=False, is_slow=False):
    """One run of one side: {figure: value}."""
    side.connect(side.jobs(BROADCASTS, side.users(20)))  # what is allocated once is not a connection's
    before = pss_kb(side.pids)
    opened = side.connect(side.jobs(BROADCASTS, side.users(conns)))
    assert opened == conns + 20, opened
    wait_calm()
    figures = {"memory_kb": (pss_kb(side.pids) - before) / conns}
    for _ in range(3):
        side.stack.redis_client.publish("broadcasts", '{"type":"warm"}')
    side.begin()
    churner = None
    if with_churn:
        churner = ClientProcess()
        churner.call("churn", side.jobs(BROADCASTS, side.users(50)))
    pids = side.pids
    cpu = cpu_ns(pids)
    deaf = []
    if is_slow:  # connected, and never asked to turn: two processes of the original get one each, or one gets both
        deaf = [ClientProcess() for _ in range(2)]
        for at, client in enumerate(deaf):
            client.call("connect", side.jobs(BROADCASTS, side.users(1), at))
            client.call("sleep", True)
    messages = RATE * SECONDS
    side.pace("broadcasts", [BIG if is_slow else BODY] * messages, RATE)
    wanted = messages * opened
    found = side.drained(wanted)
    for client in deaf:
        client.call("sleep", False)
        client.stop()
    if churner:
        figures["churned"] = churner.call("churn", None)
        churner.stop()
    cpu = cpu_ns(pids) - cpu
    got = sum(sum(r["counts"]) for r in found)
    latencies = sorted(v for r in found for v in r["latencies"])
    assert got <= wanted and not sum(r["disorder"] for r in found)
    figures.update(wanted=wanted, got=got, lost=wanted - got, closed=sum(r["ended"] for r in found),
                   cpu_us=cpu / 1e3 / max(got, 1), p50_ms=quantile(latencies, 0.5), p99_ms=quantile(latencies, 0.99), max_ms=latencies[-1] if latencies else None)
    return figures


def wait_calm():
    """What a server does after the last handshake (closing buffers, replies) is over: a second."""
    time.sleep(1)


def pairs(options, **how):
    runs = []
    for n in range(options.pairs):
        pair = {}
        for kind in ((Original, Ringcast) if n % 2 == 0 else (Ringcast, Original)):
            with tempfile.TemporaryDirectory(prefix="rcfeeds") as directory:
                side = kind(directory)
                try:
                    pair[kind.name] = measure(side, options.conns, **how)
                finally:
                    side.stop()
        runs.append(pair)
        print("pair %d: %s" % (n, json.dumps(pair)), file=sys.stderr, flush=True)
    return runs


def spread(values, form="%.3g"):
    middle = statistics.median(values)
    return (form + " [" + form + "-" + form + "]") % (middle, min(values), max(values))


def table(title, runs, rows):
    print("\n%s\n\n| | original, 2 processes | ringcast, 2 workers | ratio ringcast / original |\n| --- | --- | --- | --- |" % title)
    for name, key in rows:
        columns = [[pair[side][key] for pair in runs] for side in ("original", "ringcast")]
        if any(v is None for column in columns for v in column):
            continue
        ratio = spread([b / a for a, b in zip(*columns)]) if all(columns[0]) else ""
        print("| %s | %s | %s | %s |" % (name, spread(columns[0]), spread(columns[1]), ratio))


MANAGER_ROWS = [("delivery latency p50, ms", "p50_ms"), ("p99, ms", "p99_ms"), ("max, ms", "max_ms"),
                ("server CPU per delivery, us", "cpu_us"), ("memory per socket, KB", "memory_kb"), ("deliveries lost", "lost"), ("clients closed", "closed")]


def run_manager(options):
    runs = pairs(options)
    table("%d clients, %d messages/s, %d pairs: median [least-most]" % (options.conns, RATE, options.pairs), runs, MANAGER_ROWS)
    return runs


def run_churn(options):
    runs = pairs(options, with_churn=True)
    table("The same with users who come and go all the time", runs,
          [("deliveries wanted", "wanted"), ("deliveries lost", "lost"), ("connects meanwhile", "churned"),
           ("delivery latency p99, ms", "p99_ms")])
    return runs


def run_slow(options):
    options.conns = min(options.conns, 100)  # 100 KB each, ten times a second: 100 MB/s
    runs = pairs(options, with_churn=True, is_slow=True)
    table("%d clients, 100 KB messages, two clients that never read, and churn" % options.conns, runs,
          [("deliveries wanted", "wanted"), ("deliveries lost", "lost"), ("delivery latency p50, ms", "p50_ms"),
           ("p99, ms", "p99_ms"), ("max, ms", "max_ms")])
    return runs


# ---- B6: one among many

LEGACY = [(r'#auth "legacy" \{ type = "query" \}', 'auth "legacy" { type = "query" }'),
          (r'auth = "app"(?=\n\tuser_query)', 'auth = "legacy"'), (r'(?m)^\tauth = "app"$', ""), (r"presence = on", "presence = off"),
          (r"\{info\.\w+\}", "-"), (r"hook_first_frames = on", "hook_first_frames = off"),
          (r'action = "forward"', 'action = "ignore"'), (r"ping_interval = 20s", "ping_interval = 0"), (r"per_user = 200", "per_user = 0"),
          (r"after = 30s", "after = 1h")]
MESSAGES, BURST, PAUSE = 8000, 20, 0.01


def user_ticks(pids):
    """CPU time in user mode, ms, in clock ticks."""
    total = 0
    for pid in pids:
        with open("/proc/%d/stat" % pid) as f:
            total += int(f.read().rpartition(")")[2].split()[11])
    return total * 1000 / os.sysconf("SC_CLK_TCK")


def cost_per_message(side, channel, body, draws):
    """CPU of the server per message in us: (all, in user mode). Bursts of BURST to different ones, and time enough to
    deliver them: frames that wait for the same socket would be joined, and joined the more the fewer sockets there are."""
    side.begin()
    pids = side.pids
    redis = side.stack.redis_client
    cpu, user = cpu_ns(pids), user_ticks(pids)
    began = time.monotonic()
    for at in range(0, len(draws), BURST):
        pipe = redis.pipeline(transaction=False)
        for n, target in enumerate(draws[at:at + BURST], at):
            pipe.publish(channel, '{"type":"x","n":%d,"t":%d,%s}' % (n, time.time_ns(), body % target))
        pipe.execute()
        wait = began + (at // BURST + 1) * PAUSE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
    found = side.drained(len(draws))
    cpu, user = cpu_ns(pids) - cpu, user_ticks(pids) - user
    assert sum(sum(r["counts"]) for r in found) == len(draws), "lost"
    return cpu / 1e3 / len(draws), user * 1e3 / len(draws)


def draw(rng, count):
    """Whom MESSAGES go to: no one twice in a burst."""
    return [target for _ in range(MESSAGES // BURST) for target in rng.sample(range(1, count + 1), BURST)]


def among_many(options, few, many, path, channel, body):
    """Alternating: the same messages to one of `few`, then to one of `many` (which are connected one after the other to
    two servers that live side by side)."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="rcfeeds") as first, tempfile.TemporaryDirectory(prefix="rcfeeds") as second:
        sides = {}
        try:
            for count, directory in ((few, first), (many, second)):
                side = sides[count] = Ringcast(directory, changes=LEGACY)
                jobs = [(side.ports[0], path % i, [], "127.0.0.%d" % (2 + i % 8)) for i in range(1, count + 1)]
                assert side.connect(jobs) == count
            rng = random.Random(7)
            for n in range(options.pairs + 1):
                row = {}
                for count in ((few, many) if n % 2 == 0 else (many, few)):
                    row[count] = cost_per_message(sides[count], channel, body, draw(rng, count))
                if n:  # the first touches memory for the first time
                    rows.append(row)
                    print(row, file=sys.stderr, flush=True)
        finally:
            for side in sides.values():
                side.stop()
    print("\n| CPU per message to one of | us, median [least-most] | in user mode |\n| --- | --- | --- |")
    for count in (few, many):
        print("| %d | %s | %s |" % (count, spread([row[count][0] for row in rows]), spread([row[count][1] for row in rows])))
    print("| ratio, budget 2 | %s | %s |" % tuple(spread([row[many][k] / row[few][k] for row in rows]) for k in (0, 1)))
    return rows


def run_user(options):
    print("\nA message to one user:")
    return among_many(options, 200, options.users, BROADCASTS, "broadcasts", '"_target_users":["%d"]')


def run_room(options):
    print("\nA message to one room:")
    return among_many(options, 100, options.rooms, "/api/ws/track/t%d?user_id=1", "track_comments", '"track_id":"t%d"')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only", default="manager,churn,slow,user,room")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--conns", type=int, default=1000)
    parser.add_argument("--users", type=int, default=20000)
    parser.add_argument("--rooms", type=int, default=10000)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    os.environ.setdefault("RINGCAST_BUILD", os.path.abspath(options.build))
    print("load average at the start: %.2f" % os.getloadavg()[0])
    results = {name: globals()["run_" + name](options) for name in options.only.split(",")}
    if options.json:
        with open(options.json, "w") as f:
            json.dump(results, f)


if __name__ == "__main__":
    main()
