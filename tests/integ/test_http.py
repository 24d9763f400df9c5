"""Handshakes that are refused, and the admin listener: statuses, JSON errors, limits, keys."""
import base64
import json
import socket
import threading

import pytest
import websockets
import wsraw

from server import parse_metrics, raw_request, raw_socket, read_answer, upgrade
from waiting import SCALE, Deadline, wait_for


@pytest.fixture
def server(ringcast):
    return ringcast(workers=1)


def refused(server, reason):
    return server.stats()["totals"]["refused"].get(reason, 0)


# ---- the handshake: (what is sent, the status, the counted reason)

HEAD = b"GET /ws/a HTTP/1.1\r\n"
GOOD = upgrade()
BAD = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n", 400, "bad_request"),
    "empty method": (b" /ws/a HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "http 1.0": (upgrade(version="HTTP/1.0"), 400, "bad_request"),
    "http 1.2": (upgrade(version="HTTP/1.2"), 400, "bad_request"),
    "http 2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "no host": (upgrade(drop=["Host"]), 400, "bad_request"),
    "two hosts": (GOOD[:-2] + b"Host: other\r\n\r\n", 400, "bad_request"),
    "space before colon": (GOOD[:-2] + b"X-A : b\r\n\r\n", 400, "bad_request"),
    "folded header": (GOOD[:-2] + b"X-A: b\r\n c\r\n\r\n", 400, "bad_request"),
    "bare LF": (GOOD.replace(b"\r\n", b"\n"), 400, "bad_request"),
    "NUL in a header": (GOOD[:-2] + b"X-A: b\0c\r\n\r\n", 400, "bad_request"),
    "body announced": (GOOD[:-2] + b"Content-Length: 5\r\n\r\nhello", 400, "bad_request"),
    "chunked": (GOOD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"),
    "both lengths": (GOOD[:-2] + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request"),
    "no key": (upgrade(drop=["Sec-WebSocket-Key"]), 400, "bad_request"),
    "short key": (upgrade(key="c2hvcnQ="), 400, "bad_request"),
    "key no base64": (upgrade(key="!" * 24), 400, "bad_request"),
    "two keys": (GOOD[:-2] + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 400, "bad_request"),
    "POST": (upgrade(method="POST"), 405, "not_get"),
    "HEAD": (upgrade(method="HEAD"), 405, "not_get"),
    "unknown path": (upgrade(path="/nowhere"), 404, "no_namespace"),
    "root": (upgrade(path="/"), 404, "no_namespace"),
    "no upgrade": (b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 426, "no_upgrade"),
    "upgrade to another": (upgrade(Upgrade="h2c"), 426, "no_upgrade"),
    "connection close": (upgrade(Connection="close"), 426, "no_upgrade"),
    "version 8": (upgrade(Sec_WebSocket_Version="8"), 426, "bad_version"),
    "version 14": (upgrade(Sec_WebSocket_Version="14"), 426, "bad_version"),
    "no version": (upgrade(drop=["Sec-WebSocket-Version"]), 426, "bad_version"),
    "long url": (upgrade(path="/ws/" + "x" * 15000), 414, "url_too_long"),
    "large header": (upgrade(X_Large="x" * 17000), 431, "head_too_large"),
    "many headers": (GOOD[:-2] + b"".join(b"X-%d: y\r\n" % i for i in range(120)) + b"\r\n", 431, "head_too_large"),
}


@pytest.mark.asan
def test_each_bad_handshake_has_its_status_and_is_counted(server, connect):
    bystander = connect(server.url("/ws/a"))
    for name, (data, status, reason) in BAD.items():
        before = refused(server, reason)
        answer = raw_request(server, data)
        assert answer.status == status, (name, answer.status)
        assert answer.body == b"" and answer.closed, name
        assert "close" in answer.headers.get("connection", "").lower().split(", "), name
        assert answer.headers.get("sec-websocket-version") == ("13" if status == 426 else None), name
        assert refused(server, reason) == before + 1, name
    assert server.stats()["totals"]["connections"] == 1
    server.publish("demo:a", "still here")
    assert bystander.recv() == "still here"


@pytest.mark.asan
def test_good_handshakes(server):
    """What a strict reader might refuse by mistake."""
    for data in (GOOD, upgrade(Connection="keep-alive, Upgrade"), upgrade(Upgrade="WebSocket"), upgrade(Upgrade="foo, websocket"),
                 upgrade(host="example.org:1234"), upgrade(path="http://localhost/ws/a"),
                 upgrade(Sec_WebSocket_Protocol="chat, superchat"), upgrade(path="/ws/a?token=1&x=%20"),
                 upgrade(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
                 b"\r\n" + GOOD, GOOD.replace(b"Upgrade: ", b"UPGRADE:   ")):
        with raw_socket(server) as sock:
            sock.sendall(data)
            answer = read_answer(sock)
            assert answer.status == 101, (data, answer.status)
            assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert "sec-websocket-extensions" not in answer.headers and "sec-websocket-protocol" not in answer.headers


@pytest.mark.asan
def test_frames_sent_along_with_the_handshake_are_not_lost(server):
    with raw_socket(server) as sock:
        sock.sendall(GOOD + wsraw.frame(wsraw.TEXT, b"early") + wsraw.frame(wsraw.PING, b"p")[:3])
        answer = read_answer(sock)
        assert answer.status == 101
        client = wsraw.Client.__new__(wsraw.Client)
        client.sock, client.buf, client.timeout, client.sent_close = sock, bytearray(answer.body), 20 * SCALE, False
        assert client.recv_message() == (wsraw.TEXT, b"early")
        sock.sendall(wsraw.frame(wsraw.PING, b"p")[3:])
        assert client.recv_frame() == (wsraw.PONG, b"p")


@pytest.mark.asan
def test_byte_by_byte(server):
    with raw_socket(server) as sock:
        for i in range(len(GOOD)):
            sock.sendall(GOOD[i:i + 1])
        assert read_answer(sock).status == 101


def test_a_refused_upgrade_is_the_end_of_its_connection(server):
    """No second request is answered, be it pipelined or hidden in a body."""
    smuggled = upgrade(path="/nowhere") + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with raw_socket(server) as sock:
        sock.sendall(smuggled)
        answer = read_answer(sock)
        assert answer.status == 404 and answer.body == b"" and answer.closed


def test_pipelined_garbage_hurts_its_sender_alone(server, connect):
    good = connect(server.url("/ws/a"))
    socks = []
    for i in range(50):
        sock = raw_socket(server)
        sock.sendall(GOOD * 3 + b"\x00\xff" * 500)
        socks.append(sock)
    for sock in socks:
        answer = read_answer(sock)
        assert answer.status == 101
        client = wsraw.Client.__new__(wsraw.Client)
        client.sock, client.buf, client.timeout, client.sent_close = sock, bytearray(answer.body), 20 * SCALE, False
        opcode, payload = client.recv_frame()
        assert opcode == wsraw.CLOSE and wsraw.parse_close(payload)[0] == 1002
        sock.close()
    server.wait_connections(1)
    server.publish("demo:a", "x")
    assert good.recv() == "x"


@pytest.mark.asan
@pytest.mark.limit(90)
def test_slow_handshakes_end_at_one_deadline(ringcast, connect):
    """Slowloris: bytes do not move the deadline, which runs from accept. Silence gets 408 too."""
    server = ringcast("limits { handshake_timeout = 2s }\n", workers=1)
    silent, dripping = raw_socket(server), raw_socket(server)
    stop = threading.Event()

    def drip():
        try:
            for byte in b"GET /ws/a HTTP/1.1\r\nHost: x\r\n" + b"X-Slow: " + b"z" * 10000:
                dripping.send(bytes([byte]))
                if stop.wait(0.1):
                    return
        except OSError:
            pass
    thread = threading.Thread(target=drip)
    thread.start()
    deadline = Deadline(20)
    try:
        assert read_answer(silent).status == 408
        assert read_answer(dripping).status == 408
    finally:
        stop.set()
        thread.join()
    assert not deadline.passed()
    assert refused(server, "timeout") == 2
    client = connect(server.url("/ws/a"))
    client.send("x")
    assert client.recv() == "x"


ORIGINS = """
namespace "any"   { path = "/any"   origins = { "*" } }
namespace "same"  { path = "/same" }
namespace "list"  { path = "/list"  origins = { "https://app.example", "http://127.0.0.1:3000" } }
"""


@pytest.mark.asan
def test_origin_rules(ringcast):
    server = ringcast(ORIGINS, workers=1)
    cases = [
        ("/any", "example.org", "https://evil.example", 101), ("/any", "example.org", "null", 101),
        ("/same", "example.org", None, 101), ("/same", "example.org", "http://example.org", 101),
        ("/same", "example.org:80", "http://example.org", 101), ("/same", "Example.org", "http://EXAMPLE.ORG:80", 101),
        ("/same", "example.org", "https://evil.example", 403), ("/same", "example.org", "http://example.org.evil.example", 403),
        ("/same", "example.org", "http://example.org:8080", 403), ("/same", "example.org:8080", "http://example.org:8080", 101),
        ("/same", "example.org", "null", 403), ("/same", "example.org", "", 403),
        ("/list", "x", "https://app.example", 101), ("/list", "x", "https://APP.example:443", 101),
        ("/list", "x", "http://app.example", 403), ("/list", "x", "https://app.example.evil.example", 403),
        ("/list", "x", "https://app.example/", 403), ("/list", "x", "http://127.0.0.1:3000", 101),
        ("/list", "x", "http://127.0.0.1:3001", 403), ("/list", "x", "null", 403),
    ]
    wrong = []
    for path, host, origin, status in cases:
        extra = {} if origin is None else {"Origin": origin}
        got = raw_request(server, upgrade(path, host=host, **extra)).status if status != 101 else status_of_101(server, path, host, extra)
        if got != status:
            wrong.append((path, host, origin, status, got))
    assert not wrong
    two = upgrade("/list", Origin="https://app.example")[:-2] + b"Origin: https://app.example\r\n\r\n"
    assert raw_request(server, two).status in (400, 403)
    assert refused(server, "origin") >= sum(status == 403 for *_, status in cases)


def status_of_101(server, path, host, extra):
    with raw_socket(server) as sock:
        sock.sendall(upgrade(path, host=host, **extra))
        return read_answer(sock).status


def test_unknown_path_status(ringcast):
    server = ringcast("limits { unknown_path_status = 403 }\n", workers=1)
    assert raw_request(server, upgrade("/nowhere")).status == 403


@pytest.mark.asan
def test_max_connections_is_answered_with_503(ringcast, connect):
    server = ringcast("limits { max_connections = 3 }\n")
    clients = [connect(server.url("/ws/a")) for _ in range(3)]
    for _ in range(3):
        with pytest.raises(websockets.InvalidStatusCode) as refusal:
            connect(server.url("/ws/a"))
        assert refusal.value.status_code == 503
    assert refused(server, "full") == 3
    clients.pop().close()
    server.wait_connections(2)
    client = connect(server.url("/ws/a"))
    client.send("room again")
    assert client.recv() == "room again"


def test_max_handshakes(ringcast):
    server = ringcast("limits { max_handshakes = 5  handshake_timeout = 60s }\n", workers=1)
    held = [raw_socket(server) for _ in range(5)]
    for sock in held:
        sock.sendall(b"GET ")
    wait_for("the sixth is refused", lambda: raw_request(server, GOOD).status == 503)
    for sock in held:
        sock.close()
    wait_for("place again", lambda: status_of_101(server, "/ws/a", "x", {}) == 101)


# ---- the admin listener

@pytest.mark.asan
def test_health_ready_stats_metrics(server, connect):
    for path in ("/health", "/ready"):
        answer = server.api(path)
        assert answer.status == 200 and answer.json == {"status": "ok", "reasons": []}
        assert answer.headers["Content-Type"].startswith("application/json")
    a, b = connect(server.url("/ws/a")), connect(server.url("/ws/b"))
    a.send("x" * 1000)
    assert a.recv() == "x" * 1000
    server.publish("demo:b", "y")
    assert b.recv() == "y"
    stats = wait_for("deliveries are counted", lambda: next(
        (s for s in [server.stats()] if s["totals"]["deliveries"] == 2), None))
    assert set(stats) >= {"version", "node", "pid", "uptime_s", "generation", "ready", "mode", "redis", "ring", "totals", "workers",
                          "namespaces", "memory"}
    assert stats["pid"] == server.pid and stats["ready"] is True and stats["mode"] == "local"
    assert set(stats["redis"]) >= {"state", "address", "channels", "rtt_us", "reconnects", "pending_messages", "pending_bytes", "gaps"}
    assert set(stats["ring"]) >= {"size_bytes", "head_bytes", "lag_bytes", "records", "stuck_kills"}
    assert stats["ring"]["size_bytes"] == 64 << 20 and stats["ring"]["records"] >= 2
    totals = stats["totals"]
    assert set(totals) >= {"connections", "users", "opened", "closed", "refused", "publications", "deliveries", "bytes_out", "dropped"}
    assert (totals["connections"], totals["opened"], totals["publications"], totals["deliveries"]) == (2, 2, 2, 2)
    assert totals["bytes_out"] == 1000 + 4 + 1 + 2
    demo = stats["namespaces"]["demo"]
    assert (demo["connections"], demo["channels"], demo["publications"], demo["deliveries"]) == (2, 2, 2, 2)
    [worker] = stats["workers"]
    assert set(worker) >= {"slot", "pid", "generation", "state", "connections", "lag_bytes", "restarts"}
    assert stats["memory"]["pss_bytes"] > 1 << 20

    answer = server.api("/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    metrics = parse_metrics(answer.body.decode())
    for name in ("ringcast_build_info", "ringcast_connections", "ringcast_connections_opened_total",
                 "ringcast_connections_closed_total", "ringcast_handshakes_refused_total", "ringcast_users",
                 "ringcast_publications_total", "ringcast_deliveries_total", "ringcast_delivered_bytes_total",
                 "ringcast_dropped_total", "ringcast_ring_lag_bytes", "ringcast_worker_restarts_total", "ringcast_redis_up",
                 "ringcast_redis_reconnects_total", "ringcast_redis_gaps_total", "ringcast_delivery_latency_seconds_bucket",
                 "ringcast_delivery_latency_seconds_sum", "ringcast_delivery_latency_seconds_count"):
        assert name in metrics, name
    assert server.metric("ringcast_connections", namespace="demo", worker="0") == 2
    assert server.metric("ringcast_publications_total", namespace="demo", source="client") == 1
    assert server.metric("ringcast_publications_total", namespace="demo", source="api") == 1
    assert server.metric("ringcast_deliveries_total", namespace="demo") == 2
    assert server.metric("ringcast_delivery_latency_seconds_bucket", le="+Inf") == \
        server.metric("ringcast_delivery_latency_seconds_count") == 2
    buckets = metrics["ringcast_delivery_latency_seconds_bucket"]
    by_bound = sorted((float(dict(labels)["le"]), n) for labels, n in buckets.items())
    assert [n for _, n in by_bound] == sorted(n for _, n in by_bound)


BODY_ERRORS = [
    ("", 400, "bad_json"), ("{", 400, "bad_json"), ("nonsense", 400, "bad_json"), ('{"channel":"demo:a","text":"x"} trailing', 400, "bad_json"),
    ('{"channel":"demo:a","text":"\ud800"}', 400, "bad_json"), (b'{"channel":"demo:a","text":"\xff"}', 400, "bad_json"),
    ('{"channel":"demo:a","data":01}', 400, "bad_json"), ("[" * 100000, 400, "bad_json"),
    ("[]", 400, "bad_request"), ("{}", 400, "bad_request"), ('{"channel":"demo:a"}', 400, "bad_request"), ('{"text":"x"}', 400, "bad_request"),
    ('{"channel":"demo:a","text":"x","data":1}', 400, "bad_request"), ('{"channel":7,"text":"x"}', 400, "bad_request"),
    ('{"channel":"demo:a","text":7}', 400, "bad_request"), ('{"channel":"demo:a","b64data":7}', 400, "bad_request"),
    ('{"channel":"demo","text":"x"}', 400, "bad_request"), ('{"channel":"demo:","text":"x"}', 400, "bad_request"),
    ('{"channel":"demo:a/b","text":"x"}', 400, "bad_request"),
    ('{"channel":"demo:a","b64data":"%%%"}', 400, "bad_base64"), ('{"channel":"demo:a","b64data":"YQ="}', 400, "bad_base64"),
    ('{"channel":"nowhere:a","text":"x"}', 404, "unknown_namespace"), ('{"channel":"","text":"x"}', None, None),
]


@pytest.mark.asan
def test_publish_errors(server, connect):
    client = connect(server.url("/ws/a"))
    wrong = []
    for body, status, code in BODY_ERRORS:
        raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
        answer = server.publish_answer(raw)
        error = answer.json["error"]
        assert isinstance(error["message"], str) and error["message"]
        if status is None:
            assert answer.status in (400, 404)
        elif (answer.status, error["code"]) != (status, code):
            wrong.append((body[:60], status, code, answer.status, error["code"]))
    assert not wrong, "\n".join(map(str, wrong))
    answer = server.api("/api/publish")
    assert (answer.status, answer.error) == (405, "method_not_allowed")
    assert server.api("/health", "POST", "x").status == 405
    assert server.api("/nowhere").status == 404
    assert server.publish("demo:a", "good")["channel"] == "demo:a"
    assert client.recv() == "good" and client.quiet()


@pytest.mark.asan
def test_publish_too_large(ringcast, connect):
    server = ringcast("limits { max_publication = 1000 }\n", workers=1)
    client = connect(server.url("/ws/a"))
    for body in ({"channel": "demo:a", "text": "x" * 1001}, {"channel": "demo:a", "b64data": base64.b64encode(b"x" * 1001).decode()},
                 {"channel": "demo:a", "data": "x" * 999}, {"channel": "demo:a", "text": "x" * 10_000_000}):
        answer = server.publish_answer(body)
        assert (answer.status, answer.error) == (413, "too_large")
    for body in ({"channel": "demo:a", "text": "x" * 1000}, {"channel": "demo:a", "text": "\u0001" * 1000},
                 {"channel": "demo:a", "b64data": base64.b64encode(b"x" * 1000).decode()}, {"channel": "demo:a", "data": "x" * 998}):
        assert server.publish_answer(body).status == 200
    assert [len(m) for m in client.recv_many(4)] == [1000] * 4
    # A length that is announced and never comes is refused on its announcement.
    answer = raw_request(server, b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", admin=True)
    assert answer.status == 413


def test_seq_and_epoch_of_answers(server):
    results = [server.publish("demo:a", "%d" % n) for n in range(5)]
    assert [r["seq"] for r in results] == sorted({r["seq"] for r in results})
    assert len({r["epoch"] for r in results}) == 1 and results[0]["epoch"]


KEY = 'admin "127.0.0.1:0" { api_key = "k3y-0f-secret" }\nlisten "127.0.0.1:0" { }\n'


@pytest.mark.asan
def test_api_key(ringcast, connect):
    server = ringcast(KEY, listen=False)
    body = {"channel": "demo:a", "text": "x"}
    key = "k3y-0f-secret"
    for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": key},
                    {"Authorization": "Basic " + key}, {"X-API-Key": key + "x"}, {"X-API-Key": key[:-1]}):
        answer = server.publish_answer(body, headers=headers)
        assert (answer.status, answer.error) == (401, "unauthorized"), headers
    for headers in ({"X-API-Key": key}, {"Authorization": "Bearer " + key}, {"authorization": "bearer " + key}):
        assert server.publish_answer(body, headers=headers).status == 200, headers
    for path in ("/health", "/ready", "/stats", "/metrics"):
        assert server.api(path).status == 200
    assert "k3y" not in server.log()


@pytest.mark.asan
def test_admin_on_a_unix_socket(ringcast, tmp_path, connect):
    path = str(tmp_path / "admin.sock")
    server = ringcast(args=["--admin", "unix:" + path, "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"], listen=False)
    client = connect(server.url("/ws/a"))
    assert server.api("/health", unix=path).status == 200
    assert server.publish_answer({"channel": "demo:a", "text": "x"}, unix=path).status == 200
    assert client.recv() == "x"


@pytest.mark.asan
def test_admin_connections_are_kept_and_pipelined(server):
    with raw_socket(server, admin=True) as sock:
        one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        post = json.dumps({"channel": "demo:a", "text": "x"}).encode()
        publish = b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(post) + post
        sock.sendall(one + publish + one + publish + one[:-2] + b"Connection: close\r\n\r\n")
        data = b""
        sock.settimeout(20 * SCALE)
        while True:
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
    assert data.count(b"HTTP/1.1 200 ") == 5 and data.count(b'"seq"') == 2


@pytest.mark.asan
def test_admin_chunked_body_and_expect(server, connect):
    client = connect(server.url("/ws/a"))
    body = b'{"channel":"demo:a","text":"chunked"}'
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 10]), body[i:i + 10]) for i in range(0, len(body), 10)) + b"0\r\n\r\n"
    with raw_socket(server, admin=True) as sock:
        sock.sendall(b"POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks)
        assert read_answer(sock).status == 200
    assert client.recv() == "chunked"
    with raw_socket(server, admin=True) as sock:
        sock.sendall(b"POST /api/publish HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        sock.settimeout(20 * SCALE)
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert read_answer(sock).status == 200
    assert client.recv() == "chunked"


def test_admin_survives_bad_requests(server):
    for data in (b"\x16\x03\x01\x00" * 10, b"GET / HTTP/9.9\r\n\r\n", b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                 b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                 b"POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"GET /health HTTP/1.1\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"A" * 100000):
        answer = raw_request(server, data, admin=True)
        assert answer.closed and (answer.status == 0 or 400 <= answer.status < 500), (data[:40], answer.status)
    assert server.api("/health").status == 200


def test_many_admin_requests_at_once(server, connect):
    client = connect(server.url("/ws/a"))
    errors = []

    def work(i):
        try:
            for n in range(50):
                server.publish("demo:a", "%d %d" % (i, n))
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    got = client.recv_many(400)
    for i in range(8):
        assert [m for m in got if m.startswith("%d " % i)] == ["%d %d" % (i, n) for n in range(50)]
