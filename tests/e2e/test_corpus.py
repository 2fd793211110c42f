# SPDX-License-Identifier: MIT
"""The corpus: every malformed and borderline message in corpus/, whole and cut at every offset, and exactly what the other side saw of it.

Requirements A1-A10, B11, B12; each case says which. A server never sees a byte of a refused request, a client never one of a refused answer.
"""

import collections
import pathlib
import re

import pytest

import corpus_rig as rig
from gateway import forwarding

REQUESTS = [case for name in ("requests-refused.txt", "requests-taken.txt", "chunks.txt", "upgrades.txt") for case in rig.read_cases(name)]
RESPONSES = rig.read_cases("responses.txt")
SWITCHES = rig.read_cases("switches.txt")

HANDSHAKE = (b"GET /%d HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
             + rig.KEY + b"\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n")


def ids(cases):
    return [case.id for case in cases]


@pytest.fixture(scope="module")
def requests(start_shared):
    yield from running(start_shared, rig.RequestRig())


@pytest.fixture(scope="module")
def responses(start_shared):
    yield from running(start_shared, rig.ResponseRig())


def running(start_shared, made):
    gateway = start_shared(forwarding(made.address, pool="probe = false, keepalive = 1000,"), workers=1)
    made.port = gateway.port()
    made.gateway = gateway
    yield made
    made.close()


def explain(case, what):
    return f"{case.place}: {case.name}: {what}\n  sent {case.send[:400]!r}"


def same(case, got, judge):
    """Every cut has the verdict that judge(bytes) finds right; else says which had not."""
    wrong = {}
    for cut, data in zip(case.cuts, got):
        try:
            judge(data)
        except AssertionError as error:
            wrong.setdefault(str(error).split("\n")[0], []).append(cut)
    assert not wrong, explain(case, f"by cut (0: whole): {wrong}")


def in_part(seen, allowed, port):
    """What the server saw of a message that broke: its head, and a part of its data, without an end."""
    head, _, body = allowed.partition(b"\r\n\r\n")
    got_head, end, got_body = seen.partition(b"\r\n\r\n")
    data, rest = rig.take_chunks(got_body)
    whole, _ = rig.take_chunks(body)
    return end and rig.without_ours(got_head + end, port) == head + end and rest is None and whole.startswith(data)


@pytest.mark.parametrize("case", REQUESTS, ids=ids(REQUESTS))
def test_requests(requests, case):
    """A1-A6, A8-A10, B11: the answers, the close, and the server's bytes."""
    count = len(case.cuts)
    words = case.want.split()
    statuses = [int(word) for word in words if word.isdigit()]
    refused = statuses[-1] >= 400
    goes_on = not refused and "close" not in words and 101 not in statuses
    got, seen, parts = requests.play(case)

    def judge(data):
        answers, rest = rig.read_responses(data, case.send.lstrip().startswith(b"HEAD "))
        assert rest == b"", f"left over: {rest!r}"
        assert [status for status, _, _ in answers] == statuses + [200] * goes_on, data
        if 101 not in statuses:
            assert b"\r\nConnection: close" in answers[-1][1], data
        if refused:
            assert (b"\r\nSec-WebSocket-Version: 13" in answers[-1][1]) == (statuses[-1] == 426), data
            assert (b"\r\nAllow: " in answers[-1][1]) == (statuses[-1] == 405), data

    same(case, got, judge)
    allowed = case.get("server", "" if refused else None)
    if isinstance(allowed, bytes) and allowed.startswith(b"part "):
        assert not seen, explain(case, f"a whole message: {seen}")
        for part in parts:
            assert in_part(part, allowed[5:], requests.port), explain(case, f"the server got {part!r}")
        assert len(parts) <= count
        return
    expected = collections.Counter()
    for message in messages(allowed or b""):
        expected[message] += count
    if goes_on:
        expected[rig.GOOD_SEEN] += count
    tunnels = [part for part in parts if part]
    assert tunnels == [rig.GOOD] * (count if 101 in statuses else 0), explain(case, f"bytes at the server: {tunnels[:3]}")
    assert seen == expected, explain(case, f"the server got {dict(seen - expected)}, missing {dict(expected - seen)}")


def messages(data):
    """Whole messages written one behind the other, as RequestRig records them."""
    while data:
        message, data = rig.take_message(data)
        assert message is not None, f"no whole message: {data!r}"
        yield message


def closed_or_over(rig_, asked):
    rig_.until(lambda: all(end.over for end in asked.values()), lambda: "the server's connections stay open")


@pytest.mark.parametrize("case", RESPONSES, ids=ids(RESPONSES))
def test_responses(responses, case):
    """A1, A3-A9: what the client gets, byte by byte; the client's connection goes on, the server's bad one does not."""
    method = case.get("request", b"GET")
    asked = responses.play(case, method + b" /%d HTTP/1.1\r\nHost: a\r\n\r\n")
    statuses = [int(word) for word in case.want.split() if word.isdigit()]
    bad = case.want == "cut" or statuses[-1] == 502
    clients = list(responses.clients)
    if case.want == "cut":
        responses.until(lambda: all(end.over or b"502 Bad" in end.data for end in clients), lambda: "a client waits on")
    else:
        responses.until(lambda: all(whole(end.data, method) for end in clients),
                        lambda: f"{[end.data for end in clients if not whole(end.data, method)][:2]}")
    got = [end.data for end in clients]
    if bad or "behind the end" in case.section:
        closed_or_over(responses, asked)
    if case.want == "cut":
        same(case, got, lambda data: judge_abort(data))
    else:
        def judge(data):
            answers, rest = rig.read_responses(data, method == b"HEAD")
            assert rest == b"", f"left over: {rest!r}"
            final = [status for status, _, _ in answers if "early" not in case.want or status >= 200]
            assert final == statuses, data
            if bad:
                assert answers[-1][2] == (b"" if method == b"HEAD" else b"502 Bad Gateway\n") and b"\r\nX: " not in answers[-1][1], data
            else:
                assert one_chunk(data, method) == case.client, data
        same(case, got, judge)
        # The client's connection lives on, and what it gets next is what was meant for it.
        for end in clients:
            end.data = b""
            end.send(rig.GOOD)
        responses.until(lambda: all(end.over for end in clients), lambda: "the next request is not answered")
        for end in clients:
            answers, rest = rig.read_responses(end.data)
            assert rest == b"" and [(status, body) for status, _, body in answers] == [(200, b"ok")], explain(case, end.data)
    responses.end_clients()


def whole(data, method):
    answers, rest = rig.read_responses(data, method == b"HEAD")
    return answers and answers[-1][0] >= 200 and rest == b""


def judge_abort(data):
    """502 in place of the answer, or a part of it and the connection's end."""
    answers, rest = rig.read_responses(data)
    if answers:
        assert [status for status, _, _ in answers] == [502] and rest == b"", data
    else:
        assert b"\r\n0\r\n" not in rest, data


def one_chunk(data, method=b"GET"):
    """A response with its chunks made one."""
    head, end, body = data.rpartition(b"\r\n\r\n") if b"chunked" not in data else data.partition(b"\r\n\r\n")
    if re.search(rb"(?i)\r\ntransfer-encoding: chunked", head) and method != b"HEAD":
        body, rest = rig.take_chunks(body)
        assert rest == b"", data
    return head + end + body


@pytest.mark.parametrize("case", SWITCHES, ids=ids(SWITCHES))
def test_switches(responses, case):
    """B12, A7: only the right 101 opens a tunnel; anything else is a 502, or an ordinary answer and the close."""
    asked = responses.play(case, HANDSHAKE)
    statuses = [int(word) for word in case.want.split()]
    clients = list(responses.clients)
    if statuses[-1] == 101:
        responses.until(lambda: all(len(end.data) >= len(case.client) for end in clients), lambda: f"{[end.data for end in clients][:1]}")
        for end in asked.values():
            assert end.data == b"", explain(case, "bytes towards the server")
        for end in clients:
            end.send(b"through")
        responses.until(lambda: all(end.data == b"through" for end in asked.values()), lambda: "bytes do not pass")
        same(case, [end.data for end in clients], lambda data: equal(data, case.client))
        for end in asked.values():
            end.close(responses.selector)
    else:
        for end in clients:
            end.send(rig.GOOD)  # however late: behind a handshake that failed comes no request (RFC 9931)
        responses.until(lambda: all(end.over for end in clients), lambda: f"{[end.data for end in clients if not end.over][:1]}")

        def judge(data):
            answers, rest = rig.read_responses(data)
            assert rest == b"" and [status for status, _, _ in answers] == statuses, data
            if statuses[-1] == 502:
                assert answers[-1][2] == b"502 Bad Gateway\n", data
            else:
                equal(one_chunk(data), case.client)
            assert b"\r\nConnection: close" in answers[-1][1], data
        same(case, [end.data for end in clients], judge)
        assert not any(end.data for end in responses.servers), explain(case, "bytes behind the handshake at the server")
    closed_or_over(responses, asked)
    responses.end_clients()


def equal(data, expected):
    assert data == expected, data


def test_the_corpus_is_whole():
    """At least 250 cases in all; each says what, what becomes of it and why; each kind is there."""
    cases = REQUESTS + RESPONSES + SWITCHES
    assert len(cases) >= 250
    assert {case.point for case in cases} >= {"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A10", "B11", "B12"}
    assert {path.name for path in pathlib.Path(rig.FOLDER).glob("*.txt")} == {case.place.split(":")[0] for case in cases}
    places = collections.Counter(case.send for case in REQUESTS)
    twice = [case.place for case in REQUESTS if places[case.send] > 1]
    assert not twice, f"the same message twice: {twice}"
    argued = [case for case in cases if case.get("rfc")]
    assert len(argued) >= 500
    assert all(re.match(r"\d{4}( C?[\d.]+)?[ :,]", case.rfc) for case in argued), "a number, and where there are some a section"
    for case in cases:  # issue 4: a head of up to 300 bytes at every offset, whatever follows it
        head, end, _ = case.send.partition(b"\r\n\r\n")
        offsets = min(len(head + end) + 1, len(case.send) or 1) if len(head + end) <= 300 else 1
        assert set(range(offsets)) <= set(case.cuts), case.place


def test_guard_and_parser_agree(requests, responses):
    """After all of the above no head on which our two readers differed."""
    for played in (requests, responses):
        assert played.gateway.counters()["parser_mismatches"] == 0
