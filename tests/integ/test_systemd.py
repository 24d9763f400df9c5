"""What a service manager is told (sd_notify's protocol), and the shipped unit file."""
import configparser
import os
import signal
import socket
import time

import pytest

from server import TOP
from waiting import wait_for


class Manager:
    """The manager's end: a datagram socket whose messages are kept, each a dict."""

    def __init__(self, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name[0] == "@" else name)
        self.socket.setblocking(False)
        self.told = []

    def read(self):
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                return self.told
            self.told.append(dict(line.split("=", 1) for line in text.splitlines()))

    def states(self):
        """All but the watchdog's pings."""
        return [t for t in self.read() if "WATCHDOG" not in t]


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else "@ringcast-test-%d" % os.getpid()
    manager = Manager(name)
    yield manager
    manager.socket.close()


@pytest.mark.asan
def test_ready_reloading_stopping(ringcast, manager):
    server = ringcast("workers = 2\n", env={"NOTIFY_SOCKET": manager.name})
    wait_for("READY=1", lambda: manager.states() == [{"READY": "1"}])
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    server.kill(signal.SIGHUP)
    wait_for("the reload", lambda: len(manager.states()) == 3)
    reloading, ready = manager.states()[1:]
    assert reloading["RELOADING"] == "1" and ready == {"READY": "1"}
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    wait_for("generation 2 alone", lambda: server.stats()["generation"] == 2 and len(server.children()) == 2)
    server.write_config("nonsense = 1\n")
    server.kill(signal.SIGHUP)
    wait_for("ready again after a wrong file", lambda: len(manager.states()) == 5)
    assert manager.states()[3]["RELOADING"] == "1" and manager.states()[4] == {"READY": "1"}
    server.kill(signal.SIGTERM)
    wait_for("STOPPING=1", lambda: manager.states()[5:] == [{"STOPPING": "1"}])
    assert server.process.wait(20) == 0
    assert not any("WATCHDOG" in t for t in manager.read())  # nobody asked for it


def test_watchdog(ringcast, manager):
    """Pings while the loop turns, none while the master stands still."""
    server = ringcast(env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "1000000"})
    pings = lambda: sum("WATCHDOG" in t for t in manager.read())
    wait_for("three pings", lambda: pings() >= 3)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        wait_for("it is stopped", lambda: open("/proc/%d/stat" % server.process.pid).read().split()[2] == "T")
        held = pings()
        time.sleep(1.2)  # longer than two pings are apart
        assert pings() == held
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_for("pings again", lambda: pings() > held)


def test_watchdog_of_another_process(ringcast, manager):
    ringcast(env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    wait_for("READY=1", lambda: {"READY": "1"} in manager.read())
    time.sleep(0.5)
    assert not any("WATCHDOG" in t for t in manager.read())


def test_nobody_listens_any_more(ringcast, connect, tmp_path):
    """A manager that is gone is no reason to stop."""
    server = ringcast(env={"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "600000000"})
    client = connect(server.url("/ws/a"))
    client.send("on")
    assert client.recv() == "on"
    assert server.log_events("notify")


def test_unit_file():
    """Each line of the unit parses, and what it starts is what `make install` installs."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    with open(os.path.join(TOP, "etc", "ringcast.service")) as f:
        unit.read_file(f)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].startswith("/usr/local/sbin/ringcast -c ")
    assert service["ExecReload"].startswith("/bin/kill -HUP")
