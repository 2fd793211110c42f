# SPDX-License-Identifier: MIT
"""The access log: one JSON line a request, two a tunnel, one cause each, nothing that a peer could inject, no secrets of a query."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import time

import pytest

import gateway as gateway_module
import raw
from gateway import forwarding, free_port, wait_for

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def test_a_line_a_request(start, origin):
    a = origin("a")
    gateway = start(forwarding(a.address))
    assert raw.request(gateway.port(), b"POST /echo/x HTTP/1.1\r\nHost: Shop.Example:80\r\nX-Request-Id: id-1\r\nContent-Length: 5\r\n\r\nhello").status == 200
    entry = gateway.wait_access(1)[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert 0 <= entry.pop("duration_ms") < 5000
    assert entry.pop("bytes_out") > 5
    assert entry == {"event": "request", "id": "id-1", "client": "127.0.0.1", "listener": "http", "method": "POST", "host": "shop.example", "path": "/echo/x",
                     "status": 200, "bytes_in": 5, "route": "all", "pool": "p", "server": a.address, "cause": "done", "side": "gateway"}


def test_a_line_for_each_of_many(start, origin):
    """Two workers, many connections: as many whole lines as requests."""
    gateway = start(forwarding(origin("a").address))
    for i in range(20):
        with raw.connect(gateway.port()) as s:
            rest = b""
            s.sendall(b"".join(GET % b"/size/%d" % (i * 50 + k) for k in range(50)))
            for k in range(50):
                rest = raw.Response(s, rest=rest).rest
    entries = gateway.wait_access(1000)
    assert sorted(entry["bytes_out"] for entry in entries) == list(range(1000))
    assert len({entry["id"] for entry in entries}) == 1000


def test_two_lines_a_tunnel(start, origin):
    gateway = start(forwarding(origin("a", args=("--subprotocols", "chat")).address))
    s, response = raw.open_websocket(gateway.port(), path="/room?token=SECRET", protocols="other, bearer.SECRET, chat")
    assert response.get("sec-websocket-protocol") == "chat"
    opened = gateway.wait_access(1, event="open")[0]
    assert opened["status"] == 101 and 0 <= opened["handshake_ms"] < 5000 and opened["subprotocol"] == "chat" and opened["path"] == "/room"
    assert "cause" not in opened and "duration_ms" not in opened
    s.sendall(raw.frame(b"x" * 100))
    assert raw.read_frame(s, response.rest)[1] == b"x" * 100
    time.sleep(0.1)
    s.close()
    closed = gateway.wait_access(1, event="close")[0]
    assert closed["id"] == opened["id"] and (closed["bytes_in"], closed["bytes_out"]) == (106, 102)
    assert 100 <= closed["age_ms"] < 5000
    for key in ("client", "listener", "host", "path", "subprotocol", "route", "pool", "server"):
        assert closed[key] == opened[key], key
    assert closed["side"] == "client"
    assert len(gateway.access()) == 2 and "SECRET" not in gateway.out() and "SECRET" not in gateway.err()


def test_query_strings_only_when_asked_for(start):
    text = 'listener "http" { bind = "127.0.0.1:@http@" }\nroute "all" { reply(200, "ok") }\n'
    quiet = start(text, workers=1)
    raw.request(quiet.port(), GET % b"/a?token=SECRET")
    raw.request(quiet.port(), b"GET http://a/b?token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n")
    raw.send_all(quiet.port(), b"GET /c?token=SECRET HTTP/1.1\r\nHost: a b\r\n\r\n")
    assert [entry.get("path") for entry in quiet.wait_access(3)] == ["/a", "/b", None], "a head that was refused has no path"
    assert "SECRET" not in quiet.out() + quiet.err()
    asked = start('settings { access_log = { to = "stdout", query = true } }\n' + text)
    raw.request(asked.port(), GET % b"/a?x=%22&y")
    entry = asked.wait_access(1)[0]
    assert (entry["path"], entry["query"]) == ("/a", "x=%22&y")


def test_nothing_can_be_injected(start):
    """Quotes, backslashes, controls and broken UTF-8 in everything that a peer or a script may say (requirements D29)."""
    gateway = start('''listener "http" { bind = "127.0.0.1:@http@" }
        route "all" { function(req)
            req:log("note", 'a"b\\\\c\\r\\n{"event":"request"}\\27[31m\\0\\127\\255' .. (req:header("x-say") or ""))
            return reply(200, "ok")
        end }''', workers=1)
    raw.request(gateway.port(), b'GET /a"b\\c/%0d%0a{"event":"fake"}<script>&\'x HTTP/1.1\r\nHost: a\r\nX-Say: \xff\xfe\xc3\xa9"\r\n\r\n')
    raw.send_all(gateway.port(), b'GET / HTTP/1.1\r\nHost: "a"\r\n\r\n')
    raw.send_all(gateway.port(), b'GE"T / HTTP/1.1\r\nHost: a\r\n\r\n')
    entries = gateway.wait_access(3)
    lines = [line for line in gateway.lines_out if line]
    assert len(lines) == 3 and all(line.startswith('{"time":') and json.loads(line) for line in lines)
    assert all(" " <= c for line in lines for c in line) and "\x7f" not in gateway.out()
    assert entries[0]["path"] == '/a"b\\c/%0d%0a{"event":"fake"}<script>&\'x'
    assert entries[0]["note"].startswith('a"b\\c\r\n{"event":"request"}\x1b[31m\x00')


@pytest.mark.parametrize("where", ["route", "settings"])
def test_off(start, where):
    off = "access_log = false," if where == "route" else ""
    text = f'listener "http" {{ bind = "127.0.0.1:@http@" }}\nroute "quiet" {{ path = "/quiet", {off} reply(200, "ok") }}\n' \
           'route "all" { reply(200, "ok") }\n'
    gateway = start("settings { access_log = false }\n" + text if where == "settings" else text)
    raw.request(gateway.port(), GET % b"/quiet")
    raw.request(gateway.port(), GET % b"/loud")
    if where == "route":
        assert [entry["path"] for entry in gateway.wait_access(1)] == ["/loud"]
    else:
        gateway.close()
        assert gateway.out() == ""


def test_off_for_a_route_with_a_tunnel(start, origin):
    gateway = start(forwarding(origin("a").address, route="access_log = false,"))
    s, response = raw.open_websocket(gateway.port())
    assert response.status == 101
    s.close()
    wait_for(lambda: gateway.counters()["tunnels_closed"] == 1, 3, "the tunnel closed")
    gateway.close()
    assert gateway.out() == ""


def test_to_a_file(start, tmp_path):
    path = tmp_path / "access.log"
    path.write_text("before\n")
    text = f'settings {{ access_log = {{ to = "{path}" }} }}\nlistener "http" {{ bind = "127.0.0.1:@http@" }}\nroute "all" {{ reply(200, "ok") }}\n'
    gateway = start(text)
    raw.request(gateway.port(), GET % b"/a")
    gateway.close()
    lines = path.read_text().splitlines()
    assert lines[0] == "before" and json.loads(lines[1])["path"] == "/a" and len(lines) == 2
    assert gateway.out() == ""


def test_a_log_nobody_reads_delays_nothing(tmp_path):
    """Standard output is a full pipe: requests are answered at their pace, what does not fit is dropped, the process can be ended."""
    port = free_port()
    file = tmp_path / "g.lua"
    file.write_text(f'settings {{ workers = 2 }}\nlistener "http" {{ bind = "127.0.0.1:{port}" }}\nroute "all" {{ reply(200, "ok") }}\n')
    unread, out = os.pipe()
    with open(tmp_path / "err", "wb") as err:
        proc = subprocess.Popen([gateway_module.binary(), "run", str(file)], stdout=out, stderr=err, stdin=subprocess.DEVNULL)
    os.close(out)
    try:
        wait_for(lambda: b"serving" in (tmp_path / "err").read_bytes(), 10, "serving")
        begun = time.monotonic()
        for i in range(10):
            with raw.connect(port) as s:
                s.sendall((GET % (b"/" + b"p" * 3000)) * 200)
                rest = b""
                for k in range(200):
                    rest = raw.Response(s, rest=rest).rest
        assert time.monotonic() - begun < 8
        proc.send_signal(signal.SIGTERM)
        assert proc.wait(15) == 0
    finally:
        if proc.poll() is None:
            proc.kill()
            proc.wait()
        os.close(unread)


# --- causes: the name, who, the status ---

def once(answer):
    def handler(peer):
        peer.head()
        if answer:
            peer.send(answer)
    return handler


ANSWERS = [
    ("done", "gateway", 200, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("server closed", "server", 502, b""),
    ("bad response", "server", 502, b"rubbish\r\n\r\n"),
    ("response cut short", "server", 200, b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"),
    ("bad response", "server", 200, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
]


@pytest.mark.parametrize("cause,side,status,answer", ANSWERS)
def test_causes_of_the_server(start, scripted, cause, side, status, answer):
    gateway = start(forwarding(scripted(once(answer)).address))
    raw.send_all(gateway.port(), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    entry = gateway.wait_access(1)[0]
    assert (entry["cause"], entry["side"]) == (cause, side)
    assert entry["status"] in (status, 502)


def test_causes_of_our_own(start):
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "dead" {{ servers = {{ "127.0.0.1:{free_port()}" }}, probe = false, retries = 0 }}
        pool "down" {{ servers = {{ "127.0.0.1:{free_port()}" }}, probe = {{ path = "/" }} }}
        route "reply" {{ path = "/reply", reply(204) }}
        route "redirect" {{ path = "/redirect", redirect "/x" }}
        route "drop" {{ path = "/drop", drop() }}
        route "throw" {{ path = "/throw", function(req) error("oops") end }}
        route "dead" {{ path = "/dead", forward "dead" }}
        route "down" {{ path = "/down", forward "down" }}''')
    gateway.wait_err(" down: ")
    want = {b"/reply": ("reply", "gateway", 204), b"/redirect": ("reply", "gateway", 302), b"/drop": ("drop", "gateway", 0),
            b"/throw": ("script error", "gateway", 500), b"/dead": ("connect failed", "server", 502), b"/down": ("no live server", "gateway", 503),
            b"/none": ("no route", "gateway", 404), b"/%": ("bad request", "client", 400)}
    for path, (cause, side, status) in want.items():
        got = raw.send_all(gateway.port(), b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
        assert got.startswith(b"HTTP/1.1 %d " % status) if status else got == b""
        entry = gateway.wait_access(1, path=path.decode())[0] if path != b"/%" else gateway.wait_access(1, cause="bad request")[0]
        assert (entry["cause"], entry["side"], entry["status"]) == (cause, side, status)


def test_a_bad_request_says_what_is_bad(start):
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\nroute "all" { reply(200) }\n')
    raw.send_all(gateway.port(), b"GET / HTTP/1.1\r\n\r\n")
    assert gateway.wait_access(1)[0]["detail"] == "no Host field"


@pytest.mark.parametrize("how,cause,side", [("client fin", "client closed", "client"), ("client reset", "client reset", "client"),
                                            ("server fin", "server closed", "server"), ("server reset", "server reset", "server"),
                                            ("idle", "idle timeout", "gateway"), ("age", "maximum age", "gateway"), ("stop", "shutdown", "gateway")])
def test_causes_of_tunnels(start, scripted, how, cause, side):
    def handler(peer):
        key = dict(gateway_module.fields_of(peer.head()))["sec-websocket-key"]
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
                  raw.accept_of(key).encode() + b"\r\n\r\n")
        if how.startswith("server"):
            time.sleep(0.1)
            if how == "server reset":
                peer.reset()
            return
        peer.wait_closed(10)

    more = {"idle": 'tunnel_idle_timeout = "300ms",', "age": 'tunnel_max_age = "300ms",'}.get(how, "")
    gateway = start(forwarding(scripted(handler).address, pool=f"probe = false, {more}"))
    s, response = raw.open_websocket(gateway.port())
    assert response.status == 101
    if how == "client fin":
        s.close()
    elif how == "client reset":
        reset(s)
    elif how == "stop":
        gateway.proc.send_signal(signal.SIGTERM)
    elif how == "server fin":
        assert raw.read_all(s)[0] == b""
        s.close()  # a half-close: each side ends for itself
    entry = gateway.wait_access(1, event="close")[0]
    assert (entry["cause"], entry["side"]) == (cause, side)
    s.close()
    if how == "stop":
        assert gateway.proc.wait(10) == 0


def test_a_handshake_that_the_server_spoils(start, scripted):
    gateway = start(forwarding(scripted(once(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                             b"Sec-WebSocket-Accept: bm90IHRoZSByaWdodCBvbmUhISE=\r\n\r\n")).address))
    s, response = raw.open_websocket(gateway.port())
    s.close()
    assert response.status == 502
    entry = gateway.wait_access(1)[0]
    assert (entry["event"], entry["cause"], entry["side"], entry["status"]) == ("request", "bad WebSocket handshake of the server", "server", 502)
