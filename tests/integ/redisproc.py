"""A real redis-server on a unix socket and a TCP port of its own, in a temporary directory."""
import signal
import socket
import subprocess

import redis

from waiting import free_port, wait_for


class Redis:
    def __init__(self, directory, args=()):
        directory.mkdir()
        self.directory = directory
        self.args = list(args)
        self.port = free_port()
        self.socket = str(directory / "redis.sock")
        self.url = "redis://127.0.0.1:%d" % self.port
        self.unix_url = "unix://" + self.socket
        self.process = None

    def command_line(self):
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket,
                "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(self.directory),
                "--enable-debug-command", "yes"] + self.args

    def start(self):
        """Start and wait until it answers. After stop() it comes back on the same port."""
        for _ in range(5):
            log = open(self.directory / "redis.log", "ab")
            with log:
                self.process = subprocess.Popen(self.command_line(), stdout=log, stderr=log)
            if wait_for("redis-server answers", lambda: self.answers() or self.process.poll() is not None) is True \
                    and self.process.poll() is None:
                return
            self.process.wait()
        raise RuntimeError("redis-server does not start: " + (self.directory / "redis.log").read_text())

    def answers(self):
        try:
            return bool(self.client().ping())
        except redis.AuthenticationError:
            return True  # one with a password
        except redis.RedisError:
            return False

    def client(self, **options):
        return redis.Redis(unix_socket_path=self.socket, **options)

    def cli(self, *args, data=None):
        """Run redis-cli and return what it printed. `data` (bytes) becomes the last argument, by -x."""
        command = ["redis-cli", "-s", self.socket] + (["-x"] if data is not None else []) + [str(a) for a in args]
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        assert done.returncode == 0, done.stdout
        return done.stdout.decode("utf-8", "replace").strip()

    def publish(self, channel, payload):
        """By redis-cli, byte for byte. Returns the number of receivers."""
        return int(self.cli("publish", channel, data=payload))

    def subscribers(self, channel):
        return dict(self.client().pubsub_numsub(channel)).get(channel.encode(), 0)

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        self.process.wait(30)

    def pause(self):
        """Black hole: connections stay open, the kernel still accepts new ones, nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def is_refusing(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0


class Sentinel:
    """One redis-sentinel (the same program, by another mode) that watches `master` as "mymaster"."""

    def __init__(self, directory, master, quorum):
        directory.mkdir()
        self.directory = directory
        self.port = free_port()
        self.process = None
        self.config = directory / "sentinel.conf"
        self.config.write_text("\n".join([
            "port %d" % self.port, "bind 127.0.0.1", "dir %s" % directory, "daemonize no",
            "sentinel monitor mymaster 127.0.0.1 %d %d" % (master.port, quorum),
            "sentinel down-after-milliseconds mymaster 500", "sentinel failover-timeout mymaster 3000", ""]))

    def start(self):
        log = open(self.directory / "sentinel.log", "ab")
        with log:
            self.process = subprocess.Popen(["redis-server", str(self.config), "--sentinel"], stdout=log, stderr=log)
        wait_for("the sentinel answers", self.answers)

    def client(self):
        return redis.Redis(port=self.port)

    def answers(self):
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def knows(self, replicas, sentinels):
        """Whether it has found that many replicas and other sentinels."""
        state = self.client().sentinel_master("mymaster")
        return state["num-slaves"] >= replicas and state["num-other-sentinels"] >= sentinels

    def master_port(self):
        return self.client().sentinel_get_master_addr_by_name("mymaster")[1]

    def failover(self):
        """Promote a replica of a healthy master. Refused while the last one's aftermath lasts."""
        try:
            return self.client().execute_command("SENTINEL", "FAILOVER", "mymaster")
        except redis.ResponseError:
            return False

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
