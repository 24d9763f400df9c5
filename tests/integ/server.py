"""A ringcast process under test: start it, look at it from outside, end it and see that nothing stays behind."""
import base64
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess

import psutil

from waiting import SCALE, Deadline, wait_for

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("RINGCAST_BUILD", os.path.join(TOP, "build"))
BIN = os.environ.get("RINGCAST_BIN", os.path.join(BUILD, "ringcast"))
DEADLINE = 20
CALM = "redis { timeout = 15s }\n"

FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')
ALARM = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|[Aa]ssertion .*failed|SUMMARY: \w+Sanitizer")


def parse_line(line):
    """key=value fields of a log line as a dict; {} for a line of another kind."""
    return {key: value[1:-1] if value[:1] == '"' else value for key, value in FIELD.findall(line)}


class Answer:
    """An HTTP answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]["code"]


class UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Server:
    def __init__(self, directory, config_text=None, args=(), redis=None, workers=2, env=None, listen=True,
                 expect_deaths=False, calm=True, nofile=None):
        """`redis`: a Redis of redisproc.py or a URL. `calm`: not to take a Redis that gets no CPU for a second for
        dead; only tests of outages want that. `listen`: True for a free port each (by options, which win
        over the file), False when config_text or args say it. `expect_deaths`: workers may die in this test. `nofile`: how many files a process may open."""
        directory.mkdir()
        self.directory = directory
        self.config_path = None
        if redis and calm and "redis {" not in (config_text or ""):
            config_text = (config_text or "") + CALM
        if config_text is not None:
            self.config_path = str(directory / "ringcast.conf")
            self.write_config(config_text)
        self.args = list(args)
        if listen:
            self.args += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        if redis:
            self.args += ["--redis", redis if isinstance(redis, str) else redis.url]
        if workers is not None:
            self.args += ["--workers", str(workers)]
        self.env = dict(os.environ, **(env or {}))
        self.expect_deaths = expect_deaths
        self.nofile = nofile
        self.log_path = str(directory / "log")
        self.process = None
        self.log_from = 0

    # ---- life

    def write_config(self, text):
        with open(self.config_path, "w") as f:
            f.write(text)

    def command_line(self):
        return [BIN] + (["-c", self.config_path] if self.config_path else []) + self.args

    def start(self):
        """Start and wait for event=ready, which names the real ports."""
        with open(self.log_path, "ab") as log:
            self.log_from = log.tell()
            self.process = subprocess.Popen(self.command_line(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.directory, env=self.env, start_new_session=True,
                                            preexec_fn=self.limit_files if self.nofile else None)
        ready = wait_for("event=ready", self.ready_line, 30)
        if ready is EOFError:
            raise RuntimeError("ringcast ended with %s:\n%s" % (self.process.wait(), self.log()))
        self.listens = ready["listen"].split(",")
        self.admins = ready.get("admin", "").split(",")
        self.host, self.port = self.tcp_of(self.listens)
        _, self.admin_port = self.tcp_of(self.admins)
        return self

    def limit_files(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))

    def ready_line(self):
        found = self.log_events("ready")
        if not found and self.process.poll() is not None:
            return EOFError
        return found and found[-1]

    @staticmethod
    def tcp_of(addresses):
        for address in addresses:
            if address and not address.startswith("unix:"):
                host, port = address.rsplit(":", 1)
                return host.strip("[]"), int(port)
        return None, None

    @property
    def pid(self):
        return self.process.pid

    def kill(self, sig=signal.SIGKILL):
        self.process.send_signal(sig)

    def wait(self, seconds=DEADLINE):
        """Wait for its end; returns the exit status."""
        return self.process.wait(seconds * SCALE)

    def stop(self, sig=signal.SIGTERM, seconds=DEADLINE):
        self.kill(sig)
        return self.wait(seconds)

    def finish(self):
        """End of the test: what is wrong with how it ended, as a list of texts."""
        problems = []
        if self.process is None:
            return problems
        if self.process.poll() is None:
            problems += self.deaths()
            children = self.children()
            try:
                status = self.stop()
                if status != 0:
                    problems.append("exit status %s after TERM" % status)
            except subprocess.TimeoutExpired:
                problems.append("does not end after TERM")
                self.kill_all(children)
            problems += ["left behind: process %d" % p.pid for p in psutil.wait_procs(children, 10 * SCALE)[1]]
        problems += ["in the log: " + text for text in ALARM.findall(self.log())]
        return ["%s\n%s" % (p, self.log()[-6000:]) for p in problems]

    def deaths(self):
        if self.expect_deaths:
            return []
        try:
            return ["worker %s was restarted" % w["slot"] for w in self.workers() if w["restarts"]]
        except OSError as error:
            return ["no /stats at the end: %s" % error]

    def children(self):
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill_all(self, children):
        self.process.kill()
        self.process.wait()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                pass

    # ---- the log

    def log(self):
        with open(self.log_path, errors="replace") as f:
            f.seek(self.log_from)
            return f.read()

    def log_events(self, event, **fields):
        """Lines of this event, since the last start, whose fields have these values."""
        wanted = dict(fields, event=event)
        lines = [parse_line(line) for line in self.log().splitlines() if "event=" + event in line]
        return [line for line in lines if all(line.get(k) == str(v) for k, v in wanted.items())]

    def wait_log(self, event, seconds=DEADLINE, count=1, **fields):
        def enough():
            found = self.log_events(event, **fields)
            return found if len(found) >= count else None
        return wait_for("event=%s %s" % (event, fields or ""), enough, seconds)[-1]

    # ---- HTTP

    def url(self, path):
        return "ws://%s:%d%s" % ("[%s]" % self.host if ":" in self.host else self.host, self.port, path)

    def api(self, path, method="GET", body=None, headers=None, unix=None, seconds=DEADLINE):
        """One request on the admin listener."""
        if unix:
            connection = UnixHTTPConnection(unix, seconds * SCALE)
        else:
            connection = http.client.HTTPConnection(self.host or "127.0.0.1", self.admin_port, timeout=seconds * SCALE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def publish_answer(self, body, **options):
        text = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return self.api("/api/publish", "POST", text, **options)

    def publish(self, channel, payload):
        """str as text, bytes as binary, through the API; returns "result"."""
        if isinstance(payload, bytes):
            body = {"channel": channel, "b64data": base64.b64encode(payload).decode()}
        else:
            body = {"channel": channel, "text": payload}
        answer = self.publish_answer(body)
        assert answer.status == 200, (answer.status, answer.body[:500])
        return answer.json["result"]

    def stats(self):
        answer = self.api("/stats")
        assert answer.status == 200, answer.body
        return answer.json

    def is_ready(self):
        try:
            return self.api("/ready").status == 200
        except OSError:
            return False

    def wait_ready(self, seconds=DEADLINE):
        wait_for("/ready", self.is_ready, seconds)

    def workers(self):
        """The rows of /stats, each with slot, pid, generation, state, connections, lag_bytes, restarts."""
        return self.stats()["workers"]

    def worker_pids(self):
        return [w["pid"] for w in self.workers() if w["pid"]]

    def metrics(self):
        """{name: {frozenset of (label, value): number}}, parsed strictly."""
        text = self.api("/metrics").body.decode()
        return parse_metrics(text)

    def metric(self, name, **labels):
        """The sum of a metric's samples that carry these labels."""
        wanted = {(k, str(v)) for k, v in labels.items()}
        return sum(v for have, v in self.metrics().get(name, {}).items() if wanted <= have)

    def wait_connections(self, count, seconds=DEADLINE):
        wait_for("%d connections" % count, lambda: self.stats()["totals"]["connections"] == count, seconds)

    # ---- what it holds

    def fd_counts(self):
        """{pid: open descriptors} of master and workers."""
        return {pid: len(os.listdir("/proc/%d/fd" % pid)) for pid in [self.pid] + self.worker_pids()}

    def pss_kb(self):
        """Memory of all its processes together."""
        total = 0
        for pid in [self.pid] + self.worker_pids():
            with open("/proc/%d/smaps_rollup" % pid) as f:
                total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
        return total


SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def parse_metrics(text):
    """Prometheus text format 0.0.4, or an AssertionError that names the line."""
    assert text.endswith("\n")
    types, samples = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("counter", "gauge", "histogram", "summary", "untyped"), line
            types[name] = kind
        elif line.startswith("#") or not line:
            continue
        else:
            match = SAMPLE.match(line)
            assert match, line
            name, label_text, value = match.groups()
            labels = LABEL.findall(label_text or "")
            assert "".join('%s="%s",' % pair for pair in labels).rstrip(",") == (label_text or "").rstrip(","), line
            family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in types else name
            assert family in types, "no TYPE before: " + line
            row = samples.setdefault(name, {})
            assert frozenset(labels) not in row, "twice: " + line
            row[frozenset(labels)] = float(value)
    return samples


class RawAnswer(Answer):
    def __init__(self, status, headers, body, rest_closed):
        super().__init__(status, headers, body)
        self.closed = rest_closed


def raw_socket(server, seconds=DEADLINE, admin=False):
    sock = socket.create_connection((server.host, server.admin_port if admin else server.port), seconds * SCALE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_answer(sock, seconds=DEADLINE):
    """Read one HTTP answer, to the end of the connection unless it is a 101. `closed` tells whether it ended."""
    deadline, data = Deadline(seconds), b""
    closed = False
    while not (data.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in data):
        sock.settimeout(max(deadline.left(), 0.001))
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            closed = True
            break
        if not piece:
            closed = True
            break
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    if not head:
        return RawAnswer(0, {}, data, closed)
    lines = head.decode("latin-1").split("\r\n")
    version, status = lines[0].split(" ")[:2]
    assert version in ("HTTP/1.1", "HTTP/1.0"), lines[0]
    headers = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
    return RawAnswer(int(status), headers, body, closed)


def raw_request(server, data, admin=False, seconds=DEADLINE):
    """Send these bytes on a fresh connection and read what comes."""
    with raw_socket(server, seconds, admin) as sock:
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before we had said all; the answer may still be there
        return read_answer(sock, seconds)


def upgrade(path="/ws/a", host="localhost", version="HTTP/1.1", method="GET", drop=(), key="dGhlIHNhbXBsZSBub25jZQ==",
            **extra):
    """The bytes of a handshake; `drop` leaves headers out, further ones come as X_Name="value"."""
    headers = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key,
               "Sec-WebSocket-Version": "13"}
    headers.update({name.replace("_", "-"): value for name, value in extra.items()})
    lines = ["%s: %s" % pair for pair in headers.items() if pair[0] not in drop]
    return ("%s %s %s\r\n%s\r\n\r\n" % (method, path, version, "\r\n".join(lines))).encode("latin-1")
