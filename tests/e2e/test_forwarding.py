# SPDX-License-Identifier: MIT
"""What is said to servers and clients (rules.md part 6): forwarding headers, trusted proxies, Host, request ids, hop-by-hop removal, header edits."""

import re
import socket

import pytest

import raw
from gateway import fields_of, forwarding


class Front:
    """A gateway before a recording server: ask() gives what arrived and what came back."""

    def __init__(self, gateway, server):
        self.gateway, self.server = gateway, server

    def ask(self, fields=b"", path=b"/", host=b"shop.example", version=b"1.1", port="http", method=b"GET", address="127.0.0.1"):
        head = b"%s %s HTTP/%s\r\n" % (method, path, version) + (b"Host: " + host + b"\r\n" if host is not None else b"")
        self.response = raw.request(self.gateway.port(port), head + fields + b"\r\n", host=address)
        return Seen(self.server.requests()[-1])


class Seen:
    def __init__(self, head):
        self.line = head.split(b"\r\n")[0].decode()
        self.fields = fields_of(head)

    def all(self, name):
        return [value for key, value in self.fields if key == name]

    def get(self, name):
        values = self.all(name)
        assert len(values) < 2, f"{name}: {values}"
        return values[0] if values else None


@pytest.fixture
def front(start, recorder):
    def make(settings="", response=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", **options):
        server = recorder(response=response)
        return Front(start(forwarding(server.address, **options), settings=settings, workers=1), server)
    return make


LIES = (b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.2.3.4\r\n"
        b"X-Real-IP: 1.2.3.4\r\nX-Forwarded-Prefix: /p\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n")


def test_forwarding_headers_are_made(front):
    front = front()
    seen = front.ask()
    assert seen.get("x-forwarded-for") == "127.0.0.1"
    assert seen.get("x-forwarded-proto") == "http"
    assert seen.get("x-forwarded-host") == "shop.example"
    assert seen.get("x-forwarded-port") == str(front.gateway.port())
    assert seen.get("host") == "shop.example"
    assert seen.get("via") is None


def test_an_untrusted_peer_says_nothing_about_itself(front):
    seen = front().ask(LIES)
    assert seen.get("x-forwarded-for") == "127.0.0.1"
    assert seen.get("x-forwarded-proto") == "http"
    assert seen.get("x-forwarded-host") == "shop.example"
    for name in ("forwarded", "x-real-ip", "x-forwarded-prefix", "x-original-url", "x-rewrite-url"):
        assert seen.all(name) == []
    assert "1.2.3.4" not in str(seen.fields) and "evil" not in str(seen.fields)


def test_names_with_underscores_do_not_pass_for_them(front):
    seen = front().ask(b"X_Forwarded_For: 1.2.3.4\r\nX_User: root\r\n")
    assert "1.2.3.4" not in str(seen.fields) and "root" not in str(seen.fields)


@pytest.mark.parametrize("where", ["settings", "listener"])
def test_a_trusted_proxy_is_believed(front, where):
    words = 'trusted_proxies = { "127.0.0.0/8", "10.0.0.0/8" },'
    front = front(**{where: words})
    seen = front.ask(LIES)
    assert seen.get("x-forwarded-for") == "1.2.3.4, 127.0.0.1"
    assert seen.get("x-forwarded-proto") == "https"
    assert seen.get("x-forwarded-host") == "evil"
    assert seen.get("x-forwarded-port") == "1"
    assert seen.get("x-forwarded-prefix") == "/p"
    assert front.gateway.wait_access(1)[0]["client"] == "1.2.3.4"


@pytest.mark.parametrize("said,client", [
    (b"6.6.6.6, 1.2.3.4, 10.0.0.5", "1.2.3.4"),     # the rightmost that is no proxy of ours
    (b"1.2.3.4,10.0.0.5 , 10.1.1.1", "1.2.3.4"),
    (b"10.0.0.5", "10.0.0.5"),                       # all of them ours: the leftmost
    (b"6.6.6.6, unknown, 10.0.0.5", "10.0.0.5"),     # no address: what stands left of it was said by nobody we know
    (b"1.2.3.4:5555", "1.2.3.4"),
    (b"[2001:db8::1]:443", "2001:db8::1"),
    (b"2001:db8::1", "2001:db8::1"),
    (b"", "127.0.0.1"),
])
def test_the_client_behind_trusted_proxies(front, said, client):
    front = front(settings='trusted_proxies = { "127.0.0.0/8", "10.0.0.0/8" },')
    front.ask(b"X-Forwarded-For: " + said + b"\r\n")
    assert front.gateway.wait_access(1)[0]["client"] == client


def test_forwarded_for_over_two_lines_is_one_list(front):
    front = front(settings='trusted_proxies = { "127.0.0.0/8" },')
    seen = front.ask(b"X-Forwarded-For: 1.1.1.1\r\nX-Other: a\r\nX-Forwarded-For: 2.2.2.2\r\n")
    assert seen.get("x-forwarded-for") == "1.1.1.1, 2.2.2.2, 127.0.0.1"
    assert front.gateway.wait_access(1)[0]["client"] == "2.2.2.2"


def test_a_listeners_own_trusted_proxies_win(front):
    front = front(settings='trusted_proxies = { "127.0.0.0/8" },', listener='trusted_proxies = { "10.0.0.0/8" },')
    assert front.ask(LIES).get("x-forwarded-for") == "127.0.0.1"


def test_scheme_and_client_in_rules(start):
    """What a trusted proxy says decides req.scheme and req.client; req.peer stays the peer."""
    gateway = start('''listener "http" { bind = "127.0.0.1:@http@" }
        route "all" { function(req) return reply(200, req.client .. " " .. req.peer .. " " .. req.scheme) end }''',
                    settings='trusted_proxies = { "127.0.0.1" },')
    assert raw.request(gateway.port(), b"GET / HTTP/1.1\r\nHost: a\r\n" + LIES + b"\r\n").body == b"1.2.3.4 127.0.0.1 https"
    assert raw.request(gateway.port(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").body == b"127.0.0.1 127.0.0.1 http"


# --- Host ---

@pytest.mark.parametrize("sent", [b"Shop.Example", b"shop.example:8080", b"SHOP.example.", b"[::1]:80"])
def test_host_is_kept_as_the_client_sent_it(front, sent):
    seen = front().ask(host=sent)
    assert seen.get("host") == sent.decode() and seen.get("x-forwarded-host") == sent.decode()


def test_host_of_the_server(front):
    front = front(pool='probe = false, host = "server",')
    seen = front.ask()
    assert seen.get("host") == front.server.address and seen.get("x-forwarded-host") == "shop.example"


def test_host_by_name(front):
    seen = front(pool='probe = false, host = "inner.example",').ask()
    assert seen.get("host") == "inner.example" and seen.get("x-forwarded-host") == "shop.example"


def test_host_of_one_forward(start, recorder):
    server = recorder()
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}
        route "all" {{ forward("p", {{ host = "one.example", path = "/x/*" }}), path = "/old/*" }}''')
    seen = Front(gateway, server).ask(path=b"/old/a/b?q=1")
    assert seen.get("host") == "one.example" and seen.line == "GET /x/a/b?q=1 HTTP/1.1"


def test_no_host_in_http_1_0(front):
    front = front()
    assert front.ask(host=None, version=b"1.0").get("host") == front.server.address


# --- request ids ---

def test_request_id_is_made_kept_and_logged(front):
    front = front()
    made = front.ask().get("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert front.ask().get("x-request-id") != made
    assert front.ask(b"X-Request-Id: abc.DEF:1-2_3\r\n").get("x-request-id") == "abc.DEF:1-2_3"
    assert [entry["id"] for entry in front.gateway.wait_access(3)][0::2] == [made, "abc.DEF:1-2_3"]


@pytest.mark.parametrize("bad", [b"a b", b'a"b', b"a<b", b"a" * 300, b"", b"\xe9"])
def test_bad_request_ids_are_replaced(front, bad):
    seen = front().ask(b"X-Request-Id: " + bad + b"\r\n")
    assert re.fullmatch("[0-9a-f]{32}", seen.get("x-request-id"))


def test_one_of_two_request_ids(front):
    assert front().ask(b"X-Request-Id: first\r\nX-Request-Id: second\r\n").get("x-request-id") == "first"


# --- hop by hop ---

def test_hop_by_hop_fields_stay_here(front):
    seen = front().ask(b"Connection: keep-alive, X-Mine, te\r\nX-Mine: 1\r\nKeep-Alive: timeout=9\r\nTE: trailers\r\nProxy-Connection: close\r\n"
                       b"Upgrade: h2c\r\nHTTP2-Settings: AA\r\nX-Other: kept\r\n")
    for name in ("connection", "x-mine", "keep-alive", "te", "proxy-connection", "upgrade", "http2-settings", "transfer-encoding"):
        assert seen.all(name) == [], name
    assert seen.get("x-other") == "kept"


def test_end_to_end_fields_pass_in_order(front):
    sent = [("Accept", "a"), ("X-A", "1"), ("Cookie", "a=b"), ("x-a", "2"), ("Authorization", "Basic eDp5"), ("X-A", ""), ("Accept-Encoding", "br"),
            ("Range", "bytes=0-1"), ("If-None-Match", '"x"'), ("Origin", "http://o"), ("User-Agent", "u (v)"), ("Proxy-Authorization", "x")]
    seen = front().ask("".join(f"{name}: {value}\r\n" for name, value in sent).encode())
    names = [name.lower() for name, _ in sent]
    got = [(name, value) for name, value in seen.fields if name in names]
    assert [pair for pair in got if pair[0] != "proxy-authorization"] == [(n.lower(), v) for n, v in sent if n != "Proxy-Authorization"]


def test_hop_by_hop_fields_of_an_answer_stay_here(front):
    front = front(response=b"HTTP/1.1 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"
                           b"Upgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nServer: s\r\nDate: d\r\nContent-Length: 2\r\n\r\nok")
    front.ask()
    response = front.response
    for name in ("connection", "x-hop", "keep-alive", "proxy-connection", "upgrade"):
        assert response.get(name) is None, name
    assert response.status_line == "HTTP/1.1 200 Fine"
    assert response.all("set-cookie") == ["a=1", "b=2"]
    assert (response.get("x-empty"), response.get("server"), response.get("date")) == ("", "s", "d")


def test_via_only_when_named(front):
    assert front(settings='via = "gate",').ask().get("via") == "1.1 gate"


def test_via_goes_behind_what_was_there(front):
    assert front(settings='via = "gate",').ask(b"Via: 1.0 first\r\n").all("via") == ["1.0 first", "1.1 gate"]


@pytest.mark.parametrize("mode,status,value", [("drop", 200, None), ("pass", 200, "1"), ("reject", 400, None)])
def test_underscore_headers(front, mode, status, value):
    front = front(settings=f'underscore_headers = "{mode}",')
    raw.request(front.gateway.port(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    seen = front.ask(b"X_User: 1\r\n")
    assert front.response.status == status
    if status == 200:
        assert seen.get("x_user") == value


# --- edits ---

def test_request_headers_of_listener_and_route(front):
    seen = front(listener='request_headers = { ["x-listener"] = "l", ["x-both"] = "l", cookie = false },',
                 route='request_headers = { ["x-route"] = "r", ["x-both"] = "r", ["X-Gone"] = false },').ask(
                     b"X-Gone: 1\r\nX-Both: c\r\nX-Both: d\r\nCookie: a=b\r\nX-Stays: 1\r\n")
    assert seen.get("x-listener") == "l" and seen.get("x-route") == "r" and seen.all("x-both") == ["r"]
    assert seen.all("x-gone") == [] and seen.all("cookie") == [] and seen.get("x-stays") == "1"


def test_response_headers_of_listener_and_route(front):
    front = front(listener='response_headers = { server = false, ["x-listener"] = "l", ["x-both"] = "l" },',
                  route='response_headers = { ["x-route"] = "r", ["x-both"] = "r" },',
                  response=b"HTTP/1.1 200 OK\r\nServer: secret\r\nX-Both: s\r\nContent-Length: 2\r\n\r\nok")
    front.ask()
    response = front.response
    assert response.get("server") is None and response.get("x-listener") == "l"
    assert response.get("x-route") == "r" and response.all("x-both") == ["r"]


def test_response_headers_stand_on_our_own_answers_too(start):
    gateway = start('''listener "http" { bind = "127.0.0.1:@http@", response_headers = { ["x-listener"] = "l" } }
        route "one" { path = "/one", response_headers = { ["x-route"] = "r" }, reply(200, "one") }''')
    one = raw.request(gateway.port(), b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
    assert one.get("x-listener") == "l" and one.get("x-route") == "r"
    none = raw.request(gateway.port(), b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
    assert none.status == 404 and none.get("x-listener") == "l" and none.get("x-route") is None
    bad = raw.request(gateway.port(), b"GET / HTTP/1.1\r\n\r\n")
    assert bad.status == 400 and bad.get("x-listener") == "l"


def test_the_path_that_was_matched_is_the_path_forwarded(start, recorder):
    server = recorder()
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}
        route "admin" {{ path = "/admin/*", reply(403) }}
        route "all" {{ forward "p" }}''')
    front = Front(gateway, server)
    assert front.ask(path=b"/a//b/./c/%7Euser?x=//..").line == "GET /a/b/c/~user?x=//.. HTTP/1.1"
    for path in (b"/admin", b"//admin/", b"/x/../admin/y", b"/%61dmin", b"/./admin", b"/x/%2e%2e/admin"):
        assert raw.request(gateway.port(), b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path).status == 403, path


MADE_PATHS = """pool "app" {{ servers = {{ "{0}" }}, probe = false }}
    route "param" {{ path = "/room/:name", function(req) return forward("app", {{ path = "/p/" .. req.params.name }}) end }}
    route "query" {{ path = "/query", function(req) return forward("app", {{ path = req:query("to") }}) end }}
    route "moved" {{ path = "/moved", function(req) return redirect {{ path = req:query("to") }} end }}
    route "named" {{ path = "/named", function(req) return forward("app", {{ host = req:query("to") }}) end }}"""


@pytest.mark.parametrize("target", [
    "/room/%252e%252e", "/room/..%3Bx", "/room/%252e%252e%253bx", "/room/%2500", "/room/%252F..%252Fx", "/room/%252Fx", "/room/..%20",
    "/query?to=/../etc", "/query?to=/a/..%5cb", "/query?to=/a/../b", "/query?to=/a/%252e%252e/../b", "/query?to=x", "/named?to=a,b", "/named?to=a:99999",
])
def test_a_path_made_of_what_a_client_sent_is_judged_as_its_own(start, recorder, target):
    """None of these could be sent as it is; made into a path or host by a rule they come no further."""
    origin = recorder()
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\n' + MADE_PATHS.format(origin.address))
    reply = raw.request(gateway.port(), f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert reply.status in (400, 500) and origin.connections == []


def test_a_path_made_by_a_rule_is_in_normal_form(start, recorder):
    origin = recorder()
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\n' + MADE_PATHS.format(origin.address))
    front = Front(gateway, origin)
    for target, path in ((b"/query?to=//x///%257ey", "/x/~y"), (b"/room/a%252Db", "/p/a-b")):
        assert front.ask(path=target).line.split(" ")[1].split("?")[0] == path


def test_a_redirect_by_path_alone_names_no_host(start, recorder):
    """Without a Host there is only a path to name, which must not begin with another's host."""
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\n' + MADE_PATHS.format(recorder().address))
    for path in (b"//evil.example/", b"/%5cevil.example/", b"/%5c//evil.example/"):
        with raw.connect(gateway.port()) as s:
            s.sendall(b"GET /moved?to=%s HTTP/1.0\r\n\r\n" % path)
            assert raw.Response(s).get("location").startswith("/evil.example/")


def test_forwarding_for_a_unix_listener(start, recorder, tmp_path):
    """No address of the peer: no X-Forwarded-For is made up."""
    server = recorder()
    start(f'''listener "file" {{ bind = "unix:{tmp_path}/s" }}
        pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}
        route "all" {{ forward "p" }}''')
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(f"{tmp_path}/s")
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
        assert raw.Response(s).status == 200
    seen = Seen(server.requests()[-1])
    assert seen.get("x-forwarded-for") in (None, "unix") and "1.2.3.4" not in str(seen.fields)
    assert seen.get("x-forwarded-port") == "80" and seen.get("x-forwarded-host") == "a"
