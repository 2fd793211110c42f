# SPDX-License-Identifier: MIT
"""max_connections, queue and queue_timeout over two workers: order, hand-over, waiters that leave, 503 when full."""

import socket
import threading
import time

import raw
from gateway import wait_for

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
