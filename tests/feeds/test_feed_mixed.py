"""Item 12: replicas of the original and of ringcast on the same Redis channels, during a migration. Each message reaches
each client once, whoever published it and wherever the client is."""
import json

import pytest

from stack import PATHS, App, Stack, origin_of, parsed, types
from waiting import wait_for

pytestmark = pytest.mark.xdist_group("mixed")


class Mixed(Stack):
    """A ringcast, an app that publishes for it, and a replica of the original with sockets of its own."""

    def __init__(self, directory):
        super().__init__(directory, app_env={"FEEDS_TARGETS": "users"})
        self.original = App(directory / "original", self.redis.url, directory / "app.db", factory="original:create_app")
        self.original.launch()

    def start(self):
        super().start()
        self.original.wait_started()
        return self

    def finish(self):
        self.original.kill()
        return super().finish()

    def connect_original(self, person, feed, room="", frames=1):
        url = "ws://127.0.0.1:%d%s" % (self.original.port, PATHS[feed].format(user=person.id, room=room))
        client = self.clients.connect(url, extra_headers=self.headers(person), origin=origin_of(url))
        client.person = person
        for _ in range(frames):
            client.first = client.recv()
        # Its manager subscribes when the first socket comes; what is published before is lost (F10).
        wait_for("both listen", lambda: self.redis.subscribers(feed) == 2)
        return client


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    stack = Mixed(tmp_path_factory.mktemp("mixed") / "stack").start()
    yield stack
    problems = stack.finish()
    assert not problems, "\n".join(problems)


@pytest.fixture(autouse=True)
def clean(mixed):
    yield
    mixed.redis_client.delete("current_broadcast")
    mixed.clients.close_now()


def by_original(mixed, person, method, path, body=None, form=None):
    answer = mixed.original.request(method, path, person.session, body, form)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_broadcast_of_either_reaches_all_once(mixed):
    creator, fan = mixed.creator(), mixed.fan()
    clients = [mixed.connect(fan, "broadcasts"), mixed.connect_original(fan, "broadcasts")]
    by_original(mixed, creator, "POST", "/api/creator/broadcast", {"message": "old", "type": "info"})
    creator.post("/api/creator/broadcast", {"message": "new", "type": "info"})
    for frames in parsed(mixed.received("broadcasts", clients)):
        assert [f["broadcast"]["message"] for f in frames] == ["old", "new"]
        assert all(set(f) == {"type", "broadcast"} for f in frames)  # no meta key of either side shows


def test_comments_and_typing_cross_both_ways(mixed):
    joe, ann, track = mixed.fan(), mixed.fan(), mixed.track()
    ours, theirs = mixed.connect(joe, "track_comments", track), mixed.connect_original(ann, "track_comments", track)
    by_original(mixed, ann, "POST", "/api/tracks/%s/comments" % track, form={"content": "old"})
    joe.call("POST", "/api/tracks/%s/comments" % track, form={"content": "new"})
    ours.send('{"type":"typing","is_typing":true}')
    wanted = ["new_comment", "new_comment", "user_typing"]
    assert types([ours.recv() for _ in wanted]) == types([theirs.recv() for _ in wanted]) == wanted
    theirs.send('{"type":"typing","is_typing":true}')
    for client in (ours, theirs):
        assert json.loads(client.recv()) == {"type": "user_typing", "track_id": track, "user_id": ann.id,
                                             "username": ann.username, "is_typing": True}
        assert client.quiet()


def test_thread_messages_cross_both_ways(mixed):
    ann, room = mixed.fan(), mixed.thread()
    ours, theirs = mixed.connect(ann, "forum_threads", room), mixed.connect_original(ann, "forum_threads", room, frames=2)
    by_original(mixed, ann, "POST", "/api/forum/threads/%d/messages" % room, {"content": "old"})
    ann.post("/api/forum/threads/%d/messages" % room, {"content": "new"})
    for client in (ours, theirs):
        assert [json.loads(client.recv())["message"]["content"] for _ in range(2)] == ["old", "new"]
        assert client.quiet()


def test_targets_hold_on_both_sides(mixed):
    """With users named by id; the app of a mixed fleet names no groups (FEEDS_TARGETS=users)."""
    creator = mixed.creator()
    fan, stranger = mixed.fan(creator), mixed.fan(creator)
    ours = [mixed.connect(p, "book_requests") for p in (creator, fan, stranger)]
    theirs = [mixed.connect_original(p, "book_requests") for p in (creator, fan, stranger)]
    request = fan.post("/api/book-requests/", {"title": "T"})["id"]
    by_original(mixed, creator, "POST", "/api/book-requests/%d/respond" % request, {"status": "rejected"})
    admin = ["book_request_update", "book_request_update", "pending_count_update"]
    user = ["book_request_update", "quota_update", "book_request_update", "quota_update"]
    assert [types(t) for t in mixed.received("book_requests", ours + theirs)] == [admin, user, []] * 2


def test_groups_alone_are_everybody_to_an_original(mixed):
    """Why a mixed fleet must not use them: shown, so that nobody finds out in production."""
    creator, stranger = mixed.creator(), mixed.fan()
    ours, theirs = mixed.connect(stranger, "book_requests"), mixed.connect_original(stranger, "book_requests")
    mixed.publish("book_requests", {"type": "x", "_target_groups": ["creator:%d:admins" % creator.id]})
    assert [types(t) for t in mixed.received("book_requests", [ours, theirs])] == [[], ["x"]]


def test_publications_of_the_api_reach_originals_once_without_meta_keys(mixed):
    fan = mixed.fan()
    ours, theirs = mixed.connect(fan, "forum_global"), mixed.connect_original(fan, "forum_global")
    for n in range(20):
        assert mixed.server.publish_answer({"channel": "forum_global", "data": {"type": "x", "n": n}}).status == 200
    for frames in parsed(mixed.received("forum_global", [ours, theirs])):
        assert frames == [{"type": "x", "n": n} for n in range(20)]


def test_new_threads_of_either_reach_ringcasts_clients_once(mixed):
    """The original publishes one for each user of its own sockets (T1, F17): ours reach those users too, and ours alone
    are reached by what the new app publishes."""
    creator, ann, bob = mixed.creator(), mixed.fan(), mixed.fan()
    ours = [mixed.connect(p, "forum_global") for p in (ann, bob)]
    theirs = mixed.connect_original(ann, "forum_global")
    by_original(mixed, creator, "POST", "/api/forum/threads", {"title": "old"})
    assert [types(t) for t in mixed.received("forum_global", ours + [theirs])] == [["new_thread_created"], [], ["new_thread_created"]]
    creator.post("/api/forum/threads", {"title": "new"})
    assert [types(t) for t in mixed.received("forum_global", ours + [theirs])] == [["new_thread_created"]] * 3
