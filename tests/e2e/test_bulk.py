# SPDX-License-Identifier: MIT
"""B14: random data both ways at once through a tunnel at random read and write sizes: equal digests, plain and TLS,
spliced and copied. MOONGATE_BULK_MIB sets the amount each way (default 32; 1024 is the full figure). Then responses of
a known length, which are spliced between plain connections, too."""

import hashlib
import os
import random
import re
import select
import socket
import ssl
import threading

import pytest

import raw
from gateway import ScriptedOrigin, forwarding, wait_for

MIB = int(os.environ.get("MOONGATE_BULK_MIB", "32"))
BLOCK = os.urandom(1 << 20)


class Sender:
    """The bytes of one direction, in random pieces."""

    def __init__(self, total, largest, seed):
        self.left, self.largest, self.rng = total, largest, random.Random(seed)
        self.digest, self.piece = hashlib.sha256(), b""

    def next(self):
        if not self.piece and self.left > 0:
            size = min(self.left, self.rng.randint(1, self.largest))
            at = self.rng.randrange(len(BLOCK) - 1)
            self.piece = BLOCK[at:at + size]
            self.digest.update(self.piece)
            self.left -= len(self.piece)
        return self.piece


WAIT = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


def both_ways(s, total, largest, seed, rest=b""):
    """Sends and receives total bytes at once, on one thread (a TLS socket may not be used by two); the two digests."""
    out, rng, received = Sender(total, largest, seed), random.Random(seed + 1), hashlib.sha256(rest)
    left = total - len(rest)
    s.setblocking(False)
    while left > 0 or out.next():
        moved = False
        try:
            if out.next():
                sent = s.send(out.piece)
                out.piece = out.piece[sent:]
                moved = True
        except WAIT:
            pass
        try:
            if left > 0:
                got = s.recv(min(left, rng.randint(1, largest)))
                assert got, f"ended with {left} bytes missing"
                received.update(got)
                left -= len(got)
                moved = True
        except WAIT:
            pass
        if not moved:
            ready = select.select([s], [s] if out.piece else [], [], 60)
            assert ready[0] or ready[1], f"stuck with {left} bytes to come"
    return out.digest.hexdigest(), received.hexdigest()


class Peer:
    """A server that takes one handshake and then talks like both_ways()."""

    def __init__(self, total, largest):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.result, self.error = None, None
        self.thread = threading.Thread(target=self._run, args=(total, largest), daemon=True)
        self.thread.start()

    def _run(self, total, largest):
        try:
            conn, _ = self.listener.accept()
            with conn:
                conn.settimeout(60)
                head = raw.read_until(conn, b"\r\n\r\n")
                key = re.search(rb"(?i)sec-websocket-key: (\S+)", head).group(1).decode()
                conn.sendall(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              f"Sec-WebSocket-Accept: {raw.accept_of(key)}\r\n\r\n").encode())
                self.result = both_ways(conn, total, largest, 7)
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            self.listener.close()


# Small pieces are copied; large ones make a plain tunnel change over to splicing on the way.
@pytest.mark.parametrize("largest", [3000, 300000], ids=["small", "large"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_b14_random_data_both_ways_arrives_as_it_was_sent(start, certificate, tls, largest):
    total = (MIB << 20) if largest > 10000 else (MIB << 20) // 8
    peer = Peer(total, largest)
    cert = f', tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}' if tls else ""
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@"{cert} }}
pool "p" {{ servers = {{ "127.0.0.1:{peer.port}" }}, probe = false }}
route "all" {{ forward "p" }}
""")
    s, response = raw.open_websocket(gateway.port(), timeout=60, tls=raw.insecure_tls() if tls else None)
    assert response.status == 101
    with s:
        sent, received = both_ways(s, total, largest, 11, response.rest)
    peer.thread.join(60)
    assert peer.error is None, peer.error
    assert peer.result == (received, sent)
    close = gateway.wait_access(event="close", timeout=10)[0]
    assert (close["bytes_in"], close["bytes_out"]) == (total, total)


RESPONSE = 8 << 20


def response_server(cut=None):
    """Answers with RESPONSE bytes, a different run of them each time; cut: closes after so many."""
    def handler(peer):
        for number in range(1000):
            peer.head()
            body = BLOCK[number:] + BLOCK * (RESPONSE // len(BLOCK))
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % RESPONSE)
            peer.send(body[:RESPONSE if cut is None else cut])
            if cut is not None:
                return
    return ScriptedOrigin(handler)


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_bulk_responses_on_one_connection(start, certificate, tls):
    server = response_server()
    cert = f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}' if tls else ""
    gateway = start(forwarding(server.address, listener=cert))
    with raw.connect(gateway.port(), timeout=60, tls=raw.insecure_tls() if tls else None) as s:
        s.sendall(GET)
        # Nobody reads: what the client does not take waits in a pipe where the connections are plain.
        if tls:
            assert gateway.fds("pipe:") == gateway.pipes_at_start
        else:
            wait_for(lambda: gateway.fds("pipe:") > gateway.pipes_at_start, what="a pipe")
        for number in range(3):
            response = raw.Response(s)
            assert response.body == (BLOCK[number:] + BLOCK * (RESPONSE // len(BLOCK)))[:RESPONSE] and response.rest == b""
            s.sendall(GET)
        raw.Response(s)
    lines = gateway.wait_access(count=4, status=200)
    assert [line["bytes_out"] for line in lines] == [RESPONSE] * 4
    assert len(server.peers) == 1  # the connection was kept each time
    server.close()


def test_bulk_response_cut_by_its_server(start):
    server = response_server(cut=RESPONSE // 2)
    gateway = start(forwarding(server.address))
    with raw.connect(gateway.port(), timeout=60) as s:
        s.sendall(GET)
        got, _ = raw.read_all(s)
    body = got.partition(b"\r\n\r\n")[2]
    assert body == (BLOCK * (RESPONSE // len(BLOCK)))[:len(body)] and len(body) <= RESPONSE // 2
    assert gateway.wait_access(status=200)[0]["cause"] == "response cut short"
    server.close()


def test_client_leaves_a_bulk_response(start):
    server = response_server()
    gateway = start(forwarding(server.address))
    for size in (1, 300000, RESPONSE // 2):
        with raw.connect(gateway.port(), timeout=60) as s:
            s.sendall(GET)
            left = size
            while left > 0:
                left -= len(s.recv(65536))
    gateway.wait_access(count=3)
    gateway.assert_rest()
    server.close()
