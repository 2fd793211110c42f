# SPDX-License-Identifier: MIT
"""Requirements A beyond single messages, which are the corpus (test_corpus.py): bytes one by one, refused clients that go on, answers in pieces,
what stands behind an answer."""

import re
import socket
import time

import pytest

import raw
from gateway import RecordingOrigin, forwarding, wait_for

H = b"Host: a\r\n"
GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


def get(line=b"", target=b"/", version=b"HTTP/1.1", host=H):
    return b"GET " + target + b" " + version + b"\r\n" + host + line + b"\r\n"


def post(fields, body=b"", version=b"HTTP/1.1"):
    return b"POST / " + version + b"\r\n" + H + fields + b"\r\n" + body


CL = b"Content-Length: "
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def front(start_shared):
    """(gateway, recording server), shared by this file's tests of requests."""
    def answer(conn, data, state):
        head, end, body = bytes(data).partition(b"\r\n\r\n")
        framing = head.lower()
        length = re.search(rb"content-length: (\d+)", framing)
        if b"transfer-encoding" in framing:
            whole = re.search(rb"(^|\r\n)0\r\n([^\r]+\r\n)*\r\n$", body)
        else:
            whole = end and len(body) >= (int(length.group(1)) if length else 0)
        if whole and not state.get("answered"):
            state["answered"] = True
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        return False

    server = RecordingOrigin(answer)
    gateway = start_shared(forwarding(server.address))
    yield gateway, server
    server.close()


def test_byte_by_byte(front):
    """A5, A9."""
    gateway, server = front
    data = post(CHUNKED, b"3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
    with raw.connect(gateway.port(), timeout=5) as s:
        for i in range(len(data)):
            s.sendall(data[i:i + 1])
        assert raw.Response(s).status == 200
    wait_for(lambda: bytes(server.connections[-1]).endswith(b"0\r\nX-Sum: 1\r\n\r\n"), 3, "the trailer")
    assert b"".join(bytes(server.connections[-1]).partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]).startswith(b"abc"), "in any chunks"


def test_the_answer_arrives_though_the_client_goes_on_sending(front):
    """A refused upload is read on for a while, so that no reset destroys the answer."""
    gateway, _ = front
    for i in range(5):
        with raw.connect(gateway.port(), timeout=10) as s:
            s.sendall(b"POST / HTTP/1.1\r\n" + H + CL + b"x\r\n\r\n")
            for k in range(20):
                s.sendall(b"u" * 20000)
            got, reset = raw.read_all(s)
            assert got.startswith(b"HTTP/1.1 400 ") and not reset


# --- answers ---

OK = b"HTTP/1.1 200 OK\r\n"

def test_answers_cut_anywhere_are_the_same(start, scripted):
    """A9: heads, interim answers, chunks and trailers of a server in two pieces, cut at every offset."""
    whole = (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK + b"Set-Cookie: a=b\r\n" + CHUNKED + b"\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
    bad = OK + b"X-A: b\r\nX-B : c\r\n" + CL + b"2\r\n\r\nok"

    def handler(peer):
        while True:
            data, cut = re.match(rb"GET /(\w+)/(\d+)", peer.head()).groups()
            data, cut = whole if data == b"whole" else bad, int(cut)
            peer.send(data[:cut])
            time.sleep(0.003)
            peer.send(data[cut:])

    gateway = start(forwarding(scripted(handler).address), workers=1)
    with raw.connect(gateway.port()) as s:
        for cut in range(1, len(whole)):
            s.sendall(b"GET /whole/%d HTTP/1.1\r\nHost: a\r\n\r\n" % cut)
            early = raw.Response(s)
            final = raw.Response(s, rest=early.rest)
            assert (early.status, early.get("link"), final.status, final.get("set-cookie"), final.body, final.trailers, final.rest) == (
                103, "a", 200, "a=b", b"abcde", [("X-Sum", "1")], b""), cut
        for cut in range(1, len(bad)):
            s.sendall(b"GET /bad/%d HTTP/1.1\r\nHost: a\r\n\r\n" % cut)
            assert raw.Response(s).status == 502, cut


def test_bytes_without_a_request_close_the_servers_connection(start, scripted):
    """A7: behind an answer, or on a kept connection: never taken for the next answer."""
    def handler(peer):
        peer.head()
        if peer.index == 0:
            peer.send(OK + CL + b"2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        elif peer.index == 1:
            peer.answer()
            time.sleep(0.1)
            peer.send(OK + CL + b"6\r\n\r\npoison")
        elif peer.index == 2:
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n" + OK + CL + b"6\r\n\r\npoison")
        else:
            peer.answer()
        took.append((peer.index, peer.wait_closed(20), peer.data))

    took = []
    server = scripted(handler)
    gateway = start(forwarding(server.address), workers=1)
    assert raw.request(gateway.port(), GOOD).body == b"ok"
    assert raw.request(gateway.port(), GOOD).body == b"ok"
    time.sleep(0.3)
    assert raw.request(gateway.port(), GOOD).status == 204
    assert raw.request(gateway.port(), GOOD).body == b"ok"
    assert len(server.peers) == 4
    wait_for(lambda: len(took) >= 3, 5, "the connections with too many bytes closed")
    assert {index for index, _, _ in took} == {0, 1, 2} and all(data == b"" for _, _, data in took), took  # closed at once, never asked again


def test_connection_strips_nothing_of_ours(front):
    """A8."""
    gateway, server = front
    raw.request(gateway.port(), get(b"Connection: x-forwarded-for, host, content-length, x-request-id, x-mine\r\nX-Mine: 1\r\nX-Request-Id: abc\r\n"))
    head = bytes(server.connections[-1]).lower()
    for kept in (b"\r\nx-forwarded-for: 127.0.0.1\r\n", b"\r\nhost: a\r\n", b"\r\nx-request-id: abc\r\n"):
        assert kept in head
    assert b"x-mine" not in head and b"\r\nconnection" not in head


def test_a_slow_head_is_one_verdict(front):
    """A3: a refusal comes at the first bad byte, not only when the head is whole."""
    gateway, _ = front
    with raw.connect(gateway.port(), timeout=5) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00")
        assert raw.Response(s).status == 400


def test_unread_socket_of_a_refused_client_is_given_back(front):
    """A client that is refused and stays is let go of after the bounded lingering read."""
    gateway, _ = front
    with raw.connect(gateway.port(), timeout=8) as s:
        s.sendall(b"BAD\r\n\r\n")
        assert raw.Response(s).status in (400, 501)
        start = time.monotonic()
        s.settimeout(8)
        with pytest.raises(OSError):
            while time.monotonic() - start < 6:
                s.sendall(b"x")
                time.sleep(0.05)
            raise AssertionError("still open")
        assert time.monotonic() - start < 5
    assert isinstance(s, socket.socket)
