"""Section 6: what one could observe of the original's manager, and what of it is ours. All through Redis, as any process
may publish."""
import json

import pytest

from stack import FEEDS, types
from waiting import wait_for

EVERYBODY = ("broadcasts", "forum_global")  # feeds where an untargeted message goes to all


class Two:
    def __init__(self, site, feed="broadcasts"):
        self.site, self.feed = site, feed
        self.ann, self.bob = site.fan(), site.fan()
        self.clients = [site.connect(self.ann, feed), site.connect(self.ann, feed), site.connect(self.bob, feed)]

    def after(self, text):
        """Numbers of frames that Ann's two sockets and Bob's got for this publication."""
        self.site.publish(self.feed, text)
        return [len(texts) for texts in self.site.received(self.feed, self.clients)]

    def drops(self, reason):
        return self.site.server.stats()["namespaces"][self.feed]["dropped"].get(reason, 0)


@pytest.fixture
def two(site):
    return Two(site)


def targeted(targets):
    return '{"type": "x", "_target_users": %s}' % targets


def test_a_user_is_a_set_of_sockets_each_gets_it_once(two):
    a, b = two.ann.id, two.bob.id
    assert two.after(targeted('["%d"]' % a)) == [1, 1, 0]
    assert two.after(targeted('["%d", "%d"]' % (a, b))) == [1, 1, 1]
    assert two.after(targeted('["%d", "%d", "%d", "nobody", "99999999"]' % (b, b, b))) == [0, 0, 1]


def test_untargeted_is_everybody_only_when_no_targets_are_named(two):
    assert two.after('{"type": "x"}') == [1, 1, 1]


@pytest.mark.parametrize("targets", ["[]", "null"])
def test_no_target_is_nobody(two, targets):
    """F3: it was everybody."""
    before = two.drops("no_target")
    assert two.after(targeted(targets)) == [0, 0, 0]
    assert two.drops("no_target") == before + 1


def test_numbers_are_targets_too(two):
    """F5: they were nobody, silently."""
    assert two.after(targeted("[%d]" % two.ann.id)) == [1, 1, 0]
    assert two.after(targeted('[%d, "%d"]' % (two.ann.id, two.ann.id))) == [1, 1, 0]


@pytest.mark.parametrize("form", ['"%d"', '{"%d": true}', "%d", "true", "1.5"])
def test_a_target_list_that_is_none_reaches_nobody(two, form):
    """F5: a string was its characters, an object its keys."""
    targets = form % two.ann.id if "%d" in form else form
    before = two.drops("no_target")
    assert two.after(targeted(targets)) == [0, 0, 0]
    assert two.drops("no_target") == before + 1


def test_elements_that_are_no_ids_are_skipped(two):
    assert two.after(targeted('[null, [], {}, 1.5, true, "%d"]' % two.bob.id)) == [0, 0, 1]


def test_a_message_without_meta_keys_passes_byte_for_byte(two):
    text = ('{ "type" : "never_heard_of",\t"u":"\\u00e4\\ud83d\\ude00 ä😀", "n":[1e5,-0,12345678901234567890123],"_":1,'
            '"o":{"_inner":true},  "type2":null }').replace('"_":1,', "")
    two.site.publish(two.feed, text)
    assert two.site.received(two.feed, two.clients) == [[text]] * 3


@pytest.mark.parametrize("text,kept", [
    ('{"_a":1,"type":"x"}', '{"type":"x"}'), ('{"type":"x","_a":{"b":[1,2]}}', '{"type":"x"}'),
    ('{"type":"x","_a":1,"y":2,"_b":"}"}', '{"type":"x","y":2}'), ('{"_a":1}', "{}"),
    ('{"type":"x","\\u005fa":1}', '{"type":"x"}'), ('{"type":"x","n":{"_a":1}}', '{"type":"x","n":{"_a":1}}')])
def test_every_top_level_meta_key_is_cut_out_and_no_other(two, text, kept):
    two.site.publish(two.feed, text)
    for texts in two.site.received(two.feed, two.clients):
        assert [json.loads(t) for t in texts] == [json.loads(kept)]
        assert "_a" not in json.loads(texts[0]) and "_b" not in texts[0]


def test_of_duplicate_keys_the_last_counts(two):
    assert two.after('{"type":"x","_target_users":["%d"],"_target_users":["%d"]}' % (two.ann.id, two.bob.id)) == [0, 0, 1]


@pytest.mark.parametrize("text,reason", [
    ("not json", "bad_json"), ("", "bad_json"), ('{"a":NaN}', "bad_json"), ('{"a":-Infinity}', "bad_json"), ('{"a":1', "bad_json"),
    ("[1]", "not_object"), ('"x"', "not_object"), ("7", "not_object"), (b'{"a":"\xff"}', "bad_utf8")])
def test_what_is_no_json_object_is_dropped_and_counted(two, text, reason):
    """F24: NaN went out and broke JSON.parse in the pages."""
    before = two.drops(reason)
    assert two.after(text) == [0, 0, 0]
    assert two.drops(reason) == before + 1


@pytest.mark.parametrize("feed", FEEDS)
def test_unknown_types_pass_on_every_feed(site, feed):
    """Routed by the feed's own rule, and unchanged."""
    fan, room = site.fan(), site.room_for(feed)
    client = site.connect(fan, feed, room)
    route = {"track_comments": ', "track_id": "%s"' % room, "forum_threads": ', "thread_id": %s' % room}.get(feed, "")
    if feed == "book_requests":
        site.publish(feed, '{"type": "brand_new", "_target_users": [%d]}' % fan.id)
        assert types(site.received(feed, [client])[0]) == ["brand_new"]
        return
    text = '{"type": "brand_new"%s, "x": 1}' % route
    site.publish(feed, text)
    assert site.received(feed, [client]) == [[text]]


@pytest.mark.parametrize("feed,key", [("track_comments", "track_id"), ("forum_threads", "thread_id")])
def test_no_leak_across_rooms(site, feed, key):
    """F1, with a canary for each room: whatever a socket gets names its own room."""
    rooms = [site.room_for(feed) for _ in range(6)]
    clients = [site.connect(site.fan(), feed, room) for room in rooms for _ in range(2)]
    for n in range(5):
        for room in rooms:
            site.publish(feed, json.dumps({"type": "secret", "canary": "canary-%s" % room, "n": n, key: room}))
    for i, texts in enumerate(site.received(feed, clients)):
        own = "canary-%s" % rooms[i // 2]
        assert [json.loads(t)["canary"] for t in texts] == [own] * 5


def test_a_room_is_compared_by_its_canonical_text(site):
    room = site.thread()
    client = site.connect(site.fan(), "forum_threads", room)
    site.publish("forum_threads", '{"type":"x","thread_id":"%d"}' % room)
    site.publish("forum_threads", '{"type":"y","thread_id":%d}' % room)
    site.publish("forum_threads", '{"type":"z","thread_id":%d1}' % room)
    assert types(site.received("forum_threads", [client])[0]) == ["x", "y"]


def test_a_targeted_message_needs_no_room(site):
    fan = site.fan()
    client = site.connect(fan, "track_comments", site.track())
    site.publish("track_comments", {"type": "x", "_target_users": [str(fan.id)]})
    assert types(site.received("track_comments", [client])[0]) == ["x"]


def test_targets_of_one_feed_reach_no_other_feed(site):
    """The original's old path sent user messages to the thread sockets of that user too."""
    fan = site.fan()
    clients = {feed: site.connect(fan, feed, site.room_for(feed)) for feed in FEEDS}
    site.publish("forum_global", {"type": "x", "_target_users": [fan.id]})
    for feed, client in clients.items():
        expected = ["x"] if feed == "forum_global" else []
        assert types(site.received(feed, [client])[0]) == expected


def test_the_publishers_order_is_kept(site):
    client = site.connect(site.fan(), "broadcasts")
    for n in range(300):
        site.publish("broadcasts", '{"type":"x","n":%d}' % n)
    assert [json.loads(t)["n"] for t in site.received("broadcasts", [client])[0]] == list(range(300))


def test_groups_and_users_are_joined_and_each_gets_it_once(site):
    creator = site.creator()
    fan, team = site.fan(creator), site.team(creator)
    clients = [site.connect(p, "book_requests") for p in (fan, team, creator)]
    group = "creator:%d:admins" % creator.id
    site.publish("book_requests", {"type": "x", "_target_users": [fan.id, creator.id], "_target_groups": [group]})
    site.publish("book_requests", {"type": "y", "_target_groups": [group]})
    assert [types(t) for t in site.received("book_requests", clients)] == [["x"], ["x", "y"], ["x", "y"]]


def test_connection_and_user_counts(site):
    fan, other = site.fan(), site.fan()
    for person in (fan, fan, other):
        site.connect(person, "forum_global")
    found = site.server.stats()["namespaces"]["forum_global"]
    assert (found["connections"], found["users"]) == (3, 2)
    assert found["deliveries"] >= 0 and found["publications"] >= 0


@pytest.mark.limit(90)
def test_the_log_has_the_originals_words(stack):
    """S76 to S81: at level debug, the words of section 6 without emoji, as msg=, and channel=, user=, total=."""
    own = stack(changes=[(r'log_level = "info"', 'log_level = "debug"')])
    fan = own.fan()
    client = own.connect(fan, "broadcasts")
    own.connect(fan, "broadcasts")
    own.publish("broadcasts", {"type": "x"})
    client.recv()
    own.server.publish_answer({"channel": "broadcasts", "data": {"type": "y"}})
    client.recv()
    client.close()

    def lines(*words):
        return wait_for("a line with " + repr(words), lambda: [line for line in own.server.log().splitlines()
                                                               if all(word in line for word in words)])
    lines("connected to Redis")
    for feed in FEEDS:
        lines("subscribed to Redis channel", "channel=" + feed)
    lines("WebSocket connected", "channel=broadcasts", "user=%d" % fan.id, "total=2")
    lines("WebSocket disconnected", "channel=broadcasts", "user=%d" % fan.id, "total=1")
    lines("Broadcast sent to Redis", "channel=broadcasts")
    lines("Sent to", "local connections", "channel=broadcasts")
    assert fan.session not in own.server.log()
