"""The application's side of the traps T1 to T4: presence, counts, and publishing when Redis is away."""
import json

import pytest

import publishing
from stack import FEEDS, parsed, types
from waiting import wait_for


def api_of(site, way):
    return publishing.RingcastApi("unix:" + site.admin_socket if way == "unix" else "http://127.0.0.1:%d" % site.server.admin_port)


def publish_by(site, way):
    """A publish function like Stack.publish, through the admin API."""
    api = api_of(site, way)

    def publish(channel, message):
        return api.request("POST", "/api/publish", {"channel": channel, "data": message})["result"]
    return publish


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_presence_tells_who_is_online_each_once(site, way):
    """T1: with several sockets, on any worker."""
    ann, bob = site.fan(), site.fan()
    clients = [site.connect(p, "forum_global") for p in (ann, ann, ann, bob)]
    site.connect(site.fan(), "broadcasts")

    def present():
        return sorted(publishing.presence_users(api_of(site, way).request("POST", "/api/presence", {"channel": "forum_global"})["result"]))
    wait_for("both", lambda: present() == sorted([str(ann.id), str(bob.id)]))
    clients[3].close()
    wait_for("one", lambda: present() == [str(ann.id)])


def test_presence_of_a_room(site):
    ann, bob, here, there = site.fan(), site.fan(), site.track(), site.track()
    site.connect(ann, "track_comments", here)
    site.connect(bob, "track_comments", there)

    def present(channel):
        return publishing.presence_users(api_of(site, "tcp").request("POST", "/api/presence", {"channel": channel})["result"])
    wait_for("Ann", lambda: present("track_comments:" + here) == [str(ann.id)])
    wait_for("Bob", lambda: present("track_comments:" + there) == [str(bob.id)])
    stats = api_of(site, "tcp").request("POST", "/api/presence_stats", {"channel": "track_comments:" + here})["result"]
    assert stats["num_users"] == 1 and stats["num_clients"] == 1


@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest.mark.parametrize("feed", FEEDS)
def test_the_api_publishes_with_the_same_envelope_and_counts(site, way, feed):
    """T3, T4: the same keys, the same routing, the same stripping as on Redis; and it says how many got it."""
    ann, bob = site.fan(), site.fan()
    room = site.room_for(feed)
    clients = [site.connect(p, feed, room) for p in (ann, ann, bob)]
    publish = publish_by(site, way)
    result = publish(feed, {"type": "x", "_target_users": [ann.id], "_meta": 1, "n": {"_inner": 1}})
    assert (result["channel"], result["redis"], result["sockets"], result["users"], result["partial"]) == \
        (feed, "sent", 2, 1, False), result
    got = parsed(site.received(feed, clients, publish))
    assert got == [[{"type": "x", "n": {"_inner": 1}}]] * 2 + [[]]
    nobody = publish(feed, {"type": "x", "_target_users": []})
    assert (nobody["sockets"], nobody["users"]) == (0, 0)
    if feed in ("track_comments", "forum_threads"):
        key = "track_id" if feed == "track_comments" else "thread_id"
        result = publish(feed, {"type": "y", key: room})
        assert (result["sockets"], result["users"]) == (3, 2)
        assert [types(t) for t in site.received(feed, clients)] == [["y"]] * 3


def test_the_api_takes_objects_only_where_the_envelope_is_json(site):
    answer = site.server.publish_answer({"channel": "broadcasts", "data": [1]})
    assert answer.status == 400, answer.body
    answer = site.server.publish_answer('{"channel":"broadcasts","data":{"a":NaN}}')
    assert answer.status == 400 and answer.error == "bad_json"
    assert site.server.publish_answer({"channel": "nowhere", "data": {}}).error == "unknown_namespace"


@pytest.mark.limit(150)
def test_without_redis_everything_still_works_on_this_replica(stack):
    """T4, S3, S26, S27: the app finds the second way in by itself; nobody is disconnected; and Redis comes back."""
    own = stack(calm=False)
    creator, fan = own.creator(), None
    fan = own.fan(creator)
    track, room = own.track(creator), own.thread(creator)
    rooms = {"track_comments": track, "forum_threads": room}
    clients = {feed: own.connect(fan, feed, rooms.get(feed, "")) for feed in FEEDS}
    admin = own.connect(creator, "book_requests")
    own.redis.kill()
    wait_for("ringcast knows", lambda: own.server.stats()["redis"]["state"] != "up")

    def events():
        creator.post("/api/creator/broadcast", {"message": "m", "type": "info"})
        fan.call("POST", "/api/tracks/%s/comments" % track, form={"content": "c"})
        fan.post("/api/forum/threads/%d/messages" % room, {"content": "t"})
        creator.post("/api/forum/everyone/enable")
        fan.post("/api/book-requests/", {"title": "T"})
        for feed, expected in (("broadcasts", ["new_broadcast"]), ("track_comments", ["new_comment"]),
                               ("forum_threads", ["new_message"]), ("forum_global", ["everyone_enabled"]),
                               ("book_requests", ["book_request_update", "quota_update"])):
            assert types([clients[feed].recv() for _ in expected]) == expected
        assert types([admin.recv()]) == ["book_request_update"]
    events()
    late = own.connect(own.fan(), "forum_global")  # connecting works, too
    late.send('{"type":"ping"}')
    assert types([late.recv()]) == ["pong"]
    typist = clients["track_comments"]
    typist.send('{"type":"typing","is_typing":true}')
    assert types([typist.recv()]) == ["user_typing"]
    own.redis.start()
    own.redis_client = own.redis.client()
    wait_for("ringcast is subscribed again", lambda: own.server.stats()["redis"]["state"] == "up"
             and own.redis.subscribers("forum_global") == 1)
    events()
    assert all(client.is_open() and client.quiet() for client in clients.values())


def test_without_the_api_the_app_still_publishes_by_redis(stack):
    """The counted way fails over to PUBLISH; the count is then unknown, not wrong."""
    own = stack(app_env={"RINGCAST_API": "http://127.0.0.1:1"})
    creator = own.creator()
    client = own.connect(creator, "broadcasts")
    assert creator.post("/api/creator/broadcast", {"message": "m", "type": "info"})["sent_to_users"] == 0
    assert types([client.recv()]) == ["new_broadcast"]
    creator.post("/api/forum/threads", {"title": "x"})
    assert creator.call("GET", "/api/creator/broadcast/stats")["stats"]["connected_users"] == 0


def test_the_hook_is_the_only_one_asked_for_admins(site):
    """S12: groups come with the identity; publishing to them asks nobody."""
    creator = site.creator()
    site.connect(creator, "book_requests")
    calls = len(site.data.hook_calls())
    for _ in range(20):
        site.publish("book_requests", json.dumps({"type": "x", "_target_groups": ["creator:%d:admins" % creator.id]}))
    site.server.stats()
    assert len(site.data.hook_calls()) == calls
