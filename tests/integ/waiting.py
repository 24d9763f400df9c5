"""Waiting for conditions. No test sleeps and hopes."""
import os
import random
import socket
import time

SCALE = float(os.environ.get("TEST_SCALE", "1"))


class Deadline:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds * SCALE

    def left(self):
        return max(self.end - time.monotonic(), 0)

    def passed(self):
        return self.left() == 0


def wait_for(what, condition, seconds=20, every=0.02):
    """Call condition() until it returns something true, and return that."""
    deadline = Deadline(seconds)
    while True:
        value = condition()
        if value:
            return value
        if deadline.passed():
            raise TimeoutError("waited %.0f s in vain: %s (last: %r)" % (seconds * SCALE, what, value))
        time.sleep(every)


def hold_for(what, condition, seconds):
    """The opposite: condition() must stay true for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what
        time.sleep(0.02)


def free_port():
    """A TCP port that is free on 127.0.0.1, below the range from which the kernel serves clients and port 0, so
    that nobody takes it while the test restarts what listens there."""
    while True:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
