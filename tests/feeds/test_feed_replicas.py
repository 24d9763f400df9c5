"""Three replicas of two workers on one Redis, no configuration that names the others: S16 to S23, S30, S31, counts, churn."""
import asyncio
import json
import signal
import statistics
import time

import pytest

import publishing
from stack import FEEDS, Stack, everywhere, origin_of, parsed, types
from waiting import wait_for

pytestmark = pytest.mark.xdist_group("fleet")


@pytest.fixture(scope="module")
def fleet_stack(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("fleet") / "stack", replicas=3, workers=2)
    stack.start()
    yield stack
    stack.clients.close_now()
    for server in stack.servers:
        server.kill(signal.SIGTERM)
    statuses = [server.wait() for server in stack.servers]
    left = [(key, stack.redis_client.ttl(key)) for key in stack.redis_client.keys("ringcast:*")]
    problems = stack.finish()
    assert statuses == [0, 0, 0]
    assert not left, "a clean stop leaves keys in Redis: %r" % left
    assert not problems, "\n".join(problems)


@pytest.fixture
def fleet(fleet_stack, request):
    yield fleet_stack
    if getattr(request.node, "call_failed", False):
        for server in fleet_stack.servers:
            print("---- log of ringcast\n" + server.log()[-3000:])
    fleet_stack.redis_client.delete("current_broadcast")
    fleet_stack.clients.close_now()


class Crowd:
    """Many light sockets on the stack's event loop: what each got is kept as it came."""

    def __init__(self, fleet):
        self.fleet, self.loop = fleet, fleet.clients.loop
        self.members, self.is_over = [], False
        self.left = self.joined = 0
        self.churning = None

    class Member:
        def __init__(self, person, feed, websocket):
            self.person, self.feed, self.websocket = person, feed, websocket
            self.texts, self.times = [], []

    async def open(self, person, feed, room, server, keep=True):
        import websockets
        url = self.fleet.url(feed, person.id, room, server)
        websocket = await websockets.connect(url, extra_headers=self.fleet.headers(person), origin=origin_of(url),
                                             ping_interval=None, max_queue=None, open_timeout=60, compression=None)
        member = Crowd.Member(person, feed, websocket)
        if keep:
            self.members.append(member)
            asyncio.ensure_future(self.read(member))
        return member

    @staticmethod
    async def read(member):
        try:
            async for text in member.websocket:
                member.texts.append(text)
                member.times.append(time.time())
        except Exception:
            pass  # its end is not what these tests look at

    def call(self, coroutine, seconds=120):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    def fill(self, people, feed, room="", step=40):
        """One socket for each, dealt to the replicas."""
        before = len(self.members)

        async def go():
            for at in range(0, len(people), step):
                await asyncio.gather(*(self.open(p, feed, room, self.fleet.servers[(at + i) % len(self.fleet.servers)])
                                       for i, p in enumerate(people[at:at + step])))
        self.call(go())
        wait_for("greetings", lambda: all(m.texts for m in self.members[before:]))
        for member in self.members[before:]:
            member.texts.clear()
            member.times.clear()

    def churn(self, people, feed, room=""):
        """Join and leave for ever, on all replicas, until settle()."""
        async def one(person, server):
            while not self.is_over:
                member = await self.open(person, feed, room, server, keep=False)
                self.joined += 1
                await asyncio.sleep(0.01)
                await member.websocket.close()
                self.left += 1

        async def go():
            self.churning = [asyncio.ensure_future(one(p, self.fleet.servers[i % len(self.fleet.servers)]))
                             for i, p in enumerate(people)]
        self.call(go())

    def end_churn(self):
        self.is_over = True

        async def go():
            await asyncio.gather(*self.churning)
        self.call(go())

    def close(self):
        async def go():
            await asyncio.gather(*(m.websocket.close() for m in self.members), return_exceptions=True)
        self.call(go())


@pytest.fixture
def crowd(fleet):
    one = Crowd(fleet)
    yield one
    one.close()


# ---- S16 to S23: each feed, published by the app beside replica 1, read everywhere

def test_a_broadcast_reaches_all_clients_of_all_replicas(fleet):
    creator, fan = fleet.creator(), fleet.fan()
    clients = everywhere(fleet, fan, "broadcasts") + everywhere(fleet, creator, "broadcasts")
    made = creator.post("/api/creator/broadcast", {"message": "m", "type": "info"})
    got = parsed(fleet.received("broadcasts", clients))
    assert [[f["broadcast"]["id"] for f in frames] for frames in got] == [[made["id"]]] * 6
    assert made["sent_to_users"] == 2  # cluster-wide, each user once


def test_a_comment_reaches_all_clients_on_its_track_and_no_others(fleet):
    joe, here, there = fleet.fan(), fleet.track(), fleet.track()
    clients = everywhere(fleet, joe, "track_comments", here) + everywhere(fleet, joe, "track_comments", there)
    joe.call("POST", "/api/tracks/%s/comments" % here, form={"content": "c"})
    assert [types(t) for t in fleet.received("track_comments", clients)] == [["new_comment"]] * 3 + [[]] * 3


def test_a_forum_message_reaches_thread_and_global_clients_concerned(fleet):
    creator, ann, follower = fleet.creator(), fleet.fan(), fleet.fan()
    room, other = fleet.thread(creator), fleet.thread(creator)
    fleet.data.run("INSERT INTO followers VALUES (?,?)", room, follower.id)
    in_room, in_other = everywhere(fleet, ann, "forum_threads", room), everywhere(fleet, ann, "forum_threads", other)
    at_large, concerned = everywhere(fleet, ann, "forum_global"), everywhere(fleet, follower, "forum_global")
    message = ann.post("/api/forum/threads/%d/messages" % room, {"content": "m"})["id"]
    creator.post("/api/forum/messages/%d/create-thread" % message, {"title": "s"})
    assert [types(t) for t in fleet.received("forum_threads", in_room + in_other)] == \
        [["new_message", "message_thread_count_updated"]] * 3 + [[]] * 3
    assert [types(t) for t in fleet.received("forum_global", at_large + concerned)] == [[]] * 3 + [["new_sub_thread_created"]] * 3


def test_a_status_update_reaches_the_user_and_all_admins_and_no_others(fleet):
    creator = fleet.creator()
    team, fan, stranger = fleet.team(creator), fleet.fan(creator), fleet.fan(creator)
    clients = sum((everywhere(fleet, p, "book_requests") for p in (creator, team, fan, stranger)), [])
    request = fan.post("/api/book-requests/", {"title": "T"})["id"]
    team.post("/api/book-requests/%d/respond" % request, {"status": "rejected"})
    got = [types(t) for t in fleet.received("book_requests", clients)]
    admin = ["book_request_update", "book_request_update", "pending_count_update"]
    user = ["book_request_update", "quota_update", "book_request_update", "quota_update"]
    assert got == [admin] * 6 + [user] * 3 + [[]] * 3


def test_new_threads_and_everyone_switches_reach_all_replicas(fleet):
    """T1, T2, F17."""
    creator, ann = fleet.creator(), fleet.fan()
    clients = everywhere(fleet, ann, "forum_global")
    creator.post("/api/forum/everyone/disable", {"reason": "x"})
    creator.post("/api/forum/threads", {"title": "x"})
    assert [types(t) for t in fleet.received("forum_global", clients)] == [["everyone_disabled", "new_thread_created"]] * 3


def test_typing_crosses_replicas(fleet):
    ann, track = fleet.fan(), fleet.track()
    clients = everywhere(fleet, ann, "track_comments", track)
    clients[0].send('{"type":"typing","is_typing":true}')
    assert [types([c.recv()]) for c in clients] == [["user_typing"]] * 3


def test_the_same_works_published_on_any_replica(fleet):
    ann = fleet.fan()
    clients = everywhere(fleet, ann, "broadcasts")
    for n, server in enumerate(fleet.servers):
        server.publish_answer({"channel": "broadcasts", "data": {"type": "from", "n": n}})
    for frames in parsed(fleet.received("broadcasts", clients)):
        assert sorted(f["n"] for f in frames) == [0, 1, 2]


# ---- counting

def test_one_user_on_two_workers_and_two_replicas_counts_once(fleet):
    ann, bob = fleet.fan(), fleet.fan()
    for server in fleet.servers[:2]:
        def both_workers(server=server):
            fleet.connect(ann, "forum_global", server=server)
            return all(w["connections"] > 0 for w in server.workers())
        wait_for("sockets on both workers", both_workers)
    fleet.connect(bob, "forum_global", server=fleet.servers[2])
    assert [s.stats()["namespaces"]["forum_global"]["users"] for s in fleet.servers] == [1, 1, 1]
    wait_for("two users in the cluster's numbers", lambda: all(
        s.stats()["cluster"]["users"]["forum_global"] == 2 for s in fleet.servers))
    for server in fleet.servers:
        api = publishing.RingcastApi("http://127.0.0.1:%d" % server.admin_port)
        wait_for("two users everywhere", lambda: sorted(publishing.presence_users(api.request(
            "POST", "/api/presence", {"channel": "forum_global"})["result"])) == sorted([str(ann.id), str(bob.id)]))
        stats = api.request("POST", "/api/presence_stats", {"channel": "forum_global"})["result"]
        assert stats["num_users"] == 2
        result = api.request("POST", "/api/publish", {"channel": "forum_global", "data": {"type": "x"}})["result"]
        assert result["users"] == 2 and result["partial"] is False
        assert result["sockets"] == sum(s.stats()["namespaces"]["forum_global"]["connections"] for s in fleet.servers)


def test_a_user_who_has_left_everywhere_is_gone(fleet):
    ann = fleet.fan()
    clients = everywhere(fleet, ann, "broadcasts")
    api = publishing.RingcastApi("http://127.0.0.1:%d" % fleet.servers[2].admin_port)

    def sockets():
        presence = api.request("POST", "/api/presence", {"channel": "broadcasts"})["result"]["presence"]
        assert set(presence) <= {str(ann.id)}
        return presence[str(ann.id)]["sockets"] if presence else 0
    wait_for("three sockets", lambda: sockets() == 3)
    clients[0].close()
    clients[2].close()
    wait_for("one socket", lambda: sockets() == 1)
    clients[1].close()
    wait_for("gone", lambda: sockets() == 0)


# ---- crowds

@pytest.mark.limit(150)
def test_a_hundred_sockets_on_every_feed_are_all_served(fleet, crowd):
    """S30, S31: with the distribution of the latency, for who reads the log."""
    creator = fleet.creator()
    people = [fleet.fan(creator) for _ in range(100)]
    track, room = fleet.track(creator), fleet.thread(creator)
    rooms = {"track_comments": track, "forum_threads": room}
    for feed in FEEDS:
        crowd.fill(people, feed, rooms.get(feed, ""))
    route = {"track_comments": {"track_id": track}, "forum_threads": {"thread_id": room},
             "book_requests": {"_target_users": [p.id for p in people]}}
    sent = {}
    for n in range(5):
        for feed in FEEDS:
            sent[feed, n] = time.time()
            fleet.publish(feed, dict({"type": "x", "feed": feed, "n": n}, **route.get(feed, {})))
    wait_for("all of it", lambda: all(len(m.texts) == 5 for m in crowd.members), 60)
    took = []
    for member in crowd.members:
        got = [json.loads(text) for text in member.texts]
        assert [f["n"] for f in got] == list(range(5)) and {f["feed"] for f in got} == {member.feed}
        took += [at - sent[f["feed"], f["n"]] for at, f in zip(member.times, got)]
    took.sort()
    print("latency with 500 Python clients in this process: p50 %.1f ms, p99 %.1f ms, max %.1f ms" % (
        statistics.median(took) * 1e3, took[int(len(took) * 0.99)] * 1e3, took[-1] * 1e3))


@pytest.mark.limit(150)
@pytest.mark.parametrize("feed", ["broadcasts", "track_comments", "forum_threads", "forum_global", "book_requests"])
def test_joins_and_leaves_during_every_broadcast_lose_nothing(fleet, crowd, feed):
    """F8: one user who joined during a broadcast ended it for nine of ten others."""
    room = fleet.room_for(feed)
    people = [fleet.fan() for _ in range(30)]
    crowd.fill(people, feed, room)
    crowd.churn([fleet.fan() for _ in range(9)], feed, room)
    wait_for("churn", lambda: crowd.left >= 3)
    route = {"track_comments": {"track_id": room}, "forum_threads": {"thread_id": room},
             "book_requests": {"_target_users": [p.id for p in people]}}.get(feed, {})
    sent, before = 0, crowd.left
    while crowd.left < before + 30 or sent < 100:
        fleet.publish(feed, dict({"type": "x", "n": sent}, **route))
        sent += 1
        time.sleep(0.01)  # paces the publisher; nothing waits for it
    crowd.end_churn()
    wait_for("all of it", lambda: all(len(m.texts) >= sent for m in crowd.members), 60)
    for member in crowd.members:
        assert [json.loads(text)["n"] for text in member.texts] == list(range(sent))
    assert crowd.joined > 30


@pytest.mark.limit(120)
def test_a_thousand_targets_on_three_replicas(fleet, crowd):
    """B3, R1: of a thousand named users those who are here get it, each once, and nobody else."""
    named, others = [fleet.fan() for _ in range(60)], [fleet.fan() for _ in range(60)]
    crowd.fill(named + others, "book_requests")
    absent = ["9%08d" % n for n in range(940)]
    for n in range(10):
        fleet.publish("book_requests", {"type": "x", "n": n, "_target_users": absent[:470] + [str(p.id) for p in named] + absent[470:]})
    everybody = [p.id for p in named + others]
    fleet.publish("book_requests", {"type": "end", "_target_users": everybody})
    wait_for("the end", lambda: all(m.texts and "end" in m.texts[-1] for m in crowd.members))
    for member in crowd.members:
        assert len(member.texts) == (11 if member.person in named else 1)


@pytest.mark.limit(120)
def test_ten_creators_with_five_members_each(fleet, crowd):
    """R1: groups do not run into each other."""
    creators = [fleet.creator() for _ in range(10)]
    creator_of = {p: c for c in creators for p in [c] + [fleet.team(c) for _ in range(5)]}
    people = list(creator_of)
    crowd.fill(people, "book_requests")
    for creator in creators:
        fleet.publish("book_requests", {"type": "x", "of": creator.id, "_target_groups": ["creator:%d:admins" % creator.id]})
    fleet.publish("book_requests", {"type": "end", "_target_users": [p.id for p in people]})
    wait_for("the end", lambda: all(m.texts and "end" in m.texts[-1] for m in crowd.members))
    for member in crowd.members:
        assert [json.loads(t)["of"] for t in member.texts[:-1]] == [creator_of[member.person].id]
