"""Processes die and stand still: the others' clients notice nothing, and nothing stays behind."""
import os
import random
import signal
import time

import psutil
import pytest

from load import Load
from waiting import SCALE, free_port, wait_for

QUICK = """
ring { stuck_time = 1s  hold_max = 1s  size = 8m }
limits { close_linger = 500ms }
"""
KILLS = int(os.environ.get("TEST_KILLS", "20"))


def stats_of_any(server):
    """/stats although the worker that took the request may be the one that died."""
    def ask():
        try:
            return server.stats()
        except (OSError, AssertionError, ValueError):
            return None
    return wait_for("/stats", ask)


def workers_of_any(server):
    return stats_of_any(server)["workers"]


def wait_replaced(server, pid, seconds=20):
    """Wait until the worker with this pid is gone and all places serve; returns the seconds it took."""
    began = time.monotonic()

    def done():
        rows = [w for w in workers_of_any(server) if w["state"] == "serve"]
        return len(rows) == 2 and pid not in [w["pid"] for w in rows]
    wait_for("worker %d is replaced" % pid, done, seconds)
    return time.monotonic() - began


def clients_by_worker(server, connect, path, each=3):
    """{pid: clients}: each connection's worker is found by watching the counts."""
    held = {w["pid"]: [] for w in server.workers()}
    for _ in range(80):
        if all(len(clients) >= each for clients in held.values()):
            return held
        before = {w["pid"]: w["connections"] for w in server.workers()}
        client = connect(server.url(path))
        now = wait_for("the new connection is counted", lambda: next(
            (w["pid"] for w in server.workers() if w["connections"] > before[w["pid"]]), None))
        held[now].append(client)
    raise AssertionError("connections are not spread: %r" % {pid: len(c) for pid, c in held.items()})


@pytest.mark.asan
@pytest.mark.limit(120)
def test_killed_worker_is_replaced_and_the_others_notice_nothing(ringcast, connect):
    server = ringcast(expect_deaths=True)
    held = clients_by_worker(server, connect, "/ws/a")
    victim, other = held
    os.kill(victim, signal.SIGKILL)
    for client in held[victim]:
        assert client.wait_closed()[0] == 1006
    took = wait_replaced(server, victim)
    assert took < 2 * SCALE  # due: 0.2 s on an idle machine
    for n in range(50):
        server.publish("demo:a", "after %d" % n)
    for client in held[other]:
        assert client.recv_many(50) == ["after %d" % n for n in range(50)]
    # The new one serves too.
    held = clients_by_worker(server, connect, "/ws/b", each=1)
    server.publish("demo:b", "new")
    assert [c.recv() for clients in held.values() for c in clients] == ["new"] * sum(map(len, held.values()))
    assert sum(w["restarts"] for w in server.workers()) == 1
    assert server.metric("ringcast_worker_restarts_total") == 1


@pytest.mark.limit(300)
def test_kills_under_load_leak_nothing(ringcast, redis_server):
    """Kill workers at random moments of a load run; then the load again without kills, where nothing may be lost."""
    server = ringcast(QUICK, redis=redis_server, expect_deaths=True)
    server.wait_ready()
    seed = int(os.environ.get("TEST_SEED", random.randrange(1 << 30)))
    print("TEST_SEED=%d" % seed)
    dice = random.Random(seed)

    def one_round(kills):
        load = Load(server, "--may-close", "--reconnect", "--no-check", publish="redis", redis="unix:" + redis_server.socket, conns=60,
                    rate=500, size=500, churn="10:300", duration=60, drain=1, seconds=90)
        killed = 0
        while load.is_running() and killed < kills:
            time.sleep(dice.uniform(0.05, 0.4))  # not a wait for anything: the moment of the kill
            rows = [w["pid"] for w in workers_of_any(server) if w["state"] == "serve"]
            if not rows:
                continue
            pid = dice.choice(rows)
            os.kill(pid, signal.SIGKILL)
            wait_replaced(server, pid)
            killed += 1
        load.process.kill()
        load.process.communicate()
        assert killed == kills

    one_round(3)  # warm
    wait_for("no connections", lambda: stats_of_any(server)["totals"]["connections"] == 0, 30)
    fds, memory = sum(server.fd_counts().values()), server.pss_kb()
    threads = psutil.Process(server.pid).num_threads()
    one_round(KILLS)
    wait_for("no connections", lambda: stats_of_any(server)["totals"]["connections"] == 0, 30)
    wait_for("as many descriptors as before", lambda: sum(server.fd_counts().values()) <= fds)
    assert len(server.children()) == 2
    assert psutil.Process(server.pid).num_threads() == threads
    assert server.pss_kb() - memory < 12 * 1024
    assert sum(w["restarts"] for w in workers_of_any(server)) >= KILLS + 3

    # And the ring is as good as on the first day.
    report = Load(server, publish="ws", conns=50, messages=3000, rate=0, size=200, seconds=60).finish()
    assert report["deliveries"] == 50 * 3000


@pytest.mark.limit(120)
@pytest.mark.parametrize("bound", ["stuck_time", "hold_max"])
def test_stopped_worker_is_replaced_and_holds_nobody_up_for_long(ringcast, connect, bound):
    """SIGSTOP: its heartbeat stands still, and it holds the ring, of which more is published than it has."""
    bounds = {"stuck_time": "60s", "hold_max": "60s", bound: "1s"}
    server = ringcast("ring { size = 8m  stuck_time = %(stuck_time)s  hold_max = %(hold_max)s }\n" % bounds, expect_deaths=True)
    held = clients_by_worker(server, connect, "/ws/a", each=1)
    victim, other = held
    listener = held[other][0]
    count, longest = 400, 0
    os.kill(victim, signal.SIGSTOP)
    for n in range(count):  # 24 MB through 8 MiB
        began = time.monotonic()
        text = ("%07d" % n).ljust(60000, ".")
        server.publish("demo:a", text)
        assert listener.recv() == text
        longest = max(longest, time.monotonic() - began)
    assert longest < 10 * SCALE  # due: the bound of 1 s and a tick
    wait_replaced(server, victim, 30)
    assert not psutil.pid_exists(victim)
    assert server.metric("ringcast_worker_restarts_total", reason="stuck") == 1
    assert server.stats()["ring"]["stuck_kills"] == 1


@pytest.mark.limit(120)
def test_idle_stopped_worker_is_replaced(ringcast):
    """It holds nobody up, but its clients would be deaf for ever."""
    server = ringcast(QUICK, expect_deaths=True)
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGSTOP)
    wait_replaced(server, victim, 30)
    assert not psutil.pid_exists(victim)


@pytest.mark.asan
@pytest.mark.limit(120)
def test_killed_master_takes_its_workers_along_and_the_port_is_free(tmp_path, ringcast, connect):
    port, admin = free_port(), free_port()
    args = ["--listen", "127.0.0.1:%d" % port, "--admin", "127.0.0.1:%d" % admin,
            "--listen", "unix:%s/ws.sock" % tmp_path, "--pid", str(tmp_path / "pid")]
    server = ringcast(args=args, listen=False)
    client = connect(server.url("/ws/a"))
    for _ in range(3):
        children = server.children()
        assert len(children) == 2
        server.process.kill()
        server.process.wait()
        began = time.monotonic()
        gone, alive = psutil.wait_procs(children, 10 * SCALE)  # due: within a second
        assert not alive, "workers outlive their master by %.0f s" % (time.monotonic() - began)
        server.start()  # the pid file and the unix socket of the dead one are in the way of nobody
        assert (server.port, server.admin_port) == (port, admin)
        client = connect(server.url("/ws/a"))
        client.send("x")
        assert client.recv() == "x"
        via_unix = connect("unix:%s/ws.sock:/ws/a" % tmp_path)
        client.send("y")
        assert via_unix.recv() == "y" and client.recv() == "y"


def shm_names():
    return {name for name in os.listdir("/dev/shm")}


def test_no_shared_memory_file_is_left(ringcast):
    before = shm_names()
    server = ringcast()
    assert not [n for n in shm_names() - before if "ringcast" in n]
    server.process.kill()
    server.process.wait()
    assert not [n for n in shm_names() - before if "ringcast" in n]
    server.process = None


@pytest.mark.limit(120)
def test_worker_that_dies_at_once_again_and_again_does_not_spin(ringcast):
    """A worker killed from outside is replaced at once each time; places stay two and the master stays calm."""
    server = ringcast(expect_deaths=True)
    began = psutil.Process(server.pid).cpu_times()
    for _ in range(10):
        pid = wait_for("a worker", lambda: next((w["pid"] for w in workers_of_any(server) if w["state"] == "serve"), None))
        os.kill(pid, signal.SIGKILL)
        wait_replaced(server, pid)
    ended = psutil.Process(server.pid).cpu_times()
    assert (ended.user + ended.system) - (began.user + began.system) < 5 * SCALE
    assert len(server.children()) == 2
