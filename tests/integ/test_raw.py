"""The raw protocol: a publication reaches clients byte for byte, whatever way it takes."""
import threading
import urllib.parse

import pytest
import wsraw

from waiting import SCALE, wait_for

# A sanitizer build needs seconds for what is largest.
SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20, (16 if SCALE == 1 else 2) << 20]
LARGE = """
limits { max_message = 16m  max_publication = 16m }
ring { size = 64m }
redis { pending_size = 64m  timeout = 15s }
"""


def text_of(size):
    """Valid UTF-8 of exactly `size` bytes, with characters of 1 to 4 bytes, quotes, backslashes and a NUL."""
    block = 'aé€😀"\\\x00\n' + "0123456789abcdef" * 60
    unit = len(block.encode())
    text = block * (size // unit)
    return text + "x" * (size - len(text.encode()))


def binary_of(size):
    """Bytes that are never valid UTF-8 (but the empty ones)."""
    return (b"\xff\xfe\x00\x80" + bytes(range(256)) * 4)[:1000] * (size // 1000) + b"\xff" * (size % 1000)


def on_both_workers(server, connect, path, least=2):
    """Clients of this path until each worker holds one."""
    clients = [connect(server.url(path)) for _ in range(least)]
    for _ in range(60):
        if all(w["connections"] for w in server.workers()):
            return clients
        clients.append(connect(server.url(path)))
    raise AssertionError("one worker of two gets no connection out of 60")


def same(got, want):
    """Without printing megabytes when it fails."""
    return type(got) is type(want) and len(got) == len(want) and got == want


def test_demo_answers_with_no_configuration(ringcast, connect):
    server = ringcast()
    listener = connect(server.url("/ws/a"))
    result = server.publish("demo:a", "hello")
    assert listener.recv() == "hello"
    assert result["channel"] == "demo:a" and result["redis"] == "off"
    assert listener.quiet()


@pytest.mark.asan
def test_client_publishes_from_onopen_and_sees_its_own_message(ringcast, connect):
    server = ringcast()
    for i in range(30):
        client = connect(server.url("/ws/room%d" % i))
        client.send("mine %d" % i)
        assert client.recv() == "mine %d" % i


@pytest.mark.asan
def test_client_publishes_from_onopen_with_redis(ringcast, redis_server, connect):
    server = ringcast(redis=redis_server)
    server.wait_ready()
    for i in range(30):
        client = connect(server.url("/ws/room%d" % i))
        client.send(b"\x00mine %d" % i)
        assert client.recv() == b"\x00mine %d" % i
    # The membership waited for Redis' confirmation, so a plain PUBLISH that comes right after 101 arrives too.
    for i in range(10):
        client = connect(server.url("/ws/other%d" % i))
        redis_server.publish("demo:other%d" % i, b"theirs")
        assert client.recv() == "theirs"


@pytest.mark.asan
@pytest.mark.parametrize("with_redis", [False, True])
def test_echo_returns_to_its_sender_alone(ringcast, redis_factory, connect, with_redis):
    redis = redis_factory() if with_redis else None
    replicas = [ringcast(redis=redis) for _ in range(2 if with_redis else 1)]
    clients = [connect(r.url("/echo")) for r in replicas for _ in range(4)]
    for i, client in enumerate(clients):
        client.send_many(["text %d %d" % (i, n) for n in range(20)] + [b"\xff\x00 %d" % i, "", b""])
    for i, client in enumerate(clients):
        assert client.recv_many(23) == ["text %d %d" % (i, n) for n in range(20)] + [b"\xff\x00 %d" % i, "", b""]
        assert client.quiet()


def test_echo_of_every_size_keeps_text_and_binary(ringcast, connect):
    server = ringcast(LARGE)
    client = connect(server.url("/echo"))
    for size in SIZES:
        for message in (text_of(size), binary_of(size)):
            client.send(message)
            assert same(client.recv(60), message), (size, type(message))


@pytest.mark.limit(180)
def test_redis_cli_publish_reaches_three_replicas_byte_for_byte(ringcast, redis_server, connect):
    replicas = [ringcast(LARGE, redis=redis_server) for _ in range(3)]
    clients = [c for r in replicas for c in on_both_workers(r, connect, "/ws/a")]
    for size in SIZES:
        for message in (text_of(size), binary_of(size)):
            bytes_ = message.encode() if isinstance(message, str) else message
            if size == 0:
                message = ""  # `auto`: no bytes are valid UTF-8
            assert redis_server.publish("demo:a", bytes_) == 3
            for client in clients:
                assert same(client.recv(60), message), (size, type(message))
    assert all(client.quiet() for client in clients)


@pytest.mark.limit(180)
def test_api_and_client_publish_reach_three_replicas_byte_for_byte(ringcast, redis_server, connect):
    replicas = [ringcast(LARGE, redis=redis_server) for _ in range(3)]
    for replica in replicas:
        replica.wait_ready()
    clients = [c for r in replicas for c in on_both_workers(r, connect, "/ws/a")]
    for size in SIZES:
        for message in (text_of(size), binary_of(size)):
            result = replicas[0].publish("demo:a", message)
            assert result["redis"] in ("sent", "queued")
            for client in clients:
                assert same(client.recv(60), message), ("api", size, type(message))
            clients[0].send(message, 60)
            for client in clients:
                assert same(client.recv(60), message), ("client", size, type(message))
    # Valid UTF-8 in a binary frame stays binary: the kind travels, it is not guessed.
    clients[0].send(b"plain words")
    assert [c.recv() for c in clients] == [b"plain words"] * len(clients)
    assert all(client.quiet() for client in clients)


def test_api_data_is_sent_as_it_was_written(ringcast, connect):
    server = ringcast()
    client = connect(server.url("/ws/a"))
    written = '{ "b": 1.50, "a":\t[1e3, "\\u00e9\\/"] ,"c":{}}'
    answer = server.publish_answer('{"channel":"demo:a","data":%s}' % written)
    assert answer.status == 200
    assert client.recv() == written
    for value in ("null", "true", "-0.0", '"x"', "[]"):
        assert server.publish_answer('{"data": %s , "channel":"demo:a"}' % value).status == 200
        assert client.recv() == value


@pytest.mark.asan
def test_all_replicas_see_one_order(ringcast, redis_server, connect):
    replicas = [ringcast(redis=redis_server) for _ in range(3)]
    for replica in replicas:
        replica.wait_ready()
    listeners = [connect(r.url("/ws/a")) for r in replicas for _ in range(2)]
    senders = [connect(r.url("/ws/a")) for r in replicas]
    count = 300
    threads = [threading.Thread(target=s.send_many, args=(["%d %d" % (i, n) for n in range(count)],))
               for i, s in enumerate(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [client.recv_many(count * len(senders)) for client in listeners + senders]
    assert all(order == seen[0] for order in seen[1:])
    for i in range(len(senders)):
        mine = [int(m.split()[1]) for m in seen[0] if m.startswith("%d " % i)]
        assert mine == list(range(count))


def test_rooms_are_compared_byte_for_byte_after_one_decoding(ringcast, connect):
    server = ringcast()
    cases = {"/ws/%C3%A9": "demo:é", "/ws/%2525": "demo:%25", "/ws/A": "demo:A", "/ws/a%20b": "demo:a b",
             "/ws/" + "x" * 255: "demo:" + "x" * 255, "/ws/a?q=1": "demo:a", "/ws/...": "demo:..."}
    clients = {path: connect(server.url(path)) for path in cases}
    for path, channel in cases.items():
        server.publish(channel, "for " + channel)
        assert clients[path].recv() == "for " + channel
    assert all(client.quiet() for client in clients.values())


@pytest.mark.parametrize("path", ["/ws/", "/ws/.", "/ws/..", "/ws/%2e%2e", "/ws/a%2Fb", "/ws/a/b", "/ws/%00", "/ws/a%0ab",
                                  "/ws/%ff", "/ws/" + "x" * 256, "/ws/%zz", "/ws/%7f"])
def test_what_is_no_room_is_refused(ringcast, path):
    server = ringcast(workers=1)
    with pytest.raises(wsraw.Refused) as refused:
        wsraw.Client(server.host, server.port, path)
    assert refused.value.status in (400, 404)
    assert refused.value.body == b""


OPCODES = """
namespace "auto"   { path = "/auto"    redis_channel = "rc-auto" }
namespace "text"   { path = "/text"    redis_channel = "rc-text"    opcode = "text" }
namespace "binary" { path = "/binary"  redis_channel = "rc-binary"  opcode = "binary" }
"""


def dropped(server, namespace, reason):
    return server.stats()["namespaces"][namespace]["dropped"].get(reason, 0)


@pytest.mark.asan
def test_opcode_of_foreign_payloads(ringcast, redis_server, connect):
    server = ringcast(OPCODES, redis=redis_server)
    server.wait_ready()
    clients = {name: connect(server.url("/" + name)) for name in ("auto", "text", "binary")}
    for name in clients:
        for payload in (b"words", b"\xff\xfe", b"\xed\xa0\x80", b"end"):
            redis_server.publish("rc-" + name, payload)
    assert clients["auto"].recv_many(4) == ["words", b"\xff\xfe", b"\xed\xa0\x80", "end"]
    assert clients["text"].recv_many(2) == ["words", "end"]
    assert clients["binary"].recv_many(4) == [b"words", b"\xff\xfe", b"\xed\xa0\x80", b"end"]
    wait_for("two counted drops", lambda: dropped(server, "text", "bad_utf8") == 2)
    assert server.metric("ringcast_dropped_total", namespace="text", reason="bad_utf8") == 2


SMALL = """
limits { max_message = 1000  max_publication = 2000 }
"""


@pytest.mark.asan
def test_exactly_the_limit_is_allowed(ringcast, redis_server, connect):
    server = ringcast(SMALL, redis=redis_server)
    server.wait_ready()
    listener = connect(server.url("/ws/a"))
    sender = connect(server.url("/ws/a"))

    sender.send("m" * 1000)
    assert listener.recv() == "m" * 1000 and sender.recv() == "m" * 1000
    server.publish("demo:a", "p" * 2000)
    assert listener.recv() == "p" * 2000
    redis_server.publish("demo:a", b"r" * 2000)
    assert listener.recv() == "r" * 2000

    answer = server.publish_answer({"channel": "demo:a", "text": "p" * 2001})
    assert (answer.status, answer.error) == (413, "too_large")
    redis_server.publish("demo:a", b"r" * 2001)
    wait_for("the counted drop", lambda: dropped(server, "demo", "too_large") >= 1)
    sender.send("m" * 1001)
    assert sender.wait_closed()[0] == 1009
    assert listener.quiet()


def test_only_listed_sources_may_publish(ringcast, redis_server, connect):
    server = ringcast("""
        namespace "in"   { path = "/in/{room}"    redis_channel = "in:{room}"    publish = { "client" } }
        namespace "out"  { path = "/out/{room}"   redis_channel = "out:{room}"   publish = { "redis" } }
        namespace "both" { path = "/both/{room}"  redis_channel = "both:{room}" }
        """, redis=redis_server)
    server.wait_ready()
    inside, outside, both = (connect(server.url("/%s/r" % n)) for n in ("in", "out", "both"))
    answer = server.publish_answer({"channel": "in:r", "text": "x"})
    assert (answer.status, answer.error) == (403, "publish_denied")
    answer = server.publish_answer({"channel": "out:r", "text": "x"})
    assert (answer.status, answer.error) == (403, "publish_denied")
    redis_server.publish("in:r", b"from redis")
    inside.send("from client")
    assert inside.recv() == "from client" and inside.quiet()
    redis_server.publish("out:r", b"from redis")
    assert outside.recv() == "from redis"
    server.publish("both:r", "from api")
    redis_server.publish("both:r", b"from redis")
    assert both.recv_many(2) == ["from api", "from redis"]
    outside.send("from client")  # not its business, and no reason to part
    both.send("from client")
    assert outside.quiet() and both.quiet() and inside.quiet()


def test_a_family_channel_without_rooms_reaches_the_whole_namespace(ringcast, redis_server, connect):
    """One Redis channel for a namespace without rooms: every client of the namespace gets what is published."""
    server = ringcast("""
        namespace "news" { path = "/news"  redis_channel = "the-news"  publish = { "redis", "api" } }
        """, redis=redis_server)
    server.wait_ready()
    assert redis_server.subscribers("the-news") == 1  # eagerly, before anybody came
    clients = [connect(server.url("/news")) for _ in range(4)]
    redis_server.publish("the-news", b"one")
    server.publish("news", "two")
    assert [c.recv_many(2) for c in clients] == [["one", "two"]] * 4


ROUTED = """
namespace "tracks" { path = "/tracks/{room}"  redis_channel = "all-tracks"  route_key = "track_id"  publish = { "redis", "api" } }
"""


@pytest.mark.asan
def test_route_key_finds_the_room_inside_the_payload(ringcast, redis_server, connect):
    server = ringcast(ROUTED, redis=redis_server)
    server.wait_ready()
    seven, name = connect(server.url("/tracks/7")), connect(server.url("/tracks/n%20m"))
    for payload in ('{"track_id":7,"x":1}', '{"x":{"track_id":8},"track_id":"7"}', '{ "track_id" : "n\\u0020m" }',
                    '{"track_id":8,"track_id":7}'):
        redis_server.publish("all-tracks", payload.encode())
    assert seven.recv_many(3) == ['{"track_id":7,"x":1}', '{"x":{"track_id":8},"track_id":"7"}', '{"track_id":8,"track_id":7}']
    assert name.recv() == '{ "track_id" : "n\\u0020m" }'
    for payload, reason in ((b"nonsense", "bad_json"), (b'{"track_id":', "bad_json"), (b"[7]", "not_object"), (b'{"x":7}', "no_route"),
                            (b'{"track_id":null}', "no_route"), (b'{"track_id":[7]}', "no_route"), (b'{"track_id":"a/b"}', "no_route")):
        before = dropped(server, "tracks", reason)
        redis_server.publish("all-tracks", payload)
        wait_for("%r is counted as %s" % (payload, reason), lambda r=reason, b=before: dropped(server, "tracks", r) == b + 1)
    assert seven.quiet() and name.quiet()


@pytest.mark.asan
@pytest.mark.parametrize("with_redis", [False, True])
def test_close_is_answered_after_own_publications_have_come_back(ringcast, redis_factory, with_redis):
    server = ringcast(redis=redis_factory() if with_redis else None)
    server.wait_ready()
    for i in range(10):
        with wsraw.Client(server.host, server.port, "/ws/room%d" % i, timeout=20) as client:
            client.send(b"".join(wsraw.frame(wsraw.TEXT, "%d" % n) for n in range(20)) + wsraw.frame(wsraw.CLOSE, wsraw.close_payload(1000)))
            assert [client.recv_message()[1] for _ in range(20)] == [b"%d" % n for n in range(20)]
            opcode, payload = client.recv_frame()
            assert opcode == wsraw.CLOSE and wsraw.parse_close(payload)[0] == 1000


def test_channels_do_not_leak_into_each_other(ringcast, redis_server, connect):
    """Canaries: 40 channels, several clients each, those of a namespace whose names begin alike included."""
    server = ringcast(redis=redis_server)
    server.wait_ready()
    rooms = ["r", "r1", "r11", "R", "r:1", "r 1", "é", "e", "demo:r"] + ["n%d" % n for n in range(31)]
    clients = [(room, connect(server.url("/ws/" + urllib.parse.quote(room, safe=":")))) for room in rooms for _ in range(2)]
    for round_ in range(3):
        for room in rooms:
            server.publish("demo:" + room, "api %d %s" % (round_, room))
            redis_server.client().publish("demo:" + room, ("redis %d %s" % (round_, room)).encode())
    for room, client in clients:
        got = client.recv_many(6)
        assert sorted(got) == sorted("%s %d %s" % (how, n, room) for how in ("api", "redis") for n in range(3))
        assert client.quiet()
