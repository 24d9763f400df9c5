"""RFC 6455 as seen on the wire, against ws://HOST:PORT/echo: a message sent comes back to its sender alone.

Numbered after the groups of the well-known fuzzing client: 1 framing, 2 pings, 3 reserved bits, 4 opcodes,
5 fragmentation, 6 UTF-8, 7 closing, 9 size and speed, 10 automatic fragmentation; then what it does not ask:
masks, lengths, limits, and what a bad client costs the others.

WS_ECHO=HOST:PORT runs the cases that need no configuration against another server.
"""
import os
import socket
import struct
import threading
import time
import types

import psutil
import pytest

from redisproc import Redis
from server import Server
from waiting import SCALE, wait_for
from wsraw import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_payload, fragments, frame
import wsraw

pytestmark = pytest.mark.asan

K, M = 1024, 1024 * 1024
KIND = pytest.mark.parametrize("kind", [TEXT, BINARY], ids=["text", "binary"])
LARGE = """
ring { size = 64m }
limits { max_message = 16m  max_publication = 16m  max_fragments = 0 }
namespace "echo" { path = "/echo"  room = "{conn}"  redis_channel = "echo:{conn}"  publish = { "client" }
                   origins = { "*" } }
"""
ELSEWHERE = os.environ.get("WS_ECHO")


def serve(directory, config_text=None, redis=None):
    """One server for all cases of the module: a case ends its connection, and may not be able to harm another."""
    if ELSEWHERE:
        host, _, port = ELSEWHERE.rpartition(":")
        yield types.SimpleNamespace(host=host, port=int(port))
        return
    server = Server(directory / "ringcast", config_text, redis=redis)
    try:
        server.start()
        yield server
    finally:
        problems = server.finish()
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Messages up to 16 MiB in any number of fragments; local mode."""
    yield from serve(tmp_path_factory.mktemp("large"), LARGE)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """As it is with no configuration at all."""
    yield from serve(tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="module")
def large_redis(tmp_path_factory):
    """As `large`, every message on its way through a real Redis."""
    redis = Redis(tmp_path_factory.mktemp("redis") / "redis")
    redis.start()
    try:
        yield from serve(tmp_path_factory.mktemp("large"), LARGE, redis)
    finally:
        redis.kill()


def Client(server, timeout=15):
    return wsraw.Client(server.host, server.port, "/echo", timeout=timeout * SCALE)


@pytest.fixture
def ws(large):
    with Client(large) as client:
        yield client


@pytest.fixture
def ws_slow(large):
    """For megabytes: with a longer deadline."""
    with Client(large, timeout=60) as client:
        yield client


@pytest.fixture
def ws_redis(large_redis):
    with Client(large_redis, timeout=60) as client:
        yield client


def pattern(kind, n):
    """n bytes that show a lost, doubled or misplaced piece; ASCII for text."""
    unit = bytes(range(33, 127)) if kind == TEXT else bytes(range(256)) + b"\xff\xfe\x00"
    line = b"".join(unit[i:] + unit[:i] for i in range(len(unit)))
    return (line * (n // len(line) + 1))[:n]


def assert_echo(ws, kind, payload):
    payload = payload.encode() if isinstance(payload, str) else payload
    got_kind, got = ws.recv_message()
    assert got_kind == kind
    assert len(got) == len(payload)
    assert got == payload  # lengths first: pytest's diff of megabytes takes minutes


# --- 1: framing

SIZES = [0, 1, 125, 126, 127, 128, 4095, 4096, 4097, 16384, 65535, 65536, 65537]


@KIND
@pytest.mark.parametrize("size", SIZES)
def test_1_message_comes_back_whole(ws, kind, size):
    ws.send_frame(kind, pattern(kind, size))
    assert_echo(ws, kind, pattern(kind, size))
    assert ws.close() == 1000


@KIND
@pytest.mark.parametrize("size,chop", [(125, 1), (126, 1), (300, 7), (65536, 997), (200000, 4099)])
def test_1_chopped_message_comes_back_whole(ws, kind, size, chop):
    ws.send(frame(kind, pattern(kind, size)), chop=chop)
    assert_echo(ws, kind, pattern(kind, size))
    assert ws.close() == 1000


@KIND
@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4"])
def test_1_any_mask_is_undone(ws, kind, mask):
    ws.send(frame(kind, pattern(kind, 1003), mask=mask), chop=10)
    assert_echo(ws, kind, pattern(kind, 1003))


@KIND
def test_1_cuts_inside_the_header_change_nothing(ws, kind):
    for size in (5, 126, 65536):
        data = frame(kind, pattern(kind, size))
        for cut in range(1, 15):
            ws.send(data[:cut])
            time.sleep(0.002)  # only to make two reads likely; any outcome is right
            ws.send(data[cut:])
            assert_echo(ws, kind, pattern(kind, size))


# --- 2: pings and pongs

@pytest.mark.parametrize("payload", [b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125])
@pytest.mark.parametrize("chop", [None, 1])
def test_2_ping_is_answered_with_its_payload(ws, payload, chop):
    ws.send(frame(PING, payload), chop=chop)
    assert ws.recv_frame() == (PONG, payload)
    assert ws.close() == 1000


@pytest.mark.parametrize("chop", [None, 1])
def test_2_ping_of_126_bytes_is_1002(ws, chop):
    data = frame(PING, b"\xfe" * 126)
    if chop:
        ws.send(data[:2])  # two bytes tell; the server may end before more is sent
    else:
        ws.send(data)
    ws.expect_failure(1002)


@pytest.mark.parametrize("payload", [b"", b"unsolicited pong payload"])
def test_2_unsolicited_pong_is_ignored(ws, payload):
    ws.send(frame(PONG, payload) + frame(PING, b"then a ping"))
    assert ws.recv_frame() == (PONG, b"then a ping")
    assert ws.close() == 1000


@pytest.mark.parametrize("chop", [None, 1])
def test_2_ten_pings_get_ten_pongs_in_order(ws, chop):
    ws.send(b"".join(frame(PING, f"payload-{i}") for i in range(10)), chop=chop)
    for i in range(10):
        assert ws.recv_frame() == (PONG, b"payload-%d" % i)
    assert ws.close() == 1000


# --- 3: reserved bits

@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE], ids=["text", "binary", "ping", "pong", "close"])
def test_3_reserved_bits_are_1002(ws, opcode, rsv):
    payload = close_payload(1000) if opcode == CLOSE else b"Hello"
    ws.send_frame(opcode, payload, rsv=rsv)
    ws.expect_failure(1002)


@pytest.mark.parametrize("chop", [None, 1])
def test_3_a_message_before_reserved_bits_may_come_back_and_no_pong_after(ws, chop):
    bad = frame(TEXT, "bad", rsv=2) + frame(PING)
    ws.send(frame(TEXT, "good") + (bad if chop is None else bad[:2]), chop=chop)
    ws.expect_failure(1002, skip=(TEXT,))


@pytest.mark.parametrize("rsv", [1, 4])
def test_3_reserved_bits_on_a_continuation_are_1002(ws, rsv):
    ws.send(frame(TEXT, "one", fin=False) + frame(CONT, "two", rsv=rsv))
    ws.expect_failure(1002)


# --- 4: opcodes

@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("how", ["empty", "payload", "unfinished", "after-text"])
def test_4_reserved_opcodes_are_1002(ws, opcode, how):
    data = frame(opcode, b"" if how == "empty" else b"reserved opcode payload", fin=how != "unfinished")
    if how == "after-text":
        data = frame(TEXT, "good") + data + frame(PING)
    ws.send(data)
    ws.expect_failure(1002, skip=(TEXT,))


# --- 5: fragmentation

@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE], ids=["ping", "pong", "close"])
def test_5_fragmented_control_frame_is_1002(ws, opcode):
    ws.send(frame(opcode, b"", fin=False) + frame(CONT, b""))
    ws.expect_failure(1002)


@KIND
@pytest.mark.parametrize("chop", [None, "frames", 1])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_5_fragments_come_back_as_one(ws, kind, size, chop):
    payload = pattern(kind, 100)
    data = fragments(kind, payload, size)
    ws.send(data, chop=size + 6 if chop == "frames" else chop)
    assert_echo(ws, kind, payload)
    assert ws.close() == 1000


@KIND
@pytest.mark.parametrize("chop", [None, 1, 2, 3, 5, 8, 13])
def test_5_pings_between_fragments_are_answered_first(ws, kind, chop):
    ws.send(fragments(kind, pattern(kind, 30), 10, between=frame(PING, "between")), chop=chop)
    assert ws.recv_frame() == (PONG, b"between")
    assert ws.recv_frame() == (PONG, b"between")
    assert_echo(ws, kind, pattern(kind, 30))
    assert ws.close() == 1000


def test_5_ping_is_answered_before_the_message_ends(ws):
    ws.send(frame(TEXT, "first ", fin=False) + frame(PING, "now"))
    assert ws.recv_frame() == (PONG, b"now")
    ws.send(frame(CONT, "last"))
    assert_echo(ws, TEXT, "first last")


@pytest.mark.parametrize("n_first", range(0, 12))
def test_5_every_cut_of_a_payload(ws, n_first):
    ws.send(frame(TEXT, "fragmented!"[:n_first], fin=False) + frame(CONT, "fragmented!"[n_first:]))
    assert_echo(ws, TEXT, "fragmented!")


@pytest.mark.parametrize("parts", [["", "", ""], ["", "middle", ""], ["a", "", "b"], [""] * 100])
@KIND
def test_5_empty_fragments_count_for_nothing(ws, kind, parts):
    last = len(parts) - 1
    ws.send(b"".join(frame(CONT if i else kind, p, fin=i == last) for i, p in enumerate(parts)))
    assert_echo(ws, kind, "".join(parts))


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", ["", "nothing to continue"])
@pytest.mark.parametrize("before", ["", "text", "ping", "two fragments"])
def test_5_continuation_without_a_start_is_1002(ws, fin, payload, before):
    head = {"": b"", "text": frame(TEXT, "whole"), "ping": frame(PING),
            "two fragments": fragments(TEXT, "ab", 1)}[before]
    ws.send(head + frame(CONT, payload, fin=fin) + frame(TEXT, "never", fin=True))
    ws.expect_failure(1002, skip=(PONG,) if before == "ping" else (TEXT,))


@pytest.mark.parametrize("second", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("chop", [None, 1])
def test_5_new_message_inside_a_message_is_1002(ws, second, fin, chop):
    inner = frame(second, "inner", fin=fin)
    ws.send(frame(TEXT, "outer", fin=False) + (inner if chop is None else inner[:2]), chop=chop)
    ws.expect_failure(1002)


@pytest.mark.parametrize("chop", [None, 1])
def test_5_long_play_of_fragments_and_pings(ws, chop):
    """Two messages in five fragments each, pings inside and between; all at once and byte by byte."""
    ws.send(
        frame(TEXT, "fragment1", fin=False) + frame(CONT, "fragment2", fin=False) + frame(PING, "ping1") +
        frame(CONT, "fragment3", fin=False) + frame(CONT, "fragment4", fin=False) + frame(PING, "ping2") +
        frame(CONT, "fragment5") + frame(PING, "ping3") +
        frame(BINARY, "b1", fin=False) + frame(PONG, "not asked for") + frame(CONT, "b2", fin=True), chop=chop)
    got = [ws.recv_frame() for _ in range(5)]
    # A message takes its way through the ring; a pong does not wait for it, nor may it come late.
    assert [f for f in got if f[0] == PONG] == [(PONG, b"ping1"), (PONG, b"ping2"), (PONG, b"ping3")]
    assert [f for f in got if f[0] != PONG] == [
        (TEXT, b"fragment1fragment2fragment3fragment4fragment5"), (BINARY, b"b1b2")]
    assert got[:2] == [(PONG, b"ping1"), (PONG, b"ping2")]
    assert ws.close() == 1000


# --- 6: UTF-8

VALID = [
    "", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd",
    "\uffff", "\U00010000", "\U0010ffff", "\ufeffwith a mark", "😀👍🏽 in two planes", "\ufffe", "\ufdd0", "\U0001fffe",
    "\U0002ffff", "\U000ffffe", "\U0010fffe", "\x00\x01 control \x1f\x7f\u0085",
]

INVALID = [
    # continuation bytes alone, and in a row
    b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf", bytes(range(0x80, 0xc0)),
    # starts that nothing continues
    b" ".join(bytes([b]) for b in range(0xc0, 0xe0)) + b" ", b" ".join(bytes([b]) for b in range(0xe0, 0xf0)) + b" ",
    b"\xf0 \xf1 \xf2 \xf3 \xf4 ", b"\xf5 ", b"\xf8 \xf9 \xfa \xfb ", b"\xfc \xfd ",
    # sequences cut short, at the end of the text
    b"\xc3", b"\xe0\xa0", b"\xe2\x82", b"\xf0\x90\x80", b"\xf0\x9f\x98", b"\xdf", b"\xef\xbf", b"\xf4\x8f\xbf",
    # and within
    b"\xc3(", b"\xe2\x82(", b"\xf0\x9f\x98(", b"\xc3\xc3\x9f",
    # bytes that never occur
    b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xc0", b"\xc1\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    # overlong
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf", b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80",
    # above U+10FFFF
    b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf",
    # surrogates, alone and in pairs
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbe\x80",
    b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf",
]


@pytest.mark.parametrize("text", VALID, ids=range(len(VALID)))
def test_6_valid_text_comes_back(ws, text):
    data = text.encode()
    ws.send(frame(TEXT, data))
    assert_echo(ws, TEXT, data)
    ws.send(fragments(TEXT, data, 1))  # characters cut by fragments
    assert_echo(ws, TEXT, data)
    ws.send(frame(TEXT, data), chop=1)
    assert_echo(ws, TEXT, data)
    for cut in range(len(data) + 1):
        ws.send(frame(TEXT, data[:cut], fin=False) + frame(PING) + frame(CONT, data[cut:]))
        assert ws.recv_frame() == (PONG, b"")
        assert_echo(ws, TEXT, data)
    assert ws.close() == 1000


@pytest.mark.parametrize("bad", INVALID, ids=[b.hex()[:16] for b in INVALID])
@pytest.mark.parametrize("how", ["whole", "chopped", "fragments"])
def test_6_invalid_text_is_1007(large, bad, how):
    for text in (bad, "κόσμε".encode() + bad, b"much before " * 400 + bad):
        with Client(large) as ws:
            data = fragments(TEXT, text, 1) if how == "fragments" else frame(TEXT, text)
            try:
                ws.send(data, chop=1 if how == "chopped" and len(text) < 100 else None)
            except OSError:
                pass  # the server may end the connection while we still send
            ws.expect_failure(1007)


@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0", b"\xf4\x90", b"\xc0", b"\x80"])
def test_6_invalid_text_fails_before_the_message_ends(large, bad):
    """Fail fast: the first byte that makes it hopeless is the last that we send."""
    good = "κόσμε ".encode()
    with Client(large) as ws:
        ws.send(frame(TEXT, good, fin=False) + frame(CONT, bad, fin=False))
        ws.expect_failure(1007)
    with Client(large) as ws:
        ws.send(frame(TEXT, good + bad, announce=1000))
        ws.expect_failure(1007)
    with Client(large) as ws:
        ws.send(frame(TEXT, good + bad, announce=1000), chop=1)
        ws.expect_failure(1007)


@pytest.mark.parametrize("bad", INVALID[:12], ids=range(12))
def test_6_binary_is_not_text(ws, bad):
    ws.send(frame(BINARY, bad) + fragments(BINARY, bad, 1))
    assert_echo(ws, BINARY, bad)
    assert_echo(ws, BINARY, bad)


# --- 7: closing

def test_7_close_after_a_message(ws):
    ws.send_text("Hello World!")
    assert_echo(ws, TEXT, "Hello World!")
    assert ws.close(1000) == 1000


def test_7_message_and_close_at_once(ws):
    """The Close waits for what its sender published before it."""
    ws.send(frame(TEXT, "Hello World!") + frame(CLOSE, close_payload(1000)))
    ws.sent_close = True
    assert_echo(ws, TEXT, "Hello World!")
    assert ws.recv_close() == (1000, "")
    ws.recv_end()


@pytest.mark.parametrize("late", [frame(CLOSE, close_payload(1000)), frame(PING), frame(TEXT, "late"),
                                  frame(TEXT, "late", rsv=7), b"\0\0\0 garbage"],
                         ids=["close", "ping", "text", "error", "garbage"])
def test_7_nothing_is_answered_after_close(ws, late):
    ws.send(frame(CLOSE, close_payload(1000)) + late)
    assert ws.recv_close() == (1000, "")
    ws.recv_end()


def test_7_close_within_a_message_drops_it(ws):
    ws.send(frame(TEXT, "never finished", fin=False) + frame(CLOSE, close_payload(1000)) + frame(CONT, "late"))
    assert ws.recv_close() == (1000, "")
    ws.recv_end()


@KIND
def test_7_close_after_256k(ws, kind):
    payload = pattern(kind, 256 * 1024)
    ws.send(frame(kind, payload) + frame(TEXT, "and one more") + frame(CLOSE, close_payload(1000)))
    assert_echo(ws, kind, payload)
    assert_echo(ws, TEXT, "and one more")
    assert ws.recv_close() == (1000, "")
    ws.recv_end()


@pytest.mark.parametrize("chop", [None, 1])
def test_7_empty_close_is_answered_empty(ws, chop):
    ws.send(frame(CLOSE), chop=chop)
    assert ws.recv_close() == (1005, "")
    ws.recv_end()


@pytest.mark.parametrize("chop", [None, 1])
def test_7_close_of_one_byte_is_1002(ws, chop):
    ws.send(frame(CLOSE, b"a"), chop=chop)
    ws.expect_failure(1002)


@pytest.mark.parametrize("reason", ["", "Hello World!", "*" * 123, "grüß Gott 😀", "é" * 61])
@pytest.mark.parametrize("chop", [None, 1, 3])
def test_7_close_with_a_reason(ws, reason, chop):
    ws.send(frame(CLOSE, close_payload(1000, reason)), chop=chop)
    code, _ = ws.recv_close()
    assert code == 1000
    ws.recv_end()


@pytest.mark.parametrize("length", [126, 127, 200])
def test_7_close_over_125_bytes_is_1002(ws, length):
    ws.send(frame(CLOSE, close_payload(1000, "*" * (length - 2))))
    ws.expect_failure(1002)


@pytest.mark.parametrize("reason", [b"\xce\xba\xed\xa0\x80ed", b"\xff", b"cut\xc3", b"\x80", b"\xc0\xaf"])
@pytest.mark.parametrize("chop", [None, 1, 2, 3])
def test_7_close_reason_must_be_utf8(ws, reason, chop):
    ws.send(frame(CLOSE, struct.pack("!H", 1000) + reason), chop=chop)
    ws.expect_failure(1007)


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_7_legal_close_codes_are_answered(ws, code):
    assert ws.close(code) == code


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
@pytest.mark.parametrize("reason", ["", "because"])
def test_7_illegal_close_codes_are_1002(ws, code, reason):
    ws.send(frame(CLOSE, close_payload(code, reason)))
    ws.expect_failure(1002)


def test_7_the_server_ends_the_connection_first(ws):
    """After both Closes the server ends TCP at once and does not wait for us (RFC 6455, 7.1.1)."""
    began = time.monotonic()
    assert ws.close() == 1000
    assert time.monotonic() - began < 3 * SCALE


# --- 9: size and speed

@KIND
@pytest.mark.parametrize("size", [64 * K, 256 * K, M, 4 * M, 8 * M, 16 * M])
def test_9_large_messages(ws_slow, kind, size):
    payload = pattern(kind, size)
    ws_slow.send_frame(kind, payload)
    assert_echo(ws_slow, kind, payload)
    assert ws_slow.close() == 1000


@KIND
@pytest.mark.parametrize("size", [64, 256, K, 4 * K, 16 * K, 64 * K, 256 * K, M, 4 * M])
def test_9_4m_in_fragments(ws_slow, kind, size):
    payload = pattern(kind, 4 * M)
    ws_slow.send(fragments(kind, payload, size))
    assert_echo(ws_slow, kind, payload)
    assert ws_slow.close() == 1000


@KIND
@pytest.mark.parametrize("chop", [64, 128, 256, 512, K, 2 * K])
def test_9_1m_chopped(ws_slow, kind, chop):
    payload = pattern(kind, M)
    ws_slow.send(frame(kind, payload), chop=chop)
    assert_echo(ws_slow, kind, payload)
    assert ws_slow.close() == 1000


@KIND
@pytest.mark.parametrize("size", [0, 16, 64, 256, K, 4 * K])
def test_9_1000_messages_one_after_the_other(ws_slow, kind, size):
    payload = pattern(kind, size)
    data = frame(kind, payload)
    for _ in range(1000):
        ws_slow.send(data)
        assert ws_slow.recv_message() == (kind, payload)
    assert ws_slow.close() == 1000


def stream_of_1000(ws):
    """1000 messages of mixed kinds and sizes, sent without waiting for what comes back."""
    messages = [(TEXT if i % 3 else BINARY, pattern(TEXT, (i * 37) % 9001)) for i in range(1000)]
    sender = threading.Thread(target=ws.send, args=(b"".join(frame(k, p) for k, p in messages),))
    sender.start()
    try:
        for kind, payload in messages:
            assert_echo(ws, kind, payload)
    finally:
        sender.join(60 * SCALE)
    assert ws.close() == 1000


def test_9_1000_messages_of_all_sizes_in_one_stream(ws_slow):
    stream_of_1000(ws_slow)


# --- 10: automatic fragmentation

@pytest.mark.parametrize("size", [1300, 1, 17])
def test_10_64k_in_small_frames(ws_slow, size):
    payload = pattern(TEXT, 65536)
    ws_slow.send(fragments(TEXT, payload, size))
    assert_echo(ws_slow, TEXT, payload)
    assert ws_slow.close() == 1000


# --- the same way through Redis

@KIND
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, M, 16 * M])
def test_redis_messages_keep_bytes_and_kind(ws_redis, kind, size):
    ws_redis.send_frame(kind, pattern(kind, size))
    assert_echo(ws_redis, kind, pattern(kind, size))
    assert ws_redis.close() == 1000


def test_redis_fragments_pings_and_characters_cut(ws_redis):
    ws_redis.send(fragments(TEXT, "κόσμε 😀 grüß", 1, between=frame(PING, "x")), chop=5)
    for _ in range(len("κόσμε 😀 grüß".encode()) - 1):
        assert ws_redis.recv_frame() == (PONG, b"x")
    assert_echo(ws_redis, TEXT, "κόσμε 😀 grüß")


@KIND
def test_redis_bytes_that_are_not_utf8_stay_what_they_were(ws_redis, kind):
    payload = "valid as text".encode() if kind == TEXT else b"\xff\x00\r\n$5\r\n"
    for _ in range(3):
        ws_redis.send_frame(kind, payload)
        assert_echo(ws_redis, kind, payload)


def test_redis_1000_messages_in_one_stream(ws_redis):
    stream_of_1000(ws_redis)


def test_redis_close_waits_for_what_was_sent_before(ws_redis):
    ws_redis.send(frame(TEXT, "before") + frame(CLOSE, close_payload(1000)))
    ws_redis.sent_close = True
    assert_echo(ws_redis, TEXT, "before")
    assert ws_redis.recv_close() == (1000, "")
    ws_redis.recv_end()


# --- masks and lengths

@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE], ids=["text", "binary", "ping", "pong", "close"])
@pytest.mark.parametrize("size", [0, 2, 125])
def test_unmasked_frames_are_1002(ws, opcode, size):
    ws.send_frame(opcode, close_payload(1000, "x" * (size - 2)) if opcode == CLOSE and size else b"x" * size, mask=None)
    ws.expect_failure(1002)


def test_unmasked_continuation_is_1002(ws):
    ws.send(frame(TEXT, "a", fin=False) + frame(CONT, "b", mask=None))
    ws.expect_failure(1002)


@pytest.mark.parametrize("size,form", [(0, 16), (125, 16), (0, 64), (125, 64), (126, 64), (65535, 64)])
@KIND
def test_lengths_that_are_not_minimal_are_1002(ws, kind, size, form):
    ws.send(frame(kind, announce=size, form=form))
    ws.expect_failure(1002)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, (1 << 63) + 5])
def test_length_with_the_top_bit_is_1002(ws, length):
    ws.send(frame(BINARY, announce=length, form=64))
    ws.expect_failure(1002)


# --- limits (RFC 6455, 7.4.1: 1009)

@KIND
def test_limit_one_byte_over_16m_is_1009_on_its_header(ws, kind):
    ws.send(frame(kind, announce=16 * M + 1))
    ws.expect_failure(1009)


@pytest.mark.parametrize("length", [1 << 31, 1 << 32, (1 << 32) + 5, (1 << 62), (1 << 63) - 1])
def test_limit_huge_announcements_are_1009(ws, length):
    ws.send(frame(BINARY, announce=length))
    ws.expect_failure(1009)


def test_limit_is_over_all_fragments(ws_slow):
    ws = ws_slow
    ws.send(frame(BINARY, bytes(16 * M - 10), fin=False) + frame(CONT, b"x" * 10, fin=False))
    ws.send(frame(CONT, announce=1))
    ws.expect_failure(1009)


@KIND
def test_limit_default_is_64k_exactly(default, kind):
    with Client(default) as ws:
        ws.send_frame(kind, pattern(kind, 65536))
        assert_echo(ws, kind, pattern(kind, 65536))
        ws.send(fragments(kind, pattern(kind, 65536), 1024))
        assert_echo(ws, kind, pattern(kind, 65536))
        ws.send(frame(kind, announce=65537))
        ws.expect_failure(1009)


def test_limit_default_is_1024_fragments_exactly(default):
    with Client(default) as ws:
        ws.send(fragments(TEXT, "x" * 1024, 1, between=frame(PONG)))
        assert_echo(ws, TEXT, "x" * 1024)
        ws.send(fragments(TEXT, "x" * 1025, 1))
        ws.expect_failure(1009)


# --- one client's doings and the others

def test_others_are_served_while_16m_trickle_in(large):
    payload = pattern(BINARY, 16 * M)
    data = frame(BINARY, payload)
    with Client(large, timeout=60) as slow, Client(large, timeout=60) as other:
        worst = 0.0
        for i in range(0, len(data), M):
            slow.send(data[i:i + M])
            began = time.monotonic()
            other.send_text(f"still here {i}")
            assert_echo(other, TEXT, f"still here {i}")
            worst = max(worst, time.monotonic() - began)
        assert_echo(slow, BINARY, payload)
    assert worst < 5 * SCALE  # the bound of a loaded test machine; an idle one needs about a millisecond


def test_a_failed_connection_leaves_no_trace_on_the_next(large):
    """Parsers are borrowed: whoever borrows one after an error gets a clean one."""
    for i in range(50):
        with Client(large) as bad, Client(large) as good:
            good.send(frame(TEXT, "gr\xc3\xbc".encode()[:3], fin=False))
            bad.send(frame(TEXT, b"ok \xc3", fin=False) + frame(CONT, b"(" if i % 2 else b"\xff"))
            bad.expect_failure(1007)
            good.send(frame(CONT, "gr\xc3\xbc".encode()[3:] + b" fine"))
            assert_echo(good, TEXT, "gr\xc3\xbc fine")


def test_unfinished_frames_of_many_clients_mix_nothing(large):
    clients = [Client(large) for _ in range(40)]
    try:
        data = [frame(BINARY, pattern(BINARY, 500 + i) + bytes([i]), mask=bytes([i, 1, 255 - i, 7]))
                for i in range(len(clients))]
        for at in range(0, 560, 80):
            for client, d in zip(clients, data):
                client.send(d[at:at + 80])
        for i, client in enumerate(clients):
            assert_echo(client, BINARY, pattern(BINARY, 500 + i) + bytes([i]))
    finally:
        for client in clients:
            client.sock.close()


def test_announced_lengths_cost_no_memory(large):
    """100 clients announce 16 MiB each and send ten bytes of it."""
    def rss():
        master = psutil.Process(large.pid)
        return sum(p.memory_info().rss for p in [master, *master.children(recursive=True)])

    with Client(large) as probe:
        before = rss()
        liars = [Client(large) for _ in range(100)]
        try:
            for liar in liars:
                liar.send(frame(BINARY, b"0123456789", announce=16 * M))
            probe.send(frame(PING, "all read?"))
            assert probe.recv_frame() == (PONG, b"all read?")
            probe.send_text("served")
            assert_echo(probe, TEXT, "served")
            assert rss() - before < 100 * M
        finally:
            for liar in liars:
                liar.sock.close()


def test_an_abrupt_end_anywhere_harms_nobody(large):
    data = fragments(TEXT, "κόσμε and more", 4, between=frame(PING, "x")) + frame(CLOSE, close_payload(1000, "end"))
    for cut in range(0, len(data), 3):
        with Client(large) as ws:
            ws.send(data[:cut])
            if cut % 2:  # a RST instead of a FIN
                ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Client(large) as ws:
        ws.send_text("alive")
        assert_echo(ws, TEXT, "alive")
        assert ws.close() == 1000
