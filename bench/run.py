#!/usr/bin/python3
"""The benchmark: ringcast beside the floor program, in pairs, each pair one run after the other.

    bench/run.py [--build build] [--only PART,...] [--pairs N] [--json FILE [--append]] [--for SECONDS] [--write]

Absolute times of a machine drift by tens of per cent within minutes; what is compared is the ratio of two runs that
follow each other, and of at least nine such pairs the median (bench/stats.py). Everything is loopback, Redis is a
server of our own on a unix socket, all processes are ended by pid. Needs Debian's python3 alone.

With --json FILE every pair goes to that file as soon as it is measured; --append goes on where the file ends: only
what is missing of --pairs is run. With --for no round begins later than that, so that a quiet half hour can be had
in pieces. --write puts the table of the file's rows into docs/benchmarks.md.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import stats
from harness import Failed, machine
from scenarios import Sides, all_parts, churn

DOCS = "docs/benchmarks.md"
BEGIN, END = "<!-- run:begin -->", "<!-- run:end -->"


class Store:
    """What was measured, by row; written to a file after each round."""

    def __init__(self, path, append):
        self.path = path
        self.data = {"machine": [], "versions": versions(), "rows": {}, "rounds": {}, "failures": []}
        if path and append and os.path.exists(path):
            with open(path) as f:
                self.data = json.load(f)
        self.data["machine"].append(machine())

    def row(self, row_id):
        return self.data["rows"].setdefault(row_id, {"pairs": [], "dropped": 0})

    def pair(self, row_id, reference, ringcast):
        self.row(row_id)["pairs"].append([reference, ringcast])

    def value(self, row_id, value):
        self.row(row_id)["pairs"].append(value)

    def drop(self, row_id):
        self.row(row_id)["dropped"] += 1

    def rounds(self, part):
        return self.data["rounds"].get(part, 0)

    def round_done(self, part, failure=None):
        self.data["rounds"][part] = self.rounds(part) + 1
        if failure:
            self.data["failures"].append(f"{part}: {failure}")
        self.save()

    def save(self):
        if self.path:
            with open(self.path + ".new", "w") as f:
                json.dump(self.data, f, indent=1)
            os.replace(self.path + ".new", self.path)


def versions():
    def first(*argv):
        try:
            return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().splitlines()[0]
        except (OSError, IndexError):
            return ""
    redis = re.search(r"v=(\S+)", first("redis-server", "--version"))
    return {"commit": first("git", "describe", "--always", "--dirty"), "gcc": first("gcc", "-dumpfullversion"),
            "redis": redis[1] if redis else ""}


def measure(b, part, store, wanted, until):
    """Rounds of one part, until it has enough or time is over. Returns whether all went well. A round that
    fails counts as one: a server that loses messages has no business being measured for ever."""
    ok = True
    while store.rounds(part.name) < wanted and time.monotonic() < until:
        try:
            part.measure(b, store, store.rounds(part.name))
            store.round_done(part.name)
        except Failed as e:
            print(f"{part.name}: {e}", file=sys.stderr)
            store.round_done(part.name, str(e)[:500])
            ok = False
    return ok


def write_docs(store, parts):
    """The table between the two marks."""
    data = store.data
    machine_line = data["machine"][0].split(", load")[0]
    text = [f"{machine_line}; commit {data['versions']['commit']}, gcc {data['versions']['gcc']}, "
            f"Redis {data['versions']['redis']}.", ""]
    rows = [row for part in parts for row in part.rows if row.id in data["rows"]]
    text += stats.markdown([stats.judge(row, data["rows"][row.id]) for row in rows])
    if data["failures"]:
        text += ["", f"{len(data['failures'])} rounds failed and have no figures:", ""]
        text += [f"- {failure[:160]}" for failure in data["failures"]]
    with open(DOCS) as f:
        page = f.read()
    if BEGIN not in page or END not in page:
        raise SystemExit(f"{DOCS} has no {BEGIN} and {END}")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    with open(DOCS, "w") as f:
        f.write(before + BEGIN + "\n" + "\n".join(text) + "\n" + END + after)


def on_term(_number, _frame):
    sys.exit(1)  # so that every server started is ended on the way out


def arguments(parts):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                 epilog="parts: " + ", ".join(f"{p.name} ({p.seconds} s a round)" for p in parts))
    ap.add_argument("--build", default="build")
    ap.add_argument("--ringcast", help="another binary")
    ap.add_argument("--only", help="parts, or what their names begin with")
    ap.add_argument("--pairs", type=int, default=stats.PAIRS, help="pairs of each comparison (9)")
    ap.add_argument("--json", help="write what was measured to this file")
    ap.add_argument("--append", action="store_true", help="... and go on where it ends")
    ap.add_argument("--for", type=float, default=1e9, dest="seconds", help="begin no round later than that many seconds")
    ap.add_argument("--churn-seconds", type=float, default=45, help="of C4-churn (45)")
    ap.add_argument("--write", action="store_true", help="write the table into " + DOCS)
    return ap.parse_args()


def chosen(parts, only):
    if not only:
        return parts
    words = only.split(",")
    for word in words:
        if not any(p.name.startswith(word) for p in parts):
            raise SystemExit(f"no part {word}; there are: {', '.join(p.name for p in parts)}")
    return [p for p in parts if any(p.name == w or (p.name.startswith(w + "-")) for w in words)]


def main():
    parts = all_parts()
    args = arguments(parts)
    signal.signal(signal.SIGTERM, on_term)
    for part in parts:
        if part.name == "C4-churn":
            part.measure = lambda b, out, i: churn(b, out, i, args.churn_seconds)
    store, until, ok = Store(args.json, args.append), time.monotonic() + args.seconds, True
    print(machine(), stats.HEAD, sep="\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        b = Sides(args.build, args.ringcast or args.build + "/ringcast", directory)
        b.start_redis()
        try:
            for part in chosen(parts, args.only):
                wanted = part.rounds or args.pairs
                if store.rounds(part.name) >= wanted or time.monotonic() < until:
                    ok &= measure(b, part, store, wanted, until)
                    for row in part.rows:
                        print(stats.line(stats.judge(row, store.data["rows"].get(row.id, {}))), flush=True)
        finally:
            b.redis.stop()
    if args.write:
        write_docs(store, parts)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
