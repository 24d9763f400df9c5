"""Section 5: book requests, for users and admins on one URL."""
import json

import pytest
import websockets

from stack import parsed, types
from waiting import wait_for


class Case:
    """A creator with a team of two, a listener of his, a stranger of another creator: all connected."""

    def __init__(self, site):
        self.site = site
        self.creator = site.creator()
        self.team = [site.team(self.creator), site.team(self.creator)]
        self.fan = site.fan(self.creator)
        self.stranger, self.other = site.fan(self.creator), site.creator()
        people = [self.creator] + self.team + [self.fan, self.fan, self.stranger, self.other]
        self.clients = [site.connect(p, "book_requests") for p in people]

    def received(self):
        """Frames of the admins (the same for each), of the requester (for each of two sockets), of others."""
        got = parsed(self.site.received("book_requests", self.clients))
        assert got[0] == got[1] == got[2] and got[3] == got[4]
        return got[0], got[3], got[5] + got[6]

    def create(self):
        return self.fan.post("/api/book-requests/", {"title": "T", "author": "A", "link": None, "description": "d"})["id"]

    def respond(self, request, status, **more):
        self.team[0].post("/api/book-requests/%d/respond" % request, dict(status=status, message="so be it", **more))


@pytest.fixture
def case(site):
    return Case(site)


def quota(site, person):
    return site.data.quota(site.data.user(person.id))


def test_initial_data_is_the_first_frame_and_there_is_no_greeting(site):
    creator = site.creator()
    fan = site.fan(creator, requests=5, used=2, chapters=10)
    client = site.connect(fan, "book_requests")
    frame = json.loads(client.first)
    assert frame == {"type": "initial_data", "pending_count": 0, "quota": {
        "requests_allowed": 5, "requests_used": 2, "requests_remaining": 3, "current_month": frame["quota"]["current_month"],
        "chapters_allowed_per_book_request": 10}}
    assert client.quiet()


def test_initial_data_of_a_creator_and_of_one_without_tier(site):
    creator = site.creator()
    fan = site.fan(creator)
    fan.post("/api/book-requests/", {"title": "T"})
    frame = json.loads(site.connect(creator, "book_requests").first)
    assert frame["pending_count"] == 1
    assert [frame["quota"][k] for k in ("requests_allowed", "requests_used", "requests_remaining",
                                        "chapters_allowed_per_book_request")] == [9999, 0, 9999, 9999]
    frame = json.loads(site.connect(site.fan(creator, tier_cents=None), "book_requests").first)
    assert frame["pending_count"] == 0 and frame["quota"]["requests_allowed"] == frame["quota"]["requests_remaining"] == 0
    assert json.loads(site.connect(site.team(creator), "book_requests").first)["pending_count"] == 1


def test_an_unknown_user_is_refused_with_403(site):
    fan = site.fan()
    site.data.run("DELETE FROM users WHERE id = ?", fan.id)
    with pytest.raises(websockets.InvalidStatusCode) as caught:
        site.connect(fan, "book_requests")
    assert caught.value.status_code == 403


def test_a_new_request_is_told_to_requester_and_admins_then_the_quota(case):
    request = case.create()
    admins, requester, others = case.received()
    assert [f["type"] for f in admins] == ["book_request_update"]  # no pending count: the page would count double
    assert [f["type"] for f in requester] == ["book_request_update", "quota_update"]
    assert others == []
    update = admins[0]
    assert update["action"] == "created" and update["timestamp"] and update["book_request"]["id"] == request
    assert set(update["book_request"]) == {"id", "user_id", "title", "author", "link", "description", "status", "created_at",
                                           "updated_at", "responded_by_id", "response_message", "response_date", "month_year"}
    assert requester[1]["quota"] == quota(case.site, case.fan) and requester[1]["quota"]["requests_used"] == 1
    assert set(update) == {"type", "book_request", "action", "timestamp"}


def test_a_response_is_told_in_the_order_update_count_quota(case):
    request = case.create()
    case.received()
    case.respond(request, "rejected")
    admins, requester, others = case.received()
    assert [f["type"] for f in admins] == ["book_request_update", "pending_count_update"] and others == []
    assert [f["type"] for f in requester] == ["book_request_update", "quota_update"]
    assert admins[0]["action"] == "status_changed" and admins[0]["book_request"]["status"] == "rejected"
    assert admins[0]["book_request"]["responder"] == {"id": case.team[0].id, "username": case.team[0].username}
    assert {"accepted_by_id", "accepted_at", "user_reply"} <= set(admins[0]["book_request"])
    assert admins[1] == {"type": "pending_count_update", "pending_count": 0}
    assert requester[1]["quota"]["requests_used"] == 0


def test_a_requester_who_is_admin_too_sees_update_count_quota_in_order(site):
    """The one socket that gets all three."""
    creator = site.creator()
    member = site.team(creator, tier_cents=500)
    client = site.connect(member, "book_requests")
    request = member.post("/api/book-requests/", {"title": "T"})["id"]
    creator.post("/api/book-requests/%d/respond" % request, {"status": "rejected"})
    assert types(site.received("book_requests", [client])[0]) == [
        "book_request_update", "quota_update", "book_request_update", "pending_count_update", "quota_update"]


def test_an_approval_leaves_the_quota_alone(case):
    request = case.create()
    case.respond(request, "approved")
    admins, requester, _ = case.received()
    assert [f["type"] for f in admins] == ["book_request_update", "book_request_update", "pending_count_update"]
    assert [f["type"] for f in requester] == ["book_request_update", "quota_update", "book_request_update"]


def test_a_reply_is_told_to_requester_and_admins(case):
    request = case.create()
    case.fan.call("POST", "/api/book-requests/%d/reply" % request, {"reply": "x"}, status=400)
    case.respond(request, "approved")
    case.received()
    case.fan.post("/api/book-requests/%d/reply" % request, {"reply": "thanks"})
    admins, requester, others = case.received()
    assert admins == requester and others == [] and len(admins) == 1
    assert admins[0]["action"] == "reply_added" and admins[0]["book_request"]["user_reply"] == "thanks"
    case.fan.call("POST", "/api/book-requests/%d/reply" % request, {"reply": "again"}, status=400)
    case.stranger.call("POST", "/api/book-requests/%d/reply" % request, {"reply": "x"}, status=403)


def test_what_publishes_nothing_here(case):
    request = case.create()
    case.received()
    case.team[0].post("/api/book-requests/%d/accept" % request)
    case.team[0].post("/api/book-requests/%d/fulfill" % request)
    case.creator.post("/api/book-requests/settings")
    case.creator.post("/api/book-requests/chapters-settings")
    assert case.received() == ([], [], [])


def test_who_may_request_and_respond(case):
    request = case.create()
    case.fan.call("POST", "/api/book-requests/%d/respond" % request, {"status": "approved"}, status=403)
    case.other.call("POST", "/api/book-requests/%d/respond" % request, {"status": "approved"}, status=403)
    case.fan.call("POST", "/api/book-requests/settings", {}, status=403)
    poor = case.site.fan(case.creator, tier_cents=None)
    poor.call("POST", "/api/book-requests/", {"title": "T"}, status=403)


def test_untargeted_messages_are_dropped_and_counted(case):
    """F3, S13: the feed is targeted only; an empty list is nobody, not everybody."""
    dropped = case.site.server.stats()["namespaces"]["book_requests"]["dropped"]
    case.site.publish("book_requests", {"type": "pending_count_update", "pending_count": 5})
    case.site.publish("book_requests", {"type": "pending_count_update", "pending_count": 5, "_target_users": []})
    assert case.received() == ([], [], [])
    after = case.site.server.stats()["namespaces"]["book_requests"]["dropped"]
    assert after["untargeted"] == dropped.get("untargeted", 0) + 1
    assert after["no_target"] == dropped.get("no_target", 0) + 1


def test_text_ping_and_what_is_ignored(site):
    client = site.connect(site.fan(), "book_requests")
    for text in ("pong", "what?", "ping"):
        client.send(text)
    assert client.recv() == "pong"
    assert client.quiet() and client.is_open()


def test_quota_and_pending_count_can_be_refreshed(site):
    creator = site.creator()
    fan = site.fan(creator)
    mine, again, admin = (site.connect(p, "book_requests") for p in (fan, fan, creator))
    site.data.run("UPDATE users SET used = 4 WHERE id = ?", fan.id)
    mine.send('{"type":"refresh_quota"}')
    frame = json.loads(mine.recv())
    assert frame == {"type": "quota_update", "quota": quota(site, fan)} and frame["quota"]["requests_remaining"] == 1
    mine.send('{"type":"refresh_pending"}')  # admins only
    admin.send('{"type":"refresh_pending"}')
    assert json.loads(admin.recv()) == {"type": "pending_count_update", "pending_count": 0}
    wait_for("the hook has answered both", lambda: len(site.data.hook_calls("book_requests", "message")) >= 3)
    mine.send("ping")
    assert mine.recv() == "pong"
    assert mine.quiet() and again.quiet()  # to that socket alone


def test_a_team_change_takes_effect_on_the_next_message(case):
    """S60, F19: told by the app through the API or ringcast:control, without a restart or a reconnect."""
    group = "creator:%d:admins" % case.creator.id
    answer = case.site.server.api("/api/groups", "POST", json.dumps(
        {"group": group, "add": [str(case.stranger.id)], "remove": [str(case.team[1].id)]}))
    assert answer.status == 200, answer.body
    case.create()
    got = parsed(case.site.received("book_requests", case.clients))
    assert [len(frames) for frames in got] == [1, 1, 0, 2, 2, 1, 0]
    case.site.publish("ringcast:control", {"method": "groups", "group": group, "add": [case.team[1].id],
                                           "remove": [case.stranger.id]})

    def changed():
        case.site.publish("book_requests", {"type": "probe", "_target_groups": [group]})
        got = parsed(case.site.received("book_requests", case.clients))
        return [len(frames) for frames in got] == [1, 1, 1, 0, 0, 0, 0]
    wait_for("the control message has been heard", changed)
