"""What the measuring programs share: servers in the background, the load client, and the machine's description.

Everything is loopback; every process is ended by pid. Needs Debian's python3 alone.
"""
import json
import os
import re
import statistics
import subprocess
import time

SIZE = 128  # bytes of a message


class Failed(Exception):
    pass


class Process:
    """A server in the background; what it prints goes to a file, from which its ports are read."""

    def __init__(self, argv, log, ready, seconds=10):
        self.log = log
        with open(log, "wb") as f:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        until = time.monotonic() + seconds
        while not (found := self.find(ready)):
            if self.popen.poll() is not None or time.monotonic() > until:
                self.stop()
                raise Failed(f"{argv[0]} does not start: {self.text()[-2000:]}")
            time.sleep(0.02)
        self.found = found

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def find(self, pattern):
        return re.search(pattern, self.text(), re.S)

    @property
    def pid(self):
        return self.popen.pid

    def stop(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class Bench:
    def __init__(self, build, ringcast, directory):
        self.build, self.ringcast_bin, self.directory = build, ringcast, directory
        self.n = 0
        self.redis_path = os.path.join(directory, "redis.sock")
        self.redis = None

    def path(self, name):
        self.n += 1
        return os.path.join(self.directory, f"{name}{self.n}.log")

    def start_redis(self):
        self.redis = Process(["redis-server", "--port", "0", "--unixsocket", self.redis_path, "--save", "",
                              "--appendonly", "no", "--daemonize", "no", "--dir", self.directory],
                             self.path("redis"), r"eady to accept connections")

    def floor(self, *args):
        server = Process([self.build + "/bench-floor", "--workers", "2", "--redis", "unix:" + self.redis_path, *args],
                         self.path("floor"), r"listen (\d+)\n")
        server.target = f"127.0.0.1:{server.found[1]}"
        return server

    def ringcast(self, *args):
        server = Process([self.ringcast_bin, "--workers", "2", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                          "--redis", "unix://" + self.redis_path, *args],
                         self.path("ringcast"), r"event=ready [^\n]*listen=\"?([0-9.]+:\d+)")
        server.target = server.found[1]
        return server

    def load(self, server, **options):
        """One run of the load client; a run in which anything was lost has no figures."""
        argv = [self.build + "/ringcast-bench", "--json", "--target", server.target, "--pid", str(server.pid),
                "--redis", "unix:" + self.redis_path, "--size", str(SIZE)]
        for name, value in options.items():
            argv += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
        run = subprocess.run(argv, stdout=subprocess.PIPE, timeout=180)
        report = json.loads(run.stdout) if run.stdout.strip() else {"why": "no report"}
        if run.returncode != 0:
            raise Failed(f"{' '.join(argv)}: {json.dumps(report)}")
        return report

    def once(self, start, *args, **options):
        server = start(*args)
        try:
            return self.load(server, **options)
        finally:
            server.stop()

    def pairs(self, n, value, floor_args=(), keep=lambda report: True, **options):
        """n pairs of (floor, ringcast), the order within a pair alternating; value() picks the figure. A pair
        with a run that keep() refuses is dropped."""
        pairs = []
        for i in range(n):
            sides = [(self.floor, floor_args), (self.ringcast, ())]
            got = {}
            for start, args in (sides if i % 2 == 0 else reversed(sides)):
                got[start.__name__] = self.once(start, *args, **options)
            if all(keep(r) for r in got.values()):
                pairs.append((value(got["floor"]), value(got["ringcast"])))
        return pairs


def number(v):
    if v is None:
        return ""
    return f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.3g}" if abs(v) < 1 else f"{v:.2f}" if abs(v) < 100 else f"{v:.0f}"


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*: (.*)", f.read())
    return (f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores {cpu[1] if cpu else ''}, Linux {os.uname().release}, "
            f"load {os.getloadavg()[0]:.2f} at start")
