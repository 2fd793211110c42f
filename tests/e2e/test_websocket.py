# SPDX-License-Identifier: MIT
"""WebSocket handshakes and tunnels (requirements part B): what is refused, what is held, how tunnels end, and who gets them."""

import asyncio
import math
import os
import resource
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest
import websockets

import raw
from gateway import best_of, fields_of, forwarding, wait_for

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE = (b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n")
VERSION, KEY_LINE = b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Key: " + KEY + b"\r\n"


def handshake(*lines, start=b"GET /ws HTTP/1.1\r\n"):
    return start + b"Host: example.com\r\n" + b"".join(lines) + b"\r\n"


GOOD = handshake(*UPGRADE, VERSION, KEY_LINE)


def switch(peer, extra=b"", glued=b"", accept=None):
    """Answers the peer's handshake with a 101 and these bytes behind it; returns the head that was asked with."""
    head = peer.head()
    value = accept or raw.accept_of(dict(fields_of(head))["sec-websocket-key"]).encode()
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              b"Sec-WebSocket-Accept: " + value + b"\r\n" + extra + b"\r\n" + glued)
    return head


def echo(peer):
    """A raw echo behind the 101: no frames, so that every byte is seen as it is."""
    switch(peer)
    if peer.data:
        peer.send(peer.data)
    while got := peer.sock.recv(65536):
        peer.send(got)


def opened(gateway, data=GOOD, early=b"", **options):
    s = raw.connect(gateway.port(), **options)
    s.sendall(data + early)
    response = raw.Response(s)
    assert response.status == 101, response.head
    return s, response


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def ended(gateway, timeout=5.0, count=1):
    """(cause, side) of the one tunnel that ended, or of the last of so many."""
    entries = gateway.wait_access(count, timeout, event="close")
    assert len(entries) == count
    return entries[-1]["cause"], entries[-1]["side"]


# --- 11: what is a handshake ---

@pytest.mark.parametrize("status,data", [
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, start=b"POST /ws HTTP/1.1\r\n")),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, b"Content-Length: 0\r\n", start=b"PUT /ws HTTP/1.1\r\n")),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, start=b"HEAD /ws HTTP/1.1\r\n")),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, b"Content-Length: 5\r\n") + b"hello"),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n"),
    (400, handshake(*UPGRADE, KEY_LINE)),
    (426, handshake(*UPGRADE, b"Sec-WebSocket-Version: 8\r\n", KEY_LINE)),
    (426, handshake(*UPGRADE, b"Sec-WebSocket-Version: 13, 8\r\n", KEY_LINE)),
    (426, handshake(*UPGRADE, b"Sec-WebSocket-Version: 013\r\n", KEY_LINE)),
    (400, handshake(*UPGRADE, VERSION, VERSION, KEY_LINE)),
    (400, handshake(*UPGRADE, VERSION)),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, KEY_LINE)),
    (400, handshake(*UPGRADE, VERSION, b"Sec-WebSocket-Key:\r\n")),
    (400, handshake(*UPGRADE, VERSION, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n")),
    (400, handshake(*UPGRADE, VERSION, b"Sec-WebSocket-Key: c2hvcnQ=\r\n")),
    (400, handshake(*UPGRADE, VERSION, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===\r\n")),
    (400, handshake(*UPGRADE, VERSION, b"Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==\r\n")),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, b"Sec-WebSocket-Protocol:\r\n")),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, b"Sec-WebSocket-Protocol: a b\r\n")),
    (400, handshake(*UPGRADE, VERSION, KEY_LINE, b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n")),
])
def test_wrong_handshakes_never_reach_the_routes(start, recorder, status, data):
    server = recorder()
    gateway = start(forwarding(server.address))
    got = raw.send_all(gateway.port(), data)
    assert got.startswith(b"HTTP/1.1 %d " % status), got
    assert (b"\r\nSec-WebSocket-Version: 13\r\n" in got) == (status == 426)
    assert not server.connections
    entry = gateway.wait_access(1)[0]
    assert (entry["status"], entry["cause"], entry["side"]) == (status, "bad request", "client") and "route" not in entry


@pytest.mark.parametrize("lines,start_line", [
    ([b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"], b"GET /x HTTP/1.1\r\n"),
    ([b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"], b"GET /x HTTP/1.1\r\n"),
    ([b"Connection: Upgrade\r\nUpgrade: irc/6.9, x\r\n"], b"GET /x HTTP/1.1\r\n"),
    ([b"Connection: Upgrade\r\nUpgrade: websocket2\r\n", VERSION, KEY_LINE], b"GET /x HTTP/1.1\r\n"),
    ([b"Upgrade: websocket\r\n", VERSION, KEY_LINE], b"GET /x HTTP/1.1\r\n"),
    ([b"Connection: keep-alive\r\nUpgrade: websocket\r\n", VERSION, KEY_LINE], b"GET /x HTTP/1.1\r\n"),
    ([b"Connection: Upgrade\r\n", VERSION, KEY_LINE], b"GET /x HTTP/1.1\r\n"),
    ([b"Proxy-Connection: Upgrade\r\nUpgrade: websocket\r\n", VERSION, KEY_LINE], b"GET /x HTTP/1.1\r\n"),
    ([*UPGRADE, VERSION, KEY_LINE], b"GET /x HTTP/1.0\r\n"),
])
def test_other_upgrades_are_stripped_and_go_on_as_plain_http(start, recorder, lines, start_line):
    server = recorder()
    gateway = start(forwarding(server.address, before='route "ws" { websocket = true, reply(500) }'))
    response = raw.request(gateway.port(), handshake(*lines, start=start_line))
    assert response.status == 200 and response.body == b"ok"
    names = {name for name, value in fields_of(server.bytes)}
    values = b"\n".join(line for line in server.bytes.split(b"\r\n") if line.lower().startswith(b"connection"))
    assert not names & {"upgrade", "http2-settings", "proxy-connection"} and b"pgrade" not in values


@pytest.mark.parametrize("lines", [
    [b"Connection: keep-alive, uPgRaDe\r\nUpgrade: WebSocket\r\n"],
    [b"Connection: keep-alive\r\nConnection: x-hop , upgrade\r\nUpgrade: WEBSOCKET\r\n", b"X-Hop: 1\r\n"],
    [b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"],
    [b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n"],
])
def test_handshakes_in_other_spellings(start, scripted, lines):
    server = scripted(echo)
    gateway = start(forwarding(server.address, route="websocket = true,"))
    s, response = opened(gateway, handshake(*lines, VERSION, KEY_LINE))
    with s:
        assert response.get("sec-websocket-accept") == ACCEPT.decode()
        assert [name.lower() for name, _ in response.headers].count("upgrade") == 1
        s.sendall(b"through")
        assert s.recv(100) == b"through"


def test_what_a_server_sees_of_a_handshake(start, scripted):
    heads = []

    def handler(peer):
        heads.append(switch(peer, b"Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
                                  b"Set-Cookie: a=1\r\nX-Hop: no\r\nConnection: X-Hop\r\n"))

    gateway = start(forwarding(scripted(handler).address))
    s, response = opened(gateway, handshake(
        b"Upgrade: websocket\r\nConnection: x-secret, upgrade\r\n", VERSION, KEY_LINE, b"X-Secret: no\r\nOrigin: http://o.example\r\n"
        b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"))
    s.close()
    fields = fields_of(wait_for(lambda: heads, what="the handshake at the server")[0])
    named = dict(fields)
    assert named["upgrade"] == "websocket" and named["connection"].lower() == "upgrade"
    assert named["sec-websocket-key"] == KEY.decode() and named["sec-websocket-version"] == "13"
    offered = ", ".join(value for name, value in fields if name == "sec-websocket-protocol")
    assert offered == "a, b, c"
    assert named["origin"] == "http://o.example" and named["sec-websocket-extensions"] == "permessage-deflate"
    assert named["x-forwarded-for"] == "127.0.0.1" and "x-secret" not in named
    assert response.get("sec-websocket-protocol") == "b" and response.get("set-cookie") == "a=1"
    assert response.get("sec-websocket-extensions") == "permessage-deflate"
    assert response.get("x-hop") is None and response.get("connection").lower() == "upgrade"


# --- 12: what a server may answer ---

def bad_switch(lines, version=b"1.1"):
    def handler(peer):
        peer.head()
        peer.send(b"HTTP/" + version + b" 101 Switching Protocols\r\n" + lines + b"\r\n")
        peer.waited = peer.wait_closed()
    return handler


SWITCH = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
RIGHT = b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"


@pytest.mark.parametrize("lines,version", [
    (SWITCH, b"1.1"),
    (SWITCH + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n", b"1.1"),
    (SWITCH + RIGHT + RIGHT, b"1.1"),
    (SWITCH + RIGHT, b"1.0"),
    (b"Upgrade: websocket\r\n" + RIGHT, b"1.1"),
    (b"Connection: Upgrade\r\n" + RIGHT, b"1.1"),
    (b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + RIGHT, b"1.1"),
    (b"Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n" + RIGHT, b"1.1"),
    (SWITCH + RIGHT + b"Content-Length: 0\r\n", b"1.1"),
    (SWITCH + RIGHT + b"Transfer-Encoding: chunked\r\n", b"1.1"),
    (SWITCH + RIGHT + b"Sec-WebSocket-Protocol: other\r\n", b"1.1"),
    (SWITCH + RIGHT + b"Sec-WebSocket-Protocol: chat, superchat\r\n", b"1.1"),
    (SWITCH + RIGHT + b"Sec-WebSocket-Protocol: Chat\r\n", b"1.1"),
    (SWITCH + RIGHT + b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n", b"1.1"),
])
def test_wrong_101_is_502(start, scripted, lines, version):
    server = scripted(bad_switch(lines, version))
    gateway = start(forwarding(server.address))
    with raw.connect(gateway.port()) as s:
        s.sendall(handshake(*UPGRADE, VERSION, KEY_LINE, b"Sec-WebSocket-Protocol: chat, superchat\r\n"))
        response = raw.Response(s)
        assert response.status == 502
    wait_for(lambda: hasattr(server.peers[0], "waited"), 5, "the server's connection closed")
    entry = gateway.wait_access(1)[0]
    assert entry["event"] == "request" and entry["status"] == 502 and entry["side"] == "server"
    assert len(server.peers) == 1, "a handshake is not tried again behind an answer"


def test_a_subprotocol_where_none_was_offered_is_502(start, scripted):
    gateway = start(forwarding(scripted(bad_switch(SWITCH + RIGHT + b"Sec-WebSocket-Protocol: chat\r\n")).address))
    assert raw.request(gateway.port(), GOOD).status == 502
    entry = gateway.wait_access(1)[0]
    assert entry["cause"] == "bad WebSocket handshake of the server" and "not offered" in entry["detail"]


@pytest.mark.parametrize("lines", [SWITCH + RIGHT, b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"])
def test_unsolicited_101_is_502(start, scripted, lines):
    gateway = start(forwarding(scripted(bad_switch(lines)).address))
    response = raw.request(gateway.port(), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert response.status == 502
    entry = gateway.wait_access(1)[0]
    assert entry["side"] == "server" and entry["cause"] == "bad response"


@pytest.mark.parametrize("answer,status,body", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain", 200, b"plain"),
    (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 403, b"no"),
    (b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\nwho?", 401, b"who?"),
    (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nSec-WebSocket-Version: 13\r\n\r\n", 426, b""),
])
def test_other_answers_are_ordinary_and_early_bytes_are_dropped(start, scripted, answer, status, body):
    seen = []

    def handler(peer):
        peer.head()
        time.sleep(0.1)
        peer.send(answer)
        if b"close" not in answer:
            peer.wait_closed()
        seen.append(peer.data)

    gateway = start(forwarding(scripted(handler).address))
    with raw.connect(gateway.port()) as s:
        s.sendall(GOOD + raw.frame(b"early") + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        response = raw.Response(s)
        while response.status == 103:
            response = raw.Response(s, rest=response.rest)
        assert (response.status, response.body) == (status, body)
        assert response.get("connection") == "close"
        rest, _ = raw.read_all(s)
        assert rest == b""
    wait_for(lambda: seen, 5)
    assert seen == [b""], "nothing behind the handshake reached the server"
    assert len(gateway.wait_access(1)) == 1


# --- 13: bytes around the 101 ---

@pytest.mark.parametrize("size", [1, 5000, 16384, 300000])
def test_early_bytes_wait_for_the_101(start, scripted, size):
    early, got = os.urandom(size), []

    def handler(peer):
        time.sleep(0.3)
        head = peer.head()
        assert peer.data == b"", "bytes behind the handshake before its 101"
        peer.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.sock.recv(1)
        peer.sock.settimeout(10)
        peer.send(b"HTTP/1.1 101 x\r\n" + SWITCH + b"Sec-WebSocket-Accept: " +
                  raw.accept_of(dict(fields_of(head))["sec-websocket-key"]).encode() + b"\r\n\r\n")
        got.append(peer.take(size))
        peer.send(b"done")

    gateway = start(forwarding(scripted(handler).address))
    with raw.connect(gateway.port(), timeout=20) as s:
        writer = threading.Thread(target=lambda: s.sendall(GOOD + early))
        writer.start()
        response = raw.Response(s)
        assert response.status == 101
        assert (response.rest or raw.read_until(s, b"done")) == b"done"
        writer.join()
    assert got == [early], "once, whole and in order"
    entry = gateway.wait_access(1, event="close")[0]
    assert entry["bytes_in"] == size and entry["bytes_out"] == 4


@pytest.mark.parametrize("front", ["plain", "tls"])
@pytest.mark.parametrize("back", ["plain", "tls"])
@pytest.mark.parametrize("size", [3, 8000, 400000])
def test_bytes_glued_to_the_101(start, scripted, certificate, front, back, size):
    """In one segment, and with TLS in the very record of the 101 (up to 16 KiB)."""
    glued, (cert, key) = os.urandom(size), certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def handler(peer):
        if back == "tls":
            peer.sock = context.wrap_socket(peer.sock, server_side=True)
        switch(peer, glued=glued)
        peer.wait_closed(10)

    tls = f'tls = {{ cert = "{cert}", key = "{key}" }}' if front == "tls" else ""
    pool = f'probe = false, {"tls = { ca = %s }" % repr(cert) if back == "tls" else ""}'
    gateway = start(forwarding(scripted(handler).address, listener=tls, pool=pool))
    s, response = opened(gateway, tls=raw.insecure_tls() if front == "tls" else None)
    with s:
        got = response.rest
        while len(got) < size:
            more = s.recv(65536)
            assert more
            got += more
        assert got == glued
        s.settimeout(0.2)
        with pytest.raises(TimeoutError):
            s.recv(1)


def test_an_upgrade_takes_a_fresh_server_connection(start, scripted):
    def handler(peer):
        head = peer.head()
        while b"pgrade" not in head:
            peer.answer()
            head = peer.head()
        peer.data = head + peer.data
        echo(peer)

    server = scripted(handler)
    gateway = start(forwarding(server.address), workers=1)
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with raw.connect(gateway.port()) as s:
        s.sendall(get)
        assert raw.Response(s).body == b"ok"
        s.sendall(GOOD)
        assert raw.Response(s).status == 101, "on a kept client connection"
        s.sendall(b"a")
        assert s.recv(9) == b"a"
    assert len(server.peers) == 2
    gateway.wait_access(1, event="close")
    raw.request(gateway.port(), get)
    assert len(server.peers) == 2, "the first was kept, the tunnel's was not"


def test_a_kept_connection_carries_requests_then_a_pipelined_handshake(start, scripted):
    def handler(peer):
        head = peer.head()
        if b"pgrade" in head:
            peer.data = head + peer.data
            echo(peer)
        else:
            peer.answer(b"first")

    gateway = start(forwarding(scripted(handler).address))
    with raw.connect(gateway.port()) as s:
        s.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + GOOD + b"early")
        response = raw.Response(s)
        assert response.body == b"first"
        response = raw.Response(s, rest=response.rest)
        assert response.status == 101
        assert (response.rest or s.recv(10)) == b"early"


# --- 15: ends ---

def test_half_close_of_the_client(start, scripted):
    seen = []

    def handler(peer):
        switch(peer)
        while got := peer.sock.recv(65536):
            peer.data += got
        seen.append(peer.data)
        for i in range(5):
            peer.send(b"tail")
            time.sleep(0.05)

    gateway = start(forwarding(scripted(handler).address))
    s, response = opened(gateway)
    with s:
        s.sendall(b"last words")
        s.shutdown(socket.SHUT_WR)
        got, broken = raw.read_all(s)
        assert got == b"tail" * 5 and not broken
    assert seen == [b"last words"]
    assert ended(gateway) == ("client closed", "client")


def test_half_close_of_the_server(start, scripted):
    seen = []

    def handler(peer):
        switch(peer, glued=b"bye")
        peer.sock.shutdown(socket.SHUT_WR)
        while got := peer.sock.recv(65536):
            peer.data += got
        seen.append(peer.data)

    gateway = start(forwarding(scripted(handler).address))
    s, response = opened(gateway)
    with s:
        got = response.rest + raw.read_all(s)[0]
        assert got == b"bye"
        s.sendall(b"still here")
        time.sleep(0.2)
        s.sendall(b"!")
    wait_for(lambda: seen, 5)
    assert seen == [b"still here!"]
    assert ended(gateway) == ("server closed", "server")


@pytest.mark.parametrize("who", ["client", "server"])
def test_half_close_timeout(start, scripted, who):
    done, took = threading.Event(), []

    def handler(peer):
        switch(peer)
        if who == "server":
            peer.sock.shutdown(socket.SHUT_WR)
        peer.wait_closed()  # the end of the client's direction
        if who == "client":
            done.wait(10)

    gateway = start(forwarding(scripted(handler).address, pool='probe = false, half_close_timeout = "700ms",'))

    def attempt():
        begin = time.monotonic()  # the server's FIN may come before its 101 is read here
        s, response = opened(gateway)
        with s:
            if who == "client":
                begin = time.monotonic()
                s.shutdown(socket.SHUT_WR)
            assert raw.read_all(s)[0] == b""
            assert ended(gateway, count=len(took) + 1) == ("half-close timeout", "gateway")
            took.append(time.monotonic() - begin)
        assert took[-1] > 0.65
        return took[-1]

    try:
        best_of(attempt, 0.7 + 1)
    finally:
        done.set()


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("front", ["plain", "tls"])
def test_reset_ends_the_other_side_at_once(start, scripted, certificate, who, front):
    """B15: within 1 s."""
    go, over, took = threading.Event(), [], []

    def handler(peer):
        switch(peer)
        if who == "server":
            go.wait(10)
            go.clear()
            peer.reset()
        else:
            over.append(peer.wait_closed())

    tls = f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}' if front == "tls" else ""
    gateway = start(forwarding(scripted(handler).address, listener=tls))

    def attempt():
        s, response = opened(gateway, tls=raw.insecure_tls() if front == "tls" else None)
        time.sleep(0.1)
        begin = time.monotonic()
        if who == "client":
            reset(s)
            wait_for(lambda: len(over) > len(took), 5, "the server told")
        else:
            with s:
                go.set()
                try:
                    raw.read_all(s)
                except ssl.SSLError:
                    pass
        took.append(time.monotonic() - begin)
        assert ended(gateway, count=len(took)) == (f"{who} reset", who)
        return took[-1]

    best_of(attempt, 1)


def test_client_gone_before_the_101(start, scripted):
    over = []

    def handler(peer):
        peer.head()
        over.append(peer.wait_closed())

    gateway = start(forwarding(scripted(handler).address))
    s = raw.connect(gateway.port())
    s.sendall(GOOD)
    time.sleep(0.2)
    s.close()
    wait_for(lambda: over, 3, "the server told")
    entry = gateway.wait_access(1)[0]
    assert entry["event"] == "request" and entry["side"] == "client" and entry["status"] == 0


def test_server_closes_instead_of_answering(start, scripted):
    server = scripted(lambda peer: peer.head())
    gateway = start(forwarding(server.address, pool="probe = false, retries = 0,"))
    assert raw.request(gateway.port(), GOOD).status == 502
    assert gateway.wait_access(1)[0]["side"] == "server"


def test_bytes_that_nobody_reads_are_held_back(start, scripted):
    """A stopped reader stops the writer: little is kept in between, nothing is lost."""
    total, go = 24 << 20, threading.Event()
    block = os.urandom(1 << 20)

    def handler(peer):
        switch(peer)
        go.wait(10)
        for i in range(total >> 20):
            assert peer.take(len(block)) == block
        peer.send(b"all")

    gateway = start(forwarding(scripted(handler).address))
    s, response = opened(gateway, timeout=30)
    with s:
        before, sent = gateway.rss_kb(), [0]

        def write():
            for i in range(total >> 20):
                s.sendall(block)
                sent[0] += len(block)
        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.7)
        assert sent[0] < total, "the writer is stopped"
        assert gateway.rss_kb() - before < 3000
        go.set()
        assert raw.read_until(s, b"all") == b"all"
        writer.join()


# --- 16: clocks ---

def test_idle_clock_and_what_resets_it(start, scripted):
    """B16: ends within a second behind the time, never before it."""
    gateway = start(forwarding(scripted(echo).address, pool='probe = false, tunnel_idle_timeout = "800ms",'))
    tunnels = []

    def attempt():
        s, response = opened(gateway)
        tunnels.append(s)
        with s:
            begin = before = time.monotonic()
            for i in range(5):
                time.sleep(0.4)
                late, before = time.monotonic() - before > 0.7, time.monotonic()
                if late:
                    return math.inf  # this machine was, not the gateway
                s.sendall(b"x")
                assert s.recv(1) == b"x"
            quiet = time.monotonic()
            assert quiet - begin > 1.9
            assert raw.read_all(s)[0] == b""
            over = time.monotonic()
        assert over - before > 0.75
        assert ended(gateway, count=len(tunnels)) == ("idle timeout", "gateway")
        return over - quiet

    best_of(attempt, 0.8 + 1)


def test_idle_clock_is_reset_by_either_side(start, scripted):
    def handler(peer):
        switch(peer)
        for i in range(6):
            time.sleep(0.4)
            peer.send(b"x")
        peer.wait_closed()

    gateway = start(forwarding(scripted(handler).address, pool='probe = false, tunnel_idle_timeout = "1s",'))
    s, response = opened(gateway)
    with s:
        got, _ = raw.read_all(s)
        assert got == b"x" * 6
    assert ended(gateway) == ("idle timeout", "gateway")


def test_age_clock(start, scripted):
    """B16: by the gateway's own clock and by ours."""
    gateway = start(forwarding(scripted(echo).address, pool='probe = false, tunnel_max_age = "1s",'))
    tunnels = []

    def attempt():
        before = time.monotonic()
        s, response = opened(gateway)
        tunnels.append(s)
        begin, over = time.monotonic(), False
        with s:
            while not over and time.monotonic() - begin < 10:
                try:
                    s.sendall(b"x")
                    over = not s.recv(10)
                except OSError:
                    over = True
                time.sleep(0.05)
        now = time.monotonic()
        assert over and now - before > 0.95
        assert ended(gateway, count=len(tunnels)) == ("maximum age", "gateway")
        age = gateway.access(event="close")[-1]["age_ms"] / 1000
        assert age > 0.95
        return max(now - begin, age)

    best_of(attempt, 1 + 1)


def test_handshake_clock(start, scripted):
    """B16: by the gateway's own clock and by ours."""
    def handler(peer):
        peer.head()
        peer.wait_closed(8)

    gateway = start(forwarding(scripted(handler).address, pool='probe = false, upgrade_timeout = "700ms",'))
    took = []

    def attempt():
        begin = time.monotonic()
        assert raw.request(gateway.port(), GOOD).status == 504
        took.append(time.monotonic() - begin)
        entry = gateway.wait_access(len(took))[-1]
        assert (entry["cause"], entry["side"]) == ("response timeout", "server")
        assert took[-1] > 0.65 and entry["duration_ms"] > 650
        return max(took[-1], entry["duration_ms"] / 1000)

    best_of(attempt, 0.7 + 1)


def test_no_other_clock_cuts_a_tunnel(start, scripted):
    gateway = start(forwarding(scripted(echo).address, pool='probe = false, response_timeout = "300ms", upgrade_timeout = "300ms",',
                               listener='idle_timeout = "300ms", header_timeout = "300ms", body_timeout = "300ms", send_timeout = "300ms"'))
    s, response = opened(gateway)
    with s:
        time.sleep(1.6)
        s.sendall(b"x")
        assert s.recv(1) == b"x"


def test_drain_ends_tunnels_at_the_deadline(start, scripted):
    gateway = start(forwarding(scripted(echo).address))  # drain_timeout 2s
    s, response = opened(gateway)
    with s:
        gateway.proc.terminate()
        time.sleep(0.8)
        s.sendall(b"x")
        assert s.recv(1) == b"x", "tunnels live until the deadline"
        raw.read_all(s)
    assert ended(gateway) == ("shutdown", "gateway")
    assert gateway.proc.wait(5) == 0


# --- the log ---

def test_two_lines_a_tunnel(start, origin):
    server = origin()
    gateway = start(forwarding(server.address))
    s, response = raw.open_websocket(gateway.port(), "/room/1?token=secret", "Chat.example:80", "chat, superchat")
    with s:
        s.sendall(raw.frame(b"hello"))
        raw.read_frame(s, response.rest)
    begin, end = gateway.wait_access(1, event="open")[0], gateway.wait_access(1, event="close")[0]
    assert begin["id"] == end["id"] and begin["status"] == 101 and begin["subprotocol"] == "chat" == end["subprotocol"]
    assert begin["host"] == "chat.example" and begin["path"] == "/room/1" and begin["handshake_ms"] > 0
    assert (end["route"], end["pool"], end["server"]) == ("all", "p", server.address)
    assert (end["bytes_in"], end["bytes_out"]) == (11, 7) and end["age_ms"] >= 0
    assert (end["cause"], end["side"]) == ("client closed", "client")
    assert "secret" not in gateway.out() + gateway.err() and "superchat" not in gateway.out()
    assert not gateway.access(event="request")


# --- many, by real clients ---

@pytest.fixture(scope="module")
def many_files():
    """A thousand sockets in this process too."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, old[1]), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


ROUTING = '''
listener "http"  { bind = "127.0.0.1:@http@" }
listener "https" { bind = "127.0.0.1:@https@", tls = { cert = "%(cert)s", key = "%(key)s" } }
pool "chat"  { servers = { "%(chat)s" } }
pool "super" { servers = { "%(super)s" } }
pool "rooms" { servers = { "%(rooms)s" } }
pool "live"  { servers = { "%(live)s" } }
local by_protocol = { chat = "chat", superchat = "super" }
route "protocol" { websocket = true, function(req)
  for _, name in ipairs(req.ws.subprotocols) do
    if by_protocol[name] then
      req.ws:only(name)
      return forward(by_protocol[name])
    end
  end
end }
route "path" { path = "/rooms/:room", websocket = true, function(req)
  if #req.params.room > 8 then return reply(404) end
  return forward "rooms"
end }
route "host" { websocket = true, function(req)
  if req.host:match("^live%%.") then return forward "live" end
end }
'''

ANY_CERTIFICATE = raw.insecure_tls()  # one for all of the thousand

CASES = [  # path, host, offered; who answers, what is chosen
    ("/any", "a.example", ["chat"], "chat", "chat"),
    ("/any", "a.example", ["x", "superchat", "chat"], "super", "superchat"),
    ("/rooms/7", "a.example", None, "rooms", None),
    ("/rooms/7", "a.example", ["chat"], "chat", "chat"),
    ("/feed", "live.example", None, "live", None),
    ("/feed", "LIVE.example", ["other"], "live", "other"),
]


@pytest.fixture
def routing(start, origin, certificate):
    pools = {name: origin(name).address for name in ("chat", "super", "rooms", "live")}
    return start(ROUTING % {"cert": certificate[0], "key": certificate[1], **pools})


def client(gateway, scheme, path, host, protocols, **options):
    """A connection to the gateway that asks for this host, whatever the address."""
    if scheme == "wss":
        options["ssl"] = ANY_CERTIFICATE
        options["server_hostname"] = host.lower()
    port = gateway.port("https" if scheme == "wss" else "http")
    options.setdefault("compression", None)
    return websockets.connect(f"{scheme}://{host}:{port}{path}", host="127.0.0.1", port=port, subprotocols=protocols,
                              open_timeout=60, close_timeout=20, ping_interval=None, max_size=None, **options)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_routing_by_protocol_path_and_host(routing, scheme):
    async def run():
        for path, host, protocols, pool, chosen in CASES:
            async with client(routing, scheme, path, host, protocols) as s:
                assert (s.response_headers["x-origin"], s.subprotocol) == (pool, chosen)
                for message in ("héllo", b"\x00\xff" * 5000, ""):
                    await s.send(message)
                    assert await s.recv() == message
        for path, host in (("/nothing", "a.example"), ("/rooms/much-too-long", "a.example")):
            with pytest.raises(websockets.InvalidStatusCode) as refused:
                async with client(routing, scheme, path, host, None):
                    pass
            assert refused.value.status_code == 404
    asyncio.run(run())


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_thousand_at_once(routing, many_files, scheme):
    count = 1000

    async def run():
        gate, together, everyone = asyncio.Semaphore(50), [0], asyncio.Event()

        async def one(i):
            path, host, protocols, pool, chosen = CASES[i % len(CASES)]
            async with gate:
                s = await client(routing, scheme, path, host, protocols)
            assert (s.response_headers["x-origin"], s.subprotocol) == (pool, chosen)
            together[0] += 1
            if together[0] == count:
                everyone.set()
            await asyncio.wait_for(everyone.wait(), 120)
            for k in range(3):
                await s.send(f"{i}/{k}")
                assert await s.recv() == f"{i}/{k}"
            await s.close()
        await asyncio.gather(*(one(i) for i in range(count)))
    asyncio.run(run())
    closes = routing.wait_access(count, 20, event="close")
    assert len(closes) == count == len(routing.access(event="open"))
    assert {entry["pool"] for entry in closes} == {"chat", "super", "rooms", "live"}
    assert routing.counters()["tunnels_closed"] == count


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_sixteen_big_messages_at_once(routing, scheme):
    size, block = 16 << 20, os.urandom(1 << 20)

    async def run():
        async def one(i):
            path, host, protocols, pool, chosen = CASES[i % len(CASES)]
            message = (bytes([i]) + block) * (size >> 20)
            async with client(routing, scheme, path, host, protocols) as s:
                assert s.response_headers["x-origin"] == pool
                await s.send(message)
                assert await asyncio.wait_for(s.recv(), 60) == message
        await asyncio.gather(*(one(i) for i in range(16)))
    asyncio.run(run())
    for entry in routing.wait_access(16, event="close"):
        assert entry["bytes_in"] > size and entry["bytes_out"] > size


def test_a_real_server_with_compression(start):
    """python3-websockets at both ends: extensions and subprotocols are theirs to agree on."""
    async def run():
        async def handler(s):
            async for message in s:
                await s.send(message)
        async with websockets.serve(handler, "127.0.0.1", 0, subprotocols=["b"]) as server:
            port = server.sockets[0].getsockname()[1]
            gateway = await asyncio.to_thread(start, forwarding(f"127.0.0.1:{port}"))
            async with client(gateway, "ws", "/", "a.example", ["a", "b"], compression="deflate") as s:
                assert s.subprotocol == "b" and "permessage-deflate" in s.response_headers["sec-websocket-extensions"]
                await s.send("again and " * 20000)
                assert await s.recv() == "again and " * 20000
                await (await s.ping(b"?"))
            entry = (await asyncio.to_thread(gateway.wait_access, 1, event="close"))[0]
            assert entry["bytes_in"] < 20000
    asyncio.run(run())


# --- servers that come and go (done-criterion 3) ---

FAST = 'probe = { path = "/healthz", every = "300ms", fast = "100ms", timeout = "2s", rise = 2, fall = 2 },'


def test_a_killed_server_is_out_and_comes_back(start, origin):
    first, second = origin("first"), origin("second")
    gateway = start(forwarding(first.address, second.address, pool=FAST))
    tunnels = {}
    while set(tunnels) != {"first", "second"}:
        s, response = raw.open_websocket(gateway.port())
        name = response.get("x-origin")
        if name in tunnels:
            s.close()
        else:
            tunnels[name] = (s, response.rest)
    first.proc.kill()
    first.proc.wait()
    assert raw.read_all(tunnels["first"][0])[0] == b"", "its own tunnel ends"
    for i in range(10):
        s, response = raw.open_websocket(gateway.port())
        s.close()
        assert response.get("x-origin") == "second", "tried elsewhere from the first moment"
    gateway.wait_err(r"p/127\.0\.0\.1:%d down" % first.port, 10)
    s, rest = tunnels["second"]
    s.sendall(raw.frame(b"untouched"))
    assert raw.read_frame(s, rest)[1] == b"untouched"
    after = len(gateway.lines_err)
    again = origin("first", port=first.port)
    gateway.wait_err(r"p/127\.0\.0\.1:%d up" % first.port, 10, after)

    def back():
        with raw.open_websocket(gateway.port())[0]:
            s, response = raw.open_websocket(gateway.port())
            s.close()
            return response.get("x-origin") == "first"
    wait_for(back, 5, "traffic on the first again")
    s.sendall(raw.frame(b"still"))
    assert raw.read_frame(s)[1] == b"still"
    s.close()
    tunnels["first"][0].close()
    assert again.proc.poll() is None


def test_a_server_that_fails_its_probe_gets_no_handshake(start, origin):
    """It speaks WebSocket all the while."""
    good, bad = origin("good"), origin("bad")
    subprocess.run(["curl", "-sS", "-X", "POST", f"http://{bad.address}/healthz/fail"], check=True, capture_output=True, timeout=10)
    gateway = start(forwarding(good.address, bad.address, pool=FAST))
    gateway.wait_err(r"p/127\.0\.0\.1:%d down: GET /healthz: 503, expected 200-399" % bad.port, 10)
    for i in range(20):
        s, response = raw.open_websocket(gateway.port())
        s.close()
        assert response.get("x-origin") == "good"
    subprocess.run(["curl", "-sS", "-X", "POST", f"http://{good.address}/healthz/fail"], check=True, capture_output=True, timeout=10)
    gateway.wait_err(r"p/127\.0\.0\.1:%d down" % good.port, 10)
    begin = time.monotonic()
    response = raw.request(gateway.port(), GOOD)
    assert response.status == 503 and response.get("retry-after") and time.monotonic() - begin < 1
    assert gateway.wait_access(1, event="request")[0]["cause"] == "no live server"
