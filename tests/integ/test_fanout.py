"""Fan-out: every reader gets every message once and in order, and those who do not read cost nobody anything.

The load client judges (bench/): each payload carries run, channel, sequence and a checksum of itself.
"""
import socket

import pytest
import wsraw

from load import run_load
from waiting import SCALE, Deadline, hold_for, wait_for

RING_8M = "ring { size = 8m }\n"
SKIP = RING_8M + """
namespace "demo" { path = "/ws/{room}"  redis_channel = "demo:{room}"  publish = { "client", "api", "redis" }
                   slow = "skip"  origins = { "*" } }
"""


def closed(server, code):
    return server.stats()["totals"]["closed"].get(str(code), 0)


@pytest.mark.limit(120)
def test_flat_out_everything_to_everybody(ringcast):
    server = ringcast()
    report = run_load(server, publish="ws", conns=200, messages=20000, rate=0, size=128, seconds=90)
    assert report["published"] == 20000 and report["deliveries"] == 200 * 20000


@pytest.mark.limit(120)
def test_flat_out_through_redis(ringcast, redis_server):
    server = ringcast(redis=redis_server)
    server.wait_ready()
    report = run_load(server, publish="redis", redis="127.0.0.1:%d" % redis_server.port, conns=100, messages=10000,
                      rate=0, size="64-2000", seconds=90)
    assert report["deliveries"] == 100 * 10000


@pytest.mark.limit(120)
def test_many_channels_and_publishers(ringcast):
    server = ringcast()
    run_load(server, publish="http", publishers=2, conns=200, channels=50, messages=2000, rate=0, inflight=16, size="48-5000",
             seconds=90)


@pytest.mark.limit(150)
def test_stalled_clients_are_closed_and_readers_lose_nothing(ringcast):
    """8 MiB of ring, some 20 MiB of messages: who never reads is passed, closed with 1013 and counted."""
    server = ringcast(RING_8M + 'limits { close_linger = 1s }\n')
    before = server.pss_kb()
    report = run_load(server, publish="ws", conns=100, stall=20, messages=20000, rate=0, size=1000, seconds=90)
    assert report["deliveries"] == 100 * 20000
    wait_for("20 counted as slow", lambda: closed(server, 1013) == 20)
    assert server.metric("ringcast_connections_closed_total", code="1013") == 20
    server.wait_connections(0)
    # Memory is flat: the ring's own 8 MiB may have been touched for the first time, and that twice (two mappings).
    assert server.pss_kb() - before < 40 * 1024


@pytest.mark.limit(150)
def test_joining_and_leaving_under_load(ringcast):
    """A joiner gets an unbroken run from its 101 to its leaving; the load client checks that."""
    server = ringcast()
    report = run_load(server, publish="ws", conns=100, churn="50:200", messages=20000, rate=5000, size=128, seconds=90)
    assert report["joins"] > 50
    server.wait_connections(0)


@pytest.mark.limit(150)
def test_pausing_clients_get_everything(ringcast):
    """Who stops for 2 s while its position stays in the ring gets every message, in order."""
    server = ringcast()
    run_load(server, publish="ws", conns=50, pause="20:2000", messages=15000, rate=3000, size=500, drain=20, seconds=90)


class Sleeper:
    """A client with a small receive buffer that reads only when told."""

    def __init__(self, server, path):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(20 * SCALE)
        self.sock.connect((server.host, server.port))
        self.ws = wsraw.Client.__new__(wsraw.Client)
        self.ws.timeout, self.ws.buf, self.ws.sent_close, self.ws.sock = 20 * SCALE, bytearray(), False, self.sock
        self.ws.handshake("localhost", path)


def publish_numbers(sender, listener, count, size=1000):
    """Numbered messages of `size` bytes, all of them seen by `listener`."""
    messages = [("%07d" % n).ljust(size, ".") for n in range(count)]
    for i in range(0, count, 500):
        sender.send_many(messages[i:i + 500])
        assert listener.recv_many(len(messages[i:i + 500])) == messages[i:i + 500]


@pytest.mark.asan
@pytest.mark.limit(120)
def test_skip_policy_goes_on_at_the_newest(ringcast, connect):
    """Passed by the ring under slow = skip: a gap in the numbers, never a torn frame or a step back; counted."""
    server = ringcast(SKIP)
    sleeper = Sleeper(server, "/ws/a")
    sender, listener = connect(server.url("/ws/a")), connect(server.url("/ws/a"))

    class Ignoring:  # the sender hears its own messages too
        send_many = staticmethod(sender.send_many)

    publish_numbers(Ignoring, listener, 20000)
    got = []
    sender.send("end".ljust(1000, "."))
    while not (got and got[-1].startswith("end")):
        opcode, payload = sleeper.ws.recv_message()
        assert opcode == wsraw.TEXT and len(payload) == 1000 and payload.endswith(b".")
        got.append(payload.decode())
    numbers = [int(m[:7]) for m in got[:-1]]
    assert numbers == sorted(set(numbers)) and len(numbers) < 20000
    wait_for("skipped messages are counted",
             lambda: server.metric("ringcast_dropped_total", namespace="demo", reason="slow_skip") == 20000 - len(numbers))
    assert closed(server, 1013) == 0
    sleeper.sock.close()


@pytest.mark.asan
@pytest.mark.limit(120)
def test_disconnect_policy_finishes_the_frame_and_closes_1013(ringcast, connect):
    server = ringcast(RING_8M)
    sleeper = Sleeper(server, "/ws/a")
    sender, listener = connect(server.url("/ws/a")), connect(server.url("/ws/a"))
    for _ in range(40):
        publish_numbers(sender, listener, 500)
        if closed(server, 1013):
            break
    numbers = []
    while True:
        opcode, payload = sleeper.ws.recv_frame()
        if opcode == wsraw.CLOSE:
            break
        assert opcode == wsraw.TEXT and len(payload) == 1000
        numbers.append(int(payload[:7]) + 500 * (len(numbers) // 500))
    assert wsraw.parse_close(payload) == (1013, "slow consumer")
    assert numbers == list(range(len(numbers)))
    assert sender.is_open() and listener.is_open()
    sleeper.sock.close()


@pytest.mark.limit(120)
def test_a_frame_half_sent_is_finished_after_the_ring_has_passed_it(ringcast, connect):
    """A 1 MiB message to a client that takes only some of it, then more than a ring of others: what it got is the
    beginning of that message, and what follows is the rest of it, then the Close."""
    server = ringcast(RING_8M + "limits { close_linger = 60s  slow_timeout = 60s  max_message = 1m }\n")
    sleeper = Sleeper(server, "/ws/a")
    sender, listener = connect(server.url("/ws/a")), connect(server.url("/ws/a"))
    big = bytes(range(256)) * 4096
    sender.send(big)
    assert listener.recv() == big
    for _ in range(30):
        publish_numbers(sender, listener, 500)
        if closed(server, 1013):
            break
    assert sleeper.ws.recv_frame() == (wsraw.BINARY, big)
    opcode, payload = sleeper.ws.recv_frame()
    assert opcode == wsraw.CLOSE and wsraw.parse_close(payload)[0] == 1013
    sleeper.sock.close()


@pytest.mark.limit(120)
def test_a_silent_socket_is_slow_after_slow_timeout(ringcast, connect):
    """Its position is still in the ring, but its socket took no byte for slow_timeout."""
    server = ringcast("limits { slow_timeout = 1s  close_linger = 500ms  ping_interval = 0 }\n")
    sleeper = Sleeper(server, "/ws/a")
    sender, listener = connect(server.url("/ws/a")), connect(server.url("/ws/a"))
    publish_numbers(sender, listener, 500, size=2000)
    wait_for("closed as slow", lambda: closed(server, 1013) == 1, 20)
    server.wait_connections(2)
    sleeper.sock.close()


@pytest.mark.limit(120)
def test_a_large_message_leaves_the_others_alive(ringcast, connect):
    """16 MiB under way from one client; another one's small messages go on."""
    server = ringcast("limits { max_message = 16m  max_publication = 16m }\n")
    big, small = connect(server.url("/ws/big")), connect(server.url("/ws/small"))
    payload = b"\xff" * (16 << 20)
    for round_ in range(3):
        big.send(payload, 60)
        for i in range(50):
            small.send("%d" % i)
            assert small.recv() == "%d" % i
        assert big.recv(60) == payload


@pytest.mark.limit(90)
def test_dead_peers_are_found_by_ping(ringcast, connect):
    """A peer that answers no ping is closed with 1011; one that answers stays."""
    server = ringcast("limits { ping_interval = 500ms  pong_timeout = 500ms  close_linger = 500ms }\n")
    alive = connect(server.url("/ws/a"))
    dead = wsraw.Client(server.host, server.port, "/ws/a", timeout=20 * SCALE)
    deadline = Deadline(20)
    while True:
        assert not deadline.passed()
        opcode, payload = dead.recv_frame()
        if opcode == wsraw.CLOSE:
            break
        assert opcode == wsraw.PING
    assert wsraw.parse_close(payload) == (1011, "keepalive ping timeout")
    wait_for("counted", lambda: closed(server, 1011) == 1)
    hold_for("the one that answers stays", alive.is_open, 2)
    dead.sock.close()


@pytest.mark.limit(120)
def test_catching_up_reads_its_own_channel_alone(ringcast, connect):
    """A reader of a channel of 10 records, 100,000 records of another channel behind: it follows the chain."""
    server = ringcast("limits { slow_timeout = 60s  max_message = 64k }\n")
    sleeper = Sleeper(server, "/ws/quiet")
    sender = connect(server.url("/ws/quiet"))
    messages = [bytes([n]) * 60000 for n in range(10)]  # more than its socket takes
    sender.send_many(messages)
    assert sender.recv_many(10) == messages
    run_load(server, publish="ws", conns=1, messages=100000, rate=0, size=64, inflight=1000, seconds=60)
    before = server.metric("ringcast_catchup_reads_total")
    assert [sleeper.ws.recv_message() for _ in range(10)] == [(wsraw.BINARY, m) for m in messages]
    assert server.metric("ringcast_catchup_reads_total") - before <= 100
    sleeper.sock.close()
