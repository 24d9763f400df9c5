#!/usr/bin/python3
"""The core's figures: ringcast beside the floor program, in pairs, each pair one after the other.

    bench/run.py [--build build] [--only NAME,...] [--pairs N] [--json FILE] [--ringcast PATH]

Absolute times of a machine drift by tens of per cent within minutes; what is compared is the ratio of two
runs that follow each other, and of several such pairs the median. Everything is loopback, Redis is a server of
our own on a unix socket, all processes are ended by pid. Needs Debian's python3 alone.
"""
import argparse
import concurrent.futures
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from harness import Bench, Failed, machine, number

CONNS, RATE = 1000, 100  # the paced setting of the budgets


def row(name, unit, pairs, budget, at_most=True):
    if not pairs:
        return {"name": name, "unit": unit, "ringcast": None, "budget": f"{'<=' if at_most else '>='} {budget} x floor",
                "ok": None, "void": True}
    ratios = [r / f for f, r in pairs]
    ratio = statistics.median(ratios)
    return {"name": name, "unit": unit, "floor": statistics.median(f for f, _ in pairs),
            "ringcast": statistics.median(r for _, r in pairs), "ratio": ratio, "least": min(ratios),
            "most": max(ratios), "pairs": len(pairs), "budget": f"{'<=' if at_most else '>='} {budget} x floor",
            "ok": ratio <= budget if at_most else ratio >= budget}


def single(name, unit, value, budget, ok):
    return {"name": name, "unit": unit, "ringcast": value, "budget": budget, "ok": ok}


# ---- the measurements


def paced(b, n):
    """One frame a send is the premise: a message must be with its last client before the next one is due. On a
    busy machine it is not, ringcast then joins what is due and the bare floor does not, and the ratio flatters
    us. So such pairs are void, and the slower rate and the floor that joins, too, are there for busy machines."""
    rows = []
    cpu = lambda r: r["server"]["cpu_us_per_delivery"]
    for rate, count, seconds in ((RATE, n or 5, 3), (5, n or 3, 6)):
        pairs = b.pairs(count, cpu, keep=lambda r: r["last_us"]["p99"] < 1e6 / rate, publish="redis", conns=CONNS,
                        rate=rate, duration=seconds)
        rows.append(row(f"CPU per delivery, paced {rate}/s ({len(pairs)} of {count} pairs)", "us", pairs, 1.02))
    pairs = b.pairs(n or 3, cpu, floor_args=("--batch", "64"), publish="redis", conns=CONNS, rate=RATE, duration=3)
    return rows + [dict(row(f"CPU per delivery, paced {RATE}/s, floor joins", "us", pairs, 1), budget="", ok=None)]


def flat_out(b, n):
    pairs = b.pairs(n or 3, lambda r: (r["deliveries_per_s"], r["server"]["cpu_us_per_delivery"]),
                    floor_args=("--batch", "64"), publish="redis", conns=CONNS, rate=0, inflight=64, duration=3)
    return [row("deliveries a second, flat out", "1/s", [(f[0], r[0]) for f, r in pairs], 0.9, at_most=False),
            dict(row("CPU per delivery, flat out", "us", [(f[1], r[1]) for f, r in pairs], 1), budget="", ok=None)]


def handshakes(b, n):
    pairs = b.pairs(n or 3, lambda r: r["server"]["cpu_us_per_handshake"], publish="none", conns=8000, duration=0.01,
                    concurrency=64)
    return [row("CPU per handshake", "us", pairs, 1.1)]


def idle_bytes(b, server, channels, warm):
    if warm:
        # A room that no other server has: they share one Redis, and would fill their rings as well.
        b.load(server, publish="redis", conns=2, rate=0, inflight=8, messages=2400, size=60000, path="/ws/warm%d",
               channel="demo:warm%d")
    return b.load(server, publish="none", conns=5000, channels=channels, duration=0.01, conn_rate=2500,
                  idle=15)["server"]["pss_bytes_per_conn"]


def memory(b, _n):
    """Idle bytes per connection: what 5,000 more cost, after a first 500 have come and gone (so that code and
    tables which every process touches once are not charged to them), 15 s after the last handshake.

    The verdict is on all that was found. Some of it is pages of the ring that the subscribe records were the
    first to touch: they belong to the ring, whose size is fixed. The last row shows the rest, with a ring that
    140 MB of messages have filled before. Servers idle side by side: all are started before the first reading,
    since a reading shares common pages out among the processes of the moment. Their clients come one server
    after the other: all at once they would flood a small machine."""
    plan = [(1, False), (0, False), (0, False), (0, False), (0, True)]
    servers = [b.ringcast() for _ in plan]
    try:
        for server, (channels, _) in zip(servers, plan):
            b.load(server, publish="none", conns=500, channels=channels, duration=0.01, idle=0.2)
        with concurrent.futures.ThreadPoolExecutor(len(plan)) as pool:
            runs = []
            for server, (channels, warm) in zip(servers, plan):
                runs.append(pool.submit(idle_bytes, b, server, channels, warm))
                time.sleep(2.5)
            got = [run.result() for run in runs]
    finally:
        for server in servers:
            server.stop()
    shared, own = got[0], statistics.median(got[1:4])
    spread = f"[{min(got[1:4]):.0f}-{max(got[1:4]):.0f}]"
    return [single("memory per connection, shared channel", "B", shared, "<= 256", shared <= 256),
            single(f"memory per connection, own channel {spread}", "B", own, "<= 512", own <= 512),
            single("  the same with a ring in use before", "B", got[4], "", None)]


def wide(b, n):
    """20,000 clients: publish to the last delivery. One process may hold only so many descriptors."""
    pairs = b.pairs(n or 2, lambda r: r["last_us"]["p50"] / 1000, publish="redis", conns=19000, rate=2, duration=3,
                    procs=2, concurrency=256)
    return [row("19,000 clients, to the last one, p50", "ms", pairs, 1.0)]


def point_to_point(b, _n):
    """256 messages under way, as the baseline was taken. An absolute figure, without a floor that knows channels:
    no verdict, since it only compares on the quiet machine of the baseline."""
    report = b.once(b.ringcast, publish="redis", conns=10000, channels=0, rate=0, inflight=256, duration=3,
                    concurrency=256, redis_pid=b.redis.pid)
    own, redis = report["server"]["cpu_us_per_message"], report["redis_us_per_message"]
    return [single("10,000 channels: CPU per message", "us", own + redis, "< 11 on a quiet machine", None),
            single("  of that Redis", "us", redis, "", None)]


def ring(b, _n):
    """The shared-memory ring alone. bench-ring prints one line of JSON: see bench/README.md."""
    binary = b.build + "/bench-ring"
    if not os.path.exists(binary):
        return []
    run = subprocess.run([binary, "--json", "--size", "128"], stdout=subprocess.PIPE, timeout=120)
    if run.returncode != 0:
        raise Failed(f"{binary}: status {run.returncode}")
    r = json.loads(run.stdout)
    wake = {"name": "ring: commit to a woken reader, p50", "unit": "us", "floor": r["pingpong_p50_ns"] / 1000,
            "ringcast": r["wake_p50_ns"] / 1000, "ratio": r["wake_p50_ns"] / r["pingpong_p50_ns"],
            "budget": "<= 1.3 x eventfd ping-pong"}
    wake["ok"] = wake["ratio"] <= 1.3
    one, two = r["records_per_s"], r["records_per_s_2"]
    return [wake, single("ring: records a second, 128 B", "1/s", one, ">= 10,000,000", one >= 10e6),
            single("ring: the same, to each of two", "1/s", two, ">= 8,000,000", two >= 8e6)]


MEASUREMENTS = {"paced": paced, "flat": flat_out, "handshakes": handshakes, "memory": memory, "wide": wide,
                "p2p": point_to_point, "ring": ring}


# ---- the report


def print_row(r):
    ratio = ""
    if "ratio" in r:
        ratio = f"{r['ratio']:.2f}"
        if "least" in r:
            ratio += f" [{r['least']:.2f}-{r['most']:.2f}]"
    verdict = "void: machine too busy" if r.get("void") else {True: "met", False: "not met", None: ""}[r["ok"]]
    print(f"{r['name']:52} {number(r.get('floor')):>11} {number(r['ringcast']):>11} {r['unit']:4} {ratio:18} "
          f"{r['budget']:30} {verdict}", flush=True)


def on_term(_number, _frame):
    sys.exit(1)  # so that every server started is ended on the way out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--ringcast", help="another binary")
    ap.add_argument("--only", help="of: " + ", ".join(MEASUREMENTS))
    ap.add_argument("--pairs", type=int, default=0, help="pairs of each comparison")
    ap.add_argument("--json", help="write the rows to this file")
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, on_term)
    names = args.only.split(",") if args.only else list(MEASUREMENTS)
    rows, failed = [], False
    print(machine())
    print(f"{'':52} {'floor':>11} {'ringcast':>11} {'':4} {'ratio [least-most]':18} {'budget':30}")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        b = Bench(args.build, args.ringcast or args.build + "/ringcast", directory)
        b.start_redis()
        try:
            for name in names:
                try:
                    got = MEASUREMENTS[name](b, args.pairs)
                except Failed as e:
                    print(f"{name}: {e}", file=sys.stderr)
                    failed = True
                    continue
                for r in got:
                    print_row(r)
                rows += got
        finally:
            b.redis.stop()
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"machine": machine(), "rows": rows}, f, indent=1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
