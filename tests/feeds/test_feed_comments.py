"""Section 2: the comments of a track."""
import json
import uuid

import pytest
import websockets

from stack import parsed, types
from waiting import wait_for


def comment(person, track, content, **more):
    return person.call("POST", "/api/tracks/%s/comments" % track, form=dict(content=content, **more))


def typing(client, value):
    client.send(json.dumps({"type": "typing", "is_typing": value}))


def test_the_greeting_names_the_track(site):
    track = site.track()
    client = site.connect(site.fan(), "track_comments", track)
    assert json.loads(client.first) == {"type": "connected", "track_id": track, "message": "Connected to comment updates"}
    assert client.quiet()


def test_a_track_id_is_opaque_and_comes_back_as_it_was(site):
    track = 'ä "quoted" \\ %41'
    site.data.run("INSERT OR IGNORE INTO tracks VALUES (?, NULL)", track)
    client = site.connect(site.fan(), "track_comments", track)
    assert json.loads(client.first)["track_id"] == track
    fan = site.fan()
    site.publish("track_comments", {"type": "new_comment", "track_id": track, "comment": {"id": 1}})
    assert types(site.received("track_comments", [client])[0]) == ["new_comment"]
    assert fan.id != client.person.id


@pytest.mark.parametrize("what", ["user", "track"])
def test_an_unknown_user_or_track_is_refused_with_403(site, what):
    fan, track = site.fan(), site.track()
    if what == "user":
        site.data.run("DELETE FROM users WHERE id = ?", fan.id)
    else:
        track = "t-" + uuid.uuid4().hex
    with pytest.raises(websockets.InvalidStatusCode) as caught:
        site.connect(fan, "track_comments", track)
    assert caught.value.status_code == 403


def test_a_comment_reaches_its_track_and_no_other(site):
    joe, ann, bob = site.fan(), site.fan(), site.fan()
    here, there = site.track(), site.track()
    clients = [site.connect(joe, "track_comments", here), site.connect(ann, "track_comments", here),
               site.connect(bob, "track_comments", there)]
    made = comment(joe, here, "nice", timestamp="12.5")
    mine, others, foreign = parsed(site.received("track_comments", clients))
    assert mine == others == [{"type": "new_comment", "track_id": here, "comment": {
        "id": made["id"], "user_id": joe.id, "username": joe.username, "author_is_creator": False, "author_is_team": False,
        "track_id": here, "parent_id": None, "content": "nice", "timestamp": 12.5, "is_edited": False,
        "created_at": made["created_at"], "like_count": 0, "user_has_liked": False}}]
    assert foreign == []


@pytest.mark.parametrize("stamp", ["0", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_null(site, stamp):
    joe, track = site.fan(), site.track()
    client = site.connect(joe, "track_comments", track)
    comment(joe, track, "x", timestamp=stamp)
    frames, = parsed(site.received("track_comments", [client]))
    assert frames[0]["comment"]["timestamp"] is None


def test_an_edit_a_reply_and_a_deletion(site):
    joe, track = site.fan(), site.track()
    client = site.connect(joe, "track_comments", track)
    first = comment(joe, track, "one")
    comment(joe, track, "answer", parent_id=first["id"])
    joe.call("PUT", "/api/comments/%d" % first["id"], form={"content": "two"})
    joe.call("DELETE", "/api/comments/%d" % first["id"])
    frames, = parsed(site.received("track_comments", [client]))
    assert [f["type"] for f in frames] == ["new_comment", "new_comment", "comment_edited", "comment_deleted"]
    assert all(f["track_id"] == track for f in frames)
    assert int(frames[1]["comment"]["parent_id"]) == first["id"]
    edited = frames[2]
    assert (edited["comment_id"], edited["content"], edited["is_edited"]) == (first["id"], "two", True) and edited["last_edited_at"]
    assert frames[3] == {"type": "comment_deleted", "track_id": track, "comment_id": first["id"]}


def test_who_may_edit_and_delete(site):
    creator = site.creator()
    team, joe, ann = site.team(creator), site.fan(), site.fan()
    track = site.track(creator)
    ids = [comment(joe, track, "x")["id"] for _ in range(3)]
    ann.call("PUT", "/api/comments/%d" % ids[0], form={"content": "y"}, status=403)
    ann.call("DELETE", "/api/comments/%d" % ids[0], status=403)
    joe.call("DELETE", "/api/comments/%d" % ids[0])
    team.call("DELETE", "/api/comments/%d" % ids[1])
    creator.call("DELETE", "/api/comments/%d" % ids[2])
    of_creator = comment(creator, track, "mine")["id"]
    team.call("DELETE", "/api/comments/%d" % of_creator, status=403)
    assert site.app.request("POST", "/api/tracks/%s/comments" % track, None, form={"content": "x"}).status == 401
    joe.call("POST", "/api/tracks/nowhere/comments", form={"content": "x"}, status=404)


def test_a_mention_reaches_the_users_comment_sockets_on_any_track(site):
    """F4: it never arrived before, for the key of the sockets held the track."""
    joe, ann, bob = site.fan(), site.fan(), site.fan()
    here, there = site.track(), site.track()
    clients = [site.connect(ann, "track_comments", here), site.connect(ann, "track_comments", there),
               site.connect(bob, "track_comments", there), site.connect(bob, "track_comments", here)]
    comment(joe, here, "look, @%s!" % ann.username.upper())
    at_here, at_there, bob_there, bob_here = parsed(site.received("track_comments", clients))
    assert [f["type"] for f in at_here] == ["new_comment", "mention"]
    assert [f["type"] for f in at_there] == ["mention"] and bob_there == []
    assert [f["type"] for f in bob_here] == ["new_comment"]
    mention = at_there[0]
    assert mention["track_id"] == here and mention["from_user"] == joe.username and "_target_users" not in mention


def test_the_creator_can_be_mentioned_and_nobody_mentions_himself(site):
    creator = site.creator()
    track, joe = site.track(creator), site.fan()
    clients = [site.connect(creator, "track_comments", site.track()), site.connect(joe, "track_comments", track)]
    comment(joe, track, "@creator and I, @%s" % joe.username)
    of_creator, of_joe = parsed(site.received("track_comments", clients))
    assert [f["type"] for f in of_creator] == ["mention"] and [f["type"] for f in of_joe] == ["new_comment"]


def test_typing_reaches_the_track_and_comes_back_to_the_typist(site):
    joe, ann = site.fan(), site.fan()
    here, there = site.track(), site.track()
    mine = site.connect(joe, "track_comments", here)
    clients = [mine, site.connect(ann, "track_comments", here), site.connect(ann, "track_comments", there)]
    typing(mine, True)
    expected = {"type": "user_typing", "track_id": here, "user_id": joe.id, "username": joe.username, "is_typing": True}
    assert json.loads(clients[0].recv()) == json.loads(clients[1].recv()) == expected
    assert site.received("track_comments", clients)[2] == []


def test_typing_once_a_second_but_changes_of_state_pass(site):
    joe, ann, track = site.fan(), site.fan(), site.track()
    mine, other = site.connect(joe, "track_comments", track), site.connect(ann, "track_comments", track)
    before = site.server.stats()["namespaces"]["track_comments"]["dropped"].get("rate", 0)
    for value in [True] * 30 + [False] * 5 + [True] * 5:
        typing(mine, value)
    mine.ping()
    got = [other.recv() for _ in range(3)]
    assert [json.loads(text)["is_typing"] for text in got] == [True, False, True]

    def again():
        """A second later the same state passes once more."""
        typing(mine, True)
        mine.ping()
        return not other.quiet()
    wait_for("the next second", again, every=0.1)
    dropped = site.server.stats()["namespaces"]["track_comments"]["dropped"]
    assert dropped.get("rate", 0) >= before + 37, dropped


def test_the_throttle_is_of_the_user_and_the_track(site):
    """Two sockets of one user share it, another track and another user do not."""
    joe, ann, here, there = site.fan(), site.fan(), site.track(), site.track()
    typists = [site.connect(joe, "track_comments", here), site.connect(joe, "track_comments", here),
               site.connect(ann, "track_comments", here), site.connect(joe, "track_comments", there)]
    reader, elsewhere = site.connect(site.fan(), "track_comments", here), site.connect(site.fan(), "track_comments", there)
    for typist in typists:
        typing(typist, True)
        typist.ping()
    users = {json.loads(reader.recv())["user_id"] for _ in range(2)}
    assert users == {joe.id, ann.id}
    assert json.loads(elsewhere.recv())["user_id"] == joe.id


@pytest.mark.parametrize("value", ["yes", 1, 0, None, [1], {"a": {"b": 1}}, "x" * 9000, 1e300])
def test_is_typing_is_made_a_boolean(site, value):
    joe, track = site.fan(), site.track()
    client = site.connect(joe, "track_comments", track)
    typing(client, value)
    frames = parsed(site.received("track_comments", [client]))[0]
    wait = frames or [json.loads(client.recv())]
    assert wait[0]["is_typing"] in (True, False) and isinstance(wait[0]["is_typing"], bool)


def test_other_types_of_clients_are_ignored(site):
    joe, ann, track = site.fan(), site.fan(), site.track()
    mine, other = site.connect(joe, "track_comments", track), site.connect(ann, "track_comments", track)
    for text in ('{"type":"new_comment","track_id":"%s","comment":{}}' % track, '{"type":"nonsense"}', "{}", '{"type":7}'):
        mine.send(text)
    mine.ping()
    assert site.received("track_comments", [mine, other]) == [[], []]
    assert mine.is_open()


def test_no_application_ping_either_way(site):
    client = site.connect(site.fan(), "track_comments", site.track())
    client.send('{"type":"ping"}')
    client.ping()
    assert client.quiet()


def test_what_was_missed_can_be_asked_for(site):
    joe, track = site.fan(), site.track()
    first, second = comment(joe, track, "one"), comment(joe, track, "two")
    found = joe.call("GET", "/api/tracks/%s/comments/since/%d" % (track, first["id"]))
    assert [c["id"] for c in found["comments"]] == [second["id"]]


def test_a_message_without_track_goes_to_nobody_and_is_counted(site):
    client = site.connect(site.fan(), "track_comments", site.track())
    before = site.server.stats()["namespaces"]["track_comments"]["dropped"].get("no_route", 0)
    site.publish("track_comments", {"type": "new_comment", "comment": {"secret": "canary"}})
    site.publish("track_comments", {"type": "new_comment", "track_id": None})
    assert site.received("track_comments", [client]) == [[]]
    assert site.server.stats()["namespaces"]["track_comments"]["dropped"]["no_route"] == before + 2
