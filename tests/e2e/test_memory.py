# SPDX-License-Identifier: MIT
"""What an idle connection costs (done-criterion 4): the process's own share of memory before and after two thousand of them."""

import resource
import time

import pytest

import raw
from gateway import instrumented

COUNT = 2000


@pytest.fixture(scope="module", autouse=True)
def many_files():
    if instrumented():
        pytest.skip("a sanitizer's own memory stands beside every allocation")
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    if old[1] < COUNT + 100:
        pytest.skip(f"at most {old[1]} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(COUNT + 1000, old[1]), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


def used(s, rest):
    """Traffic first: what a tunnel borrowed for it must be given back."""
    for payload in (b"x" * 64, b"y" * 20000):
        s.sendall(raw.frame(payload))
        opcode, echoed, rest = raw.read_frame(s, rest)
        assert echoed == payload
    assert rest == b""


def open_tunnel(port, context):
    s, response = raw.open_websocket(port, tls=context)
    assert response.status == 101
    used(s, response.rest)
    return s


def open_client(port, context):
    """Kept alive behind a request and an answer that do not fit its first buffers."""
    s = raw.connect(port, tls=context)
    body = b"b" * 20000
    for request, size in ((b"GET /size/20000 HTTP/1.1\r\nHost: a\r\n\r\n", 20000),
                          (b"POST /size/64 HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + body, 64)):
        s.sendall(request)
        response = raw.Response(s)
        assert response.status == 200 and len(response.body) == size
    return s


@pytest.mark.parametrize("kind,most_kb", [("tunnel", 1.0), ("tls tunnel", 15.5), ("client", 1.0)])
def test_idle_connections(start, origin, certificate, kind, most_kb):
    """The limits are the targets of tests/bench/compare; HACKING.md, "Memory", says where the bytes are. No log: its rings are filled
    once, which would look like part of each."""
    is_tls = kind.startswith("tls")
    tls = f', tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}' if is_tls else ""
    gateway = start(f'''
        listener "http" {{ bind = "127.0.0.1:@http@", idle_timeout = "10m"{tls} }}
        pool "p" {{ servers = {{ "{origin().address}" }} }}
        route "all" {{ access_log = false, function(req) if req.path == "/no" then return reply(404) end end, forward "p" }}''')
    context = raw.insecure_tls() if is_tls else None
    kept = []

    def more(count):
        for i in range(count):
            kept.append((open_client if kind == "client" else open_tunnel)(gateway.port(), context))

    more(20)  # slabs, caches and the workers' own buffers are there from now on
    time.sleep(1)
    before = gateway.rss_kb()
    more(COUNT)
    time.sleep(1)
    each = (gateway.rss_kb() - before) / COUNT
    busy = gateway.cpu_s()
    time.sleep(1)
    idle = gateway.cpu_s() - busy
    for s in kept:
        s.close()
    print(f"{kind}: {each:.2f} KB each")
    assert each <= most_kb
    assert idle < 0.3, "idle connections cost no time"
