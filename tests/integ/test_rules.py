"""Clients' messages to actions, through real processes: rules, greetings, idle frames, rates, the throttle of the master."""
import contextlib
import json

import pytest
import websockets

from waiting import hold_for, wait_for

CONFIG = """
auth "trust" { type = "query" }
namespace "talk" {
  path = "/talk/{room}"   redis_channel = "talk"   route_key = "room"   envelope = "json"   origins = { "*" }
  auth = "trust"   user_query = "user_id:int"   bad_frames = 3
  greeting = '{"type":"connected","room":"{room}","user":{user:int}}'
  rule "ping" { match = "text"   action = "reply"   frame = 'pong' }
  rule "pong" { match = "text"   action = "ignore" }
  rule "ping" { action = "reply"   frame = '{"type":"pong","timestamp":{monotonic}}' }
  rule "typing" { action = "publish"   throttle = 1m   priority = "low"   coerce = { "is_typing:bool" }
    frame = '{"type":"user_typing","room":"{room}","user_id":{user:int},"is_typing":{msg.is_typing}}' }
  rule "knock" { action = "publish"   coerce = { "who:string", "times:int" }
    frame = '{"type":"knocked","room":"{room}","who":"{msg.who}","times":{msg.times},"_target_users":["1"]}' }
}
namespace "quiet" { path = "/quiet"   envelope = "json"   origins = { "*" }
  idle { after = 400ms   frame = '{"type":"heartbeat","timestamp":{monotonic}}' } }
namespace "fast" { path = "/fast"   origins = { "*" }   publish = { "client" }   msg_rate = 20   msg_burst = 5 }
"""


def typing(state):
    return json.dumps({"type": "typing", "is_typing": state})


def typed(room, user, state):
    return {"type": "user_typing", "room": room, "user_id": user, "is_typing": state}


def receive(client):
    return json.loads(client.recv())


@pytest.fixture
def server(ringcast):
    return ringcast(CONFIG)


def talk(server, connect, room, user):
    client = connect(server.url("/talk/%s?user_id=%s" % (room, user)))
    assert receive(client) == {"type": "connected", "room": room, "user": int(user)}
    return client


@pytest.mark.asan
def test_answers(server, connect):
    client = talk(server, connect, "a", "07")
    client.send("ping")
    assert client.recv() == "pong"
    client.send('{"type":"ping"}')
    answer = receive(client)
    assert answer["type"] == "pong" and isinstance(answer["timestamp"], float)
    for ignored in ("pong", "{}", '{"type":"unheard of"}', '{"type":7}'):
        client.send(ignored)
    assert client.quiet()
    assert server.metric("ringcast_client_messages_total", namespace="talk") == 6
    assert server.metric("ringcast_bad_frames_total", namespace="talk") == 0


@pytest.mark.asan
def test_typing_is_throttled_over_all_workers(server, connect):
    """Four sockets of one user, over two workers: the same state once a minute, a change at once."""
    mine = [talk(server, connect, "a", 7) for _ in range(4)]
    other = talk(server, connect, "a", 8)
    elsewhere = talk(server, connect, "b", 7)
    for client in mine:
        client.send(typing(True))
    assert receive(other) == typed("a", 7, True)
    wait_for("three are too soon", lambda: server.metric("ringcast_dropped_total", namespace="talk", reason="rate") == 3)
    mine[0].send(typing(0))
    assert receive(other) == typed("a", 7, False)
    mine[1].send(typing("yes"))
    assert receive(other) == typed("a", 7, True)
    other.send(typing(True))
    assert receive(other) == typed("a", 8, True)
    elsewhere.send(typing(True))
    assert receive(elsewhere) == typed("b", 7, True)
    assert other.quiet() and elsewhere.quiet()
    for client in mine:  # the author, too
        assert [receive(client) for _ in range(4)] == [typed("a", 7, True), typed("a", 7, False), typed("a", 7, True),
                                                       typed("a", 8, True)]


def test_fields_are_coerced(server, connect):
    one, two = talk(server, connect, "a", 1), talk(server, connect, "a", 2)
    two.send(json.dumps({"type": "knock", "who": 'x" ,"type":"evil\n', "times": " 007 ", "_target_users": ["2"], "more": [1]}))
    assert receive(one) == {"type": "knocked", "room": "a", "who": 'x" ,"type":"evil\n', "times": 7}
    assert two.quiet()  # the rule's own target counts, the client's words do not


@pytest.mark.asan
def test_bad_frames_never_leave_a_zombie(server, connect):
    client = talk(server, connect, "a", 1)
    client.send("[1]")
    client.send("not JSON")
    client.send("ping")
    assert client.recv() == "pong"
    client.send('{"x":NaN}')
    assert client.wait_closed() == (1008, "too many bad frames")
    client = talk(server, connect, "a", 1)
    client.send(b"ping")
    assert client.wait_closed() == (1003, "text expected")
    assert server.metric("ringcast_bad_frames_total", namespace="talk") == 4
    server.wait_connections(0)


def test_a_client_that_says_nothing(server, connect):
    client = connect(server.url("/quiet"))
    beats = [receive(client) for _ in range(3)]
    assert all(b["type"] == "heartbeat" for b in beats)
    for earlier, later in zip(beats, beats[1:]):
        assert 0.35 < later["timestamp"] - earlier["timestamp"]

    def talk_on():
        client.send("{}")
        return client.quiet()
    hold_for("no heartbeat while it talks", talk_on, 1.5)
    assert receive(client)["type"] == "heartbeat"


@pytest.mark.limit(90)
def test_more_than_the_rate(server, connect):
    """A burst is stretched, in order and without a loss; a flood is closed."""
    client = connect(server.url("/fast"))
    client.send_many([str(i) for i in range(40)])
    assert client.recv_many(40) == [str(i) for i in range(40)]
    assert server.metric("ringcast_rate_limited_total", namespace="fast") > 0
    flood = connect(server.url("/fast"))

    def closed():
        with contextlib.suppress(websockets.ConnectionClosed):  # in the midst of it: with what code, below
            flood.send_many([str(i) for i in range(10)])
        return not flood.is_open()
    wait_for("closed for its rate", closed, 40, every=0.1)
    assert flood.wait_closed() == (1008, "message rate")
    assert client.is_open()


def test_frames_of_rules_reach_other_replicas(ringcast, redis_server, connect):
    servers = [ringcast(CONFIG, redis=redis_server) for _ in range(2)]
    for server in servers:
        server.wait_ready()
    here, there = talk(servers[0], connect, "a", 1), talk(servers[1], connect, "a", 2)
    here.send(typing(True))
    assert receive(there) == typed("a", 1, True)
    assert receive(here) == typed("a", 1, True)
    there.send(json.dumps({"type": "knock", "who": "x"}))
    assert receive(here) == {"type": "knocked", "room": "a", "who": "x", "times": 0}
    assert there.quiet()
