"""Authorization by a hook: what the application is asked, what becomes of its answers, and that a slow or dead one harms
nobody who is connected."""
import datetime
import ipaddress
import json
import signal
import socket
import statistics
import time

import pytest
import websockets
import wsraw
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clients import Clients
from hook import Hook
from server import raw_request, upgrade
from waiting import SCALE, hold_for, wait_for


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.stop()


@pytest.fixture
def clients():
    clients = Clients()
    yield clients
    clients.close_all()


CONFIG = """
auth "app" {{ type = "hook"   url = "{url}"   {auth} }}
namespace "open" {{ path = "/open/{{room}}"   redis_channel = "open:{{room}}"   origins = {{ "*" }}
                    publish = {{ "client", "api" }} }}
namespace "room" {{ path = "/room/{{room:int}}"   redis_channel = "room:{{room}}"   origins = {{ "https://app.example" }}
                    auth = "app"   user_query = "user_id:int"   refuse = "403"   publish = {{ "client", "api" }} }}
namespace "forum" {{ path = "/forum"   redis_channel = "forum"   eager = on   envelope = "json"   origins = {{ "*" }}
                     auth = "app"   refuse = "accept-then-close"   hook_first_frames = on }}
namespace "forum2" {{ path = "/forum2"   redis_channel = "forum2"   origins = {{ "*" }}   auth = "app" }}
"""


def config(hook, auth=""):
    return CONFIG.format(url=hook.url, auth=auth)


def status_of(server, path, **headers):
    answer = raw_request(server, upgrade(path, **headers))
    assert answer.body == b"" or answer.status == 101
    return answer.status


def refused(server, reason):
    return server.stats()["totals"]["refused"].get(reason, 0)


def test_who_comes_in_as_whom(ringcast, hook, clients):
    """The request says what the client said; the answer decides; the query's user must be the hook's."""
    server = ringcast(config(hook, 'secret = "hush"'))
    hook.answer = lambda request: {"allow": True, "user": 7, "groups": ["g"], "info": {"username": "ann"}}
    client = clients.connect(server.url("/room/+007?user_id=%2B7&x=%20"), origin="https://app.example",
                             extra_headers={"Cookie": "session_id=abc; theme=dark"})
    request = hook.requests[0]
    assert request.pop("conn") and request == {
        "event": "connect", "namespace": "room", "room": "7", "method": "GET", "uri": "/room/+007",
        "query": "user_id=%2B7&x=%20", "address": "127.0.0.1",
        "headers": {"cookie": "session_id=abc; theme=dark", "origin": "https://app.example"}}
    assert hook.heads[0]["Authorization"] == "Bearer hush" and hook.heads[0]["Content-Type"] == "application/json"
    server.publish("room:7", "to the canonical room")
    assert client.recv() == "to the canonical room"
    assert status_of(server, "/room/7?user_id=8") == 403
    assert status_of(server, "/room/7?user_id=x") == 403
    assert status_of(server, "/room/x?user_id=7") == 403
    assert refused(server, "user") == 2
    asked = len(hook.requests)
    assert status_of(server, "/room/7?user_id=7", Origin="https://evil.example") == 403
    assert len(hook.requests) == asked, "the Origin is judged before anything else"
    line = server.log_events("refused", reason="user")[0]
    assert line["addr"] == "127.0.0.1" and line["ns"] == "room"
    assert "abc" not in server.log() and "hush" not in server.log(), "credentials are not logged"


def test_a_query_that_is_believed(ringcast, clients):
    """Off unless it is asked for, and the log says so, once a start."""
    server = ringcast('''
auth "trust" { type = "query" }
namespace "room" { path = "/room/{room:int}"   redis_channel = "room:{room}"   origins = { "*" }
                   auth = "trust"   user_query = "user_id:int" }''')
    client = clients.connect(server.url("/room/1?user_id=7&user_id=+08"))
    assert client.is_open()
    assert status_of(server, "/room/1") == 403
    assert status_of(server, "/room/one?user_id=7") == 403
    assert len(server.log_events("auth_query", level="warn", ns="room")) == 1


@pytest.mark.asan
def test_refusals_in_both_manners(ringcast, hook, clients):
    server = ringcast(config(hook, 'breaker_failures = 0'))
    answers = [({"allow": False}, 403, (1008, "")),
               ({"allow": False, "status": 410, "code": 4010, "reason": "thread deleted"}, 410, (4010, "thread deleted")),
               ((401, b""), 401, (1008, "")),
               ((500, b"oops"), 503, (1011, "internal error")),
               (b"<html>", 503, (1011, "internal error")),
               ({"allow": True, "user": 7.5}, 503, (1011, "internal error")),
               (b'{"allow":true,"info":"' + b"x" * (300 << 10) + b'"}', 503, (1011, "internal error")),
               ({"allow": True, "expires_at": time.time() - 10}, 403, (1008, "expired"))]
    for answer, status, (code, reason) in answers:
        hook.answer = lambda request, answer=answer: answer
        assert status_of(server, "/room/7?user_id=7") == status, answer
        client = clients.connect(server.url("/forum"))
        assert client.wait_closed() == (code, reason)
    stats = server.stats()
    assert stats["totals"]["opened"] == 0 and stats["totals"]["connections"] == 0
    assert stats["totals"]["refused"] == {"auth": 8, "hook": 8}
    # The Close comes whole and then the end, also to one that reads nothing of it for a while.
    with socket.create_connection((server.host, server.port), 10 * SCALE) as sock:
        sock.sendall(upgrade("/forum"))
        data = b""
        while True:
            piece = sock.recv(4096)
            if not piece:
                break
            data += piece
    assert data.split(b"\r\n\r\n", 1)[1] == b"\x88\x09\x03\xf0expired"


def test_first_frames(ringcast, hook, clients):
    server = ringcast(config(hook), workers=1)
    hook.answer = lambda request: (200, b'{"allow":true,"user":"7","frames":[{"type":"x", "n":1.0},"plain","'
                                   + b"y" * 200000 + b'"]}')
    client = clients.connect(server.url("/forum"))
    assert client.recv_many(3) == ['{"type":"x", "n":1.0}', "plain", "y" * 200000]
    assert client.quiet()


def test_a_hook_on_a_unix_socket(ringcast, clients, tmp_path):
    hook = Hook(unix=str(tmp_path / "hook.sock"))
    try:
        server = ringcast(config(hook), workers=1)
        hook.answer = lambda request: {"allow": True, "user": 7}
        clients.connect(server.url("/room/7?user_id=7"))
        assert hook.heads[0]["path"] == "/hook"
    finally:
        hook.stop()


def test_connections_to_the_hook_are_kept(ringcast, hook, clients):
    server = ringcast(config(hook), workers=1)
    for _ in range(20):
        clients.connect(server.url("/forum")).close()
    assert len(hook.requests) == 20 and len({head["port"] for head in hook.heads}) == 1
    for connection in hook.connections:  # one that the application has closed meanwhile is replaced unnoticed
        connection.shutdown(socket.SHUT_RDWR)
    clients.connect(server.url("/forum")).close()
    assert len({head["port"] for head in hook.heads}) == 2


@pytest.mark.limit(120)
def test_a_dead_hook(ringcast, clients):
    """Nobody listens: refused at once; the breaker asks one; it comes back."""
    hook = Hook()
    server = ringcast(config(hook, 'breaker_failures = 3   breaker_pause = 1s   cache_key = { "cookie:s" }'), workers=1)
    inside = clients.connect(server.url("/forum"))
    port = hook.port
    hook.stop()
    started = time.monotonic()
    for _ in range(10):
        assert status_of(server, "/room/7?user_id=7") == 503
        client = clients.connect(server.url("/forum"))
        assert client.wait_closed()[0] == 1011
    assert time.monotonic() - started < 5 * SCALE
    server.wait_log("hook_down", auth="app")
    assert server.log_events("hook_failed", reason="connect")
    assert inside.is_open() and inside.quiet()
    hook = Hook(port)
    try:
        hook.answer = lambda request: {"allow": True, "user": 7}
        wait_for("the hook is asked again", lambda: status_of(server, "/room/7?user_id=7") == 101)
        server.wait_log("hook_up", auth="app")
    finally:
        hook.stop()


def test_the_cache(ringcast, hook, clients):
    server = ringcast(config(hook, 'cache_key = { "cookie:session_id" }   cache_ttl = 1m'), workers=1)
    hook.answer = lambda request: {"allow": True, "user": 7, "frames": ["first"]}
    for _ in range(3):
        clients.connect(server.url("/room/7?user_id=7"), extra_headers={"Cookie": "session_id=a"})
    assert len(hook.requests) == 1
    clients.connect(server.url("/room/7?user_id=7"), extra_headers={"Cookie": "session_id=b"})
    clients.connect(server.url("/room/8?user_id=7"), extra_headers={"Cookie": "session_id=a"})
    assert len(hook.requests) == 3
    assert status_of(server, "/room/7?user_id=8", Cookie="session_id=a") == 403  # not of another user's verdict
    assert len(hook.requests) == 4
    for _ in range(2):  # frames are never cached
        assert clients.connect(server.url("/forum"), extra_headers={"Cookie": "session_id=a"}).recv() == "first"
    assert len(hook.requests) == 6


@pytest.mark.limit(120)
def test_asked_again_and_expired(ringcast, hook, clients):
    server = ringcast(config(hook, 'recheck = 500ms   breaker_failures = 0'), workers=1)
    allowed = {"allow": True, "user": 7}
    hook.answer = lambda request: allowed
    client = clients.connect(server.url("/room/7?user_id=7"), extra_headers={"Cookie": "session_id=a"})
    again = wait_for("asked again", lambda: hook.events("recheck"))[0]
    first = hook.events("connect")[0]
    assert dict(again, event="connect") == first
    hook.answer = lambda request: (500, b"")
    count = len(hook.events("recheck"))
    wait_for("asked in vain", lambda: len(hook.events("recheck")) >= count + 3)
    assert client.is_open() and client.quiet(), "who is in stays in while the hook is down"
    hook.answer = lambda request: {"allow": False, "code": 4001, "reason": "logged out"}
    assert client.wait_closed() == (4001, "logged out")
    hook.answer = lambda request: dict(allowed, user=7 if request["event"] == "connect" else 8)
    client = clients.connect(server.url("/room/7?user_id=7"))
    assert client.wait_closed()[0] == 1008
    hook.answer = lambda request: dict(allowed, expires_at=int(time.time()) + 2)
    client = clients.connect(server.url("/forum"))
    hook.answer = lambda request: (500, b"")
    assert client.wait_closed() == (1008, "expired")
    assert len(server.log_events("revoked")) == 3


@pytest.mark.asan
def test_leaving_while_it_is_asked(ringcast, hook, clients):
    """Clients go, the server stops: nobody waits for the hook."""
    server = ringcast(config(hook, 'concurrency = 4'), workers=1)
    hook.answer = lambda request: hook.hang()
    socks = [socket.create_connection((server.host, server.port)) for _ in range(12)]
    for sock in socks[:4]:
        sock.sendall(upgrade("/room/7?user_id=7"))
    wait_for("four are asked", lambda: len(hook.requests) == 4)
    for sock in socks[4:]:  # these wait, in whatever order they are read
        sock.sendall(upgrade("/room/7?user_id=7"))
    for sock in socks[:6]:
        sock.close()
    wait_for("others take their place", lambda: len(hook.requests) == 8)
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 5 * SCALE
    for sock in socks[6:]:
        assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
        sock.close()


def test_a_reload_while_it_is_asked(ringcast, hook, clients):
    """The old worker finishes what it began."""
    import signal
    import threading
    server = ringcast(config(hook), workers=1)
    entered, leave = threading.Event(), threading.Event()

    def slow(_request):
        entered.set()
        leave.wait(20)
        return {"allow": True, "user": 7}

    hook.answer = slow
    sock = socket.create_connection((server.host, server.port))
    sock.sendall(upgrade("/room/7?user_id=7"))
    assert entered.wait(10 * SCALE)
    server.kill(signal.SIGHUP)
    server.wait_log("drain")
    leave.set()
    assert sock.recv(100).startswith(b"HTTP/1.1 101 ")
    sock.close()
    server.wait_log("reloaded")


# ---- B4: 100 hooks hang for ten seconds

HUNG = 100
ROUNDS = 400


def round_trips(client):
    """Milliseconds of each of ROUNDS publications on their way through the ring and back."""
    times = []
    for i in range(ROUNDS):
        start = time.perf_counter()
        client.send_text("x%d" % i)
        client.recv_message()
        times.append((time.perf_counter() - start) * 1000)
    return times


def p99(times):
    return statistics.quantiles(times, n=100)[98]


@pytest.mark.limit(180)
def test_hanging_hooks_slow_nobody_down(ringcast, hook, clients):
    server = ringcast("limits { handshake_timeout = 30s }\n" +
                      config(hook, 'timeout = 10s   concurrency = %d   breaker_failures = 0' % HUNG), workers=1)
    hook.answer = lambda request: {"allow": True, "user": 7}
    member = clients.connect(server.url("/room/7?user_id=7"))
    with wsraw.Client(server.host, server.port, "/open/a", timeout=20 * SCALE) as client:
        round_trips(client)  # warm
        free, hung, waited = [], [], []
        hook.answer = lambda request: hook.hang()
        for _ in range(2):
            free.append(p99(round_trips(client)))
            asked = len(hook.requests)
            socks = [socket.create_connection((server.host, server.port), 30 * SCALE) for _ in range(HUNG)]
            started = time.monotonic()
            for sock in socks:
                sock.sendall(upgrade("/room/7?user_id=7"))
            wait_for("all are asked", lambda: len(hook.requests) == asked + HUNG)
            hung.append(p99(round_trips(client)))
            assert member.quiet()
            for sock in socks:
                assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
                sock.close()
            waited.append(time.monotonic() - started)
    print("p99 of a round trip, ms: free %s, with %d hooks hanging %s; refused after %s s" %
          (["%.2f" % t for t in free], HUNG, ["%.2f" % t for t in hung], ["%.1f" % t for t in waited]))
    assert all(9 < t < 9 + 6 * SCALE for t in waited), "refused when the timeout has passed, all of them"
    assert member.is_open()
    # Twice, and the noise of a machine that does other things.
    assert min(hung) < 2 * max(free) + 2 * SCALE


# ---- https

def certificate(path, name, issuer=None, days=1, **names):
    """A certificate and its key into `path`, signed by `issuer`: a pair that this returns; None: it is an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.utcnow()
    builder = x509.CertificateBuilder(
        issuer[0].subject if issuer else subject, subject, key.public_key(), x509.random_serial_number(),
        now - datetime.timedelta(days=9), now + datetime.timedelta(days=days)).add_extension(
            x509.BasicConstraints(issuer is None, None), True)
    alternatives = [x509.IPAddress(ipaddress.ip_address(names["ip"]))] if "ip" in names else [x509.DNSName(name)]
    done = builder.add_extension(x509.SubjectAlternativeName(alternatives), False).sign(issuer[1] if issuer else key, hashes.SHA256())
    path.write_bytes(done.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return done, key


@pytest.mark.asan
def test_a_hook_by_https(ringcast, tmp_path):
    """Its certificate must be of that host, of these days, and of an authority that ca_file names."""
    authority = certificate(tmp_path / "ca", "ca")
    (tmp_path / "ca.pem").write_bytes(authority[0].public_bytes(serialization.Encoding.PEM))
    certificate(tmp_path / "good", "app", authority, ip="127.0.0.1")
    certificate(tmp_path / "wrong", "other.example", authority)
    certificate(tmp_path / "expired", "app", authority, days=-2, ip="127.0.0.1")
    certificate(tmp_path / "self", "app", ip="127.0.0.1")
    settings = 'ca_file = "%s"   breaker_failures = 0' % (tmp_path / "ca.pem")
    server = None
    for name, status in (("good", 101), ("wrong", 503), ("expired", 503), ("self", 503)):
        hook = Hook(cert=str(tmp_path / name))
        hook.answer = lambda request: {"allow": True, "user": 7}
        try:
            server = ringcast(config(hook, settings), workers=1)
            assert [status_of(server, "/forum2") for _ in range(3)] == [status] * 3, name
            if status == 503:
                assert server.log_events("hook_failed", reason="tls")
            else:  # kept alive
                assert len({head["port"] for head in hook.heads}) == 1
        finally:
            hook.stop()
    hook = Hook(cert=str(tmp_path / "good"))
    try:  # the system's authorities don't know ours
        server = ringcast(config(hook, "breaker_failures = 0"), workers=1)
        assert status_of(server, "/forum2") == 503
    finally:
        hook.stop()
    server.write_config(config(hook, 'ca_file = "%s"' % (tmp_path / "nothing")))
    server.kill(signal.SIGHUP)
    assert "ca_file" in server.wait_log("reload_failed")["msg"]
    (tmp_path / "nothing").write_text("-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n")
    server.kill(signal.SIGHUP)
    assert "ca_file" in server.wait_log("reload_failed", count=2)["msg"]
