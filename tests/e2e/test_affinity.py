# SPDX-License-Identifier: MIT
"""Affinity by cookie: who sets it, what it says, what follows it, and what makes a client move."""

import collections
import os
import re

import pytest

import raw
from gateway import free_port, wait_for

KEY = 'key = "0123456789abcdef0123456789abcdef"'
FAST = 'probe = { path = "/healthz", every = "200ms", fast = "60ms", timeout = "1s", fall = 1, rise = 1 }'
LISTENER = 'listener "http" { bind = "127.0.0.1:@http@" }'
POST = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


def pool(servers, affinity='cookie = "node"', more="probe = false", name="p"):
    listed = ", ".join(f'"{server.address}"' if hasattr(server, "address") else server for server in servers)
    return f'pool "{name}" {{ servers = {{ {listed} }}, affinity = {{ {affinity} }}, {more} }}\n'


def config(servers, *args, listener=LISTENER, **options):
    return f'{listener}\n{pool(servers, *args, **options)}\nroute "all" {{ forward "p" }}'


def ask(gateway, cookie=None, path=b"/who", **options):
    sent = b"Cookie: %s\r\n" % cookie.encode() if cookie else b""
    return raw.request(gateway.port(options.pop("port", "http")), b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path, sent), **options)


def cookie_of(response, name="node"):
    """name=value of the one Set-Cookie."""
    found = [value for value in response.all("set-cookie") if value.startswith(name + "=")]
    assert len(found) == 1, response.all("set-cookie")
    return found[0].split(";")[0]


def enter(gateway, count=30):
    """{name of a server: its cookie}, by asking without one."""
    found = {}
    for i in range(count):
        response = ask(gateway)
        assert response.status == 200
        found.setdefault(response.get("x-origin"), cookie_of(response))
        assert found[response.get("x-origin")] == cookie_of(response)
    return found


def fail(server, how="fail"):
    raw.request(server.port, POST % f"/healthz/{how}".encode())


# --- the cookie ---

def test_a_client_stays_with_its_server(start, origin):
    gateway = start(config([origin(name) for name in "abc"]))
    cookies = enter(gateway)
    assert sorted(cookies) == ["a", "b", "c"] and len(set(cookies.values())) == 3
    for name, cookie in cookies.items():
        for i in range(12):  # over two workers
            response = ask(gateway, f"theme=dark; {cookie}; x=y")
            assert response.get("x-origin") == name and not response.all("set-cookie")


def test_set_when_missing_or_changed_only(start, origin):
    gateway = start(config([origin(name) for name in "ab"]))
    first = ask(gateway)
    value = first.all("set-cookie")[0]
    assert re.fullmatch(r"node=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=Lax", value), value
    assert not ask(gateway, cookie_of(first)).all("set-cookie")
    for bad in ("node=", "node=0", "node=" + "0" * 32, "nodes=" + cookie_of(first)[5:], "node=a"):
        assert cookie_of(ask(gateway, bad)).startswith("node=")
    assert not ask(gateway, cookie_of(first), path=b"/status/404").all("set-cookie")
    assert ask(gateway, path=b"/status/404").all("set-cookie")  # any answer of the server carries it


@pytest.mark.parametrize("attributes, plain, secure", [
    ("", "Path=/; HttpOnly; SameSite=Lax", "Path=/; HttpOnly; Secure; SameSite=Lax"),
    ('same_site = "strict"', "Path=/; HttpOnly; SameSite=Strict", "Path=/; HttpOnly; Secure; SameSite=Strict"),
    ('same_site = "none"', "Path=/; HttpOnly", "Path=/; HttpOnly; Secure; SameSite=None"),
    ('ttl = "2h"', "Path=/; Max-Age=7200; HttpOnly; SameSite=Lax", "Path=/; Max-Age=7200; HttpOnly; Secure; SameSite=Lax"),
])
def test_attributes(start, origin, certificate, attributes, plain, secure):
    gateway = start(config([origin("a")], 'cookie = "node", ' + attributes, listener=LISTENER + f'''
        listener "https" {{ bind = "127.0.0.1:@https@", tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }} }}'''))
    assert ask(gateway).all("set-cookie")[0].partition("; ")[2] == plain
    response = ask(gateway, port="https", tls=raw.insecure_tls())
    assert response.all("set-cookie")[0].partition("; ")[2] == secure
    assert not ask(gateway, cookie_of(response)).all("set-cookie")


def test_the_servers_own_cookies_stay_and_it_sees_ours(start, recorder):
    server = recorder(response=b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=1; Path=/\r\nSet-Cookie: lang=en\r\nContent-Length: 0\r\n\r\n")
    gateway = start(config([server]))
    response = ask(gateway)
    assert [value.partition("=")[0] for value in response.all("set-cookie")] == ["sid", "lang", "node"]
    ask(gateway, "sid=1; " + cookie_of(response))
    assert b"Cookie: sid=1; " + cookie_of(response).encode() + b"\r\n" in server.bytes


def test_answers_of_our_own_carry_none(start):
    gateway = start(config([f'"127.0.0.1:{free_port()}"']))
    response = ask(gateway)
    assert response.status == 502 and not response.all("set-cookie")


def test_hooks_may_edit_it(start, origin):
    gateway = start(f'''{LISTENER}
        {pool([origin("a")])}
        route "all" {{ response_headers = {{ ["set-cookie"] = false }}, forward "p" }}''')
    assert not ask(gateway).all("set-cookie")


def test_a_named_server_is_not_the_cookies_matter(start, origin):
    a, b = origin("a"), origin("b")
    gateway = start(f'''{LISTENER}
        {pool([a, b])}
        route "one" {{ path = "/one", forward("p", {{ server = "{b.address}" }}) }}
        route "all" {{ forward "p" }}''')
    cookie = enter(gateway)["a"]
    response = ask(gateway, cookie, path=b"/one")
    assert response.get("x-origin") == "b" and not response.all("set-cookie")


# --- WebSocket ---

def test_handshakes_follow_it_and_101_never_sets_it(start, origin):
    gateway = start(config([origin(name) for name in "abc"]))
    cookies = enter(gateway)
    for name, cookie in cookies.items():
        for i in range(6):
            s, response = raw.open_websocket(gateway.port(), extra=f"Cookie: {cookie}\r\n".encode())
            assert response.status == 101 and response.get("x-origin") == name
            assert not response.all("set-cookie")
            s.close()
    s, response = raw.open_websocket(gateway.port())
    assert response.status == 101 and not response.all("set-cookie")
    s.close()


def test_a_running_tunnel_is_never_touched(start, origin):
    a, b = origin("a"), origin("b")
    gateway = start(config([a, b], more=FAST))
    gateway.wait_err(f"p/{a.address} up")
    gateway.wait_err(f"p/{b.address} up")
    cookies = enter(gateway)
    s, response = raw.open_websocket(gateway.port(), extra=f"Cookie: {cookies['a']}\r\n".encode())
    assert response.get("x-origin") == "a"
    fail(a)
    gateway.wait_err(f"p/{a.address} down")
    moved = ask(gateway, cookies["a"])
    assert moved.get("x-origin") == "b" and cookie_of(moved) == cookies["b"]
    s.sendall(raw.frame(b"still here"))
    assert raw.read_frame(s)[1] == b"still here"
    s.close()


# --- moving ---

def test_a_dead_server_is_left_and_stays_left(start, origin):
    a, b, c = (origin(name) for name in "abc")
    gateway = start(config([a, b, c], more=FAST + ", slow_start = false"))
    for server in (a, b, c):
        gateway.wait_err(f"p/{server.address} up")
    cookies = enter(gateway)
    fail(a)
    gateway.wait_err(f"p/{a.address} down")
    moved = ask(gateway, cookies["a"])
    name = moved.get("x-origin")
    assert name in "bc" and cookie_of(moved) == cookies[name]
    after = len(gateway.lines_err)
    fail(a, "ok")
    gateway.wait_err(f"p/{a.address} up", after=after)
    for i in range(8):  # nobody is moved back
        response = ask(gateway, cookies[name])
        assert response.get("x-origin") == name and not response.all("set-cookie")
    assert ask(gateway, cookies["a"]).get("x-origin") == "a"  # a client that was away meanwhile finds its server


def test_a_failed_connect_moves_the_client(start, origin):
    """Before any probe has noticed."""
    a, b = origin("a"), origin("b")
    gateway = start(config([a, b], more="probe = false"))
    cookies = enter(gateway)
    a.stop()
    response = ask(gateway, cookies["a"])
    assert response.status == 200 and response.get("x-origin") == "b" and cookie_of(response) == cookies["b"]
    # On a busy machine the end of a kept connection may come late: then that one is tried first.
    assert gateway.wait_access(affinity="moved")[0]["retries"] in (1, 2)


def test_weight_0_and_a_full_server_are_left(start, origin):
    a, b = origin("a"), origin("b")
    affinity = f'cookie = "node", {KEY}'
    cookies = enter(start(config([a, b], affinity)))
    gateway = start(config([f'{{ "{a.address}", weight = 0 }}', b], affinity))
    assert {ask(gateway, cookies["a"]).get("x-origin") for i in range(6)} == {"b"}
    gateway = start(config([f'{{ "{a.address}", max_connections = 1 }}', b], affinity))
    s, response = raw.open_websocket(gateway.port(), extra=f"Cookie: {cookies['a']}\r\n".encode())
    assert response.get("x-origin") == "a"
    assert ask(gateway, cookies["a"]).get("x-origin") == "b"
    s.close()
    wait_for(lambda: ask(gateway, cookies["a"]).get("x-origin") == "a", 3, "a has room again")


def test_whatever_the_balance(start, origin):
    a, b, c = (origin(name) for name in "abc")
    for balance in ("roundrobin", "leastconn", "random", "hash", "first"):
        gateway = start(config([a, b, c], f'cookie = "node", {KEY}', more=f'probe = false, balance = "{balance}"'))
        cookies = enter(start(config([a, b, c], f'cookie = "node", {KEY}')))
        for name, cookie in cookies.items():
            assert {ask(gateway, cookie).get("x-origin") for i in range(4)} == {name}


# --- the key ---

def test_the_same_after_a_restart(start, origin):
    a, b = origin("a"), origin("b")
    first = start(config([a, b], f'cookie = "node", {KEY}'))
    cookies = enter(first)
    first.stop()
    assert enter(start(config([a, b], f'cookie = "node", {KEY}'))) == cookies
    assert enter(start(config([b, a], f'cookie = "node", {KEY}'))) == cookies  # the order of the file is nothing to it
    other = enter(start(config([a, b], 'cookie = "node", key = "another key of many characters"')))
    assert not set(other.values()) & set(cookies.values())


@pytest.mark.skipif(not os.path.exists("/etc/machine-id") or os.path.getsize("/etc/machine-id") < 32, reason="no machine's id")
def test_the_machines_id_is_the_key_by_default(start, origin):
    a, b = origin("a"), origin("b")
    first = start(config([a, b]))
    cookies = enter(first)
    first.stop()
    again = start(config([a, b]))
    assert enter(again) == cookies
    assert "machine-id" not in again.err()


def test_pools_with_the_same_servers_keep_a_client_together(start, origin):
    a, b, c = (origin(name) for name in "abc")
    gateway = start(f'''{LISTENER}
        {pool([a, b, c])}
        {pool([c, b, a], name="sockets", more='probe = false, balance = "leastconn"')}
        route "sockets" {{ websocket = true, forward "sockets" }}
        route "all" {{ forward "p" }}''')
    for name, cookie in enter(gateway).items():
        s, response = raw.open_websocket(gateway.port(), extra=f"Cookie: {cookie}\r\n".encode())
        assert response.get("x-origin") == name
        s.close()


def test_pools_with_other_servers_share_a_cookie(start, origin):
    """As imported ones do: each finds its own value in it and leaves the others'."""
    a, b, c, d = (origin(name) for name in "abcd")
    gateway = start(f'''{LISTENER}
        {pool([a, b])}
        {pool([c, d], name="shop")}
        route "shop" {{ path = "/size/*", forward "shop" }}
        route "all" {{ forward "p" }}''')
    web = ask(gateway)
    shop = ask(gateway, cookie_of(web), path=b"/size/1")
    both = cookie_of(shop)
    assert both.endswith("." + cookie_of(web)[5:])
    for i in range(6):
        for path, first in ((b"/who", web), (b"/size/1", shop)):
            response = ask(gateway, both, path=path)
            assert response.get("x-origin") == first.get("x-origin") and not response.all("set-cookie")
    many = "node=" + ".".join(f"{i:032x}" for i in range(30)) + ".<script>"
    assert re.fullmatch(r"node=([0-9a-f]{32}\.){7}[0-9a-f]{32}", cookie_of(ask(gateway, many)))
    a.stop()
    b_cookie = cookie_of(ask(gateway, both)) if web.get("x-origin") == "a" else both
    assert ask(gateway, b_cookie).get("x-origin") == "b"
    assert ask(gateway, b_cookie, path=b"/size/1").get("x-origin") == shop.get("x-origin")


def test_access_log_and_dump(start, origin, moongate):
    gateway = start(config([origin("a"), origin("b")], f'cookie = "node", {KEY}'))
    response = ask(gateway)
    ask(gateway, cookie_of(response))
    assert gateway.wait_access(event="request", affinity="new") and gateway.wait_access(event="request", affinity="kept")
    s, _ = raw.open_websocket(gateway.port(), extra=f"Cookie: {cookie_of(response)}\r\n".encode())
    gateway.wait_access(event="open", affinity="kept")
    s.close()
    shown = moongate("dump", gateway.file).stdout
    assert "0123456789abcdef" not in shown and '"cookie": "node"' in shown


def test_new_clients_are_spread(start, origin):
    gateway = start(config([origin(name) for name in "abcd"]), workers=1)
    tally = collections.Counter(ask(gateway).get("x-origin") for i in range(40))
    assert tally == {name: 10 for name in "abcd"}
