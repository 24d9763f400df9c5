"""The command line, the configuration as a whole, signals and exit codes."""
import os
import re
import signal
import socket
import stat
import subprocess
import time

import pytest

from server import BIN, raw_socket, upgrade
from waiting import SCALE, Deadline, free_port, hold_for, wait_for


def run(*args, data=None, cwd=None, env=None):
    return subprocess.run([BIN] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, input=data,
                          timeout=20 * SCALE, cwd=cwd, env=dict(os.environ, **(env or {})))


def config(tmp_path, text, name="ringcast.conf"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


# ---- without a server

@pytest.mark.asan
def test_version_names_the_libraries():
    done = run("-V")
    assert done.returncode == 0
    assert re.search(r"^ringcast \d+\.\d+\.\d+$", done.stdout, re.M)
    for library in ("hiredis", "libev", "wslay", "OpenSSL", "llhttp", "libconfuse"):
        assert library.lower() in done.stdout.lower(), library


def test_help():
    done = run("-h")
    assert done.returncode == 0
    for option in ("-c", "-t", "-T", "-s", "-V", "--listen", "--admin", "--workers", "--redis", "--log-level", "--pid"):
        assert option in done.stdout


@pytest.mark.asan
@pytest.mark.parametrize("args", [["--nonsense"], ["-c"], ["stray"], ["-s", "dance"], ["--workers", "0"], ["--workers", "x"],
                                  ["--listen", "nowhere"], ["--listen", "1.2.3.4:99999"], ["--redis", "http://x"],
                                  ["--log-level", "loud"], ["-t", "-V"]], ids=" ".join)
def test_usage_errors_exit_2(args):
    done = run(*args)
    assert done.returncode == 2
    assert done.stderr and not done.stdout


@pytest.mark.asan
def test_check_prints_every_problem(tmp_path):
    path = config(tmp_path, "\n".join([
        'workers = 0', 'log_level = "loud"', 'nonsense = 1', 'ring { size = 3m }', 'limits { max_mesage = 1k  ping_interval = "5 parsecs" }',
        'workers = 2', 'namespace "a" { path = "/a"  slow = "maybe" }', 'namespace "b" { path = "/a" }',
        'redis { url = "redis://:${SURELY_UNSET_VARIABLE}@x" }', '']))
    done = run("-t", "-c", path)
    assert done.returncode == 1
    text = done.stdout + done.stderr
    for line, word in ((1, "workers"), (2, "log_level"), (3, "nonsense"), (4, "size"), (5, "max_mesage"), (5, "ping_interval"), (6, "workers"),
                       (7, "slow"), (8, "path"), (9, "SURELY_UNSET_VARIABLE")):
        assert re.search(r"^%s:%d: .*%s" % (re.escape(path), line, word), text, re.M), (line, word, text)


@pytest.mark.asan
def test_check_of_good_files(tmp_path):
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = run("-t")
    assert done.returncode == 0
    path = config(tmp_path, 'workers = 2\nlisten "127.0.0.1:0" { }\n')
    assert run("-t", "-c", path).returncode == 0
    for name in os.listdir(os.path.join(top, "etc")):
        if name == "ringcast.conf":
            done = run("-t", "-c", os.path.join(top, "etc", name), env={"RINGCAST_API_KEY": "k", "REDIS_PASSWORD": "p"})
            assert done.returncode == 0, done.stdout + done.stderr


def test_missing_file(tmp_path):
    for args in (["-t", "-c", str(tmp_path / "none")], ["-c", str(tmp_path / "none")], ["-t", "-c", str(tmp_path)]):
        done = run(*args)
        assert done.returncode == 1 and str(tmp_path) in done.stdout + done.stderr


@pytest.mark.asan
def test_a_wrong_file_does_not_start(tmp_path):
    path = config(tmp_path, "workers = 1\nlimits { max_message = 1z }\n")
    done = run("-c", path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert done.returncode == 1
    assert "%s:2: " % path in done.stdout + done.stderr


@pytest.mark.asan
def test_effective_configuration_is_a_configuration(tmp_path):
    path = config(tmp_path, 'workers = 3\nredis { url = "redis://:hush@127.0.0.1:1" }\nadmin "127.0.0.1:1" { api_key = "hush" }\n'
                  'namespace "n" { path = "/n/{room}" }\n')
    done = run("-T", "-c", path)
    assert done.returncode == 0
    assert "hush" not in done.stdout
    assert re.search(r"^\s*workers\s*=\s*3", done.stdout, re.M) and re.search(r"namespace\s+['\"]n['\"]", done.stdout) and "max_message" in done.stdout
    again = run("-t", "-c", config(tmp_path, done.stdout, "again.conf"))
    assert again.returncode == 0, again.stdout + again.stderr


def test_port_in_use(ringcast):
    server = ringcast(workers=1)
    done = run("--listen", "127.0.0.1:%d" % server.port, "--admin", "127.0.0.1:0", "--workers", "1")
    assert done.returncode == 1
    assert str(server.port) in done.stderr


# ---- -s

@pytest.mark.asan
def test_signals_by_pid_file(ringcast, tmp_path):
    pid = str(tmp_path / "ringcast.pid")
    assert run("-s", "stop", "--pid", pid).returncode == 2
    assert run("-s", "stop").returncode == 2
    server = ringcast(args=["--pid", pid], workers=1)
    assert open(pid).read().strip() == str(server.pid)
    assert run("-s", "reload", "--pid", pid).returncode == 0
    wait_for("a new generation", lambda: server.stats()["generation"] == 2)
    path = config(tmp_path, 'pid_file = "%s"\n' % pid)
    assert run("-c", path, "-s", "stop").returncode == 0
    assert server.wait() == 0
    assert not os.path.exists(pid)
    assert run("-s", "stop", "--pid", pid).returncode == 2


def test_stale_pid_file(ringcast, tmp_path):
    pid = tmp_path / "ringcast.pid"
    done = subprocess.Popen(["true"])
    done.wait()
    pid.write_text("%d\n" % done.pid)
    assert run("-s", "stop", "--pid", str(pid)).returncode == 2
    server = ringcast(args=["--pid", str(pid)], workers=1)  # in nobody's way
    assert pid.read_text().strip() == str(server.pid)


# ---- listeners

@pytest.mark.asan
def test_several_listeners(ringcast, tmp_path, connect):
    sock = str(tmp_path / "ws.sock")
    server = ringcast('listen "127.0.0.1:0" { backlog = 16 }\nlisten "[::1]:0" { }\nlisten "unix:%s" { mode = 0640 }\n'
                      'admin "127.0.0.1:0" { }\n' % sock, listen=False)
    assert len(server.listens) == 3
    assert stat.S_IMODE(os.stat(sock).st_mode) == 0o640
    v6 = next(a for a in server.listens if a.startswith("["))
    clients = [connect(server.url("/ws/a")), connect("ws://%s/ws/a" % v6), connect("unix:%s:/ws/a" % sock)]
    clients[1].send("to all")
    assert [c.recv() for c in clients] == ["to all"] * 3
    for client in clients:
        client.close()
    assert server.stop() == 0
    assert not os.path.exists(sock)


def test_ports_stay_the_same_for_all_workers(ringcast):
    server = ringcast(workers=4)
    socks = [raw_socket(server) for _ in range(40)]
    for sock in socks:
        sock.sendall(upgrade())
    wait_for("40 connections", lambda: server.stats()["totals"]["connections"] == 40)
    assert sum(w["connections"] > 0 for w in server.workers()) >= 3
    for sock in socks:
        sock.close()


@pytest.mark.asan
def test_full_workers_step_aside_and_come_back(ringcast):
    """Each process may open few files: what they have is served, and places that are freed are used again."""
    server = ringcast(nofile=100)
    socks, deadline = [], Deadline(60)
    with pytest.raises(OSError):  # in the end nobody listens; until the workers have run, the kernel queues
        while not deadline.passed():
            socks.append(raw_socket(server, 2))
            socks[-1].sendall(upgrade())
    held = wait_for("both are well filled", lambda: next(
        (n for n in [server.stats()["totals"]["connections"]] if n > 50), None))
    assert held < 200 and server.api("/health").status == 200
    for sock in socks:
        sock.close()
    server.wait_connections(0)

    def is_served():
        try:
            with raw_socket(server, 2) as sock:
                sock.sendall(upgrade())
                return sock.recv(1024).startswith(b"HTTP/1.1 101")
        except OSError:
            return False
    wait_for("they listen again", is_served)
    wait_for("both do", lambda: is_served() and all(w["state"] == "serve" for w in server.workers()))
    assert len(server.children()) == 2


# ---- HUP

CONF = 'limits { max_message = 1k }\n'


@pytest.mark.asan
def test_hup_with_a_wrong_file_changes_nothing(ringcast, connect):
    server = ringcast(CONF)
    client = connect(server.url("/ws/a"))
    pids = server.worker_pids()
    server.write_config("limits { max_message = 1k }\nnonsense = 1\n")
    server.kill(signal.SIGHUP)
    wait_for("why, in the log", lambda: "nonsense" in server.log())
    assert "%s:2:" % server.config_path in server.log()
    assert server.worker_pids() == pids and server.stats()["generation"] == 1
    client.send("still")
    assert client.recv() == "still"


@pytest.mark.asan
def test_hup_starts_a_new_generation(ringcast, connect):
    server = ringcast(CONF + 'namespace "demo" { path = "/ws/{room}"  publish = { "client" } }\n')
    old = connect(server.url("/ws/a"))
    pids = set(server.worker_pids())
    server.write_config('limits { max_message = 2k }\nnamespace "demo" { path = "/ws/{room}"  publish = { "client" } }\n'
                        'namespace "new" { path = "/new" }\n')
    server.kill(signal.SIGHUP)
    code, _ = old.wait_closed()
    assert code == 1012
    wait_for("the old generation is gone", lambda: not pids & set(server.worker_pids()) and server.is_ready())
    stats = server.stats()
    assert stats["generation"] == 2 and len(stats["workers"]) == 2
    assert stats["totals"]["closed"]["1012"] == 1 and stats["totals"]["opened"] == 1
    client = connect(server.url("/ws/a"))
    client.send("x" * 2048)
    assert client.recv() == "x" * 2048
    connect(server.url("/new")).close()
    for pid in pids:
        wait_for("old workers end", lambda p=pid: not os.path.exists("/proc/%d" % p))


@pytest.mark.limit(120)
def test_hups_under_connections_refuse_nobody(ringcast):
    """While generations change the port is always open: every handshake is answered with 101."""
    server = ringcast()
    before = sum(server.fd_counts().values())
    for round_ in range(5):
        server.kill(signal.SIGHUP)
        for _ in range(40):
            with raw_socket(server) as sock:
                sock.sendall(upgrade())
                assert sock.recv(1024).startswith(b"HTTP/1.1 101"), round_
        wait_for("generation %d serves" % (round_ + 2), lambda: server.is_ready() and server.stats()["generation"] == round_ + 2)
    wait_for("two workers, no more", lambda: len(server.children()) == 2, 30)
    wait_for("no descriptor more than before", lambda: sum(server.fd_counts().values()) <= before, 30)


def test_hup_without_a_file(ringcast):
    server = ringcast()
    server.kill(signal.SIGHUP)
    wait_for("a new generation", lambda: server.is_ready() and server.stats()["generation"] == 2)


# ---- USR1

def provoke_line(port):
    """Make the worker log: a handshake that is refused."""
    with socket.create_connection(("127.0.0.1", port), 20 * SCALE) as sock:
        sock.sendall(upgrade("/nowhere"))
        sock.recv(100)


@pytest.mark.asan
def test_usr1_reopens_the_log(tmp_path):
    log, moved = tmp_path / "ringcast.log", tmp_path / "ringcast.log.1"
    port, admin = free_port(), free_port()
    path = config(tmp_path, 'log_file = "%s"\nlisten "127.0.0.1:%d" { }\nadmin "127.0.0.1:%d" { }\nworkers = 1\n' % (log, port, admin))
    process = subprocess.Popen([BIN, "-c", path])
    try:
        wait_for("ready", lambda: log.exists() and "event=ready" in log.read_text(), 30)
        provoke_line(port)
        wait_for("the worker's line", lambda: "event=refused" in log.read_text())
        log.rename(moved)
        process.send_signal(signal.SIGUSR1)
        wait_for("a new file", log.exists)

        def has_moved_on():
            provoke_line(port)
            return "event=refused" in log.read_text()
        wait_for("the worker writes to the new file", has_moved_on)
        size = moved.stat().st_size
        process.send_signal(signal.SIGTERM)
        assert process.wait(20 * SCALE) == 0
        assert moved.stat().st_size == size
        assert "proc=master" in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


# ---- the end

@pytest.mark.asan
def test_term_closes_with_1001_and_exits_0(ringcast, connect):
    server = ringcast("stop { drain_time = 500ms }\n")
    clients = [connect(server.url("/ws/a")) for _ in range(20)]
    server.kill(signal.SIGTERM)
    assert [c.wait_closed()[0] for c in clients] == [1001] * 20
    assert server.wait() == 0


@pytest.mark.asan
def test_term_to_every_process_is_as_gentle(ringcast, connect):
    """Service managers and terminals signal the whole group."""
    server = ringcast("stop { drain_time = 500ms }\n")
    clients = [connect(server.url("/ws/a")) for _ in range(10)]
    os.killpg(server.pid, signal.SIGTERM)
    assert [c.wait_closed()[0] for c in clients] == [1001] * 10
    assert server.wait() == 0


def test_closes_are_spread_over_drain_time(ringcast, connect):
    server = ringcast("stop { drain_time = 3s }\n")
    clients = [connect(server.url("/ws/a")) for _ in range(40)]
    began = time.monotonic()
    server.kill(signal.SIGTERM)
    wait_for("the first have gone", lambda: sum(not c.is_open() for c in clients) >= 4)
    assert any(c.is_open() for c in clients) and time.monotonic() - began < 2.5 * SCALE
    assert [c.wait_closed()[0] for c in clients] == [1001] * 40
    assert time.monotonic() - began >= 2
    assert server.wait() == 0


def test_stop_close_code(ringcast, connect):
    server = ringcast("stop { drain_time = 100ms  close_code = 1012 }\n")
    client = connect(server.url("/ws/a"))
    assert server.stop() == 0
    assert client.wait_closed()[0] == 1012


def test_term_stops_accepting_at_once(ringcast, connect):
    server = ringcast("stop { drain_time = 60s }\n")
    clients = [connect(server.url("/ws/a")) for _ in range(10)]
    server.kill(signal.SIGTERM)

    def is_closed():
        try:
            raw_socket(server, 1).close()
            return False
        except OSError:
            return True
    wait_for("the port is closed", is_closed)
    assert server.process.poll() is None and any(c.is_open() for c in clients)
    server.kill(signal.SIGTERM)  # the second one: at once
    assert server.wait(5) == 0


@pytest.mark.asan
def test_int_is_term(ringcast, connect):
    server = ringcast("stop { drain_time = 100ms }\n")
    client = connect(server.url("/ws/a"))
    assert server.stop(signal.SIGINT) == 0
    assert client.wait_closed()[0] == 1001


@pytest.mark.asan
def test_quit_waits_for_the_clients(ringcast, connect):
    server = ringcast()
    a, b = connect(server.url("/ws/a")), connect(server.url("/ws/a"))
    server.kill(signal.SIGQUIT)

    def is_closed():
        try:
            raw_socket(server, 1).close()
            return False
        except OSError:
            return True
    wait_for("the port is closed", is_closed)
    for n in range(20):
        a.send("%d" % n)
        assert a.recv() == "%d" % n and b.recv() == "%d" % n
    a.close()
    hold_for("it serves the other one", lambda: server.process.poll() is None, 0.5)
    b.send("last")
    assert b.recv() == "last"
    b.close()
    assert server.wait() == 0


@pytest.mark.asan
def test_winch_stops_accepting_until_hup(ringcast, connect):
    server = ringcast(CONF)
    client = connect(server.url("/ws/a"))
    server.kill(signal.SIGWINCH)

    def is_refused():
        try:
            with raw_socket(server, 1) as sock:
                sock.settimeout(0.3)
                sock.sendall(upgrade())
                return not sock.recv(100)
        except OSError:
            return True
    wait_for("no new clients", is_refused)
    client.send("served")
    assert client.recv() == "served"
    server.kill(signal.SIGHUP)

    def is_served():
        try:
            connect(server.url("/ws/b"), seconds=1).close()
            return True
        except Exception:
            return False
    wait_for("new clients again", is_served)


def test_log_lines_are_key_value_and_hold_no_payload(ringcast, connect):
    server = ringcast(args=["--log-level", "debug"])
    client = connect(server.url("/ws/secretless"))
    client.send("PAYLOAD-THAT-NOBODY-LOGS")
    client.recv()
    client.close()
    server.publish("demo:a", "PAYLOAD-THAT-NOBODY-LOGS")
    assert server.stop() == 0
    log = server.log()
    assert "PAYLOAD" not in log
    for line in log.splitlines():
        assert re.match(r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(error|warn|info|debug) proc=(master|worker\.\d+) pid=\d+ event=\w+", line), line
