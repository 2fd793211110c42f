# SPDX-License-Identifier: MIT
"""max_connections, queue and queue_timeout over two workers: order, hand-over, waiters that leave, 503 when full; whom one waits for."""

import collections
import contextlib
import random
import re
import socket
import threading
import time

import pytest

import raw
from gateway import free_port, wait_for

POOL = """
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{address}", max_connections = {limit} }} }}, probe = false, {extra} }}
route "all" {{ forward "p" }}
"""


def get(path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_never_more_than_max_connections_and_all_are_served(start, origin):
    server = origin()
    gateway = start(POOL.format(address=server.address, limit=3, extra='queue = 200, queue_timeout = "20s"'))
    times, errors = [], []

    def one():
        begin = time.monotonic()
        try:
            response = raw.request(gateway.port(), get("/slow/50"), timeout=30)
            times.append((response.status, time.monotonic() - begin))
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(60)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    took = time.monotonic() - begin
    assert not errors
    assert [status for status, _ in times] == [200] * 60
    assert took >= 60 / 3 * 0.05 * 0.95  # three at a time, 50 ms each
    assert gateway.counters()["server_connect_failures"] == 0


def test_queue_full_is_a_503_at_once(start, recorder):
    server = recorder(answer=lambda conn, data, state: False)  # never answers
    gateway = start(POOL.format(address=server.address, limit=1, extra='queue = 1, queue_timeout = "30s"'))
    held = [raw.connect(gateway.port()) for _ in range(2)]
    held[0].sendall(get("/first"))
    wait_for(lambda: b"/first" in server.bytes, what="the first request at the server")
    held[1].sendall(get("/waits"))
    time.sleep(0.2)
    begin = time.monotonic()
    response = raw.request(gateway.port(), get("/refused"))
    assert response.status == 503
    assert int(response.get("retry-after")) >= 1
    assert time.monotonic() - begin < 1
    assert gateway.wait_access(path="/refused")[0]["cause"] == "queue full"
    assert b"/waits" not in server.bytes
    for s in held:
        s.close()


def test_queue_timeout(start, recorder):
    server = recorder(answer=lambda conn, data, state: False)
    gateway = start(POOL.format(address=server.address, limit=1, extra='queue_timeout = "300ms"'))
    with raw.connect(gateway.port()) as first:
        first.sendall(get("/first"))
        wait_for(lambda: b"/first" in server.bytes, what="the first request at the server")
        begin = time.monotonic()
        assert raw.request(gateway.port(), get("/late")).status == 503
        assert 0.25 < time.monotonic() - begin < 2
        assert gateway.wait_access(path="/late")[0]["cause"] == "queue timeout"


def test_waiter_that_leaves_is_gone_and_the_next_gets_the_slot(start, recorder):
    release = threading.Event()

    def answer(conn, data, state):
        if b"/first" in bytes(data):
            release.wait(10)
        conn.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = recorder(answer=answer)
    gateway = start(POOL.format(address=server.address, limit=1, extra='queue_timeout = "20s"'))
    first, leaver, stayer = (raw.connect(gateway.port()) for _ in range(3))
    first.sendall(get("/first"))
    wait_for(lambda: b"/first" in server.bytes, what="the first request at the server")
    leaver.sendall(get("/leaver"))
    time.sleep(0.1)
    stayer.sendall(get("/stayer"))
    time.sleep(0.1)
    leaver.close()
    assert gateway.wait_access(path="/leaver")[0]["cause"] == "client gone"
    release.set()
    assert raw.Response(stayer).status == 204
    assert b"/leaver" not in server.bytes
    first.close()
    stayer.close()


def test_a_tunnel_holds_its_slot_until_it_ends(start, origin):
    server = origin()
    gateway = start(POOL.format(address=server.address, limit=1, extra='queue_timeout = "10s"'))
    tunnel, response = raw.open_websocket(gateway.port(), "/ws")
    assert response.status == 101
    with raw.connect(gateway.port()) as waiter:
        waiter.sendall(get("/size/5"))
        waiter.settimeout(0.4)
        try:
            assert waiter.recv(1) == b"never"
        except socket.timeout:
            pass
        waiter.settimeout(10)
        tunnel.close()
        assert raw.Response(waiter).status == 200


def test_server_that_comes_up_wakes_the_queue(start, origin, recorder):
    def answer(conn, data, state):
        if bytes(data).startswith(b"GET /healthz"):
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return True
        return False  # anything else is held

    full, other = recorder(answer=answer), origin()
    raw.request(other.port, b"POST /healthz/fail HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{full.address}", max_connections = 1 }}, "{other.address}" }}, queue_timeout = "20s",
  probe = {{ path = "/healthz", every = "200ms", fast = "100ms", rise = 1, fall = 1 }} }}
route "all" {{ forward "p" }}
""")
    gateway.wait_err(rf"p/{other.address} down", 10)
    gateway.wait_err(rf"p/{full.address} up", 10)
    with raw.connect(gateway.port()) as first, raw.connect(gateway.port()) as waiter:
        first.sendall(get("/first"))
        wait_for(lambda: b"/first" in full.bytes, what="the first request at the server")
        waiter.sendall(get("/size/1"))
        time.sleep(0.3)
        assert not gateway.access(path="/size/1")
        raw.request(other.port, b"POST /healthz/ok HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert raw.Response(waiter).status == 200


def test_turns_are_by_arrival_over_both_workers(start, recorder):
    release, order = threading.Event(), []

    def answer(conn, data, state):
        order.append(re.findall(rb"GET /(\w+) ", bytes(data))[-1].decode())
        release.wait(20)
        conn.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = recorder(answer=answer)
    gateway = start(POOL.format(address=server.address, limit=1, extra='queue_timeout = "20s"'))
    with contextlib.ExitStack() as stack:
        conns = [stack.enter_context(raw.connect(gateway.port())) for _ in range(24)]
        first = stack.enter_context(raw.connect(gateway.port()))
        first.sendall(get("/first"))
        wait_for(lambda: order == ["first"], what="the first request at the server")
        random.Random(1).shuffle(conns)  # whichever workers they are at
        for number, conn in enumerate(conns):
            conn.sendall(get(f"/{number}"))
            time.sleep(0.03)
        release.set()
        assert [raw.Response(conn).status for conn in conns] == [204] * len(conns)
        assert order == ["first"] + [str(number) for number in range(len(conns))]


def test_one_alone_on_its_worker_gets_no_more_turns(start, origin):
    server = origin()
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{server.address}", max_connections = 1 }} }}, probe = false, queue_timeout = "20s" }}
local mine = {{}}
route "worker" {{ path = "/worker", function(req) return reply(200, tostring(mine)) end }}
route "all" {{ forward "p" }}
""")
    with contextlib.ExitStack() as stack:
        sides = collections.defaultdict(list)
        for _ in range(24):
            conn = stack.enter_context(raw.connect(gateway.port()))
            conn.sendall(get("/worker"))
            sides[raw.Response(conn).body].append(conn)
        assert len(sides) == 2
        few, many = sorted(sides.values(), key=len)
        conns, counts = few[:1] + many, collections.Counter()
        end = time.monotonic() + 2

        def one(number, conn):
            while time.monotonic() < end:
                conn.sendall(get("/slow/5"))
                counts[number] += raw.Response(conn).status == 200

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(conns)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(many) >= 8
        assert counts[0] <= 2 + max(counts[number] for number in range(1, len(conns))), counts


class Held:
    """A server that answers each request when it is let go; `release` makes it answer at once."""

    def __init__(self, recorder):
        self.release = threading.Event()
        self.server = recorder(answer=self.answer)
        self.address = self.server.address

    def answer(self, conn, data, state):
        if bytes(data).startswith(b"GET /healthz"):
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return True
        self.release.wait(20)
        conn.sendall(b"HTTP/1.1 200 OK\r\nX-Origin: held\r\nContent-Length: 0\r\n\r\n")
        return False

    def has(self, path):
        wait_for(lambda: path in self.server.bytes, what=f"{path} at the server")


def never_in(conn, seconds=0.3):
    """Nothing comes."""
    conn.settimeout(seconds)
    with pytest.raises(socket.timeout):
        conn.recv(1)
    conn.settimeout(10)


def served(response):
    return response.status, response.get("x-origin")


def test_a_named_server_that_is_full_or_down_is_a_503_at_once(start, recorder, origin):
    """Nobody else gets the request, and nobody waits for it (moongate-rules, forward)."""
    a, b, c = Held(recorder), origin("b"), origin("c")
    raw.request(c.port, b"POST /healthz/fail HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{a.address}", name = "a", max_connections = 1 }}, {{ "{b.address}", name = "b", max_connections = 1 }},
  {{ "{c.address}", name = "c" }} }}, queue_timeout = "20s",
  probe = {{ path = "/healthz", every = "200ms", fast = "100ms", rise = 1, fall = 1 }} }}
route "a" {{ path = "/a/*", forward("p", {{ server = "a" }}) }}
route "b" {{ path = "/b/*", forward("p", {{ server = "b" }}) }}
route "c" {{ path = "/c/*", forward("p", {{ server = "c" }}) }}
""")
    gateway.wait_err(r"p/c down", 10)
    for name in "ab":
        gateway.wait_err(rf"p/{name} up", 10)
    with raw.connect(gateway.port()) as first:
        tunnel, response = raw.open_websocket(gateway.port(), "/b/ws")
        assert served(response) == (101, "b")
        first.sendall(get("/a/first"))
        a.has(b"/a/first")
        for path, cause in (("/a/full", "queue full"), ("/b/full", "queue full"), ("/c/down", "no live server")):
            begin = time.monotonic()
            response = raw.request(gateway.port(), get(path))
            assert response.status == 503 and response.get("retry-after")
            assert time.monotonic() - begin < 2
            assert gateway.wait_access(path=path)[0]["cause"] == cause
        tunnel.close()
        wait_for(lambda: raw.request(gateway.port(), get("/b/who")).status == 200, what="b has room again")
        a.release.set()
        assert served(raw.Response(first)) == (200, "held")
        assert b"/b/" not in a.server.bytes


def test_who_waits_for_a_full_server_is_not_given_to_a_backup(start, recorder, origin):
    main, backup = Held(recorder), origin("backup")
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{main.address}", max_connections = 1 }}, {{ "{backup.address}", backup = true }} }}, probe = false,
  queue = 1, queue_timeout = "20s" }}
route "all" {{ forward "p" }}
""")
    with raw.connect(gateway.port()) as first, raw.connect(gateway.port()) as waiter:
        first.sendall(get("/first"))
        main.has(b"/first")
        waiter.sendall(get("/waits"))
        never_in(waiter)
        assert raw.request(gateway.port(), get("/refused")).status == 503
        main.release.set()
        assert served(raw.Response(first)) == served(raw.Response(waiter)) == (200, "held")


def test_without_a_queue_a_full_server_is_a_503_though_a_backup_is_up(start, recorder, origin):
    main, backup = Held(recorder), origin("backup")
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{main.address}", max_connections = 1 }}, {{ "{backup.address}", backup = true }} }}, probe = false, queue = false }}
route "all" {{ forward "p" }}
""")
    with raw.connect(gateway.port()) as first:
        first.sendall(get("/first"))
        main.has(b"/first")
        assert raw.request(gateway.port(), get("/refused")).status == 503
        assert gateway.wait_access(path="/refused")[0]["cause"] == "queue full"
        main.release.set()
        assert served(raw.Response(first)) == (200, "held")


def test_all_who_wait_go_to_the_backup_when_the_others_go_down(start, origin):
    """And what the backup frees goes to them only then."""
    main, backup = origin("main"), origin("backup")
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{main.address}", max_connections = 1 }}, {{ "{backup.address}", backup = true, max_connections = 1 }} }},
  queue_timeout = "20s", probe = {{ path = "/healthz", every = "200ms", fast = "100ms", rise = 1, fall = 1 }} }}
route "all" {{ forward "p" }}
""")
    for server in (main, backup):
        gateway.wait_err(rf"p/{server.address} up", 10)
    tunnel, response = raw.open_websocket(gateway.port(), "/ws")
    assert served(response) == (101, "main")
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(raw.connect(gateway.port())) for _ in range(6)]
        for waiter in waiters:
            waiter.sendall(get("/who"))
        never_in(waiters[0])
        assert not gateway.access(path="/who")
        raw.request(main.port, b"POST /healthz/fail HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert [served(raw.Response(waiter)) for waiter in waiters] == [(200, "backup")] * 6
    tunnel.close()


def test_a_retry_waits_for_a_server_that_was_not_tried(start, recorder):
    """One refuses connections, the other is full: the queue is for the other."""
    held = Held(recorder)
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ "127.0.0.1:{free_port()}", {{ "{held.address}", max_connections = 1 }} }}, probe = false, balance = "first",
  queue = 2, queue_timeout = "20s" }}
route "all" {{ forward "p" }}
""")
    with raw.connect(gateway.port()) as first, raw.connect(gateway.port()) as second, raw.connect(gateway.port()) as third:
        first.sendall(get("/first"))
        held.has(b"/first")
        for waiter in (second, third):
            waiter.sendall(get("/waits"))
        never_in(second)
        assert raw.request(gateway.port(), get("/refused")).status == 503
        assert gateway.wait_access(path="/refused")[0]["cause"] == "queue full"
        held.release.set()
        for conn in (first, second, third):
            assert served(raw.Response(conn)) == (200, "held")
        assert [line["retries"] for line in gateway.wait_access(2, path="/waits")] == [1, 1]


def test_who_waits_is_answered_at_once_when_the_last_server_goes_down(start, origin):
    server = origin()
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{server.address}", max_connections = 1 }} }}, queue_timeout = "60s",
  probe = {{ path = "/healthz", every = "200ms", fast = "100ms", rise = 1, fall = 1 }} }}
route "all" {{ forward "p" }}
""")
    gateway.wait_err(rf"p/{server.address} up", 10)
    tunnel, response = raw.open_websocket(gateway.port(), "/ws")
    assert response.status == 101
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(raw.connect(gateway.port())) for _ in range(6)]
        for waiter in waiters:
            waiter.sendall(get("/waits"))
        never_in(waiters[0])
        raw.request(server.port, b"POST /healthz/fail HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        gateway.wait_err(rf"p/{server.address} down", 10)
        begin = time.monotonic()
        assert [raw.Response(waiter).status for waiter in waiters] == [503] * 6
        assert time.monotonic() - begin < 2
        assert {line["cause"] for line in gateway.wait_access(6, path="/waits")} == {"no live server"}
    tunnel.close()


def test_who_comes_and_goes_leaves_no_slot_behind(start, origin):
    """Clients that leave at any moment, two servers of few slots: in the end all slots are free, and nobody waited for nothing."""
    a, b = origin("a"), origin("b")
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ {{ "{a.address}", max_connections = 2 }}, {{ "{b.address}", max_connections = 1 }} }}, probe = false,
  queue_timeout = "5s" }}
route "all" {{ forward "p" }}
""", workers=2)
    end = time.monotonic() + 3
    longest, failed = [0.0], []

    def stays():
        with raw.connect(gateway.port()) as conn:
            while time.monotonic() < end:
                begin = time.monotonic()
                conn.sendall(get("/slow/1"))
                if raw.Response(conn).status != 200:
                    failed.append(1)
                longest[0] = max(longest[0], time.monotonic() - begin)

    def goes(chance):
        while time.monotonic() < end:
            with raw.connect(gateway.port()) as conn:
                conn.sendall(get("/slow/3"))
                time.sleep(chance.random() * 0.03)

    threads = [threading.Thread(target=stays) for _ in range(8)]
    threads += [threading.Thread(target=goes, args=(random.Random(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed and longest[0] < 3
    tunnels = [raw.open_websocket(gateway.port(), "/ws", timeout=10) for _ in range(3)]  # every slot
    assert [response.status for _, response in tunnels] == [101] * 3
    for tunnel, _ in tunnels:
        tunnel.close()
