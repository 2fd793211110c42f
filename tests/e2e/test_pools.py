# SPDX-License-Identifier: MIT
"""Pools: who gets a request, what is tried again, and how probes take servers out and bring them back."""

import collections
import re
import threading
import time

import pytest

import raw
from gateway import fields_of, forwarding, free_port, wait_for

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
FAST = 'every = "200ms", fast = "60ms", timeout = "1s"'


def ask(gateway, path=b"/who"):
    return raw.request(gateway.port(), GET % path)


def tally(gateway, count):
    """How many of count requests each origin answered (None: an answer of our own)."""
    with raw.connect(gateway.port()) as s:
        names = collections.Counter()
        for i in range(count):
            s.sendall(GET % b"/who")
            names[raw.Response(s).get("x-origin")] += 1
        return names


def pool(text, more=""):
    return f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ {text} }}
        {more}
        route "all" {{ forward "p" }}'''


# --- who is next ---

def test_weights(start, origin):
    a, b, c = origin("a"), origin("b"), origin("c")
    gateway = start(pool(f'''servers = {{ {{ "{a.address}", weight = 3 }}, {{ "{b.address}", weight = 1 }}, {{ "{c.address}", weight = 0 }} }},
        probe = false'''), workers=1)
    assert tally(gateway, 40) == {"a": 30, "b": 10}


def test_round_robin_over_two_workers(start, origin):
    servers = [origin(name) for name in "abcd"]
    gateway = start(forwarding(*[server.address for server in servers]))
    total = collections.Counter()
    for i in range(10):
        total += tally(gateway, 8)
    assert total == {name: 20 for name in "abcd"}


def test_leastconn(start, origin):
    a, b = origin("a"), origin("b")
    gateway = start(pool(f'servers = {{ "{a.address}", "{b.address}" }}, balance = "leastconn", probe = false'))
    tunnels = [raw.open_websocket(gateway.port()) for i in range(6)]
    names = [response.get("x-origin") for _, response in tunnels]
    assert sorted(names) == ["a"] * 3 + ["b"] * 3
    for s, response in tunnels:
        if response.get("x-origin") == "a":
            s.close()
    wait_for(lambda: gateway.counters()["tunnels_closed"] == 3, 3, "three tunnels closed")
    more = [raw.open_websocket(gateway.port()) for i in range(3)]
    assert [response.get("x-origin") for _, response in more] == ["a"] * 3
    for s, _ in tunnels + more:
        s.close()


def test_backup(start, origin):
    """A backup serves only while nothing else is up."""
    a, b = origin("a"), origin("backup")
    gateway = start(pool(f'''servers = {{ "{a.address}", {{ "{b.address}", backup = true }} }},
        probe = {{ path = "/healthz", {FAST}, fall = 1, rise = 1 }}'''))
    gateway.wait_err(f"p/{a.address} up")
    assert tally(gateway, 10) == {"a": 10}
    raw.request(a.port, b"POST /healthz/fail HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    gateway.wait_err(f"p/{a.address} down")
    assert tally(gateway, 10) == {"backup": 10}
    after = len(gateway.lines_err)
    raw.request(a.port, b"POST /healthz/ok HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    gateway.wait_err(f"p/{a.address} up", after=after)
    assert tally(gateway, 10) == {"a": 10}


def test_a_backup_takes_over_when_connects_fail(start, origin):
    """Before any probe has noticed."""
    b = origin("backup")
    gateway = start(pool(f'servers = {{ "127.0.0.1:{free_port()}", {{ "{b.address}", backup = true }} }}, probe = false'))
    assert tally(gateway, 6) == {"backup": 6}


def test_forward_to_a_named_server(start, origin):
    a, b = origin("a"), origin("b")
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ {{ "{a.address}", name = "first" }}, "{b.address}" }}, probe = false }}
        route "first" {{ path = "/first", forward("p", {{ server = "first" }}) }}
        route "second" {{ path = "/second", function(req) return forward("p", {{ server = "{b.address}" }}) end }}''')
    for path, name in ((b"/first", "a"), (b"/second", "b")):
        assert {ask(gateway, path).get("x-origin") for i in range(4)} == {name}


# --- what is tried again ---

class Stale:
    """A server whose first connection answers once and then ends without an answer, in a way; what it got is counted."""

    def __init__(self, scripted, how):
        self.how, self.got = how, []
        self.server = scripted(self.handler)
        self.address = self.server.address

    def handler(self, peer):
        while True:
            head = peer.head()
            body = peer.body(head)
            self.got.append((peer.index, head.split(b" ")[0], body))
            if peer.index == 0 and len([1 for index, _, _ in self.got if index == 0]) == 2:
                if self.how == "reset":
                    peer.reset()
                return
            peer.answer()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method,size,again", [(b"GET", 0, True), (b"HEAD", 0, True), (b"PUT", 1000, True), (b"DELETE", 0, True),
                                               (b"OPTIONS", 5, True), (b"PUT", 100000, False), (b"POST", 5, False), (b"PATCH", 5, False)])
def test_a_kept_connection_that_died(start, scripted, how, method, size, again):
    """Tried again on a fresh one when the method allows and the body is at hand; a POST is never sent twice."""
    server = Stale(scripted, how)
    gateway = start(forwarding(server.address), workers=1)
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200
        s.sendall(method + b" / HTTP/1.1\r\nHost: a\r\n" + (b"Content-Length: %d\r\n" % size if size else b"") + b"\r\n" + b"b" * size)
        assert raw.Response(s, head_only=method == b"HEAD").status == (200 if again else 502)
    seen = [entry for entry in server.got if entry[1] == method and not (method == b"GET" and entry == (0, b"GET", b"") and entry is server.got[0])]
    assert len(seen) == (2 if again else 1)
    assert all(body == b"b" * size for _, _, body in seen)
    entry = gateway.wait_access(2)[1]
    assert (entry.get("retries"), entry["side"]) == ((1, "gateway") if again else (None, "server"))


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["a byte", "half a head", "a 103"])
def test_a_kept_connection_that_died_behind_a_byte_is_not_tried_again(start, scripted, part):
    """D25: it was heard from, so the request has arrived: 502, be the method what it may."""
    got = []

    def handler(peer):
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", part):
            got.append(peer.head())
            peer.send(answer)

    gateway = start(forwarding(scripted(handler).address), workers=1)
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200
        s.sendall(GET % b"/")
        response = raw.Response(s)
        if response.status == 103:
            response = raw.Response(s, rest=response.rest)
        assert response.status == 502
    assert len(got) == 2 and gateway.counters()["retries"] == 0 and gateway.counters()["server_reused"] == 1


def test_a_post_takes_no_connection_that_was_long_idle(start, scripted):
    server = Stale(scripted, "close")
    gateway = start(forwarding(server.address), workers=1)
    assert ask(gateway).status == 200
    time.sleep(1.2)
    assert raw.request(gateway.port(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status == 200
    assert server.got[-1] == (1, b"POST", b"hi")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_fresh_connection_that_died_is_not_tried_again(start, scripted, how):
    got = []

    def handler(peer):
        got.append(peer.head())
        if how == "reset":
            peer.reset()

    gateway = start(forwarding(scripted(handler).address))
    response = ask(gateway)
    assert response.status == 502 and len(got) == 1
    assert gateway.wait_access(1)[0]["cause"] == "server closed"


@pytest.mark.parametrize("start_of_head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n", b"HTTP/1.0 200 OK\r\n"],
                         ids=["close", "in a list", "HTTP/1.0"])
def test_what_the_server_wants_closed_is_not_kept(start, scripted, start_of_head):
    """A8, D26: the server says so and waits for us: closed at once, the next request takes a fresh one."""
    ended = []

    def handler(peer):
        peer.head()
        peer.send(start_of_head + b"Content-Length: 0\r\n\r\n")
        ended.append((peer.wait_closed(20), bytes(peer.data)))

    server = scripted(handler)
    gateway = start(forwarding(server.address), workers=1)
    assert ask(gateway).status == ask(gateway).status == 200
    wait_for(lambda: len(ended) == 2, 5, "both connections closed")
    assert len(server.peers) == 2 and all(data == b"" for _, data in ended)


def test_a_kept_connection_with_an_end_waiting_is_not_used(start, scripted):
    """Requirements D26: closed by the server while kept: discarded before anything is sent on it, a POST included."""
    def handler(peer):
        peer.body(peer.head())
        peer.answer()

    server = scripted(handler)
    gateway = start(forwarding(server.address), workers=1)
    for i in range(10):
        assert raw.request(gateway.port(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status == 200
        time.sleep(0.03)  # the end has come: without that the two would cross on their way
    assert gateway.counters()["retries"] == 0


# --- probes ---

class Health:
    """A server that answers probes (Connection: close asked) with status, and everything else with 200; probes are kept."""

    def __init__(self, scripted, status=200, delay=0.0):
        self.status, self.delay, self.probes, self.requests = status, delay, [], 0
        self.server = scripted(self.handler)
        self.address = self.server.address

    def handler(self, peer):
        while True:
            head = peer.head()
            if b"moongate-probe" not in head:
                self.requests += 1
                peer.body(head)
                peer.answer()
                continue
            self.probes.append((time.monotonic(), head))
            time.sleep(self.delay)
            status = self.status.pop(0) if isinstance(self.status, list) and len(self.status) > 1 else self.status
            status = status[0] if isinstance(status, list) else status
            peer.answer(b"healthy", head=b"HTTP/1.1 %d Status\r\n" % status)
            return


def test_requests_wait_for_the_first_answer(start, scripted):
    health = Health(scripted, delay=0.6)
    gateway = start(pool(f'servers = {{ "{health.address}" }}, probe = {{ path = "/healthz" }}'))
    begun = time.monotonic()
    assert ask(gateway).status == 200
    assert 0.2 < time.monotonic() - begun < 3
    gateway.wait_err(f"p/{health.address} up: GET /healthz: 200")


def test_requests_wait_no_longer_than_the_probes_timeout(start, scripted):
    health = Health(scripted, delay=5)
    gateway = start(pool(f'servers = {{ "{health.address}" }}, probe = {{ path = "/healthz", timeout = "500ms" }}'))
    begun = time.monotonic()
    assert ask(gateway).status == 503
    assert time.monotonic() - begun < 3
    gateway.wait_err(f"p/{health.address} down: GET /healthz: no answer within 500 ms")


def test_the_first_answer_decides(start, scripted):
    """One bad answer is enough at the start, whatever fall says; one good one likewise, whatever rise says."""
    bad, good = Health(scripted, 503), Health(scripted, 200)
    gateway = start(pool(f'servers = {{ "{bad.address}", "{good.address}" }}, probe = {{ path = "/healthz", fall = 10, rise = 10, every = "30s" }}'))
    assert {ask(gateway).status for i in range(10)} == {200}
    assert bad.requests == 0 and good.requests == 10
    gateway.wait_err(rf"p/{bad.address} down: GET /healthz: 503, expected 200-399")


def test_rise_and_fall(start, scripted):
    """fall failures in a row take a server out, rise successes bring it back; single ones change nothing."""
    health = Health(scripted, [200, 503, 200, 503, 503, 200, 503, 503, 503, 200, 503, 200, 200, 200])
    gateway = start(pool(f'servers = {{ "{health.address}" }}, probe = {{ path = "/healthz", {FAST}, fall = 3, rise = 2 }}'))
    gateway.wait_err(f"p/{health.address} down: GET /healthz: 503, expected 200-399, 3 in a row", 10)
    assert len(health.probes) >= 9
    down = len(gateway.lines_err)
    assert ask(gateway).status == 503
    gateway.wait_err(f"p/{health.address} up", 10, after=down)
    assert len(health.probes) >= 13
    assert ask(gateway).status == 200
    assert len([line for line in gateway.lines_err if " up: " in line or " down: " in line]) == 3


def test_the_fast_pace_while_a_change_is_in_the_air(start, scripted):
    health = Health(scripted, [200, 503])
    gateway = start(pool(f'servers = {{ "{health.address}" }}, probe = {{ path = "/h", every = "700ms", fast = "100ms", fall = 3 }}'))
    gateway.wait_err(" down: ", 10)
    times = [at for at, _ in health.probes]
    assert times[1] - times[0] > 0.5 and times[3] - times[1] < 0.5


def test_what_a_probe_says(start, scripted):
    health = Health(scripted)
    gateway = start(pool(f'''servers = {{ "{health.address}" }}, probe = {{ path = "/h?x=1", host = "inner.example", method = "HEAD",
        headers = {{ ["x-probe"] = "yes" }} }}'''))
    gateway.wait_err(" up: ")
    head = health.probes[0][1]
    assert head.startswith(b"HEAD /h?x=1 HTTP/1.1\r\n")
    fields = dict(fields_of(head))
    assert (fields["host"], fields["x-probe"], fields["connection"], fields["user-agent"]) == ("inner.example", "yes", "close", "moongate-probe")


@pytest.mark.parametrize("expect,status,up", [("{ 200, 426 }", 426, True), ('"200-299"', 302, False), ("{ 204 }", 200, False), ('{ "200-299", 401 }', 401, True)])
def test_what_a_probe_expects(start, scripted, expect, status, up):
    health = Health(scripted, status)
    gateway = start(pool(f'servers = {{ "{health.address}" }}, probe = {{ expect = {expect} }}'))
    gateway.wait_err(" up: " if up else " down: ")


@pytest.mark.parametrize("text,up", [("heal", True), ("sick", False)])
def test_what_a_probe_wants_to_read(start, scripted, text, up):
    health = Health(scripted)
    gateway = start(pool(f'servers = {{ "{health.address}" }}, probe = {{ body = "{text}" }}'))
    gateway.wait_err(" up: " if up else rf' down: GET /: 200, but "{text}" is not in the body')


def test_a_probe_may_ask_another_port(start, scripted):
    health, server = Health(scripted, 503), Health(scripted)
    gateway = start(pool(f'servers = {{ "{server.address}" }}, probe = {{ port = {health.server.port}, {FAST}, rise = 1 }}'))
    gateway.wait_err(" down: ")
    assert ask(gateway).status == 503 and server.probes == []
    health.status = 200
    gateway.wait_err(" up: ")
    assert ask(gateway).status == 200


@pytest.mark.parametrize("status,up", [(200, True), (404, True), (499, True), (500, False), (503, False)])
def test_the_default_probe(start, scripted, status, up):
    """Not written: GET /, and any answer below 500 will do."""
    health = Health(scripted, status)
    gateway = start(forwarding(health.address, pool=""))
    gateway.wait_err(f"p/{health.address} {'up' if up else 'down'}: GET /: {status}")
    assert health.probes[0][1].startswith(b"GET / HTTP/1.1\r\n")
    assert ask(gateway).status == (200 if up else 503)


@pytest.mark.parametrize("status,hint", [(426, "WebSocket-only server"), (404, "path"), (401, "credentials")])
def test_hints(start, scripted, status, hint):
    health = Health(scripted, status)
    gateway = start(pool(f'servers = {{ "{health.address}" }}, probe = {{ path = "/healthz" }}'))
    assert hint in gateway.wait_err(r" down: .*").group(0)


def test_tcp_probe(start, origin):
    a = origin("a")
    gateway = start(pool(f'servers = {{ "{a.address}", "127.0.0.1:{free_port()}" }}, probe = "tcp"'))
    gateway.wait_err(f"p/{a.address} up")
    gateway.wait_err(r"p/127\.0\.0\.1:\d+ down: .*refused")
    assert tally(gateway, 10) == {"a": 10}


def test_no_probe(start):
    """probe = false: always up, and each request finds out by itself."""
    gateway = start(forwarding(f"127.0.0.1:{free_port()}", pool="probe = false,"))
    assert {ask(gateway).status for i in range(4)} == {502}
    assert gateway.counters()["probes_sent"] == 0


def test_failed_connects_of_live_requests_count(start, origin):
    """A dead server is out long before its next probe is due."""
    a, b = origin("a"), origin("b")
    gateway = start(pool(f'servers = {{ "{a.address}", "{b.address}" }}, probe = {{ path = "/healthz", every = "60s", fast = "50ms", fall = 3 }}'))
    gateway.wait_err(f"p/{a.address} up")
    gateway.wait_err(f"p/{b.address} up")
    a.proc.kill()
    a.proc.wait()
    answers = collections.Counter()
    for i in range(20):
        answers += tally(gateway, 2)
        time.sleep(0.01)
    assert answers == {"b": 40}, "no client has seen any of it"
    gateway.wait_err(f"p/{a.address} down: ")
    after = gateway.counters()["server_connect_failures"]
    assert after >= 1
    tally(gateway, 20)
    assert gateway.counters()["server_connect_failures"] == after


def test_all_down_is_503_at_once(start, origin):
    gateway = start(pool(f'servers = {{ "127.0.0.1:{free_port()}", "127.0.0.1:{free_port()}" }}, probe = {{ every = "7s" }}'))
    gateway.wait_err(r" down: .*refused")
    wait_for(lambda: len([line for line in gateway.lines_err if " down: " in line]) == 2, 5, "both down")
    begun = time.monotonic()
    response = ask(gateway)
    assert response.status == 503 and response.get("retry-after") == "7" and time.monotonic() - begun < 1
    s, response = raw.open_websocket(gateway.port())
    s.close()
    assert response.status == 503 and response.get("retry-after") == "7"
    assert {entry["cause"] for entry in gateway.wait_access(2)} == {"no live server"}


def test_a_websocket_server_that_fails_its_http_probe_gets_no_traffic(start, origin):
    """Its process is there and would take WebSockets; the gate is the probe."""
    a = origin("a")
    gateway = start(pool(f'servers = {{ "{a.address}" }}, probe = {{ path = "/healthz", {FAST}, fall = 2, rise = 2 }}'))
    s, response = raw.open_websocket(gateway.port())
    assert response.status == 101
    raw.request(a.port, b"POST /healthz/fail HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    gateway.wait_err(" down: GET /healthz: 503")
    direct, response = raw.open_websocket(a.port)
    assert response.status == 101, "it does speak WebSocket"
    direct.close()
    more, response = raw.open_websocket(gateway.port())
    more.close()
    assert response.status == 503
    s.sendall(raw.frame(b"still here"))
    assert raw.read_frame(s)[1] == b"still here", "a tunnel that nobody asked to cut goes on"
    raw.request(a.port, b"POST /healthz/ok HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    gateway.wait_err(" up: GET /healthz: 200", after=len(gateway.lines_err) - 1)
    again, response = raw.open_websocket(gateway.port())
    again.close()
    s.close()
    assert response.status == 101


def test_a_killed_server_goes_and_comes_back(start, origin):
    """Its tunnels end, those elsewhere are untouched, new work goes elsewhere; its probe brings it back."""
    a, b = origin("a"), origin("b")
    gateway = start(pool(f'''servers = {{ "{a.address}", "{b.address}" }}, slow_start = false,
        probe = {{ path = "/healthz", {FAST}, fall = 2, rise = 2 }}'''))
    gateway.wait_err(f"p/{a.address} up")
    gateway.wait_err(f"p/{b.address} up")
    tunnels = [raw.open_websocket(gateway.port()) for i in range(8)]
    by_name = collections.defaultdict(list)
    for s, response in tunnels:
        by_name[response.get("x-origin")].append(s)
    assert len(by_name["a"]) == len(by_name["b"]) == 4
    a.proc.kill()
    a.proc.wait()
    for s in by_name["a"]:
        assert raw.read_all(s)[0] == b""
        s.close()
    assert tally(gateway, 20) == {"b": 20}
    gateway.wait_err(f"p/{a.address} down: ")
    assert tally(gateway, 10) == {"b": 10}
    for i, s in enumerate(by_name["b"]):
        s.sendall(raw.frame(b"tunnel %d" % i))
        assert raw.read_frame(s)[1] == b"tunnel %d" % i
    after = len(gateway.lines_err)
    origin("a", port=a.port)
    gateway.wait_err(f"p/{a.address} up", 10, after=after)
    names = tally(gateway, 20)
    assert names == {"a": 10, "b": 10}
    assert {entry["side"] for entry in gateway.wait_access(4, event="close")} == {"server"}
    for s in by_name["b"]:
        s.close()


def test_unresolvable_names_start_down_and_are_tried_again(start, origin):
    a = origin("a")
    gateway = start(pool(f'servers = {{ "no-such-name.invalid:80", "{a.address}" }}, probe = false, resolve = "200ms"'),
                    settings='log_level = "debug",', env={"RES_OPTIONS": "timeout:1 attempts:1"})
    gateway.wait_err("p/no-such-name.invalid:80 down: cannot resolve no-such-name.invalid: ")
    gateway.wait_err("p/no-such-name.invalid:80: cannot resolve", 10)
    assert tally(gateway, 10) == {"a": 10}


def test_a_pool_of_one_unresolvable_name_is_503(start):
    gateway = start(forwarding("no-such-name.invalid:80"), env={"RES_OPTIONS": "timeout:1 attempts:1"})
    begun = time.monotonic()
    assert ask(gateway).status == 503 and time.monotonic() - begun < 1


def test_a_name_is_resolved(start, origin):
    a = origin("a")
    gateway = start(forwarding(f"localhost:{a.port}", pool='probe = false, host = "server",'))
    response = ask(gateway, b"/headers")
    assert re.search(r'"host", "localhost:%d"' % a.port, response.body.decode(), re.I)


def test_probes_go_on_under_load(start, origin):
    """The control thread is not the workers': a busy pool is probed at its pace and stays up."""
    a = origin("a")
    gateway = start(pool(f'servers = {{ "{a.address}" }}, probe = {{ path = "/healthz", every = "100ms", timeout = "1s" }}'))
    stop = time.monotonic() + 1.2

    def load():
        with raw.connect(gateway.port()) as s:
            while time.monotonic() < stop:
                s.sendall(GET % b"/size/10000")
                raw.Response(s)

    threads = [threading.Thread(target=load) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = gateway.counters()
    assert counters["probes_sent"] >= 7 and counters["probes_failed"] == 0
