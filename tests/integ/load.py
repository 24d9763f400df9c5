"""build/ringcast-bench: clients that check each message (once, in order, from the 101 on), and publishers."""
import json
import os
import subprocess

from server import BUILD
from waiting import SCALE

# Of the plain build, also when the server is one with sanitizers: it is the measure, not what is measured.
RINGCAST_BENCH = os.path.join(os.environ.get("RINGCAST_BENCH", BUILD), "ringcast-bench")


class Load:
    """A run in the background; finish() returns its report."""

    def __init__(self, server, *args, seconds=60, **options):
        command = [RINGCAST_BENCH, "--json", "--target", "%s:%d" % (server.host, server.port),
                   "--http", "%s:%d" % (server.host, server.admin_port), "--path", "/ws/room%d",
                   "--max-seconds", str(int(seconds * SCALE))]
        options.setdefault("drain", int(20 * SCALE))
        for name, value in options.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        self.seconds = seconds
        self.process = subprocess.Popen(command + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def is_running(self):
        return self.process.poll() is None

    def finish(self, ok=True):
        """Wait; by default everything must have been as promised."""
        try:
            out, err = self.process.communicate(timeout=self.seconds * SCALE + 30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError("ringcast-bench does not end: %s %s" % (out[-2000:], err[-2000:]))
        assert out, err
        report = json.loads(out.splitlines()[-1])
        if ok:
            assert report["ok"] and self.process.returncode == 0, "%s\n%s" % (json.dumps(report, indent=1), err)
        return report


def run_load(server, *args, ok=True, **options):
    return Load(server, *args, **options).finish(ok)
