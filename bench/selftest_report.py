#!/usr/bin/python3
"""Is what the load client writes true, and can others read it?

One run of ringcast-bench against a small server, with every kind of report at once; then each is read back by code
that shares nothing with it (the HdrHistogram decoder below is written from the format's description) and
compared with the others. Also: the options that --help, the option table and the man page name are the same.

    bench/selftest_report.py BUILD-DIRECTORY
"""
import asyncio
import base64
import html.parser
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import zlib

from selftest import Server

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLIENTS, RATE, SECONDS = 8, 250, 2.3
MESSAGES = int(RATE * SECONDS)

# What programs read: these keys stay.
KEYS = """ok timed_out opened failed connect_s published publish_s deliveries deliveries_per_s bytes recvs lost never_came
repeated late corrupt misrouted foreign closed closed_by joins leaves stalled publish_errors retries nobody throttled
schedule_late_max_us handshake_us latency_us last_us client_us_per_delivery why""".split()


# ---- HdrHistogram

class Histogram:
    """A decoded one: {lowest value of a slot: count}."""

    def __init__(self, text):
        packed = base64.b64decode(text, validate=True)
        cookie, length = struct.unpack_from(">II", packed)
        assert cookie & ~0xF0 == 0x1c849304 and length == len(packed) - 8, "head of the compressed form"
        plain = zlib.decompress(packed[8:])
        cookie, length, offset, self.digits, self.lowest, self.highest, ratio = struct.unpack_from(">IIIIQQd", plain)
        assert cookie & ~0xF0 == 0x1c849303 and length == len(plain) - 40, "head"
        assert offset == 0 and ratio == 1.0
        half_bits = math.ceil(math.log2(2 * 10 ** self.digits)) - 1
        unit_bits = int(math.log2(self.lowest))
        self.counts, slot = {}, 0
        for n in self.numbers(plain[40:]):
            if n < 0:
                slot += -n
                continue
            if n:
                octave = max((slot >> half_bits) - 1, 0)
                self.counts[(slot - (octave << half_bits)) << octave + unit_bits] = (n, 1 << octave + unit_bits)
            slot += 1

    @staticmethod
    def numbers(data):
        at = 0
        while at < len(data):
            value = 0
            for k in range(9):
                byte = data[at]
                at += 1
                value |= (byte if k == 8 else byte & 0x7F) << 7 * k
                if k == 8 or byte < 0x80:
                    break
            yield value >> 1 ^ -(value & 1)

    def total(self):
        return sum(n for n, _ in self.counts.values())


def read_log(path):
    """[(tag, start, length, max, Histogram)], after a look at the head."""
    with open(path) as f:
        lines = f.read().splitlines()
    head = [l for l in lines if l.startswith("#")]
    assert "#[Histogram log format version 1.3]" in head
    assert any(re.match(r"#\[StartTime: \d+\.\d{3} \(seconds since epoch\), .+\]$", l) for l in head)
    legend = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
    assert lines[len(head)] == legend
    out = []
    for line in lines[len(head) + 1:]:
        tag, at, length, most, text = re.match(r"(?:Tag=([^,]+),)?([\d.]+),([\d.]+),([\d.]+),(\S+)$", line).groups()
        out.append((tag, float(at), float(length), float(most), Histogram(text)))
    return out


def added(log, tag):
    counts = {}
    for t, _, _, _, h in log:
        for low, (n, width) in h.counts.items() if t == tag else ():
            counts[low] = (counts.get(low, (0,))[0] + n, width)
    return counts


def quantile(counts, share):
    want, seen = max(math.floor(share * sum(n for n, _ in counts.values()) + 0.5), 1), 0
    for low in sorted(counts):
        seen += counts[low][0]
        if seen >= want:
            return low + counts[low][1] - 1
    return 0


# ---- the run

async def run_client(build, *options, stderr=subprocess.PIPE):
    server = Server("none")
    clients = await asyncio.start_server(server.client, "127.0.0.1", 0)
    publishers = await asyncio.start_server(server.publisher, "127.0.0.1", 0)
    port = lambda s: s.sockets[0].getsockname()[1]
    load = await asyncio.create_subprocess_exec(
        build + "/ringcast-bench", "--conns", str(CLIENTS), "--publish", "http", "--max-seconds", "20",
        "--target", f"127.0.0.1:{port(clients)}", "--http", f"127.0.0.1:{port(publishers)}", *options,
        stdout=subprocess.PIPE, stderr=stderr)
    out, err = await load.communicate()
    clients.close()
    publishers.close()
    return load.returncode, out.decode(), (err or b"").decode()


class Run:
    def __init__(self, build, directory):
        self.hdr, self.hgrm, self.page = (os.path.join(directory, n) for n in ("hdr", "hgrm", "page"))
        status, out, self.err = asyncio.run(run_client(
            build, "--json", "--rate", str(RATE), "--messages", str(MESSAGES), "--hdr", self.hdr, "--hgrm", self.hgrm,
            "--report", self.page, "--progress", "--title", "a <b>&\"c\" </script> \u00b5", "--api-key", "hush"))
        assert status == 0, (status, out)
        self.json = json.loads(out)
        self.log = read_log(self.hdr)


# ---- what must hold

def json_keeps_its_keys_and_the_series_adds_up(run):
    j = run.json
    assert not [k for k in KEYS if k not in j], [k for k in KEYS if k not in j]
    assert j["deliveries"] == CLIENTS * MESSAGES == j["latency_us"]["n"]
    for total, key in (("deliveries", "deliveries"), ("published", "messages"), ("bytes", "bytes"),
                       ("opened", "handshakes")):
        assert sum(s[key] for s in j["series"]) == j[total], key
    assert sum(s["latency_us"]["n"] for s in j["series"]) == j["latency_us"]["n"]
    assert max(s["connections"] for s in j["series"]) == CLIENTS
    assert max(s["latency_us"]["max"] for s in j["series"]) >= j["latency_us"]["max"] * 0.999
    assert [s["phase"] for s in j["series"]] == sorted((s["phase"] for s in j["series"]), key=(
        "connect", "hold", "publish", "drain", "stop").index)
    assert all(abs(a["at_s"] + a["length_s"] - b["at_s"]) < 0.002 for a, b in zip(j["series"], j["series"][1:]))
    assert len([s for s in j["series"] if s["phase"] == "publish"]) >= 3
    assert "hush" not in j["command"] and "--api-key ***" in j["command"], j["command"]
    assert j["environment"]["kernel"] and j["environment"]["cpus"] > 0


def hdr_log_holds_every_latency(run):
    for tag, key in ((None, "latency_us"), ("last", "last_us"), ("handshake", "handshake_us")):
        counts = added(run.log, tag)
        assert sum(n for n, _ in counts.values()) == run.json[key]["n"] > 0, key
        for share, name in ((0.5, "p50"), (0.99, "p99"), (1, "max")):
            ours, theirs = run.json[key][name], quantile(counts, share) / 1000
            assert abs(ours - theirs) <= theirs * 0.001 + 0.1, (key, name, ours, theirs)
    seconds = [s for s in run.json["series"] if s["latency_us"]["n"]]
    lines = [l for l in run.log if l[0] is None]
    assert [(l[1], l[2], l[4].total()) for l in lines] == [
        (s["at_s"], s["length_s"], s["latency_us"]["n"]) for s in seconds]
    for _, _, _, most, h in run.log:
        low = max(h.counts)
        assert abs(most * 1e6 - (low + h.counts[low][1] - 1)) <= 501
        assert (h.digits, h.lowest) == (3, 1) and h.highest > 3600e9


def hgrm_rows_count_what_is_below(run):
    counts = added(run.log, None)
    with open(run.hgrm) as f:
        lines = f.read().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"] and lines[1] == ""
    rows = [[float(x) for x in l.split()] for l in lines[2:] if not l.startswith("#")]
    total = sum(n for n, _ in counts.values())
    for value, share, below, *inverse in rows:
        near = [sum(n for low, (n, width) in counts.items() if (low + width - 1) / 1e6 <= value + d)
                for d in (-0.00051, 0.00051)]  # the value has three decimals
        assert near[0] <= below <= near[1] and below >= share * total - 0.5, (value, below)
        assert not inverse or abs(inverse[0] * (1 - share) - 1) < 0.01
    assert rows[-1][1:] == [1.0, total] and rows[0][1] == 0 and [r[1] for r in rows] == sorted(r[1] for r in rows)
    foot = dict(re.findall(r"(\w[\w ]*?)\s+=\s+([\d.]+)", " ".join(l for l in lines if l.startswith("#"))))
    mean = sum(n * (low + width // 2) for low, (n, width) in counts.items()) / total
    deviation = math.sqrt(sum(n * (low + width // 2 - mean) ** 2 for low, (n, width) in counts.items()) / total)
    assert abs(float(foot["Mean"]) - mean / 1e6) <= mean / 1e9 + 0.001
    assert abs(float(foot["StdDeviation"]) - deviation / 1e6) <= deviation / 1e8 + 0.001
    assert int(foot["Total count"]) == total


class Page(html.parser.HTMLParser):
    VOID = {"meta", "link", "img", "br", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.refs = [], [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.refs += [v for k, v in attributes if k in ("src", "href", "srcset", "action", "data", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        self.texts[where] = self.texts.get(where, "") + data + "\n"


def page_stands_alone(run):
    with open(run.page) as f:
        text = f.read()
    page = Page(text)
    assert not page.open and not page.refs and "link" not in page.tags and "img" not in page.tags
    assert not re.search(r"url\(|@import|(?<!')https?://(?!www\.w3\.org/2000/svg')|//cdn", text)
    assert "{{" not in text and "default-src 'none'" in text
    assert page.texts["h1"].strip() == run.json["title"] == "a <b>&\"c\" </script> \u00b5"
    blocks = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(blocks[0])
    assert len(blocks) == 1 and page.tags.count("script") == 2
    assert {k: data[k] for k in KEYS} == {k: run.json[k] for k in KEYS} and data["series"] == run.json["series"]
    assert len(data["distribution"]["latency"]) > 20
    assert f"{CLIENTS * MESSAGES:,}" in page.texts["td"]
    for plot in ("percentiles", "deliveries", "messages", "latency", "connections"):
        assert f'<figure id="{plot}">' in text and f"('{plot}'" in text, plot
    assert "hush" not in text


def progress_has_rates(run):
    lines = run.err.splitlines()
    assert len(lines) == len(run.json["series"]), run.err
    assert any(re.match(r"publish +\d+s  8 open  2\d\d sent/s  [12]\.\d+k read/s  0 errors  p50 [\d.]+ p99 [\d.]+ ms$", l) for l in lines), run.err


SHORT = ["--rate", "500", "--messages", "5"]


def table_is_aligned(run):
    status, out, err = asyncio.run(run_client(run.build, *SHORT))
    assert status == 0 and err == "", err  # no terminal: no line
    rows = [l for l in out.splitlines() if re.match(r"  \S", l)]
    assert len(rows) > 15 and all(len(l) >= 39 and l[26] == " " and re.match(r"[\d.,]", l[38]) for l in rows), out
    assert not [l for l in out.splitlines() if l != l.rstrip()] and out.endswith("\nok\n")
    for word in ("Connections", "Messages", "Load client", "Checks", "Latency, ms"):
        assert re.search("^" + word, out, re.M), word


def terminal_gets_one_line(run):
    def on_terminal(*options):
        ours, theirs = pty.openpty()
        asyncio.run(run_client(run.build, "--json", *SHORT, *options, stderr=theirs))
        os.close(theirs)
        text = b""
        try:
            while (more := os.read(ours, 4096)):
                text += more
        except OSError:  # how a terminal says that nobody writes any more
            pass
        os.close(ours)
        return text.decode()

    text = on_terminal()
    assert "\n" not in text and text.count("\r") >= 3 and text.endswith("\r\x1b[K"), text
    assert all(len(l.removesuffix("\x1b[K")) < 80 and "errors" in l for l in text.split("\r")[1:-1]), text
    assert on_terminal("--quiet") == ""


def unwritable_files_are_told_before_the_run(run):
    for option in ("--hdr", "--hgrm", "--report"):
        done = subprocess.run([run.build + "/ringcast-bench", "--target", "127.0.0.1:1", option, "/nowhere/file"],
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and done.stdout == "" and "/nowhere/file" in done.stderr, done


def man_page_help_and_table_name_the_same_options(run):
    with open(TOP + "/bench/load_opts.c") as f:
        table = set(re.findall(r'^\t\{"([a-z0-9-]+)", OPT_', f.read(), re.M)) | {"help"}
    usage = subprocess.run([run.build + "/ringcast-bench", "--help"], capture_output=True, text=True, check=True).stdout
    told = set(re.findall(r"^  --([a-z0-9-]+)", usage, re.M))
    with open(TOP + "/docs/ringcast-bench.1") as f:
        page = f.read()
    described = {name.replace("\\-", "-") for name in re.findall(r"^\.(?:B|BI|BR) .*?\\-\\-((?:[a-z0-9]|\\-)+)",
                 page.split(".SH OPTIONS")[1].split(".SH OUTPUT")[0], re.M)}
    assert table == told, table ^ told
    assert table == described, table ^ described


CHECKS = [json_keeps_its_keys_and_the_series_adds_up, hdr_log_holds_every_latency, hgrm_rows_count_what_is_below,
          page_stands_alone, progress_has_rates, table_is_aligned, terminal_gets_one_line,
          unwritable_files_are_told_before_the_run, man_page_help_and_table_name_the_same_options]


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        run = Run(sys.argv[1], directory)
        run.build = sys.argv[1]
        for check in CHECKS:
            try:
                check(run)
                print("ok  ", check.__name__)
            except (AssertionError, KeyError, ValueError, AttributeError, OSError) as error:
                failed += 1
                line = error.__traceback__
                while line.tb_next:
                    line = line.tb_next
                print("FAIL", check.__name__, f"line {line.tb_lineno}: {error!r}"[:2000])
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
