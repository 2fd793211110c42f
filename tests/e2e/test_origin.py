# SPDX-License-Identifier: MIT
"""`moongate origin`: every documented path, since examples, tests and benchmarks lean on it."""

import asyncio
import json
import subprocess
import time

import pytest
import websockets

import raw
from gateway import Origin, Process, binary

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def server():
    made = Origin("one")
    yield made
    assert made.stop() == 0 and "Sanitizer" not in made.err()


def get(server, path, method=b"GET", extra=b"", body=b""):
    return raw.request(server.port, method + b" " + path + b" HTTP/1.1\r\nHost: a\r\n" + extra + b"\r\n", body)


def test_its_first_line_and_any_port():
    process = Process([binary(), "origin", "0", "--name", "x"])
    try:
        while not process.lines_out and process.proc.poll() is None:
            time.sleep(0.01)
        assert process.lines_out[0].startswith("origin x on http://127.0.0.1:")
        port = int(process.lines_out[0].rstrip("/").rpartition(":")[2])
        assert raw.request(port, GET % b"/hello").get("x-origin") == "x"
        second = subprocess.run([binary(), "origin", str(port)], capture_output=True, text=True, timeout=20)
        assert second.returncode == 1 and str(port) in second.stderr
    finally:
        assert process.stop() == 0


def test_who_answers(server):
    response = get(server, b"/any/path?q=1")
    assert response.status == 200 and response.get("x-origin") == "one" and response.body == b"one: GET /any/path?q=1\n"
    assert b"<title>" in get(server, b"/").body


@pytest.mark.parametrize("size", [0, 1, 1000, 70000, 3 << 20])
@pytest.mark.parametrize("query", ["", "?chunked=1", "?close=1"])
def test_size(server, size, query):
    response = get(server, f"/size/{size}{query}".encode())
    assert response.status == 200 and len(response.body) == size
    assert (response.get("transfer-encoding") == "chunked") == (query == "?chunked=1")
    assert (response.get("content-length") is None) == bool(query)


def test_cut(server):
    for query in (b"", b"&chunked=1"):
        with pytest.raises((EOFError, ConnectionResetError)):
            get(server, b"/size/1000?cut=10" + query)


@pytest.mark.parametrize("status", [200, 204, 301, 304, 404, 500, 503, 999])
def test_status(server, status):
    assert get(server, b"/status/%d" % status).status == status


def test_interim_answers(server):
    with raw.connect(server.port) as s:
        s.sendall(GET % b"/status/103")
        first = raw.Response(s)
        assert first.status == 103 and raw.Response(s, rest=first.rest).status == 200
    assert get(server, b"/status/101").status == 101


def test_echo(server):
    response = get(server, b"/echo", b"POST", b"X-A: 1\r\nContent-Length: 5\r\n", b"hello")
    assert response.body.startswith(b"POST /echo HTTP/1.1\r\n") and b"X-A: 1\r\n" in response.body and response.body.endswith(b"\r\n\r\nhello")
    response = get(server, b"/echo?stream=1", b"POST", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert response.get("transfer-encoding") == "chunked" and response.body.endswith(b"abcde")


def test_early_answer(server):
    with raw.connect(server.port) as s:
        s.sendall(b"POST /size/3?early=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        assert len(raw.Response(s).body) == 3, "before the body came"


def test_expect(server):
    with raw.connect(server.port) as s:
        s.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        first = raw.Response(s)
        assert first.status == 100
        s.sendall(b"ok")
        assert raw.Response(s, rest=first.rest).body.endswith(b"ok")


def test_slow_and_stream(server):
    begin = time.monotonic()
    assert get(server, b"/slow/300").status == 200 and time.monotonic() - begin > 0.28
    begin = time.monotonic()
    response = get(server, b"/stream/3/150")
    assert response.get("content-type") == "text/event-stream" and response.body.count(b"data: ") == 3
    assert time.monotonic() - begin > 0.28


def test_headers_and_trailers(server):
    response = get(server, b"/headers", extra=b"X-B: 2\r\nx-b: 3\r\n")
    assert [pair for pair in json.loads(response.body) if pair[0].lower() == "x-b"] == [["X-B", "2"], ["x-b", "3"]]
    assert response.all("set-cookie") == ["a=1", "b=2"]
    response = get(server, b"/trailers")
    assert response.body == b"hello" and ("x-checksum", "5d41402a") in response.trailers


def test_drop(server):
    assert raw.send_all(server.port, GET % b"/drop") == b""


def test_health_can_be_switched(server):
    assert get(server, b"/healthz").status == 200
    assert get(server, b"/healthz/fail").status == 405, "by POST only"
    assert get(server, b"/healthz/fail", b"POST", b"Content-Length: 0\r\n").status == 200
    assert get(server, b"/healthz").status == 503
    assert get(server, b"/healthz/ok", b"POST", b"Content-Length: 0\r\n").status == 200
    assert get(server, b"/healthz").status == 200


def test_keep_alive_pipelining_head_and_old_clients(server):
    with raw.connect(server.port) as s:
        s.sendall((GET % b"/size/3") * 3 + b"HEAD /size/9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        rest = b""
        for i in range(3):
            response = raw.Response(s, rest=rest)
            rest = response.rest
            assert len(response.body) == 3
        response = raw.Response(s, head_only=True, rest=rest)
        assert response.get("content-length") == "9" and raw.read_all(s)[0] == b""
    assert raw.send_all(server.port, b"GET /size/3 HTTP/1.0\r\n\r\n").count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET /size/x HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_it_does_not_understand(server, data):
    assert raw.send_all(server.port, data, shut=True).startswith(b"HTTP/1.1 400 ")
    assert get(server, b"/size/1").status == 200


@pytest.mark.parametrize("tls", [False, True])
def test_websocket_echo(certificate, tls):
    made = Origin("two", args=("--subprotocols", "b,a", *(("--tls-cert", certificate[0], "--tls-key", certificate[1]) if tls else ())))
    url = f"{'wss' if tls else 'ws'}://127.0.0.1:{made.port}/anything?hello"

    async def run():
        options = {"ssl": raw.insecure_tls()} if tls else {}
        async with websockets.connect(url, subprotocols=["a", "b"], max_size=None, **options) as s:
            assert s.subprotocol == "b" and await s.recv() == "two"
            for message in ("text", b"", b"\xff" * 70000, "x" * (5 << 20)):
                await s.send(message)
                assert await s.recv() == message
            await s.send(iter(["frag", "ment", "ed"]))
            assert await s.recv() == "fragmented"
            await (await s.ping(b"p"))
            await s.close(4001, "why")
            assert s.close_code == 4001
        async with websockets.connect(url, subprotocols=["c"], **options) as s:
            assert s.subprotocol is None
    try:
        asyncio.run(run())
        if not tls:
            s, response = raw.open_websocket(made.port)
            with s:
                s.sendall(raw.frame(b"unmasked", masked=False))
                opcode, payload, rest = raw.read_frame(s, response.rest)
                assert opcode == 8 and payload[:2] == (1002).to_bytes(2, "big")
    finally:
        assert made.stop() == 0
