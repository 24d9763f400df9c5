"""Fixtures of the integration tests: real ringcast processes, real redis-servers, clients of other authors.

Every wait is for a condition and has a deadline; deadlines are ten times what an idle machine needs, times
TEST_SCALE (3 under a sanitizer). RINGCAST_BUILD names the build directory (default build/), RINGCAST_BIN the binary.
"""
import os
import signal

import pytest

from clients import Clients
from redisproc import Redis
from server import Server
from waiting import SCALE

LIMIT = 60  # seconds for a test that names none


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): time limit of the test, instead of %d s" % LIMIT)
    config.addinivalue_line("markers", "asan: also run against the ASan+UBSan build by `make test`")


def limit_of(item):
    mark = item.get_closest_marker("limit")
    return (mark.args[0] if mark else LIMIT) * SCALE


def pytest_collection_modifyitems(items):
    """Deal the long tests out, so that each xdist worker's first share holds one: xdist gives shares of
    consecutive tests."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items.sort(key=limit_of, reverse=True)
    share = max(len(items) // (4 * workers), 2)
    first = share * workers
    head, tail = items[:first], items[first:]
    items[:] = [head[i] for w in range(workers) for i in range(w, len(head), workers)] + tail


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """A test that hangs fails, with a traceback of where it stood, and its fixtures are still torn down."""
    def expired(_signum, _frame):
        signal.alarm(int(30 * SCALE))  # once more, should the teardown hang too
        raise TimeoutError("the test's time limit of %d s has passed" % limit_of(item))

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(int(limit_of(item)))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember whether the test itself failed: its servers' logs are then shown."""
    outcome = yield
    if call.when == "call":
        item.call_failed = outcome.get_result().failed


@pytest.fixture
def ringcast(tmp_path, request):
    """Start a server: ringcast(config_text, args=[], redis=None, workers=2, env=None, ...), see Server.
    At the end each one left gets TERM and must end cleanly and leave nothing behind."""
    servers = []

    def start(config_text=None, **options):
        server = Server(tmp_path / ("ringcast%d" % len(servers)), config_text, **options)
        servers.append(server)
        server.start()
        return server

    yield start
    problems = []
    for server in servers:
        if getattr(request.node, "call_failed", False):
            print("---- log of %s:%s\n%s" % (server.host, server.port, server.log()[-6000:]))
        problems += server.finish()
    assert not problems, "\n".join(problems)


@pytest.fixture
def connect(ringcast):
    """Clients that are closed before the servers end: connect(url, **options) -> Client."""
    clients = Clients()
    yield clients.connect
    clients.close_all()


@pytest.fixture
def redis_factory(tmp_path):
    servers = []

    def start(*args):
        server = Redis(tmp_path / ("redis%d" % len(servers)), args)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def redis_server(redis_factory):
    """A running redis-server of the test's own."""
    return redis_factory()
