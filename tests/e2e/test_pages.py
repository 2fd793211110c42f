# SPDX-License-Identifier: MIT
"""Answers of our own: error pages by status. The access log in the combined format."""

import re
import socket

import pytest

import raw
from gateway import free_port, wait_for

COMBINED = re.compile(r'^(\S+) - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "([^"\\]*(?:\\.[^"\\]*)*)" (\d{3}) (\d+) '
                      r'"([^"\\]*(?:\\.[^"\\]*)*)" "([^"\\]*(?:\\.[^"\\]*)*)"$')


def test_error_pages_are_for_answers_of_our_own(start, recorder, tmp_path):
    page = tmp_path / "pages"
    page.mkdir()
    (page / "502.html").write_text("<h1>back soon</h1>\n")
    server = recorder(response=b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\ntheirs")
    gateway = start(f'''
        settings {{ access_log = false, error_pages = {{ [404] = "<p>ours</p>", [502] = "{page}/502.html", [403] = '{{"error": "no"}}',
                                                        [500] = "it is our fault" }} }}
        listener "http" {{ bind = "127.0.0.1:@http@", response_headers = {{ ["strict-transport-security"] = "max-age=31536000" }} }}
        pool "dead" {{ servers = {{ "127.0.0.1:{free_port()}" }}, probe = false, retries = 0 }}
        pool "live" {{ servers = {{ "{server.address}" }}, probe = false }}
        route "dead" {{ path = "/dead", forward "dead" }}
        route "live" {{ path = "/live", forward "live" }}
        route "reply" {{ path = "/reply", reply(404, "the route's\\n") }}
        route "throw" {{ path = "/throw", function() error "no" end }}
        route "hook" {{ path = "/hook", on_response = function() error "no" end, forward "live" }}
    ''')

    def get(path, method="GET"):
        return raw.request(gateway.port(), f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    for path, status, body, kind in (("/nowhere", 404, b"<p>ours</p>", "text/html; charset=utf-8"),
                                     ("/dead", 502, b"<h1>back soon</h1>\n", "text/html; charset=utf-8"),
                                     ("/throw", 500, b"it is our fault", "text/plain; charset=utf-8"),
                                     ("/hook", 500, b"it is our fault", "text/plain; charset=utf-8"),
                                     ("/live", 404, b"theirs", None),
                                     ("/reply", 404, b"the route's\n", "text/plain; charset=utf-8")):
        answer = get(path)
        assert (answer.status, answer.body, answer.get("content-type")) == (status, body, kind), path
        assert answer.get("strict-transport-security") == "max-age=31536000"
    head = get("/nowhere", "HEAD")
    assert (head.status, head.get("content-length"), head.body) == (404, "11", b"")
    # A malformed request never was routed, and is still ours; one without a page says its status.
    assert raw.send_all(gateway.port(), b"GET / HTTP/1.1\r\n\r\n").endswith(b"400 Bad Request\n")


HANDSHAKE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n"
PROVOKED = {  # by what the gateway itself answers that status
    400: b"GET / HTTP/1.1\r\n\r\n", 405: b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 408: b"GET / HTTP/1.1\r\nHost: a\r\n",
    413: b"POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", 414: b"GET /" + 200 * b"x" + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    426: b"GET / HTTP/1.1\r\nHost: a\r\n" + HANDSHAKE + b"\r\n", 431: b"GET / HTTP/1.1\r\nHost: a\r\nX: " + 2000 * b"x" + b"\r\n\r\n",
    501: b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 503: b"GET /drained HTTP/1.1\r\nHost: a\r\n\r\n", 504: b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n",
    505: b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("status", [*PROVOKED])
def test_each_status_has_its_page(start, status):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
        pages = ", ".join(f'[{other}] = "<p>page {other}</p>"' for other in PROVOKED)
        gateway = start(f'''
            settings {{ workers = 1, access_log = {{ to = "stdout" }}, error_pages = {{ {pages} }} }}
            listener "http" {{ bind = "127.0.0.1:@http@", max_body = 10, max_target = 100, max_header = "1k", header_timeout = "500ms" }}
            pool "silent" {{ servers = {{ "127.0.0.1:{silent.getsockname()[1]}" }}, probe = false, retries = 0, response_timeout = "300ms" }}
            pool "drained" {{ servers = {{ {{ "127.0.0.1:1", weight = 0 }} }}, probe = false }}
            route "silent" {{ path = "/silent", forward "silent" }}
            route "drained" {{ path = "/drained", forward "drained" }}
        ''')
        with raw.connect(gateway.port()) as s:
            s.sendall(PROVOKED[status])
            answer = raw.Response(s)
        page = f"<p>page {status}</p>".encode()
        assert (answer.status, answer.body, answer.get("content-type")) == (status, page, "text/html; charset=utf-8")
        assert answer.get("content-length") == str(len(page))
        more = {405: "allow", 426: "sec-websocket-version", 503: "retry-after"}.get(status)  # beside the page
        assert not more or answer.get(more)
        gateway.wait_access(1, status=status)


def test_pages_that_are_wrong_stop_the_load(moongate, tmp_path):
    for pages, said in (('[503] = "absent.html"', 'cannot read "absent.html"'), ('[200] = "a b"', "400 to 599"),
                        ('["503"] = "a b"', "400 to 599"), ("[503] = 5", "a page's path, or its text"), ('[503] = ""', "a page's path")):
        (tmp_path / "g.lua").write_text(f'settings {{ error_pages = {{ {pages} }} }}\nlistener "l" {{ bind = "127.0.0.1:1" }}\n')
        result = moongate("check", tmp_path / "g.lua")
        assert result.returncode == 1 and said in result.stderr, result.stderr


def test_combined_lines(start, origin):
    server = origin()
    gateway = start(f'''
        settings {{ access_log = {{ to = "stdout", format = "combined" }} }}
        listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}
        route "quiet" {{ path = "/quiet", access_log = false, reply(204) }}
        route "all" {{ forward "p" }}
    ''')
    head = (b'GET /size/10?token=secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\nReferer: https://x.example/a?token=secret\r\n'
            b'User-Agent: evil" 200 1 "\\\xff\r\n\r\n')
    assert raw.request(gateway.port(), head).status == 200
    assert raw.request(gateway.port(), b"GET /quiet HTTP/1.0\r\n\r\n").status == 204
    s, answer = raw.open_websocket(gateway.port(), "/ws")
    assert answer.status == 101
    s.close()
    raw.send_all(gateway.port(), b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
    lines = wait_for(lambda: gateway.lines_out[:3] if len(gateway.lines_out) >= 3 else None, 5, "3 lines")
    # Two workers' lines may change places.
    parsed = {fields[2]: fields for fields in (COMBINED.match(line).groups() for line in lines)}
    assert parsed["200"][:5] == ("127.0.0.1", "GET /size/10 HTTP/1.1", "200", "10", "https://x.example/a")
    assert "secret" not in "".join(lines) and parsed["200"][5].startswith('evil\\" 200 1 \\"\\\\')
    assert parsed["101"][1] == "GET /ws HTTP/1.1" and "400" in parsed
    wait_for(lambda: not gateway.at_rest(), 5, "rest")
    assert len(gateway.lines_out) == 3
