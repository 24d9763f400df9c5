"""The whole arrangement under test: a Redis, the application, one or more ringcast replicas with etc/feeds.conf."""
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from clients import Clients
from data import Data
from redisproc import Redis
from server import TOP, Answer, Server
from waiting import SCALE, free_port, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
FEEDS = ("broadcasts", "track_comments", "forum_threads", "forum_global", "book_requests")
QUERY_FEEDS = ("broadcasts", "track_comments", "book_requests")  # refused with 403; the forum accepts, then closes
PATHS = {"broadcasts": "/api/creator/broadcast/ws?user_id={user}", "track_comments": "/api/ws/track/{room}?user_id={user}",
         "forum_threads": "/api/forum/ws/thread/{room}", "forum_global": "/api/forum/ws/global",
         "book_requests": "/api/book-requests/ws?user_id={user}"}
def feeds_config(changes=()):
    """The shipped etc/feeds.conf; with `changes`, (pattern, replacement) pairs that must each find something.
    Listeners, Redis and workers come by options, which win over the file; the hook's URL by the environment."""
    with open(os.path.join(TOP, "etc/feeds.conf")) as f:
        text = f.read()
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        assert count, "nothing to change in etc/feeds.conf: " + pattern
    return text


def origin_of(url):
    """What a browser says for a page of the same host."""
    return "http://" + urllib.parse.urlsplit(url).netloc


class App:
    """The application as a uvicorn process of its own."""

    def __init__(self, directory, redis_url, db, api="", factory="app:create_app", env=None):
        directory.mkdir()
        self.log_path = str(directory / "app.log")
        self.port = free_port()
        self.factory = factory
        self.env = dict(os.environ, **dict({"FEEDS_DB": str(db), "REDIS_URL": redis_url, "RINGCAST_API": api,
                                            "PYTHONDONTWRITEBYTECODE": "1"}, **(env or {})))
        self.process = None

    @property
    def hook_url(self):
        return "http://127.0.0.1:%d/internal/ws" % self.port

    def launch(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["/usr/bin/python3", "-m", "uvicorn", "--factory", self.factory, "--app-dir", HERE, "--port", str(self.port),
                 "--log-level", "warning", "--no-access-log"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)

    def start(self):
        self.launch()
        self.wait_started()
        return self

    def wait_started(self):
        wait_for("the app answers", self.answers, 60)

    def answers(self):
        assert self.process.poll() is None, self.log()
        try:
            return self.request("GET", "/health").status == 200
        except OSError:
            return False

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def kill(self):
        """At once; also whoever is in the middle of a request."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(30)

    def request(self, method, path, session=None, body=None, form=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20 * SCALE)
        try:
            headers = {"Cookie": "theme=dark; session_id=" + session} if session else {}
            data = None
            if form is not None:
                data = urllib.parse.urlencode(form)
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            elif body is not None:
                data = json.dumps(body)
                headers["Content-Type"] = "application/json"
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


class Person:
    """A user with a login session."""

    def __init__(self, stack, user_id, session):
        self.stack, self.id, self.session = stack, user_id, session

    def __getattr__(self, name):  # username, alias, is_creator ...
        return self.stack.data.user(self.id)[name]

    def call(self, method, path, body=None, form=None, status=200):
        answer = self.stack.app.request(method, path, self.session, body, form)
        assert answer.status == status, (answer.status, answer.body[:300])
        return answer.json

    def post(self, path, body=None, **options):
        return self.call("POST", path, body if body is not None else {}, **options)


class Stack:
    """`changes`: see feeds_config(). `replicas` ringcast processes share one Redis, one app and one configuration."""

    def __init__(self, directory, replicas=1, workers=2, changes=(), app_env=None, redis_args=(), calm=True, server_options=None):
        directory.mkdir(exist_ok=True)
        self.directory, self.is_over = directory, False
        self.redis = Redis(directory / "redis", redis_args)
        self.redis.start()
        self.data = Data(str(directory / "app.db"))
        self.admin_socket = str(directory / "admin.sock")
        self.app = App(directory / "app", self.redis.url, directory / "app.db", "unix:" + self.admin_socket, env=app_env)
        self.app.launch()
        self.servers = [self.new_server(i, workers, changes, calm, server_options or {}) for i in range(replicas)]
        self.numbers = itertools.count(1)
        self.clients = Clients()
        self.redis_client = self.redis.client()

    def new_server(self, number, workers, changes, calm, options):
        args = ["--admin", "unix:" + self.admin_socket] if number == 0 else []
        # Redis may get no CPU for a second on a busy machine; only tests of outages want that noticed.
        calmer = [(r"(?m)^redis \{", "redis {\n\ttimeout = 15s\n")] if calm else []
        env = dict(options.pop("env", {}), RINGCAST_HOOK_URL=self.app.hook_url)
        return Server(self.directory / ("ringcast%d" % number), feeds_config(calmer + list(changes)), args=args,
                      redis=self.redis, workers=workers, calm=False, env=env, **options)

    def start(self):
        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(Server.start, self.servers))
            self.app.wait_started()
            for server in self.servers:
                server.wait_ready()
            # Replicas find each other through Redis; counts and presence are of those that one knows.
            wait_for("they know each other", lambda: len(self.servers) == 1 or all(
                server.stats()["cluster"]["nodes"] == len(self.servers) for server in self.servers))
        except BaseException:
            self.finish()
            raise
        return self

    @property
    def server(self):
        return self.servers[0]

    def finish(self):
        """End everything; what is wrong with how it ended, as a list of texts."""
        if self.is_over:
            return []
        self.is_over = True
        problems = []
        try:
            self.clients.close_all()
            for server in self.servers:
                problems += server.finish()
                text = server.log()
                problems += ["a session id in the log" for row in self.data.all("SELECT id FROM sessions") if row["id"] in text]
        finally:  # whatever went wrong, nothing is left running
            for server in self.servers:
                if server.process is not None and server.process.poll() is None:
                    server.kill_all(server.children())
            self.app.kill()
            self.redis.kill()
            self.data.close()
        return problems

    # ---- people and places

    def person(self, **what):
        user = self.data.add_user(**what)
        return Person(self, user, self.data.add_session(user))

    def creator(self, **what):
        return self.person(is_creator=True, **what)

    def fan(self, creator=None, tier_cents=500, **what):
        """A listener of a creator's, with a tier."""
        return self.person(created_by=creator.id if creator else None, tier_cents=tier_cents, **what)

    def team(self, creator, **what):
        return self.person(is_team=True, created_by=creator.id, **what)

    def track(self, creator=None):
        return self.data.add_track(creator.id if creator else None)

    def thread(self, author=None, **what):
        author = author or self.creator()
        thread = self.data.add_thread(author.id, **what)
        self.data.add_message(thread, author.id, "the first one")
        return thread

    # ---- sockets

    def url(self, feed, user="", room="", server=None):
        path = PATHS[feed].format(user=user, room=urllib.parse.quote(str(room), safe=""))
        return (server or self.server).url(path)

    def headers(self, person):
        return [("Cookie", "theme=dark; session_id=" + person.session)] if person else []

    def connect(self, person, feed, room="", server=None, greeting=True, **options):
        """A client of this feed; its first frame has been read unless greeting is False: it is in client.first."""
        url = self.url(feed, person.id, room, server)
        client = self.clients.connect(url, extra_headers=self.headers(person), origin=origin_of(url), **options)
        client.person = person
        if greeting:
            client.first = client.recv()
        return client

    def room_for(self, feed, person=None):
        if feed == "track_comments":
            return self.track()
        return self.thread() if feed == "forum_threads" else ""

    # ---- publishing as any process may

    def publish(self, channel, message):
        """A dict as the original writes it (ASCII, blanks behind separators), a str or bytes as it is."""
        if isinstance(message, dict):
            message = json.dumps(message)
        return self.redis_client.publish(channel, message)

    def received(self, channel, clients, publish=None):
        """What each client has got up to now, nothing left out: texts until a mark that is published behind them, in
        the order of `clients`."""
        mark = "mark-%d" % next(self.numbers)
        message = {"type": mark, "_target_users": sorted({str(c.person.id) for c in clients})}
        (publish or self.publish)(channel, message)
        return [self.until(client, mark) for client in clients]

    @staticmethod
    def until(client, mark):
        texts = []
        while True:
            text = client.recv()
            if '"type": "%s"' % mark in text or '"type":"%s"' % mark in text:
                return texts
            texts.append(text)


def parsed(lists):
    return [[json.loads(text) for text in texts] for texts in lists]


def types(texts):
    return [json.loads(text)["type"] for text in texts]


def everywhere(stack, person, feed, room=""):
    """One client on each replica."""
    return [stack.connect(person, feed, room, server) for server in stack.servers]
