"""docs/checklist.md is complete and names tests that exist; the documents that the feeds need are there."""
import os
import re

from server import TOP
from stack import FEEDS

WANTED = ["%s%d" % (letter, n) for letter, last in (("S", 84), ("R", 16), ("F", 32), ("T", 6)) for n in range(1, last + 1)]


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as f:
        return f.read()


def rows():
    """The checklist's rows: (number, demand, state, [tests], remark)."""
    found = []
    for line in read("docs/checklist.md").splitlines():
        match = re.match(r"\| ([SRFT]\d+) \|", line)
        if match:
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert len(cells) == 5, line
            found.append((cells[0], cells[1], cells[2], [t.strip() for t in cells[3].split(",") if t.strip()], cells[4]))
    return found


def exists(test):
    """file::name, a pytest function or a C test; the file is below tests/ or is one of bench/."""
    path, _, name = test.partition("::")
    path = path if path.startswith("bench/") else "tests/" + path
    if not os.path.isfile(os.path.join(TOP, path)):
        return False
    form = r"^(async )?def %s\(" if path.endswith(".py") else r"\b%s\("
    return re.search(form % re.escape(name), read(path), re.M) is not None


def test_no_number_is_left_out():
    assert [row[0] for row in rows()] == WANTED


def test_every_row_has_a_state_and_says_why():
    for number, demand, state, tests, remark in rows():
        assert demand and state in ("holds", "not yet", "the application's"), number
        assert tests if state == "holds" else len(remark) > 15, number


def test_every_test_that_is_named_exists():
    missing = [(row[0], test) for row in rows() for test in row[3] if not exists(test)]
    assert not missing


def test_no_line_of_c_knows_the_five_systems():
    """S14: only etc/feeds.conf, tests and documents name them."""
    words = re.compile("|".join('"%s"' % feed for feed in FEEDS) + "|" + "|".join(feed for feed in FEEDS if "_" in feed))
    for room in ("common", "shm", "master", "worker"):
        for name in os.listdir(os.path.join(TOP, room)):
            if name.endswith((".c", ".h")):
                assert not words.search(read(room + "/" + name)), room + "/" + name


def test_the_documents_are_there():
    """S84: analysis, migration with testing and roll-back, configuration, operations, protocol, checklist."""
    for name in ("analysis", "migration", "configuration", "operations", "protocol", "checklist"):
        assert len(read("docs/%s.md" % name)) > 2000, name


def test_the_migration_guide_has_the_commands_it_promises():
    """S40, S36, S37, S41: each check is one command; every feed has its notes; both proxies have a roll-back."""
    text = read("docs/migration.md")
    for command in ("/ready", "PUBSUB NUMSUB", "/stats", "/metrics", "/api/publish", "level=error", "-t -c"):
        assert command in text, command
    for feed in FEEDS:
        assert "`%s`" % feed in text, feed
    for word in ("nginx", "haproxy", "_target_groups", "1012", "1008", "1013", "F25", "F27", "T1", "T6"):
        assert word in text, word
