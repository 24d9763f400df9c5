"""S8: the pages' own socket code, unchanged, against ringcast: what makes them come back, stay, or give up."""
import signal

import pytest

from frontends import (Broadcasts, BookRequests, BookRequestsPage, Browser, Comments, CreatorPanel, ForumBadge, ForumGlobal,
                       ForumThread)
from waiting import wait_for


@pytest.fixture
def browser(site):
    one = Browser(site)
    yield one
    one.close()


def all_open(sockets):
    wait_for("all sockets are open", lambda: all(s.state == "open" for s in sockets))


def evict(site, person, **how):
    site.publish("ringcast:control", dict({"method": "disconnect", "user": str(person.id)}, **how))


@pytest.mark.parametrize("page,count", [("any", 2), ("forum", 4), ("track", 3), ("creator", 4), ("book_requests", 4)])
def test_every_page_opens_its_sockets(site, browser, page, count):
    creator = site.creator()
    sockets = browser.open_page(page, creator, track=site.track(), thread=site.thread())
    assert len(sockets) == count
    all_open(sockets)
    for socket in sockets:
        wait_for("the first frame", lambda: socket.messages)
        assert socket.messages[0]["type"] == ("initial_data" if socket.feed == "book_requests" else "connected")


def test_a_page_shows_each_message_once(site, browser):
    creator, ann = site.creator(), site.fan()
    track, room = site.track(creator), site.thread(creator)
    sockets = browser.open_page("forum", ann, thread=room) + browser.open_page("track", ann, track=track)
    all_open(sockets)
    for n in range(5):
        ann.post("/api/forum/threads/%d/messages" % room, {"content": "m%d" % n})
        ann.call("POST", "/api/tracks/%s/comments" % track, form={"content": "c%d" % n})
        creator.post("/api/creator/broadcast", {"message": "b%d" % n, "type": "info"})
    expected = {"forum_threads": 5, "track_comments": 5, "broadcasts": 5, "forum_global": 0}
    wait_for("all of it", lambda: all(len(s.shown) == expected[s.feed] for s in sockets))
    assert all(s.duplicates == 0 for s in sockets)


def test_the_global_pages_pings_are_answered_in_time(site, browser):
    page = browser.open(ForumGlobal, site.fan(), speed=100)  # one every 250 ms; the 5 s to answer are not shortened
    wait_for("eight pongs", lambda: page.types().count("pong") >= 8)
    assert page.dead == 0 and page.opens == 1 and page.state == "open"


RETURNS = [(Broadcasts, True), (CreatorPanel, True), (Comments, True), (ForumGlobal, True), (ForumBadge, True),
           (ForumThread, True), (BookRequests, True), (BookRequestsPage, False)]


@pytest.mark.parametrize("kind,returns", RETURNS)
def test_after_an_eviction_with_1012_pages_come_back_by_their_own_rules(site, browser, kind, returns):
    fan = site.fan()
    page = browser.open(kind, fan, site.room_for(kind.feed), speed=50)
    all_open([page])
    evict(site, fan, code=1012, reason="restart")
    if returns:
        wait_for("it is back", lambda: page.opens == 2 and page.state == "open")
    else:
        wait_for("it stays away", lambda: page.state == "given_up")
        assert page.opens == 1
    assert page.closes == [(1012, "restart")]


def test_a_banned_user_on_the_forum_page_stays_away(site, browser):
    fan = site.fan()
    page = browser.open(ForumGlobal, fan, speed=50)
    all_open([page])
    evict(site, fan, code=1008, reason="banned")
    wait_for("it gives up", lambda: page.state == "given_up")
    assert page.opens == 1 and page.closes == [(1008, "banned")]


def test_a_logged_out_forum_page_is_told_why_and_gives_up(site, browser):
    fan = site.fan()
    site.data.run("UPDATE sessions SET is_active = 0 WHERE id = ?", fan.session)
    page = browser.open(ForumGlobal, fan, speed=50)
    wait_for("it gives up", lambda: page.state == "given_up")
    assert page.closes == [(1008, "Invalid session")]


@pytest.mark.parametrize("kind,tries", [(Broadcasts, 11), (Comments, 6), (BookRequests, 6), (BookRequestsPage, 1)])
def test_refused_pages_stop_trying(site, browser, kind, tries):
    """403 looks like 1006 to a browser; the pages' counters are what ends it."""
    fan = site.fan()
    site.data.run("UPDATE users SET is_active = 0 WHERE id = ?", fan.id)
    page = browser.open(kind, fan, site.room_for(kind.feed), speed=2000)
    wait_for("it gives up", lambda: page.state == "given_up")
    assert page.failures == tries and page.opens == 0


@pytest.mark.limit(120)
def test_pages_survive_a_reload_and_are_told_of_a_restart(stack):
    """Also those that try once only: no attempt of theirs meets a closed port."""
    own = stack(changes=[(r"drain_time = 10s", "drain_time = 1s")])
    browser = Browser(own)
    creator = own.creator()
    sockets = [browser.open(kind, creator, own.room_for(kind.feed), speed=20) for kind, _ in RETURNS]
    all_open(sockets)
    generation = own.server.stats()["generation"]
    own.server.kill(signal.SIGHUP)
    wait_for("the new generation", lambda: own.server.stats()["generation"] > generation)
    wait_for("the old one is gone", lambda: len(own.server.workers()) == 2 and own.server.log_events("reloaded"))
    back = [s for s, (_, returns) in zip(sockets, RETURNS) if returns or not s.closes]
    all_open(back)
    assert all(s.failures == 0 for s in sockets) and all(close[0] == 1012 for s in sockets for close in s.closes)
    assert own.server.stop() == 0
    wait_for("all are told", lambda: all(s.closes for s in sockets))
    assert {s.closes[-1][0] for s in sockets} <= {1012, 1006}  # 1006: it has tried again meanwhile
    browser.close()
