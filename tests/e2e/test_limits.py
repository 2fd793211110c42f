# SPDX-License-Identifier: MIT
"""Every timeout and limit of a listener and of a pool (rules.md part 3), shown with short values."""

import pathlib
import socket
import ssl
import struct
import threading
import time

import pytest

import raw
from gateway import fields_of, forwarding, free_port, wait_for

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
LATE = 2.5  # seconds that a loaded machine may add


def seconds_to_close(s, timeout=8.0):
    """Seconds until the gateway closes; what came is returned too."""
    begun = time.monotonic()
    s.settimeout(timeout)
    return time.monotonic() - begun if not (got := raw.read_all(s)[0]) else (time.monotonic() - begun), got


def fixed(listener, body="ok"):
    return f'listener "http" {{ bind = "127.0.0.1:@http@", {listener} }}\nroute "all" {{ reply(200, "{body}") }}\n'


def silent(peer):
    peer.head()
    peer.wait_closed(10)


def ok(peer):
    while True:
        peer.body(peer.head())
        peer.answer()


# --- listeners: clocks ---

@pytest.mark.parametrize("trickle", [False, True])
def test_tls_timeout(start, certificate, trickle):
    """A stalled handshake, or a byte a while, ends at the absolute limit."""
    cert, key = certificate
    gateway = start(f'''listener "https" {{ bind = "127.0.0.1:@https@", tls = {{ cert = "{cert}", key = "{key}" }}, tls_timeout = "500ms" }}
        route "all" {{ reply(200, "ok") }}''')
    hello = ssl.MemoryBIO()
    context = raw.insecure_tls()
    client = context.wrap_bio(ssl.MemoryBIO(), hello)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    data = hello.read()
    begun = time.monotonic()
    with raw.connect(gateway.port("https")) as s:
        if trickle:
            with pytest.raises(OSError):
                for i in range(100):
                    s.sendall(data[i:i + 1])
                    time.sleep(0.05)
        else:
            assert raw.read_all(s)[0] == b""
    assert 0.4 < time.monotonic() - begun < 0.5 + LATE
    with raw.connect(gateway.port("https"), tls=context) as s:  # and an honest one is untouched by it afterwards
        time.sleep(0.7)
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200


@pytest.mark.parametrize("trickle", [False, True])
def test_header_timeout(start, trickle):
    gateway = start(fixed('header_timeout = "500ms",'))
    begun = time.monotonic()
    with raw.connect(gateway.port()) as s:
        s.sendall(b"GET / HTTP/1.1\r\n")
        if trickle:
            s.settimeout(0.05)
            got = b""
            while not got and time.monotonic() - begun < 5:
                s.sendall(b"X")
                try:
                    got = s.recv(10000)
                except TimeoutError:
                    pass
        else:
            got = raw.read_all(s)[0]
        assert got.startswith(b"HTTP/1.1 408 ") and b"\r\nConnection: close\r\n" in got
    assert 0.4 < time.monotonic() - begun < 0.5 + LATE
    assert gateway.wait_access(1)[0]["cause"] == "header timeout"


def test_header_timeout_without_a_byte(start):
    gateway = start(fixed('header_timeout = "500ms",'))
    with raw.connect(gateway.port()) as s:
        took, got = seconds_to_close(s)
    assert got == b"" and 0.4 < took < 0.5 + LATE
    assert gateway.access() == []


def test_silent_connections_wait_in_the_kernel(start):
    """Who says nothing is no client for a second, while those who speak are served at once; only then its clock begins."""
    gateway = start(fixed('header_timeout = "1s",'))
    begun = time.monotonic()
    with raw.connect(gateway.port()) as silent:
        with raw.connect(gateway.port()) as s:
            s.sendall(GET % b"/")
            assert raw.Response(s).status == 200
        accepted = gateway.counters()["clients_accepted"]
        assert accepted == 1 or time.monotonic() - begun > 0.9
        assert seconds_to_close(silent)[1] == b""
        assert 1.9 < time.monotonic() - begun < 2 + 2 * LATE
    assert gateway.counters()["clients_accepted"] == 2


def test_header_timeout_holds_for_every_head(start):
    gateway = start(fixed('header_timeout = "500ms",'))
    with raw.connect(gateway.port()) as s:
        for i in range(4):
            time.sleep(0.2)
            s.sendall(GET % b"/")
            assert raw.Response(s).status == 200
        s.sendall(b"GET")
        assert raw.Response(s).status == 408


def test_body_timeout(start, scripted):
    """No byte of the body for so long: 408, and the server's connection goes too."""
    closed = []

    def handler(peer):
        peer.head()
        closed.append(peer.wait_closed())

    gateway = start(forwarding(scripted(handler).address, listener='body_timeout = "500ms",'))
    begun = time.monotonic()
    with raw.connect(gateway.port()) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        response = raw.Response(s)
        assert response.status == 408 and response.get("connection") == "close"
    assert 0.4 < time.monotonic() - begun < 0.5 + LATE
    wait_for(lambda: closed, 3, "the server's connection closed")
    assert gateway.wait_access(1)[0]["cause"] == "body timeout"


def test_body_timeout_is_an_idle_timeout(start, scripted):
    gateway = start(forwarding(scripted(ok).address, listener='body_timeout = "600ms",'))
    with raw.connect(gateway.port()) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n")
        for i in range(8):
            time.sleep(0.15)
            s.sendall(b"x")
        assert raw.Response(s).status == 200


def test_body_timeout_does_not_count_a_slow_server(start, scripted):
    """The server takes its time to read: nobody waits on the client."""
    def handler(peer):
        head = peer.head()
        time.sleep(2.5)
        peer.body(head)
        peer.answer()

    gateway = start(forwarding(scripted(handler).address, listener='body_timeout = "1500ms",'))
    body = b"u" * (12 << 20)
    with raw.connect(gateway.port()) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:100])
        time.sleep(0.3)  # here the client is waited for; that clock must stop with the server
        s.sendall(body[100:])
        assert raw.Response(s).status == 200


def test_min_rate(start, scripted):
    """Bytes a second over a window of five, counted only while we wait on the client. Side by side: a slow upload and a slow reader end; an upload
    above the rate, a slow server and a quiet event stream live."""
    def handler(peer):
        head = peer.head()
        if b"/slow-server" in head:
            time.sleep(6.5)
            peer.answer()
        elif b"/events" in head:
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            time.sleep(6.5)
            peer.send(b"1\r\nb\r\n0\r\n\r\n")
        elif b"/download" in head:
            peer.sock.settimeout(20)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            try:
                while True:
                    peer.send(b"d" * 65536)
            except OSError:
                ended.append(time.monotonic())
        else:
            peer.body(head)
            peer.answer()

    gateway = start(forwarding(scripted(handler).address, listener="min_rate = 1000,"))
    results, ended = {}, []

    def upload(name, pause, size):
        with raw.connect(gateway.port(), timeout=20) as s:
            s.sendall(b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" % name)
            begun = time.monotonic()
            s.settimeout(pause)
            sent, got = 0, b""
            while not got and time.monotonic() - begun < 12:
                piece = b"u" * min(size, 100000 - sent)
                s.sendall(piece)
                sent += len(piece)
                try:
                    got = s.recv(10000)
                except TimeoutError:
                    pass
            results[name] = (int(got.split(b" ")[1]), time.monotonic() - begun)

    def download():
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(20)
        s.connect(("127.0.0.1", gateway.port()))
        with s:
            s.sendall(GET % b"/download")
            begun = time.monotonic()
            while not ended and time.monotonic() - begun < 12:
                s.recv(10)
                time.sleep(0.1)
            results["download"] = time.monotonic() - begun

    def fetch(path):
        with raw.connect(gateway.port(), timeout=20) as s:
            s.sendall(GET % path)
            results[path] = raw.Response(s).body

    threads = [threading.Thread(target=upload, args=(b"slow", 0.2, 10)), threading.Thread(target=upload, args=(b"good", 0.2, 3000)),
               threading.Thread(target=download), threading.Thread(target=fetch, args=(b"/slow-server",)), threading.Thread(target=fetch, args=(b"/events",))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[b"slow"][0] == 408 and 4.5 < results[b"slow"][1] < 5.5 + LATE
    assert results[b"good"][0] == 200
    assert results[b"/slow-server"] == b"ok" and results[b"/events"] == b"ab"
    assert 4.5 < results["download"] < 5.5 + LATE
    assert [entry["side"] for entry in gateway.wait_access(2, cause="below the minimum rate")] == ["client"] * 2


def test_send_timeout(start, scripted):
    """A client that takes nothing is closed, and the server's connection with it."""
    ended = []

    def handler(peer):
        peer.head()
        try:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            while True:
                peer.send(b"d" * 65536)
        except OSError:
            ended.append(time.monotonic())

    gateway = start(forwarding(scripted(handler).address, listener='send_timeout = "600ms",'))
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", gateway.port()))
        begun = time.monotonic()
        s.sendall(GET % b"/")
        wait_for(lambda: ended, 8, "the server's connection closed")
        assert 0.5 < ended[0] - begun < 1.5 + LATE
    entry = gateway.wait_access(1)[0]
    assert (entry["cause"], entry["side"]) == ("send timeout", "client")


def test_idle_timeout(start):
    gateway = start(fixed('idle_timeout = "400ms",'))
    with raw.connect(gateway.port()) as s:
        for i in range(3):
            s.sendall(GET % b"/")
            assert raw.Response(s).status == 200
            time.sleep(0.2)
        took, got = seconds_to_close(s)
    assert got == b"" and took < 0.4 + LATE


# --- listeners: counts and sizes ---

@pytest.mark.parametrize("where", ["listener", "settings"])
def test_max_connections(start, where):
    if where == "listener":
        gateway = start(fixed("max_connections = 3,"))
    else:
        gateway = start(fixed(""), settings="max_connections = 3,")
    clients = [raw.connect(gateway.port()) for i in range(3)]
    for s in clients:
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200
    for i in range(2):
        assert raw.send_all(gateway.port(), b"") == b"", "one too many"
    assert gateway.counters()["clients_refused"] == 2
    clients.pop().close()
    wait_for(lambda: gateway.counters()["clients_closed"] == 1, 3, "one has left")
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200
    for s in clients:
        s.close()


@pytest.mark.parametrize("where", ["listener", "settings"])
def test_max_connections_holds_in_a_burst(start, where):
    """Also while connections are on their way from the worker that took them to another."""
    limit = 10
    key = f"max_connections = {limit},"
    gateway = start(fixed(key if where == "listener" else ""), settings="" if where == "listener" else key, workers=4)
    clients = [raw.connect(gateway.port()) for i in range(300)]
    for s in clients: # accepted only now: there was nothing to read
        s.send(GET % b"/")
    answered = 0
    for s in clients:
        try:
            answered += s.recv(1000).startswith(b"HTTP/1.1 200")
        except OSError:
            pass # refused
    assert answered == limit
    assert gateway.counters()["clients_refused"] == len(clients) - limit
    for s in clients:
        s.close()


def crumbs(port, seconds):
    """A body of one-byte chunks, as fast as it is taken."""
    data = b"1\r\nx\r\n" * 40000
    with raw.connect(port) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        s.settimeout(10)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            s.sendall(data)


def sink(peer):
    peer.head()
    while peer.sock.recv(1 << 20):
        pass


def test_a_body_of_crumbs_hurts_no_other_client(start, scripted):
    """They are gathered into few writes, and a turn ends after some of them: with a write each, 70 ms for the others."""
    origin, honest = scripted(sink), scripted(ok)
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "crumbs" {{ servers = {{ "{origin.address}" }}, probe = false }}
        pool "honest" {{ servers = {{ "{honest.address}" }}, probe = false }}
        route "get" {{ method = "GET", forward "honest" }}
        route "all" {{ forward "crumbs" }}''', workers=1)
    medians = []
    for attempt in range(3): # a busy machine may spoil one
        senders = [threading.Thread(target=crumbs, args=(gateway.port(), 1.5)) for i in range(3)]
        for sender in senders:
            sender.start()
        took = []
        with raw.connect(gateway.port()) as s:
            while any(sender.is_alive() for sender in senders):
                begun = time.monotonic()
                s.sendall(GET % b"/")
                assert raw.Response(s).status == 200
                took.append(time.monotonic() - begun)
                time.sleep(0.01)
        medians.append(sorted(took)[len(took) // 2])
        if medians[-1] < 0.025:
            return
    raise AssertionError(f"medians of {medians} s beside three bodies of one-byte chunks")


def test_max_connections_counts_each_listener_by_itself(start):
    gateway = start('''listener "one" { bind = "127.0.0.1:@one@", max_connections = 1 }
        listener "two" { bind = "127.0.0.1:@two@", max_connections = 1 }
        route "all" { reply(200, "ok") }''')
    with raw.connect(gateway.port("one")) as one, raw.connect(gateway.port("two")) as two:
        for s in (one, two):
            s.sendall(GET % b"/")
            assert raw.Response(s).status == 200
        assert raw.send_all(gateway.port("one"), b"") == b""


def verdict(gateway, data):
    with raw.connect(gateway.port()) as s:
        s.sendall(data)
        return raw.Response(s).status


def test_max_target(start):
    gateway = start(fixed("max_target = 100,"))
    assert verdict(gateway, GET % (b"/" + b"t" * 99)) == 200
    assert verdict(gateway, GET % (b"/" + b"t" * 100)) == 414
    assert verdict(gateway, GET % (b"/?" + b"t" * 99)) == 414


def test_max_header(start):
    gateway = start(fixed('max_header = "1k",'))
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n"
    room = 1024 - len(head % b"")
    assert verdict(gateway, head % (b"v" * room)) == 200
    assert verdict(gateway, head % (b"v" * (room + 1))) == 431


def test_max_header_may_be_large(start):
    gateway = start(fixed('max_header = "300k", max_fields = 400,'))
    assert verdict(gateway, b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"v" * 900 + b"\r\n") * 300 + b"\r\n") == 200


def test_max_fields(start):
    gateway = start(fixed("max_fields = 5,"))
    assert verdict(gateway, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 4 + b"\r\n") == 200
    assert verdict(gateway, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5 + b"\r\n") == 431


def test_max_body(start, scripted):
    server = scripted(ok)
    gateway = start(forwarding(server.address, listener="max_body = 1000,"))
    for status, size in ((200, 1000), (413, 1001), (413, 1 << 40)):
        assert verdict(gateway, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"b" * min(size, 2000)) == status
    peers = len(server.peers)
    assert peers == 1, "too large by its own word: no server hears of it"
    chunk = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert verdict(gateway, chunk + b"1f4\r\n" + b"b" * 500 + b"\r\n1f4\r\n" + b"b" * 500 + b"\r\n0\r\n\r\n") == 200
    assert verdict(gateway, chunk + b"1f4\r\n" + b"b" * 500 + b"\r\n1f5\r\n" + b"b" * 501 + b"\r\n0\r\n\r\n") == 413
    with raw.connect(gateway.port()) as s:
        s.sendall(chunk)
        for i in range(3):
            s.sendall(b"1f4\r\n" + b"b" * 500 + b"\r\n")
            time.sleep(0.05)
        assert raw.Response(s).status == 413, "counted as it comes"


def test_max_body_of_a_route(start, scripted):
    server = scripted(ok)
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@", max_body = 10 }}
        pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}
        route "large" {{ path = "/large", max_body = "1k", forward "p" }}
        route "small" {{ path = "/small", max_body = 5, forward "p" }}
        route "all" {{ forward "p" }}''')
    post = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    for path, size, status in ((b"/large", 1024, 200), (b"/large", 1025, 413), (b"/small", 5, 200), (b"/small", 6, 413), (b"/", 10, 200), (b"/", 11, 413)):
        assert verdict(gateway, post % (path, size) + b"b" * size) == status, (path, size)


@pytest.mark.parametrize("word,status", [("reject", 400), ("keep", 200)])
def test_encoded_slash(start, recorder, word, status):
    server = recorder()
    gateway = start(forwarding(server.address, listener=f'encoded_slash = "{word}",'))
    assert verdict(gateway, GET % b"/a%2Fb%2fc/..d%2fe..") == status
    assert verdict(gateway, GET % b"/?a%2Fb") == 200
    for path in (b"/a%2Fb/..%2fd", b"/a%2f../b", b"/a%2f%2e%2E%2Fb", b"/a%2f.", b"/a%2f..;x"):
        assert verdict(gateway, GET % path) == 400, "a dot segment to those who decode the slash"
    heads = [head.split(b" ")[1] for head in server.requests()]
    assert heads == ([b"/a%2Fb%2Fc/..d%2Fe.."] if status == 200 else []) + [b"/?a%2Fb"]


@pytest.mark.parametrize("allowed", [False, True])
def test_half_close(start, scripted, allowed):
    """FIN behind a request means gone, unless the listener says half_close."""
    def handler(peer):
        peer.body(peer.head())
        time.sleep(0.3)
        peer.answer(head=b"HTTP/1.1 200 OK\r\nConnection: close\r\n")

    gateway = start(forwarding(scripted(handler).address, listener=f"half_close = {str(allowed).lower()},"))
    for data in (GET % b"/", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"):
        got = raw.send_all(gateway.port(), data, shut=True)
        assert got.endswith(b"ok") if allowed else got == b"", got
    if not allowed:
        assert gateway.wait_access(2)[0]["cause"] == "client gone"


def keepalive_timer(local, remote):
    """Of the established connection at local port to remote port: seconds until its keepalive timer, None without one."""
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{local:04X}") and fields[2].endswith(f":{remote:04X}") and fields[3] == "01":
            kind, when = fields[5].split(":")
            return int(when, 16) / 100 if kind == "02" else None
    raise AssertionError("no such connection")


@pytest.mark.parametrize("value,low,high", [('"30s"', 20, 31), (None, 50, 61), ("false", None, None)])
def test_tcp_keepalive(start, value, low, high):
    gateway = start(fixed(f"tcp_keepalive = {value}," if value else ""))
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200
        time.sleep(0.3)  # the retransmission timer's turn is over
        seconds = keepalive_timer(gateway.port(), s.getsockname()[1])
        assert seconds is None if low is None else low < seconds < high


# --- pools ---

@pytest.fixture
def full_port():
    """A listening port whose queue is full: connects to it hang."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    while len(waiting) < 20:
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(listener.getsockname())
        waiting.append(s)
    time.sleep(0.1)
    yield listener.getsockname()[1]
    for s in waiting + [listener]:
        s.close()


def test_connect_timeout(start, full_port):
    gateway = start(forwarding(f"127.0.0.1:{full_port}", pool='probe = false, connect_timeout = "400ms", retries = 0,'))
    begun = time.monotonic()
    assert verdict(gateway, GET % b"/") == 502
    assert 0.3 < time.monotonic() - begun < 0.4 + LATE
    entry = gateway.wait_access(1)[0]
    assert (entry["cause"], entry["side"]) == ("connect failed", "server")


def test_connect_timeout_then_another_server(start, scripted, full_port):
    good = scripted(ok)
    gateway = start(forwarding(f"127.0.0.1:{full_port}", good.address, pool='probe = false, connect_timeout = "300ms",'), workers=1)
    for i in range(2):
        assert verdict(gateway, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc") == 200
    assert [entry.get("retries") for entry in gateway.wait_access(2)].count(1) >= 1


@pytest.mark.parametrize("where", ["pool", "forward"])
def test_response_timeout(start, scripted, where):
    server = scripted(silent)
    own = ', { response_timeout = "400ms" }' if where == "forward" else ""
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ "{server.address}" }}, probe = false, {'response_timeout = "400ms"' if where == "pool" else ""} }}
        route "all" {{ forward("p"{own}) }}''')
    begun = time.monotonic()
    assert verdict(gateway, GET % b"/") == 504
    assert 0.3 < time.monotonic() - begun < 0.4 + LATE
    entry = gateway.wait_access(1)[0]
    assert (entry["cause"], entry["side"]) == ("response timeout", "server")
    assert len(server.peers) == 1, "what may have been done is not tried again"


def test_response_timeout_in_the_body(start, scripted):
    """Each byte counts anew; silence in mid-body is a cut."""
    def handler(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for i in range(6):
            peer.send(b"x")
            time.sleep(0.15)
        peer.wait_closed(10)

    gateway = start(forwarding(scripted(handler).address, pool='probe = false, response_timeout = "500ms",'))
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        begun = time.monotonic()
        with pytest.raises(EOFError, match="after 6 of 100"):
            raw.Response(s)
        assert 1.0 < time.monotonic() - begun < 1.5 + LATE
    assert gateway.wait_access(1)[0]["cause"] == "response timeout"


def test_response_timeout_does_not_count_a_slow_client(start, scripted):
    """While the upload goes on, or the client does not read, the server owes nothing."""
    def handler(peer):
        head = peer.head()
        peer.body(head)
        peer.answer(b"x" * (8 << 20))

    gateway = start(forwarding(scripted(handler).address, pool='probe = false, response_timeout = "1500ms",'))
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(20)
        s.connect(("127.0.0.1", gateway.port()))
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        for pause in (0.1, 2.0, 0.1, 0.1):
            time.sleep(pause)
            s.sendall(b"u")
        time.sleep(2.0)
        assert len(raw.Response(s).body) == 8 << 20


def test_upgrade_timeout(start, scripted):
    gateway = start(forwarding(scripted(silent).address, pool='probe = false, upgrade_timeout = "400ms",'))
    begun = time.monotonic()
    s, response = raw.open_websocket(gateway.port())
    s.close()
    assert response.status == 504 and 0.3 < time.monotonic() - begun < 0.4 + LATE


def test_keepalive_off(start, scripted):
    server = scripted(ok)
    gateway = start(forwarding(server.address, pool="probe = false, keepalive = 0,"), workers=1)
    for i in range(3):
        assert verdict(gateway, GET % b"/") == 200
    assert len(server.peers) == 3
    assert gateway.counters()["server_closed"] == 3


def closed_port():
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize("retries,dead,status", [(0, 1, {200, 502}), (1, 1, {200}), (1, 2, {200, 502}), (2, 2, {200})])
def test_retries(start, scripted, retries, dead, status):
    """A failed connect is tried elsewhere, so often."""
    server = scripted(ok)
    gateway = start(forwarding(*[closed_port() for i in range(dead)], server.address, pool=f"probe = false, retries = {retries},"), workers=1)
    assert {verdict(gateway, GET % b"/") for i in range(6)} == status


def test_a_slow_head_does_not_hold_up_others(start):
    """Many half-sent heads, one worker: a whole one is answered at once."""
    gateway = start(fixed('header_timeout = "5s",'), workers=1)
    slow = [raw.connect(gateway.port()) for i in range(50)]
    for s in slow:
        s.sendall(b"GET / HTTP/1.1\r\nX: ")
    begun = time.monotonic()
    assert verdict(gateway, GET % b"/") == 200
    assert time.monotonic() - begun < 1
    for s in slow:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()


def test_fields_of_a_limit_answer(start):
    """Our own answers are whole HTTP messages."""
    gateway = start(fixed("max_target = 100,"))
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % (b"/" + b"t" * 200))
        response = raw.Response(s)
    names = [name for name, _ in fields_of(response.head + b"\r\n")]
    assert response.body == b"414 URI Too Long\n" and {"date", "content-type", "content-length", "connection"} <= set(names)
