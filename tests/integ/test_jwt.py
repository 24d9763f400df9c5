"""Tokens, made by python3-jwt: where they stand, which are good, keys that change."""
import json
import os
import signal
import time

import jwt
import pytest
import websockets
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from clients import Clients
from server import raw_request, upgrade
from waiting import wait_for


@pytest.fixture
def clients():
    clients = Clients()
    yield clients
    clients.close_all()


CONFIG = """
auth "token" {{ type = "jwt"   algorithms = {{ {algorithms} }}   keys = "{keys}"
                from = {{ "header", "query:token", "cookie:token", "header:x-token", "subprotocol" }}   {more} }}
namespace "room" {{ path = "/room/{{room}}"   redis_channel = "room:{{room}}"   origins = {{ "*" }}   auth = "token"   {ns} }}
"""
SECRET = "a secret that is long enough for HS256"


@pytest.fixture
def keys(tmp_path):
    return str(tmp_path / "keys")


def write(path, text):
    """As an operator does it: whole, or not at all."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def start(ringcast, keys, text, algorithms, more="", ns=""):
    write(keys, text)
    return ringcast(CONFIG.format(algorithms=", ".join('"%s"' % a for a in algorithms), keys=keys, more=more, ns=ns),
                    workers=1)


def pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM,
                                         serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def status_of(server, token=None, path="/room/a", **headers):
    if token is not None:
        headers["Authorization"] = "Bearer " + token
    answer = raw_request(server, upgrade(path, **headers))
    assert answer.status == 101 or answer.body == b""
    return answer.status


def hs256(claims=None, **headers):
    return jwt.encode(claims or {"sub": "7"}, SECRET, "HS256", headers=headers or None)


def test_where_a_token_may_stand(ringcast, keys, clients):
    server = start(ringcast, keys, SECRET + "\n", ["HS256"])
    token, bad = hs256(), hs256()[:-4] + "AAAA"
    for good, word in ((101, token), (403, bad), (403, "x")):
        assert status_of(server, word) == good
        assert status_of(server, path="/room/a?token=" + word) == good
        assert status_of(server, Cookie="a=b; token=" + word) == good
        assert status_of(server, X_Token=word) == good
        assert status_of(server, Sec_WebSocket_Protocol="bearer, " + word) == good
        assert status_of(server, Sec_WebSocket_Protocol="v1, bearer, %s, v2" % word) == good
    assert status_of(server) == 403
    assert status_of(server, Authorization="Basic " + token) == 403
    assert server.stats()["totals"]["refused"] == {"auth": 14}
    assert {line["reason"] for line in server.log_events("token_refused")} == {"absent", "malformed", "signature"}
    assert token.split(".")[1] not in server.log() and SECRET not in server.log()
    # A browser ends a connection that selects none of the subprotocols it offered.
    client = clients.connect(server.url("/room/a"), subprotocols=["bearer", token])
    assert client.websocket.subprotocol == "bearer"
    server.publish("room:a", "x")
    assert client.recv() == "x"
    client = clients.connect(server.url("/room/a?token=" + token))
    assert client.websocket.subprotocol is None


def test_every_algorithm(ringcast, keys):
    private = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1()),
               "EdDSA": ed25519.Ed25519PrivateKey.generate()}
    jwks = {"keys": []}
    for name, key in private.items():
        jwks["keys"].append(dict(json.loads(jwt.get_algorithm_by_name(name).to_jwk(key.public_key()))
                                 if hasattr(jwt, "get_algorithm_by_name") else to_jwk(name, key.public_key()),
                                 kid="k-" + name, use="sig"))
    server = start(ringcast, keys, json.dumps(jwks), list(private))
    for name, key in private.items():
        good = jwt.encode({"sub": "7", "exp": time.time() + 60}, key, name, headers={"kid": "k-" + name})
        assert status_of(server, good) == 101, name
        assert status_of(server, jwt.encode({"sub": "7"}, key, name)) == 101, "no kid: every key is tried"
        assert status_of(server, jwt.encode({"sub": "7"}, key, name, headers={"kid": "k-other"})) == 403
        assert status_of(server, jwt.encode({"sub": "7", "exp": time.time() - 60}, key, name)) == 403
        head, claims, _ = good.split(".")
        assert status_of(server, "%s.%s." % (head, claims)) == 403
        assert status_of(server, "%s.%s." % (jwt.encode({}, None, "none").split(".")[0], claims)) == 403
    assert status_of(server, hs256()) == 403


def to_jwk(name, key):
    """For versions of the library that only know how to read them."""
    def text(data):
        return jwt.utils.base64url_encode(data).decode()

    def number(value, size=None):
        return text(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))

    if name == "RS256":
        n = key.public_numbers()
        return {"kty": "RSA", "n": number(n.n), "e": number(n.e)}
    if name == "ES256":
        n = key.public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": number(n.x, 32), "y": number(n.y, 32)}
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": text(raw)}


def test_a_public_key_is_no_secret(ringcast, keys):
    """RS256 -> HS256 with the public key as the secret."""
    import hashlib
    import hmac
    key = rsa.generate_private_key(65537, 2048)
    server = start(ringcast, keys, pem(key), ["RS256"])

    def part(value):
        return jwt.utils.base64url_encode(json.dumps(value).encode()).decode()

    text = "%s.%s" % (part({"alg": "HS256"}), part({"sub": "7"}))
    for secret in (pem(key), pem(key).strip()):
        mac = jwt.utils.base64url_encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()
        assert status_of(server, "%s.%s" % (text, mac)) == 403
    assert status_of(server, jwt.encode({"sub": "7"}, key, "RS256")) == 101


def test_claims(ringcast, keys, clients):
    server = start(ringcast, keys, SECRET, ["HS256"], 'audience = "feeds"   issuer = "app"   user_claim = "uid"',
                   'user_query = "user_id:int"   refuse = "accept-then-close"')
    good = {"uid": 7, "aud": ["feeds"], "iss": "app"}
    path = "/room/a?user_id=%s&token=%s"
    assert status_of(server, path=path % ("+07", hs256(good))) == 101
    client = clients.connect(server.url(path % (7, hs256(dict(good, exp=int(time.time()) + 2)))))
    assert client.is_open()

    def close_of(user, claims):
        return clients.connect(server.url(path % (user, hs256(claims)))).wait_closed()

    assert close_of(8, good) == (1008, "another user")
    assert close_of("x", good) == (1008, "no valid user named")
    assert close_of(7, dict(good, aud="others")) == (1008, "invalid token")
    assert close_of(7, dict(good, exp=1)) == (1008, "token expired")
    assert close_of(7, {"aud": "feeds", "iss": "app", "sub": 7}) == (1008, "invalid token")
    assert clients.connect(server.url("/room/a?user_id=7")).wait_closed() == (1008, "no token")
    # Open until the token is over, give or take the leeway of five seconds.
    assert client.wait_closed(30) == (1008, "expired")
    server.wait_log("revoked", reason="expired")


def test_keys_that_change(ringcast, keys, clients):
    """The master reads the file again at HUP; a file of no use changes nothing."""
    old, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    server = start(ringcast, keys, pem(old), ["ES256"])
    old_token, new_token = (jwt.encode({"sub": "7"}, key, "ES256") for key in (old, new))
    assert (status_of(server, old_token), status_of(server, new_token)) == (101, 403)
    write(keys, pem(old) + pem(new))
    server.kill(signal.SIGHUP)
    wait_for("both are good", lambda: status_of(server, new_token) == 101)
    assert status_of(server, old_token) == 101
    write(keys, "no key at all")
    server.kill(signal.SIGHUP)
    server.wait_log("reload_failed")
    assert status_of(server, new_token) == 101
    write(keys, pem(new))
    server.kill(signal.SIGHUP)
    wait_for("the old one is gone", lambda: status_of(server, old_token) == 403)
    assert status_of(server, new_token) == 101
