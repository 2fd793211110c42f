# SPDX-License-Identifier: MIT
"""What an idle tunnel costs (done-criterion 4): the process's own share of memory before and after two thousand of them."""

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


@pytest.mark.parametrize("kind,most_kb", [("plain", 2.0), ("tls", 18.0)])
def test_idle_tunnels(start, origin, certificate, kind, most_kb):
    tls = f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}' if kind == "tls" else ""
    gateway = start(f'''
        listener "http" {{ bind = "127.0.0.1:@http@", {tls} }}
        pool "p" {{ servers = {{ "{origin().address}" }} }}
        route "all" {{ function(req) if req.path == "/no" then return reply(404) end end, forward "p" }}''')
    context = raw.insecure_tls() if kind == "tls" else None
    kept = []

    def more(count):
        for i in range(count):
            s, response = raw.open_websocket(gateway.port(), tls=context)
            assert response.status == 101
            used(s, response.rest)
            kept.append(s)

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
    print(f"{kind}: {each:.2f} KB a tunnel")
    assert each <= most_kb
    assert idle < 0.3, "idle tunnels cost no time"
