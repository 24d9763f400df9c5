"""Fixtures of the feeds' tests: those of tests/integ, and a whole arrangement that the tests of one process share.

Sharing is possible because each test has users, tracks and threads of its own; what all share (the two global feeds,
the active broadcast) is put right by the `site` fixture. Whoever breaks something starts a Stack of his own.
"""
import importlib.util
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
INTEG = os.path.join(os.path.dirname(HERE), "integ")
sys.path[:0] = [HERE, INTEG]

spec = importlib.util.spec_from_file_location("integ_conftest", os.path.join(INTEG, "conftest.py"))
integ_conftest = importlib.util.module_from_spec(spec)
sys.modules["integ_conftest"] = integ_conftest
spec.loader.exec_module(integ_conftest)
from integ_conftest import *  # noqa: F401,F403,E402  (hooks and fixtures)

from stack import Stack  # noqa: E402


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("feeds") / "stack")
    stack.start()
    yield stack
    problems = stack.finish()
    assert not problems, "\n".join(problems)


@pytest.fixture
def site(shared_stack, request):
    """The shared arrangement, clean: no active broadcast, a healthy hook, no client of an earlier test."""
    stack = shared_stack
    log_from = len(stack.server.log())
    yield stack
    if getattr(request.node, "call_failed", False):
        print("---- log of ringcast\n" + stack.server.log()[log_from:][-6000:])
        print("---- log of the app\n" + stack.app.log()[-3000:])
    stack.redis_client.delete("current_broadcast")
    stack.data.run("DELETE FROM faults")
    stack.data.run("DELETE FROM hooks")
    stack.clients.close_now()


@pytest.fixture
def stack(tmp_path, request):
    """Arrangements of the test's own: stack(replicas=3, ...), see Stack."""
    stacks = []

    def start(**options):
        stacks.append(Stack(tmp_path / ("stack%d" % len(stacks)), **options))
        return stacks[-1].start()

    yield start
    problems = []
    for one in stacks:
        if getattr(request.node, "call_failed", False):
            for server in one.servers:
                print("---- log of ringcast\n" + server.log()[-6000:])
            print("---- log of the app\n" + one.app.log()[-3000:])
        problems += one.finish()
    assert not problems, "\n".join(problems)
