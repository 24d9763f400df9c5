"""Limits by user, by address and by pace, over workers, deaths and reloads; and who a client is behind proxies."""
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

from server import BIN, DEADLINE, SCALE, raw_request, raw_socket, read_answer, upgrade
from waiting import wait_for

NAMESPACES = """
trusted_proxies = { "127.0.0.1" }
auth "query" { type = "query" }
namespace "n" { path = "/n"   auth = "query"   user_query = "user_id:int"   origins = { "*" } }
namespace "m" { path = "/m"   auth = "query"   user_query = "user_id:int"   origins = { "*" } }
namespace "c" { path = "/c"   auth = "query"   user_query = "user_id:int"   origins = { "*" }   refuse = "accept-then-close" }
namespace "plain" { path = "/plain"   origins = { "*" } }
"""


def limits(**values):
    return "limits { %s }\n" % "   ".join("%s = %s" % pair for pair in values.items())


def come(server, path, address=None, before=b""):
    """A handshake; the socket is open if it is a 101. Returns (status, socket)."""
    sock = raw_socket(server)
    sock.sendall(before + upgrade(path, **({"X_Forwarded_For": address} if address else {})))
    answer = read_answer(sock)
    if answer.status != 101:
        sock.close()
        return answer.status, None
    return 101, sock


def come_in(server, path, address=None, before=b""):
    status, sock = come(server, path, address, before)
    assert status == 101
    return sock


def status_of(server, path, address=None, before=b""):
    status, sock = come(server, path, address, before)
    if sock:
        sock.close()
    return status


def is_let_in(server, path, address=None):
    """For wait_for(): a socket, once there is a place for it."""
    return come(server, path, address)[1]


def refused(server, reason):
    return server.stats()["totals"]["refused"].get(reason, 0)


def lines_of(server, reason, count=1):
    """The log's lines about refusals for this reason: at least `count` of them."""
    server.wait_log("refused", count=count, reason=reason)
    return server.log_events("refused", reason=reason)


def worker_connections(server):
    return sorted(w["connections"] for w in server.workers())


def fill(server, path, count, address=None):
    """So many sockets, on more than one worker."""
    socks = [come_in(server, path, address) for _ in range(count)]
    server.wait_connections(count)
    return socks


def test_a_user_has_so_many_sockets_on_all_workers(ringcast):
    server = ringcast(NAMESPACES + limits(per_user=12), workers=2)
    socks = fill(server, "/n?user_id=7", 12)
    assert worker_connections(server)[0] > 0, "all on one worker; 1 of 2048 runs"
    assert status_of(server, "/n?user_id=7") == 429
    assert status_of(server, "/n?user_id=+007") == 429  # the same user
    assert refused(server, "per_user") == 2
    others = [come_in(server, "/n?user_id=8"), come_in(server, "/plain")]
    socks.pop().close()
    socks.append(wait_for("a place that was left", lambda: is_let_in(server, "/m?user_id=7")))  # over namespaces
    assert status_of(server, "/n?user_id=7") == 429
    for sock in socks + others:
        sock.close()
    line = lines_of(server, "per_user")[0]
    assert (line["user"], line["addr"], line["code"], line["ns"]) == ("7", "127.0.0.1", "429", "n")


def test_a_refusal_after_the_upgrade_is_a_close(ringcast, connect):
    server = ringcast(NAMESPACES + limits(per_user=1), workers=2)
    first = connect(server.url("/c?user_id=7"))
    second = connect(server.url("/c?user_id=7"))
    assert second.wait_closed() == (1008, "too many connections")
    assert first.is_open
    assert refused(server, "per_user") == 1
    assert connect(server.url("/c?user_id=8")).is_open


def test_an_address_has_so_many_sockets(ringcast):
    server = ringcast(NAMESPACES + limits(per_address=8), workers=2)
    socks = fill(server, "/plain", 8, "192.0.2.1")
    assert status_of(server, "/plain", "192.0.2.1") == 429
    assert status_of(server, "/n?user_id=1", "6.6.6.6, 192.0.2.1") == 429  # what the client wrote counts for nothing
    assert refused(server, "per_address") == 2
    socks += [come_in(server, "/plain", "192.0.2.2"), come_in(server, "/plain")]
    v6 = [come_in(server, "/plain", "2001:db8::%d" % i) for i in range(8)]
    assert status_of(server, "/plain", "2001:db8:0:0:ffff::") == 429  # its network of 64 bits is full
    v6.append(come_in(server, "/plain", "2001:db8:0:1::"))
    socks.pop(0).close()
    socks.append(wait_for("a place that was left", lambda: is_let_in(server, "/plain", "192.0.2.1")))
    for sock in socks + v6:
        sock.close()
    line = lines_of(server, "per_address")[0]
    assert (line["addr"], line["code"]) == ("192.0.2.1", "429")


def test_the_sockets_of_a_dead_worker_count_no_more(ringcast):
    server = ringcast(NAMESPACES + limits(per_user=16, per_address=16), workers=2, expect_deaths=True)
    first = fill(server, "/n?user_id=7", 16)
    left, dead = worker_connections(server), server.worker_pids()[0]
    assert left[0] > 0
    assert status_of(server, "/n?user_id=7") == 429
    gone = next(w["connections"] for w in server.workers() if w["pid"] == dead)
    os.kill(dead, signal.SIGKILL)
    wait_for("a successor", lambda: len(server.worker_pids()) == 2 and dead not in server.worker_pids())
    server.wait_connections(16 - gone)
    socks = [wait_for("a place of the dead", lambda: is_let_in(server, "/n?user_id=7")) for _ in range(gone)]
    assert status_of(server, "/n?user_id=7") == 429  # no more than those
    for sock in first + socks:
        sock.close()


def test_a_reload_changes_the_limit(ringcast):
    server = ringcast(NAMESPACES + limits(per_user=4) + "stop { drain_time = 1s }\n", workers=2)
    socks = fill(server, "/n?user_id=7", 4)
    assert status_of(server, "/n?user_id=7") == 429
    server.write_config(NAMESPACES + limits(per_user=6))
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded", seconds=60)
    # The old workers have closed theirs (1012) by now, and with them went their counts.
    more = [wait_for("a place in the new generation", lambda: is_let_in(server, "/n?user_id=7")) for _ in range(6)]
    assert status_of(server, "/n?user_id=7") == 429
    for sock in socks + more:
        sock.close()


def test_an_address_comes_too_fast(ringcast):
    server = ringcast(NAMESPACES + limits(connect_rate=2, connect_burst=20), workers=2)
    statuses = [status_of(server, "/plain", "192.0.2.1") for _ in range(60)]
    let_in = statuses.count(101)
    # 10 of each worker at once, and a few while the others came; how the kernel spreads them is its own affair
    assert 10 <= let_in < 50 and statuses.count(429) == 60 - let_in, statuses
    assert refused(server, "rate") == 60 - let_in
    assert status_of(server, "/plain", "192.0.2.2") == 101
    lines = lines_of(server, "rate")
    assert len(lines) <= 2 * (1 + 60 * SCALE // 10), "a line for each worker and ten seconds"
    assert lines[0]["addr"] == "192.0.2.1"
    wait_for("a token", lambda: is_let_in(server, "/plain", "192.0.2.1")).close()


def test_a_bad_handshake_is_logged_with_its_address(ringcast):
    """Whatever is wrong with it, and before any namespace is known: a storm of them can be traced to its sender."""
    server = ringcast(NAMESPACES, workers=1)
    assert status_of(server, "/nowhere", "192.0.2.7") == 404
    assert raw_request(server, upgrade("/plain", drop=("Upgrade",), X_Forwarded_For="192.0.2.8")).status == 426
    assert raw_request(server, b"GET /plain HTTP/9.9\r\n\r\n").status == 400
    assert [lines_of(server, reason)[0]["addr"] for reason in ("no_namespace", "no_upgrade")] == ["192.0.2.7", "192.0.2.8"]
    server.wait_log("refused", code=400, addr="127.0.0.1")  # its head said nothing that could be believed


# ---- PROXY headers

PROXIED = """
listen "127.0.0.1:0" { proxy_protocol = on }
admin "127.0.0.1:0" { }
limits { per_address = 1   handshake_timeout = 1s }
namespace "plain" { path = "/plain"   origins = { "*" } }
"""


def v1(address="192.0.2.1"):
    return b"PROXY TCP%d %s %s 56324 443\r\n" % (
        (6 if ":" in address else 4,) + (address.encode(), b"2001:db8::ff" if ":" in address else b"198.51.100.1"))


def v2(address="192.0.2.1", command=1, vectors=b""):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    source = socket.inet_pton(family, address)
    body = source + source + struct.pack("!HH", 56324, 443) + vectors
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20 | command, 0x21 if ":" in address else 0x11, len(body)) + body


@pytest.fixture
def proxied(ringcast):
    return ringcast(PROXIED, listen=False, workers=2)


def test_a_proxy_header_says_who_it_is(proxied):
    headers = [v1("192.0.2.1"), v2("192.0.2.2", vectors=b"\x04\x00\x02ok"), v1("2001:db8::1"), v2("2001:db8:1::1")]
    socks = [come_in(proxied, "/plain", before=header) for header in headers]
    for header in headers:  # each of them has its one socket
        assert status_of(proxied, "/plain", before=header) == 429
    assert status_of(proxied, "/plain", "203.0.113.9", before=headers[0]) == 429  # 192.0.2.1 is no trusted proxy
    socks.append(come_in(proxied, "/plain", before=v2(command=0)))  # LOCAL, UNKNOWN: the proxy itself, 127.0.0.1
    assert status_of(proxied, "/plain", before=b"PROXY UNKNOWN\r\n") == 429
    assert refused(proxied, "per_address") == 6
    for sock in socks:
        sock.close()
    lines = lines_of(proxied, "per_address", 5)
    assert {line["addr"] for line in lines} == {"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:1::1", "127.0.0.1"}


def test_a_bad_handshake_behind_a_proxy_header(proxied):
    assert raw_request(proxied, v1("192.0.2.9") + b"nonsense\r\n\r\n").status == 400
    proxied.wait_log("refused", code=400, addr="192.0.2.9")
    assert raw_request(proxied, v2("2001:db8::9") + upgrade("/nowhere")).status == 404
    proxied.wait_log("refused", code=404, addr="2001:db8::9")


def test_a_proxy_header_in_pieces(proxied):
    with raw_socket(proxied) as sock:
        for byte in v2("192.0.2.7") + upgrade("/plain"):
            sock.sendall(bytes([byte]))
        assert read_answer(sock).status == 101


@pytest.mark.parametrize("data", [upgrade("/plain"), b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", v2()[:12] + b"\x31" + v2()[13:], b"\r\n\r\n\r\n",
                                  b"PROXY UNKNOWN " + 100 * b"x"])
def test_without_a_proxy_header_there_is_no_answer(proxied, data):
    answer = raw_request(proxied, data)
    assert (answer.status, answer.body, answer.closed) == (0, b"", True)
    assert refused(proxied, "proxy") == 1
    assert lines_of(proxied, "proxy")[0]["addr"] == "127.0.0.1"


def test_half_a_proxy_header_runs_out_of_time(proxied):
    with raw_socket(proxied) as sock:
        sock.sendall(v1()[:20])
        sock.settimeout(DEADLINE * SCALE)
        assert sock.recv(100) == b""
    wait_for("its count", lambda: refused(proxied, "proxy") == 1)


# ---- memory_limit, accept_rate


@pytest.mark.limit(120)
def test_memory_limit_refuses_newcomers_and_lets_them_in_again(ringcast, connect):
    """Unfinished messages fill the memory; nobody who is in notices; when they are gone the door opens."""
    server = ringcast('memory_limit = 32m\nring { size = 4m }\nlimits { max_message = 1m }\n'
                      'namespace "demo" { path = "/ws/{room}"  publish = { "client" }  origins = { "*" } }\n', workers=1)
    inside = connect(server.url("/ws/a"))
    hogs = []
    is_refused = lambda: server.metric("ringcast_handshakes_refused_total", reason="memory") or 0
    while len(hogs) < 64 and not is_refused():
        with raw_socket(server) as probe:
            probe.sendall(upgrade())
            if probe.recv(1024).startswith(b"HTTP/1.1 503"):
                break
        sock = raw_socket(server)
        sock.sendall(upgrade())
        assert sock.recv(1024)
        sock.sendall(b"\x01\xff" + (1 << 20).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * ((1 << 20) - 1))
        hogs.append(sock)
    assert is_refused() >= 1 and hogs
    inside.send("still here")
    assert inside.recv() == "still here"
    for sock in hogs:
        sock.close()

    def is_open():
        with raw_socket(server) as sock:
            sock.sendall(upgrade())
            return sock.recv(1024).startswith(b"HTTP/1.1 101")
    wait_for("the memory is free again", is_open, 60)


def test_memory_limit_below_the_ring_is_a_mistake(tmp_path):
    path = tmp_path / "c"
    path.write_text("workers = 2\nmemory_limit = 64m\n")
    run = subprocess.run([BIN, "-t", "-c", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    assert run.returncode == 1 and b"memory_limit: must leave" in run.stdout


def test_accept_rate_paces_and_loses_nobody(ringcast):
    """40 at once at 20 a second: nobody is refused, and the last one has waited."""
    server = ringcast("stop { accept_rate = 20 }\n", workers=1)
    begin = time.monotonic()
    socks = []
    for _ in range(40):
        sock = raw_socket(server)
        sock.sendall(upgrade())
        socks.append(sock)
    for sock in socks:
        assert sock.recv(1024).startswith(b"HTTP/1.1 101")
        sock.close()
    assert time.monotonic() - begin >= 38 / 20
