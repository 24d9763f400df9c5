"""What does not concern a worker, or Redis, costs it nothing."""
import re

import pytest

from load import run_load
from waiting import SCALE, hold_for, wait_for


def switches(pid):
    """How often this process went to sleep: each wake-up is one more."""
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M).group(1))


def busy_worker(server):
    return next(w["pid"] for w in server.workers() if w["connections"])


@pytest.mark.limit(120)
def test_workers_without_interest_are_not_woken(ringcast, connect):
    """4 workers, one subscriber, paced messages: the others sleep on, but for their own clocks and what keeps
    the ring free."""
    server = ringcast(workers=4)
    client = connect(server.url("/ws/room0"))
    busy = busy_worker(server)
    idle = [pid for pid in server.worker_pids() if pid != busy]
    before = {pid: switches(pid) for pid in idle + [busy]}
    wakes = server.metric("ringcast_wakeups_total")
    uptime = server.stats()["uptime_s"]
    messages = 3000
    sender = connect(server.url("/ws/room0"))
    sender_pid = [w["pid"] for w in server.workers() if w["connections"] and w["pid"] != busy]
    for n in range(messages // 10):
        sender.send_many(["x" * 100] * 10)
        client.recv_many(10)
    seconds = server.stats()["uptime_s"] - uptime + 2
    for pid in idle:
        if pid in sender_pid:
            continue
        # Twice a second the heartbeat, the wheel's tick, and /stats requests that land there.
        assert switches(pid) - before[pid] < 40 * seconds + 100, pid
        assert switches(pid) - before[pid] < messages / 2
    # No more wake-ups than records for each of the (at most two) workers with a member.
    assert server.metric("ringcast_wakeups_total") - wakes <= 2 * messages + 50


@pytest.mark.limit(120)
def test_a_worker_without_interest_does_not_hold_the_ring(ringcast):
    """Messages for several times the ring's size pass, though three of the four workers never look at them."""
    server = ringcast("ring { size = 1m }\nlimits { max_message = 1k  max_publication = 1k }\n", workers=4)
    report = run_load(server, publish="ws", conns=1, channels=1, messages=20000, rate=0, size=1000, inflight=64, seconds=60)
    assert report["deliveries"] == 20000
    assert server.stats()["ring"]["stuck_kills"] == 0


@pytest.mark.asan
@pytest.mark.limit(90)
def test_room_channels_are_subscribed_while_somebody_is_there(ringcast, redis_server, connect):
    server = ringcast("redis { unsubscribe_delay = 1s  timeout = 15s }\n", redis=redis_server)
    server.wait_ready()
    for channel in ("demo:a", "ringcast:m:demo:a"):
        assert redis_server.subscribers(channel) == 0
    a, b = connect(server.url("/ws/a")), connect(server.url("/ws/a"))
    for channel in ("demo:a", "ringcast:m:demo:a"):
        assert redis_server.subscribers(channel) == 1
    a.close()
    hold_for("one of two has left", lambda: redis_server.subscribers("demo:a") == 1, 2)
    b.close()
    for channel in ("demo:a", "ringcast:m:demo:a"):
        wait_for("nobody is left", lambda c=channel: redis_server.subscribers(c) == 0, 20)
    # And back again, within the linger and after it.
    c = connect(server.url("/ws/a"))
    redis_server.publish("demo:a", b"again")
    assert c.recv() == "again"


def test_a_return_within_the_linger_keeps_the_subscription(ringcast, redis_server, connect):
    server = ringcast("redis { unsubscribe_delay = 30s  timeout = 15s }\n", redis=redis_server)
    server.wait_ready()
    subscribed = int(redis_server.client().info("commandstats").get("cmdstat_subscribe", {}).get("calls", 0))
    connect(server.url("/ws/a")).close()
    first = int(redis_server.client().info("commandstats")["cmdstat_subscribe"]["calls"])
    for _ in range(5):
        connect(server.url("/ws/a")).close()
    assert int(redis_server.client().info("commandstats")["cmdstat_subscribe"]["calls"]) == first > subscribed
    assert redis_server.subscribers("demo:a") == 1


@pytest.mark.limit(120)
def test_an_idle_server_is_idle(ringcast, connect):
    import psutil
    server = ringcast()
    clients = [connect(server.url("/ws/a")) for _ in range(20)]

    def used():
        total = 0
        for pid in [server.pid] + server.worker_pids():
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
        return total
    before = used()
    hold_for("open", lambda: clients[0].is_open(), 5)
    assert used() - before < 0.25 * SCALE


def mappings(server):
    """Of all its processes: (what is mapped, its share in KiB)."""
    found = []
    for pid in [server.pid] + server.worker_pids():
        with open("/proc/%d/smaps" % pid) as f:
            for line in f:
                head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)", line)
                if head:
                    name = head.group(1)
                elif line.startswith("Pss:"):
                    found.append((name, int(line.split()[1])))
    return found


HOOK = """
auth "app" { type = "hook"  url = "http://127.0.0.1:1/" }
namespace "demo" { path = "/ws/{room}"  auth = "app" }
"""


def test_an_empty_server_is_small(ringcast):
    """8 MiB in all, without the ring: what nobody asks for is not loaded, and a look at the counters makes none."""
    server = ringcast(workers=2)
    server.wait_ready()
    server.stats(), server.metrics()
    found = mappings(server)
    assert not [name for name, _ in found if "libcurl" in name]
    counters = sum(kib for name, kib in found if "ringcast-counters" in name)
    assert 0 < counters <= 3 * 16 + 16  # a block of 16 KiB each for two workers and the master, and one for a replaced one
    if not [name for name, _ in found if "libasan" in name or "libtsan" in name]:
        assert sum(kib for name, kib in found if "ringcast-ring" not in name) <= 8 * 1024


def test_libcurl_is_shared_by_those_who_ask_a_hook(ringcast):
    server = ringcast(HOOK, workers=2)
    server.wait_ready()
    with open("/proc/%d/maps" % server.pid) as f:
        assert "libcurl" in f.read()
