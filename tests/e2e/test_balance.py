# SPDX-License-Identifier: MIT
"""The other balances, slow start, and forward to the first pool with a live server. (Round-robin, leastconn and backups:
test_pools.py.)"""

import collections
import time

import pytest

import raw
from gateway import free_port, wait_for

LISTENER = 'listener "http" { bind = "127.0.0.1:@http@" }'
FAST = 'probe = { path = "/healthz", every = "200ms", fast = "60ms", timeout = "1s", fall = 1, rise = 1 }'
POST = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
BY_TOPIC = 'function(req) return forward("p", { key = req:query("t") }) end'


def pool(servers, more, name="p"):
    listed = ", ".join(f'"{server.address}"' if hasattr(server, "address") else server for server in servers)
    return f'pool "{name}" {{ servers = {{ {listed} }}, {more} }}\n'


def config(servers, more, step='forward "p"'):
    return f'{LISTENER}\n{pool(servers, more)}\nroute "all" {{ {step} }}'


def ask(gateway, path="/who", fields=""):
    return raw.request(gateway.port(), f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())


def who(gateway, path="/who", fields=""):
    return ask(gateway, path, fields).get("x-origin")


def fail(server, how="fail"):
    assert raw.request(server.port, POST % f"/healthz/{how}".encode()).status < 300


def wait_up(gateway, *servers, after=0, name="p"):
    for server in servers:
        gateway.wait_err(f"{name}/{server.address} up", after=after)


def sockets(gateway, count, path="/"):
    """count tunnels: [(socket, name of the server)]"""
    opened = [raw.open_websocket(gateway.port(), path=path) for i in range(count)]
    assert all(response.status == 101 for _, response in opened)
    return [(s, response.get("x-origin")) for s, response in opened]


def close(opened):
    for s, _ in opened:
        s.close()


# --- random, first ---

def test_random_by_weight(start, origin):
    a, b, c = (origin(name) for name in "abc")
    gateway = start(config([f'{{ "{a.address}", weight = 2 }}', b, c], 'balance = "random", probe = false'))
    tally = collections.Counter(who(gateway) for i in range(400))
    assert 150 < tally["a"] < 250 and 60 < tally["b"] < 140 and 60 < tally["c"] < 140


def test_random_takes_the_less_loaded_of_two(start, origin):
    a, b = origin("a"), origin("b")
    gateway = start(config([a, b], 'balance = "random", probe = false'))
    opened = sockets(gateway, 40)
    tally = collections.Counter(name for _, name in opened)
    assert abs(tally["a"] - tally["b"]) <= 4  # with two servers the two choices are both of them
    close(opened)


def test_first_fills_one_server_before_the_next(start, origin):
    a, b, c = (origin(name) for name in "abc")
    gateway = start(config([f'{{ "{a.address}", max_connections = 3 }}', f'{{ "{b.address}", max_connections = 2 }}', c],
                           'balance = "first", probe = false'))
    assert {who(gateway) for i in range(10)} == {"a"}
    opened = sockets(gateway, 7)
    assert [name for _, name in opened] == ["a"] * 3 + ["b"] * 2 + ["c"] * 2
    opened[0][0].close()
    wait_for(lambda: gateway.counters()["tunnels_closed"] == 1, 3, "a tunnel closed")
    assert who(gateway) == "a"
    close(opened)


# --- hash ---

def topics(gateway, count=120):
    return {topic: who(gateway, f"/who?t={topic}") for topic in range(count)}


def test_hash_keeps_a_key_together(start, origin):
    gateway = start(config([origin(name) for name in "abcd"], 'balance = "hash", probe = false', BY_TOPIC))
    before = topics(gateway)
    tally = collections.Counter(before.values())
    assert sorted(tally) == list("abcd") and max(tally.values()) < 60
    assert topics(gateway) == before  # whichever worker is asked
    for topic in range(0, 20):
        opened = sockets(gateway, 1, f"/?t={topic}")
        assert opened[0][1] == before[topic]
        close(opened)


def test_hash_of_the_clients_address(start, origin):
    gateway = start(f'''settings {{ workers = 2, trusted_proxies = {{ "127.0.0.1" }} }}
        {config([origin(name) for name in "abcd"], 'balance = "hash", probe = false')}''')
    by_client = {}
    for turn in range(3):
        for client in range(40):
            name = who(gateway, fields=f"X-Forwarded-For: 192.0.2.{client}\r\n")
            assert by_client.setdefault(client, name) == name
    assert sorted(set(by_client.values())) == list("abcd")
    assert len({who(gateway) for i in range(6)}) == 1


def test_one_server_more_moves_its_share_of_the_keys(start, origin):
    servers = [origin(name) for name in "abcde"]
    four = topics(start(config(servers[:4], 'balance = "hash", probe = false', BY_TOPIC)), 250)
    five = topics(start(config(servers, 'balance = "hash", probe = false', BY_TOPIC)), 250)
    moved = [topic for topic in four if four[topic] != five[topic]]
    assert {five[topic] for topic in moved} == {"e"}
    assert 25 <= len(moved) <= 80  # a fifth of 250 is 50


def test_a_dead_servers_keys_go_and_come_back(start, origin):
    a, b, c = (origin(name) for name in "abc")
    gateway = start(config([a, b, c], f'balance = "hash", slow_start = false, {FAST}', BY_TOPIC))
    wait_up(gateway, a, b, c)
    before = topics(gateway, 60)
    fail(b)
    gateway.wait_err(f"p/{b.address} down")
    without = topics(gateway, 60)
    assert all(without[t] == before[t] for t in before if before[t] != "b")
    assert {without[t] for t in before if before[t] == "b"} == {"a", "c"}
    after = len(gateway.lines_err)
    fail(b, "ok")
    wait_up(gateway, b, after=after)
    assert topics(gateway, 60) == before


@pytest.mark.parametrize("bound, most", [("150", 30), ("false", 40)])
def test_a_hot_key_is_bounded(start, origin, bound, most):
    gateway = start(config([origin(name) for name in "ab"], f'balance = "hash", probe = false, hash_bound = {bound}', BY_TOPIC))
    opened = sockets(gateway, 40, "/?t=hot")
    tally = collections.Counter(name for _, name in opened)
    assert max(tally.values()) == most
    close(opened)


# --- slow start ---

def returned(start, origin, slow_start, balance):
    """A gateway with 30 tunnels on a, and b just back."""
    a, b = origin("a"), origin("b")
    gateway = start(config([a, b], f'balance = "{balance}", slow_start = {slow_start}, {FAST}'))
    wait_up(gateway, a, b)
    fail(b)
    gateway.wait_err(f"p/{b.address} down")
    opened = sockets(gateway, 30)
    after = len(gateway.lines_err)
    fail(b, "ok")
    wait_up(gateway, b, after=after)
    return gateway, opened


def test_a_server_that_is_back_does_not_take_every_newcomer(start, origin):
    gateway, opened = returned(start, origin, '"10m"', "leastconn")
    more = sockets(gateway, 60)
    tally = collections.Counter(name for _, name in more)
    assert tally["b"] < 20 and tally["a"] > 40
    close(opened + more)


def test_without_slow_start_it_does(start, origin):
    gateway, opened = returned(start, origin, "false", "leastconn")
    more = sockets(gateway, 25)
    assert {name for _, name in more} == {"b"}
    close(opened + more)


def test_the_share_grows(start, origin):
    gateway, opened = returned(start, origin, '"4s"', "roundrobin")
    shares = []
    end = time.monotonic() + 4.5
    while time.monotonic() < end:
        time.sleep(0.1)
        tally = collections.Counter(who(gateway) for i in range(32))
        shares.append(tally["b"] / 32)
    assert shares[0] < 0.3 and shares[-1] > 0.4
    assert sum(shares[:8]) < sum(shares[-8:]) * 0.6
    close(opened)


def test_no_slow_start_at_the_start(start, origin):
    a, b = origin("a"), origin("b")
    gateway = start(config([a, b], f'slow_start = "10m", {FAST}'), workers=1)
    wait_up(gateway, a, b)
    assert collections.Counter(who(gateway) for i in range(20)) == {"a": 10, "b": 10}


# --- forward to the first pool with a live server ---

def regions(eu, us, step='forward { "eu", "us" }', probe=FAST):
    return f'''{LISTENER}
        {pool([eu], probe, "eu")}
        {pool([us], probe, "us")}
        route "all" {{ {step} }}'''


@pytest.mark.parametrize("step", ['forward { "eu", "us" }', 'function(req) return forward({ "eu", "us" }, { path = "/who" }) end'])
def test_the_first_pool_with_a_live_server(start, origin, step):
    eu, us = origin("eu"), origin("us")
    gateway = start(regions(eu, us, step))
    wait_up(gateway, eu, name="eu")
    wait_up(gateway, us, name="us")
    assert {who(gateway) for i in range(8)} == {"eu"}
    opened = sockets(gateway, 1) if step.startswith("forward") else []
    fail(eu)
    gateway.wait_err(f"eu/{eu.address} down")
    assert {who(gateway) for i in range(8)} == {"us"}
    gateway.wait_access(8, pool="us")
    for s, name in opened:  # a tunnel stays where it is
        s.sendall(raw.frame(b"hello"))
        assert name == "eu" and raw.read_frame(s)[1] == b"hello"
    close(opened)
    fail(us)
    gateway.wait_err(f"us/{us.address} down")
    response = ask(gateway)
    assert response.status == 503 and response.get("retry-after")
    after = len(gateway.lines_err)
    fail(eu, "ok")
    wait_up(gateway, eu, after=after, name="eu")
    assert who(gateway) == "eu"


def test_failed_connects_leave_a_pool_too(start, origin):
    us = origin("us")
    gateway = start(regions(f'"127.0.0.1:{free_port()}"', us, probe="probe = false"))
    assert {who(gateway) for i in range(6)} == {"us"}
    gateway.wait_access(6, pool="us", retries=1)


def test_the_preferred_pools_first_probe_is_waited_for(start, scripted, origin):
    def slow(peer):
        head = peer.head()
        if b"/healthz" in head:
            time.sleep(0.5)
        peer.answer(head=b"HTTP/1.1 200 OK\r\nX-Origin: eu\r\nConnection: close\r\n")
    gateway = start(regions(scripted(slow), origin("us")))
    assert who(gateway) == "eu"


def test_a_preferred_pool_that_never_answers_is_not_waited_for_long(start, scripted, origin):
    def never(peer):
        peer.head()
        peer.wait_closed(10)
    gateway = start(regions(scripted(never), origin("us"), probe=FAST.replace('"1s"', '"500ms"')))
    begin = time.monotonic()
    assert who(gateway) == "us"
    assert time.monotonic() - begin < 2


def test_a_full_pool_is_not_left(start, origin):
    eu, us = origin("eu"), origin("us")
    gateway = start(regions(f'{{ "{eu.address}", max_connections = 1 }}', us, probe='probe = false, queue_timeout = "300ms"'))
    opened = sockets(gateway, 1)
    assert ask(gateway).status == 503
    close(opened)


def test_a_named_server_in_the_second_pool(start, origin):
    eu, us = origin("eu"), origin("us")
    gateway = start(regions(eu, us, f'forward({{ "eu", "us" }}, {{ server = "{us.address}" }})', probe="probe = false"))
    assert {who(gateway) for i in range(4)} == {"us"}


def test_what_route_says(tmp_path, moongate):
    file = tmp_path / "g.lua"
    file.write_text('''listener "http" { bind = "127.0.0.1:18080" }
        pool "eu" { servers = { "127.0.0.1:1" } } pool "us" { servers = { "127.0.0.1:2" }, balance = "hash" }
        route "list" { path = "/list", forward { "eu", "us" } }
        route "key"  { path = "/key", function(req) return forward("us", { key = req:query("t") }) end }''')
    assert moongate("route", file, "http://a/list").stdout.startswith('forward to pool "eu", else "us"\n')
    assert moongate("route", file, "http://a/key?t=x").stdout.startswith('forward to pool "us" key "x"\n')
