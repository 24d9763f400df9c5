"""Redis with a replica and sentinels: the master changes, clients stay, publications arrive once. And a node of a cluster."""
import threading
import time

import pytest

from redisproc import Sentinel
from waiting import free_port, hold_for, wait_for

QUICK = "redis { timeout = 2s }\n"
LONG = 40  # seconds for a fail-over; due: 3


class Set:
    """A master, a replica, sentinels."""

    def __init__(self, redis_factory, tmp_path, sentinels):
        self.master = redis_factory("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        self.replica = redis_factory("--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", str(self.master.port))
        wait_for("the replica follows",
                 lambda: self.replica.client().info("replication")["master_link_status"] == "up", LONG)
        quorum = sentinels // 2 + 1
        self.sentinels = [Sentinel(tmp_path / ("sentinel%d" % i), self.master, quorum) for i in range(sentinels)]
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            wait_for("the sentinels know each other", lambda s=sentinel: s.knows(1, sentinels - 1), LONG)

    @property
    def url(self):
        return "sentinel://%s/mymaster" % ",".join("127.0.0.1:%d" % s.port for s in self.sentinels)

    def close(self):
        for sentinel in self.sentinels:
            sentinel.kill()


@pytest.fixture
def redis_set(redis_factory, tmp_path):
    sets = []

    def start(sentinels):
        sets.append(Set(redis_factory, tmp_path, sentinels))
        return sets[-1]

    yield start
    for each in sets:
        each.close()


def is_at(server, redis):
    state = server.stats()["redis"]
    return server.metric("ringcast_redis_up") == 1 and state["address"] == "127.0.0.1:%d" % redis.port


def wait_at(server, redis):
    wait_for("the links are at port %d" % redis.port, lambda: is_at(server, redis), LONG)


def settled(server):
    state = server.stats()["redis"]
    return state["pending_messages"] == 0 and state["pending_bytes"] == 0


class Load:
    """Publishes numbered texts through a server's API until it is told to stop."""

    def __init__(self, server, name):
        self.server, self.name, self.n, self.ended = server, name, 0, False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ended:
            self.server.publish("demo:a", "%s %d" % (self.name, self.n))
            self.n += 1
            time.sleep(0.005)

    def end(self):
        self.ended = True
        self.thread.join()
        return ["%s %d" % (self.name, i) for i in range(self.n)]


def of(name, texts):
    return [t for t in texts if t.startswith(name + " ")]


def failover_under_load(ringcast, connect, group, break_it):
    one, two = ringcast(QUICK, redis=group.url), ringcast(QUICK, redis=group.url)
    for server in (one, two):
        server.wait_ready(LONG)
        wait_at(server, group.master)
    a, b = connect(one.url("/ws/a")), connect(two.url("/ws/a"))
    loads = [Load(one, "one"), Load(two, "two")]
    try:
        wait_for("messages flow", lambda: min(load.n for load in loads) > 20)
        break_it()
        for server in (one, two):
            wait_at(server, group.replica)
        before = [load.n for load in loads]
        wait_for("messages flow again", lambda: all(load.n > n + 20 for load, n in zip(loads, before)), LONG)
    finally:
        sent = [load.end() for load in loads]
    for server in (one, two):
        wait_for("nothing is pending", lambda s=server: settled(s), LONG)
    one.publish("demo:a", "the end")
    for client in (a, b):
        texts = []
        while not texts or texts[-1] != "the end":
            texts.append(client.recv())
        assert of("one", texts) == sent[0] and of("two", texts) == sent[1]
        assert client.quiet()
    assert not one.log_events("close") and not two.log_events("close")
    return one, two


@pytest.mark.limit(150)
def test_master_killed_under_load(ringcast, connect, redis_set):
    """Own publications arrive once and in order at each client of each replica; nobody is disconnected."""
    group = redis_set(3)
    one, _ = failover_under_load(ringcast, connect, group, group.master.kill)
    assert one.log_events("redis_lost", link="pub")


@pytest.mark.limit(150)
def test_promotion_by_hand_under_load(ringcast, connect, redis_set):
    """The old master lives on as a replica: its connections would have gone on for ever."""
    group = redis_set(1)
    one, two = failover_under_load(ringcast, connect, group,
                                   lambda: wait_for("the fail-over begins", group.sentinels[0].failover, LONG))
    for server in (one, two):
        server.wait_log("redis_switch", LONG)


@pytest.mark.limit(120)
def test_most_sentinels_are_dead(ringcast, connect, redis_set):
    """One of three answers: that suffices to start; and it may come later than the server."""
    group = redis_set(3)
    for sentinel in group.sentinels:
        sentinel.kill()
    server = ringcast(QUICK, redis=group.url)
    client = connect(server.url("/ws/a"))
    client.send("alone")
    assert client.recv() == "alone"
    assert server.stats()["redis"]["address"] in ("sentinel:mymaster", "")
    group.sentinels[1].start()
    wait_at(server, group.master)
    wait_for("it is published", lambda: settled(server))
    server.wait_log("redis_connected", LONG, link="watch")


@pytest.mark.limit(120)
def test_a_replica_is_refused_and_a_promoted_one_taken(ringcast, connect, redis_set):
    """Plain redis:// to a replica: a PUBLISH there would reach nobody else."""
    group = redis_set(0)
    server = ringcast(QUICK, redis=group.replica)
    server.wait_log("redis_retry", LONG, reason="replica")
    assert server.metric("ringcast_redis_up") == 0
    group.replica.client().slaveof()
    wait_at(server, group.replica)
    group.replica.client().slaveof("127.0.0.1", group.master.port)
    server.wait_log("redis_lost", LONG, link="pub", reason="replica")
    server.wait_log("redis_lost", LONG, link="sub", reason="replica")
    hold_for("it stays down", lambda: server.metric("ringcast_redis_up") == 0, 1)
    group.replica.client().slaveof()
    wait_at(server, group.replica)


@pytest.mark.limit(120)
def test_a_cluster_node_serves(ringcast, connect, redis_factory):
    node = redis_factory("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    node.cli("cluster", "addslotsrange", 0, 16383)
    wait_for("the cluster is whole", lambda: "cluster_state:ok" in node.cli("cluster", "info"), LONG)
    one, two = ringcast(QUICK, redis=node), ringcast(QUICK, redis=node)
    for server in (one, two):
        server.wait_ready(LONG)
        wait_at(server, node)
    a, b = connect(one.url("/ws/a")), connect(two.url("/ws/a"))
    a.send("hello")
    assert a.recv() == "hello" and b.recv() == "hello"
    node.publish("demo:a", b"foreign")
    assert a.recv() == "foreign" and b.recv() == "foreign"
    wait_for("nothing is pending", lambda: settled(one))
