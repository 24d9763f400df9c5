"""What whoever runs the five feeds looks at and relies on: pre-flight checks, metrics, limits, long runs."""
import json
import os
import subprocess
import time

import pytest
import websockets

from stack import FEEDS, types
from waiting import wait_for

SOAK = float(os.environ.get("TEST_SOAK", "6"))  # seconds


def test_one_configuration_serves_five_feeds_by_their_names(site):
    """S1, S9: etc/feeds.conf, as it is shipped, passes the check and is what runs here."""
    found = site.server.stats()["namespaces"]
    assert set(found) == set(FEEDS)
    done = subprocess.run([site.server.command_line()[0], "-t", "-c", site.server.config_path], env=site.server.env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
    assert done.returncode == 0, done.stdout


def test_preflight_checks_say_ready_and_name_redis(site):
    """S36, S37, S74."""
    assert site.server.api("/health").status == 200
    answer = site.server.api("/ready")
    assert (answer.status, answer.json["status"]) == (200, "ok")
    found = site.server.stats()
    assert found["redis"]["state"] == "up" and str(site.redis.port) in found["redis"]["address"]
    assert [w["state"] for w in found["workers"]] == ["serve", "serve"]


def test_redis_metrics_can_be_watched_during_a_run(site):
    """S32, S43, S75: messages in, bytes, round trip, lag: each apart."""
    client = site.connect(site.fan(), "broadcasts")
    before = site.server.metric("ringcast_publications_total", namespace="broadcasts", source="redis")
    for n in range(50):
        site.publish("broadcasts", {"type": "x", "n": n})
    site.received("broadcasts", [client])
    after = site.server.metrics()
    assert site.server.metric("ringcast_publications_total", namespace="broadcasts", source="redis") == before + 51
    for name in ("ringcast_redis_up", "ringcast_redis_rtt_microseconds", "ringcast_redis_reconnects_total",
                 "ringcast_redis_gaps_total", "ringcast_redis_pending_bytes", "ringcast_ring_lag_bytes",
                 "ringcast_delivered_bytes_total"):
        assert name in after, name


def test_the_first_weeks_metrics_exist(site):
    """S42 to S46, S58: connection rate, Redis latency, success, errors, reconnects."""
    client = site.connect(site.fan(), "broadcasts")
    site.publish("broadcasts", {"type": "x"})
    client.recv()
    client.close()
    found = site.server.metrics()
    for name in ("ringcast_connections_opened_total", "ringcast_connections", "ringcast_connections_closed_total",
                 "ringcast_deliveries_total", "ringcast_users", "ringcast_delivery_latency_seconds_count", "ringcast_build_info"):
        assert name in found, name
    assert site.server.metric("ringcast_deliveries_total", namespace="broadcasts") > 0
    for feed in FEEDS:
        assert any(("namespace", feed) in labels for labels in found["ringcast_connections"])


def test_deliveries_are_counted_to_the_last_one(site):
    """S44, S51: publications x readers."""
    clients = [site.connect(site.fan(), "forum_global") for _ in range(5)]
    before = site.server.stats()["namespaces"]["forum_global"]["deliveries"]
    for n in range(100):
        site.publish("forum_global", {"type": "x", "n": n})
    site.received("forum_global", clients)
    wait_for("505 deliveries", lambda: site.server.stats()["namespaces"]["forum_global"]["deliveries"] - before == 505)


def test_a_client_that_floods_is_slowed_without_harm_to_others(site):
    """S57, S69: etc/feeds.conf allows 50 messages a second; nothing of it goes out more often than once a second."""
    track, room = site.track(), site.track()
    flooder, reader = site.connect(site.fan(), "track_comments", track), site.connect(site.fan(), "track_comments", room)
    flooder.send_many(['{"type":"typing","is_typing":true}'] * 300)
    began = time.monotonic()
    for n in range(20):
        site.publish("track_comments", {"type": "x", "track_id": room, "n": n})
        assert json.loads(reader.recv(5))["n"] == n
    assert time.monotonic() - began < 10


@pytest.mark.limit(60)
def test_a_user_has_a_bounded_number_of_sockets(stack):
    """S72, R14: per_user of etc/feeds.conf, lowered here; 429 before the accept, 1008 behind it."""
    own = stack(changes=[(r"per_user\s*=\s*\d+", "per_user = 3")])
    fan = own.fan()
    for _ in range(3):
        own.connect(fan, "broadcasts")
    with pytest.raises(websockets.InvalidStatusCode) as caught:
        own.connect(fan, "broadcasts")
    assert caught.value.status_code == 429
    assert own.connect(fan, "forum_global", greeting=False).wait_closed()[0] == 1008
    own.connect(own.fan(), "broadcasts")


def test_a_publication_that_is_too_large_is_dropped_and_counted(site):
    """S70, R6."""
    client = site.connect(site.fan(), "broadcasts")
    before = site.server.stats()["namespaces"]["broadcasts"]["dropped"].get("too_large", 0)
    site.publish("broadcasts", '{"type":"x","pad":"' + "x" * (1 << 20) + '"}')
    assert site.received("broadcasts", [client]) == [[]]
    assert site.server.stats()["namespaces"]["broadcasts"]["dropped"]["too_large"] == before + 1


def test_a_connect_storm_of_refused_clients_is_counted_and_named(site):
    """S71: by reason in the counters, by address in the log."""
    before = site.server.stats()["totals"]["refused"]
    for _ in range(10):
        with pytest.raises(websockets.InvalidStatusCode):
            site.clients.connect(site.url("broadcasts", user=1))
    after = site.server.stats()["totals"]["refused"]
    assert sum(after.values()) - sum(before.values()) == 10
    assert any("event=refused" in line and "addr=127.0.0.1" in line for line in site.server.log().splitlines())


def test_the_real_address_comes_from_a_trusted_proxy(site):
    """S72: the proxy on this host is trusted by etc/feeds.conf."""
    fan = site.fan()
    client = site.clients.connect(site.url("forum_global"), extra_headers=site.headers(fan) + [("X-Forwarded-For", "203.0.113.9")])
    assert types([client.recv()]) == ["connected"]
    asked, = site.data.hook_calls("forum_global", "connect")
    assert asked["address"] == "203.0.113.9"


def test_several_replicas_behind_one_name_need_no_sticky_sessions(stack):
    """S5, S82: a page's sockets may land anywhere, and a replica may be added at any time."""
    own = stack(replicas=2)
    fan, track = own.fan(), own.track()
    clients = [own.connect(fan, "broadcasts", server=own.servers[0]), own.connect(fan, "track_comments", track, own.servers[1])]
    third = own.new_server(2, 2, (), True, {})
    own.servers.append(third)
    third.start()
    third.wait_ready()
    clients.append(own.connect(fan, "broadcasts", server=third))
    own.publish("broadcasts", {"type": "x"})
    own.publish("track_comments", {"type": "y", "track_id": track})
    assert types([c.recv() for c in clients]) == ["x", "y", "x"]


@pytest.mark.limit(60 + SOAK)
def test_a_soak_leaves_no_trace(site):
    """S33, S35, scaled down: TEST_SOAK=86400 is the long one. Joins, leaves, publications; then nothing has grown, nothing
    stands still, and the counters add up."""
    fans = [site.fan() for _ in range(8)]
    track = site.track()

    def rounds(seconds):
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            clients = [site.connect(fan, feed, track if feed == "track_comments" else "")
                       for fan, feed in zip(fans, ("broadcasts", "track_comments", "forum_global", "book_requests") * 2)]
            site.publish("broadcasts", {"type": "x"})
            site.publish("track_comments", {"type": "x", "track_id": track})
            assert types([c.recv() for c in (clients[0], clients[1], clients[4], clients[5])]) == ["x"] * 4
            for client in clients:
                client.close()
            count += 1
        site.server.wait_connections(0)
        return count
    rounds(SOAK / 3)
    memory, files, before = site.server.pss_kb(), site.server.fd_counts(), site.server.stats()
    count = rounds(SOAK)
    after = site.server.stats()
    # Connections to the hook that are kept for the next question come and go.
    wait_for("no descriptor more", lambda: all(n <= files[pid] + 2 for pid, n in site.server.fd_counts().items()))
    if site.server.metric("ringcast_jemalloc_allocated_bytes"):  # a sanitizer keeps what was freed
        assert site.server.pss_kb() - memory < 2048, (memory, site.server.pss_kb())
    assert after["totals"]["opened"] - before["totals"]["opened"] == 8 * count
    assert after["totals"]["deliveries"] - before["totals"]["deliveries"] == 4 * count
    assert after["totals"]["connections"] == after["totals"]["users"] == 0
    assert after["ring"]["lag_bytes"] < 65536 and not any(w["restarts"] for w in after["workers"])
