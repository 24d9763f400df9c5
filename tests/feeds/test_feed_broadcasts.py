"""Section 1: the broadcasts feed, as creators publish it and every page listens to it."""
import json

import pytest
import websockets

from stack import parsed, types
from waiting import wait_for

CONNECTED = {"type": "connected", "message": "Connected to broadcast live updates"}


def ack_key(broadcast, person):
    return "broadcast:%s:ack:%d" % (broadcast, person.id)


def create(creator, message="hello", kind="info"):
    return creator.post("/api/creator/broadcast", {"message": message, "type": kind})


def refused_status(site, person, feed="broadcasts", **where):
    with pytest.raises(websockets.InvalidStatusCode) as caught:
        site.connect(person, feed, **where)
    return caught.value.status_code


def test_the_greeting_comes_first_and_alone_when_nothing_is_active(site):
    client = site.connect(site.fan(), "broadcasts")
    assert json.loads(client.first) == CONNECTED
    client.send("ping")
    assert client.recv() == "pong"


def test_an_active_broadcast_follows_the_greeting(site):
    creator, fan = site.creator(), site.fan()
    made = create(creator, "Hallo, späte Gäste", "alert")
    client = site.connect(fan, "broadcasts")
    assert json.loads(client.first) == CONNECTED
    frame = json.loads(client.recv())
    assert frame.pop("type") == "active_broadcast"
    row = site.data.one("SELECT * FROM broadcasts WHERE id = ?", made["id"])
    # The trap: here created_by is the numeric user id, in new_broadcast the name.
    assert frame == {"broadcast": {"id": made["id"], "message": "Hallo, späte Gäste", "message_type": "alert",
                                   "created_by": creator.id, "created_at": row["created_at"]}}


def test_an_acknowledged_broadcast_is_not_shown_again(site):
    creator, fan = site.creator(), site.fan()
    made = create(creator)
    site.redis_client.set(ack_key(made["id"], fan), "1")
    client = site.connect(fan, "broadcasts")
    client.send("ping")
    assert client.recv() == "pong"


def test_a_new_broadcast_reaches_all_its_author_too(site):
    creator = site.creator()
    clients = [site.connect(p, "broadcasts") for p in (creator, site.fan(), site.fan(), site.team(creator))]
    made = create(creator, "to all", "warning")
    assert made["status"] == "success" and made["character_count"] == 6 and made["max_characters"] == 280
    for frames in parsed(site.received("broadcasts", clients)):
        row = site.data.one("SELECT * FROM broadcasts WHERE id = ?", made["id"])
        assert frames == [{"type": "new_broadcast", "broadcast": {
            "id": made["id"], "message": "to all", "message_type": "warning", "created_by": creator.username,
            "created_at": row["created_at"]}}]


def test_sent_to_users_counts_the_users_of_all_sockets_once(site):
    creator, fan = site.creator(), site.fan()
    for person in (creator, fan, fan, fan):
        site.connect(person, "broadcasts")
    assert create(creator)["sent_to_users"] == 2
    cleared = creator.post("/api/creator/broadcast/clear")
    assert cleared["cleared_for_users"] == 2 and cleared["status"] == "success"


def test_clearing_is_told_to_all(site):
    creator, fan = site.creator(), site.fan()
    client = site.connect(fan, "broadcasts")
    create(creator)
    creator.post("/api/creator/broadcast/clear")
    frames, = parsed(site.received("broadcasts", [client]))
    assert [f["type"] for f in frames] == ["new_broadcast", "broadcast_cleared"]
    assert frames[1] == {"type": "broadcast_cleared", "message": "Active broadcast has been cleared"}
    assert site.redis_client.get("current_broadcast") is None


def test_text_ping_is_answered_and_text_pong_is_not(site):
    client = site.connect(site.fan(), "broadcasts")
    client.send("pong")
    client.send("ping")
    assert client.recv() == "pong"
    assert client.quiet()


def test_an_acknowledgement_is_kept_in_redis_for_a_day(site):
    creator, fan = site.creator(), site.fan()
    made = create(creator)
    client = site.connect(fan, "broadcasts")
    assert types([client.recv()]) == ["active_broadcast"]
    client.send(json.dumps({"type": "acknowledge_broadcast", "broadcast_id": made["id"]}))
    wait_for("the ack key", lambda: site.redis_client.get(ack_key(made["id"], fan)) == b"1")
    assert 86300 <= site.redis_client.ttl(ack_key(made["id"], fan)) <= 86400
    client.send('{"type":"get_active_broadcast"}')
    client.send("ping")
    assert client.recv() == "pong"
    assert client.quiet()


def test_an_acknowledgement_of_an_unknown_broadcast_is_kept_too(site):
    fan = site.fan()
    client = site.connect(fan, "broadcasts")
    client.send('{"type":"acknowledge_broadcast","broadcast_id":"no-such"}')
    wait_for("the ack key", lambda: site.redis_client.get(ack_key("no-such", fan)) == b"1")


def test_an_acknowledgement_without_id_is_ignored(site):
    fan = site.fan()
    client = site.connect(fan, "broadcasts")
    client.send('{"type":"acknowledge_broadcast"}')
    client.send("ping")
    assert client.recv() == "pong"
    assert client.quiet() and client.is_open()
    assert not site.redis_client.keys("broadcast:*:ack:%d" % fan.id)


def test_the_active_broadcast_can_be_asked_for(site):
    creator, fan = site.creator(), site.fan()
    client = site.connect(fan, "broadcasts")
    client.send('{"type":"get_active_broadcast"}')
    wait_for("the application has been asked", lambda: site.data.hook_calls("broadcasts", "message"))
    site.connect(site.fan(), "broadcasts")  # asked after it, answered after it
    made = create(creator)
    assert types([client.recv()]) == ["new_broadcast"]
    client.send('{"type":"get_active_broadcast"}')
    frame = json.loads(client.recv())
    assert frame["type"] == "active_broadcast" and frame["broadcast"]["id"] == made["id"]


def test_the_page_gets_the_active_broadcast_twice_as_before(site):
    """Once at connect, once for the request that it sends on every open."""
    creator, fan = site.creator(), site.fan()
    create(creator)
    client = site.connect(fan, "broadcasts")
    client.send('{"type":"get_active_broadcast"}')
    assert types([client.recv(), client.recv()]) == ["active_broadcast"] * 2


def test_text_that_is_not_json_is_ignored(site):
    creator, fan = site.creator(), site.fan()
    client = site.connect(fan, "broadcasts")
    client.send("hello?")
    create(creator)
    assert types([client.recv()]) == ["new_broadcast"]


def test_an_unknown_user_is_refused_with_403(site):
    fan = site.fan()
    site.data.run("DELETE FROM users WHERE id = ?", fan.id)
    assert refused_status(site, fan) == 403


def test_an_inactive_user_is_refused(site):
    assert refused_status(site, site.fan(is_active=False)) == 403


@pytest.mark.parametrize("path,body", [("", {"message": "x", "type": "info"}), ("/clear", {})])
def test_publishing_is_for_creators_who_are_logged_in(site, path, body):
    base = "/api/creator/broadcast" + path
    assert site.app.request("POST", base, None, body).status == 401
    answer = site.fan().call("POST", base, body, status=403)
    assert answer["detail"] == "Only creators can perform this action"


@pytest.mark.parametrize("message", ["", "x" * 281])
def test_a_message_of_wrong_length_is_an_error_in_a_200(site, message):
    client = site.connect(site.fan(), "broadcasts")
    answer = create(site.creator(), message)
    assert answer["status"] == "error" and set(answer) == {"status", "message"}
    assert site.received("broadcasts", [client]) == [[]]


def test_280_characters_are_allowed(site):
    assert create(site.creator(), "x" * 280)["status"] == "success"


def test_acknowledging_by_http_and_asking_what_is_active(site):
    creator, fan = site.creator(), site.fan()
    made = create(creator, "active one", "alert")
    found = fan.call("GET", "/api/creator/broadcast/active")
    assert found == {"broadcast": {"id": made["id"], "message": "active one", "type": "alert"}}
    fan.post("/api/creator/broadcast/acknowledge", {"broadcast_id": made["id"]})
    assert fan.call("GET", "/api/creator/broadcast/active") == {"broadcast": None}
    client = site.connect(fan, "broadcasts")
    client.send("ping")
    assert client.recv() == "pong"


def test_limits(site):
    creator = site.creator()
    found = creator.call("GET", "/api/creator/broadcast/limits")
    assert found == {"max_characters": 280, "recommended_length": 120, "current_active_broadcasts": 0}
    create(creator)
    assert creator.call("GET", "/api/creator/broadcast/limits")["current_active_broadcasts"] == 1


def test_the_stats_endpoint_has_the_original_fields_and_our_count(site):
    creator, fan = site.creator(), site.fan()
    for person in (creator, fan, fan):
        site.connect(person, "broadcasts")
    create(creator)
    found = creator.call("GET", "/api/creator/broadcast/stats")
    assert found == {"status": "success", "stats": {
        "broadcasts_today": 1, "active_broadcast": 1, "connected_users": 2,
        "connected_users_note": "Count is for this replica only", "max_characters": 280}}
    assert found["stats"]["active_broadcast"] is not True  # an integer
    fan.call("GET", "/api/creator/broadcast/stats", status=403)


@pytest.mark.parametrize("message", ['{"type":"stats_update","stats":{"connected_users":3}}',
                                     '{"type": "broadcast_sent", "sent_to_users": 3}'])
def test_types_that_clients_know_and_nobody_sends_pass(site, message):
    client = site.connect(site.fan(), "broadcasts")
    site.publish("broadcasts", message)
    assert site.received("broadcasts", [client]) == [[message]]
