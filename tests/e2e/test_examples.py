# SPDX-License-Identifier: MIT
"""Every example runs for real and does what its comment says, and `moongate route` gives the verdicts that live traffic gets."""

import concurrent.futures
import json
import os
import random
import re
import shlex
import socket
import subprocess
import time

import pytest

import gateway as gateway_module
import raw
from gateway import ROOT, Origin, Process, free_port, wait_for

FOLDER = ROOT / "examples"
NAMES = sorted(path.name for path in FOLDER.glob("[0-9][0-9]-*.lua"))
PORTS = r"\b(8080|8443|90\d\d)\b"


class Example(Process):
    """A copy of an example with free ports, its origins as the comment starts them, and the gateway."""

    def __init__(self, name, folder, certificate, env=None):
        self.ports, self.origins = {}, {}
        text = (FOLDER / name).read_text()
        self.file = folder / name
        self.file.write_text(re.sub(PORTS, lambda m: str(self.port(m.group())), text))
        self.comment = "".join(line[2:].lstrip() if line.startswith("--") else "" for line in text.splitlines(True)).replace("\\\n", " ")
        self.env = {"MOONGATE_CERT": certificate[0], "MOONGATE_KEY": certificate[1], **(env or {})}
        self.entries_seen = 0
        try:
            self._start_origins()
            super().__init__([gateway_module.binary(), "run", str(self.file)], env=self.env, cwd=str(folder))
            self.wait_err("serving", 20)
            for origin in self.origins.values():
                self.wait_err(rf"/{origin.name} up|/\S*:{origin.port} up|/\S+ up: ", 10)
        except BaseException:
            self.end()
            raise

    def _start_origins(self):
        loop = re.search(r"for port in ([\d ]+); do (moongate origin \$port.*?) & done", self.comment)
        commands = [loop.group(2).replace("$port", port) for port in loop.group(1).split()] if loop else \
            re.findall(r"moongate origin 90\d\d [^&\n]*", self.comment)
        assert commands, "the comment says which servers it needs"
        for command in commands:
            words = shlex.split(command)[2:]
            name = words[words.index("--name") + 1]
            rest = [word for i, word in enumerate(words[1:], 1) if word != "--name" and words[i - 1] != "--name"]
            self.origins[name] = Origin(name, port=self.port(words[0]), args=rest)

    def port(self, number):
        return self.ports.setdefault(str(number), free_port())

    def end(self):
        if hasattr(self, "proc"):
            code = self.stop()
        for origin in self.origins.values():
            origin.stop()
        assert code == 0 and "Sanitizer" not in self.err() and "runtime error" not in self.err(), self.err()

    def get(self, path="/", *lines, host="127.0.0.1", tls=None, method="GET", protocols=None, client=None, websocket=False, version="13"):
        """One request or handshake; the socket is closed at once."""
        fields = [f"Host: {host}", *lines]
        if websocket or protocols:
            fields += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Sec-WebSocket-Version: {version}"]
        if protocols:
            fields.append(f"Sec-WebSocket-Protocol: {protocols}")
        port = self.port(8443 if tls else 8080)
        s = socket.create_connection(("127.0.0.1", port), 10, (client, 0) if client else None)
        if tls:
            s = ANY_CERTIFICATE.wrap_socket(s, server_hostname="localhost")
        with s:
            s.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode())
            return raw.Response(s, head_only=method == "HEAD")

    def route(self, *args):
        return subprocess.run([gateway_module.binary(), "route", *args[:-1], str(self.file), args[-1]], capture_output=True, text=True,
                              timeout=30, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL)


ANY_CERTIFICATE = raw.insecure_tls()


@pytest.fixture
def example(tmp_path, certificate):
    running = []

    def run(name, env=None):
        full = next(other for other in NAMES if other.startswith(name))
        made = Example(full, tmp_path, certificate, env)
        running.append(made)
        return made

    yield run
    for made in running:
        made.end()


def test_the_examples_are_there():
    topics = "\n".join(NAMES)
    for topic in ("quickstart", "subprotocol", "host-and-path", "tls", "weighted", "canary", "maintenance", "application-gateway", "sticky", "hash",
                  "proxy-protocol", "client-certificates", "names", "limits-and-queue", "error-pages", "package-registry"):
        assert topic in topics
    for name in NAMES:
        text = (FOLDER / name).read_text()
        assert text.startswith("--") and len(text.splitlines()) < 60


@pytest.mark.parametrize("name", NAMES)
def test_check_has_nothing_to_say(moongate, name, certificate):
    env = {**os.environ, "MOONGATE_CERT": certificate[0], "MOONGATE_KEY": certificate[1]}
    done = moongate("check", "--strict", FOLDER / name, env=env)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_of_its_comment(example, name, tmp_path, certificate):
    """curl and moongate route as the comment has them, with this run's ports."""
    e = example(name, {"MAINTENANCE": "on"})
    done = 0
    for line in e.comment.splitlines():
        found = re.search(r"\b(curl -.*|moongate route .*)", line)
        if not found:
            continue
        command = re.sub(PORTS, lambda m: str(e.port(m.group())), re.sub(r" {2,}\(.*", "", found.group(1)))
        command = re.sub(r"^for i in .*", "", command).split("; done")[0]
        command = command.replace("moongate", gateway_module.binary(), 1).replace(f"examples/{name}", str(e.file))
        command = re.sub(r"--cacert cert\.pem", f"--cacert {certificate[0]}", command).replace("curl ", "curl -S --max-time 3 ", 1)
        ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, env={**os.environ, **e.env}, cwd=tmp_path)
        waits = ran.returncode == 28 and " 101 " in ran.stdout  # an open WebSocket
        assert ran.returncode == 0 or waits or "| grep" in command, (command, ran)
        done += 1
    assert done, "the comment shows how to try it"


# --- what each of them does ---

def test_quickstart(example):
    e = example("01")
    assert b"Moongate demo" in e.get("/").body
    for offered, pool in (("chat", "chat"), ("superchat", "superchat"), ("x, superchat, chat", "superchat")):
        response = e.get("/ws", protocols=offered)
        assert response.status == 101 and response.get("x-origin") == pool
    assert e.get("/ws", websocket=True).status == 404


def test_websocket_by_subprotocol(example):
    e = example("02")
    for offered, name in (("chat", "chat"), ("superchat", "superchat"), ("chat, superchat", "superchat")):
        response = e.get("/any/path", protocols=offered)
        assert (response.status, response.get("x-origin"), response.get("sec-websocket-protocol")) == (101, name, name)
    assert e.get("/", "Origin: https://evil.example", protocols="chat").status == 403
    assert e.get("/", f"Origin: http://localhost:{e.port(8080)}", protocols="chat").status == 101
    assert e.get("/", protocols="other").status == 404
    assert e.get("/size/3").get("x-origin") == "chat"


def test_websocket_by_host_and_path(example):
    e = example("03")
    assert e.get("/feed", host="live.example.com").status == 426
    for path, host, name in (("/feed", "live.example.com", "9001"), ("/feed/a/b", "LIVE.example.com", "9001"),
                             ("/rooms/tea", "example.com", "9002"), ("/rooms/vip-lounge", "www.example.com", "9003")):
        response = e.get(path, host=host, websocket=True)
        assert (response.status, response.get("x-origin")) == (101, f"pool-{name}")
    assert e.get("/rooms/a/b", host="example.com", websocket=True).status == 404
    assert e.get("/", host="nowhere.test").status == 421
    assert "GET /ws/tea HTTP/1.1\n" in e.route("ws://example.com/rooms/tea").stdout


def test_tls_redirect(example):
    e = example("04")
    response = e.get("/echo?x=1", host=f"localhost:{e.port(8080)}")
    assert response.status == 308 and response.get("location") == f"https://localhost:{e.port(8443)}/echo?x=1"
    assert e.get("/", websocket=True).status == 403
    response = e.get("/echo", tls=True)
    assert response.status == 200 and b"X-Forwarded-Proto: https\r\n" in response.body
    assert response.get("strict-transport-security") == "max-age=86400" and response.get("server") is None
    assert e.get("/ws", websocket=True, tls=True).status == 101


def switch(origin, to):
    assert raw.request(origin.port, b"POST /healthz/%s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" % to).status == 200


def answers(e, count=12):
    names = [e.get("/size/1").get("x-origin") for i in range(count)]
    return {name: names.count(name) for name in set(names)}


def test_weighted_pool_with_backup(example):
    e = example("05")
    wait_for(lambda: e.err().count(" up: ") >= 5, 10, "all servers of both pools")
    names = answers(e, 48)
    assert abs(names["big"] - 36) <= 6 and abs(names["small"] - 12) <= 6 and set(names) == {"big", "small"}
    switch(e.origins["big"], b"fail")
    e.wait_err("web/big down: GET /healthz: 503", 12)
    assert answers(e) == {"small": 12}
    switch(e.origins["small"], b"fail")
    e.wait_err("web/small down", 12)
    assert answers(e) == {"spare": 12}
    after = len(e.lines_err)
    switch(e.origins["big"], b"ok")
    e.wait_err("web/big up", 12, after)
    assert answers(e) == {"big": 12}


def test_canary_by_header(example):
    e = example("06")
    assert e.get("/", "X-Canary: always").get("x-origin") == "canary" == e.get("/", "Cookie: canary=always").get("x-origin")
    assert e.get("/", "Cookie: canary=never").get("x-origin") == "stable"
    sides = {client: e.get("/echo", client=client) for client in (f"127.0.0.{i}" for i in range(1, 61))}
    canary = {client for client, response in sides.items() if response.get("x-origin") == "canary"}
    assert 1 <= len(canary) <= 20, "a share of about one in ten"
    for client in canary:
        assert b"\r\nx-canary: share\r\n" in sides[client].body and e.get("/", client=client).get("x-origin") == "canary"
    wait_for(lambda: '"canary":"share"' in e.out(), 5, "the extra field of the access log")


def test_maintenance_page(example):
    e = example("07", {"MAINTENANCE": "on"})
    response = e.get("/")
    assert response.status == 503 and response.get("retry-after") == "300" and b"Back soon" in response.body
    assert response.get("content-type").startswith("text/html")
    assert e.get("/ws", websocket=True).status == 503
    assert e.get("/", "Cookie: preview=let-me-in").get("x-origin") == "web"
    assert e.get("/status").body == b"maintenance\n"


def test_maintenance_off(example):
    e = example("07")
    assert e.get("/").get("x-origin") == "web" and e.get("/status").body == b"up\n"
    assert e.get("/ws", websocket=True).status == 101


def test_application_gateway_basic(example):
    """One listener on HTTP and one on HTTPS, a basic rule each to one pool, and the handshake of RFC 6455 section 1.2."""
    e = example("08")
    wait_for(lambda: e.err().count(" up: ") >= 2, 10, "both servers")
    for tls in (None, True):
        names = set()
        for i in range(6):
            response = e.get("/chat", "Origin: http://example.com", host="server.example.com", protocols="chat, superchat", tls=tls)
            assert response.status == 101 and response.get("upgrade").lower() == "websocket"
            assert response.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" and response.get("sec-websocket-protocol") == "chat"
            names.add(response.get("x-origin"))
        assert e.get("/size/5", tls=tls).status == 200
        assert names == {"server-1", "server-2"}
    switch(e.origins["server-1"], b"fail")
    e.wait_err(rf"{e.port(9001)} down: GET /healthz: 503", 15)
    for i in range(6):
        assert e.get("/chat", protocols="chat", websocket=True).get("x-origin") == "server-2" == e.get("/").get("x-origin")


def test_sticky_sessions(example):
    e = example("09")
    for name in e.origins:
        e.wait_err(f"web/{name} up")
        e.wait_err(f"sockets/{name} up")
    found = {}
    for i in range(9):
        response = e.get("/size/1")
        found[response.get("x-origin")] = response.get("set-cookie").split(";")[0]
    assert sorted(found) == ["one", "three", "two"]
    for name, cookie in found.items():
        for i in range(4):
            response = e.get("/size/1", f"Cookie: {cookie}")
            assert response.get("x-origin") == name and not response.get("set-cookie")
        assert e.get("/ws", f"Cookie: {cookie}", websocket=True).get("x-origin") == name
    switch(e.origins["one"], b"fail")
    wait_for(lambda: e.get("/size/1", f"Cookie: {found['one']}").get("x-origin") != "one", 10, "the client moves")
    assert e.get("/size/1", f"Cookie: {found['one']}").get("set-cookie")


def test_hash_and_regions(example):
    e = example("10")
    for name in e.origins:
        e.wait_err(f"/{name} up")
    topics = {topic: e.get(f"/feed?topic={topic}").get("x-origin") for topic in range(40)}
    assert set(topics.values()) == {"one", "two", "three"}
    assert all(e.get(f"/feed/x?topic={topic}").get("x-origin") == name for topic, name in topics.items())
    assert answers(e) == {"eu": 12}
    switch(e.origins["eu"], b"fail")
    wait_for(lambda: answers(e, 3) == {"us": 3}, 10, "the other region")


def test_proxy_protocol(example):
    e = example("11")
    e.wait_err("inner/.* up")
    assert e.get("/who", client="127.0.0.7").body == b"127.0.0.7\n" == e.get("/inner/who", client="127.0.0.7").body
    balanced = e.port(9090)
    with raw.connect(balanced) as s:
        s.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"X-Forwarded-For: 192.0.2.1\r\n" in raw.Response(s).body
    assert raw.send_all(balanced, b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n") == b""
    assert e.get("/inner/ws", websocket=True).status == 101


def test_client_certificates(example, certificate):
    e = example("12")
    assert e.get("/admin/echo").status == 403 == e.get("/admin/echo", tls=True).status
    assert e.get("/echo", "X-Client: me", tls=True).body.lower().count(b"x-client") == 0
    shown = raw.insecure_tls()
    shown.load_cert_chain(*certificate)
    with raw.connect(e.port(8443), tls=shown) as s:
        s.sendall(b"GET /admin/echo HTTP/1.1\r\nHost: a\r\nX-Client: me\r\n\r\n")
        response = raw.Response(s)
        assert response.status == 200 and b"\r\nx-client: CN=localhost\r\n" in response.body
    wait_for(lambda: '"certificate":"' in e.out(), 5, "the extra field of the access log")


def test_names_and_websocket_probes(example):
    e = example("13")
    e.wait_err(r"chat/localhost:\d+\(127\.0\.0\.1\) up: WebSocket /chat: 101, pong, Close 1000")
    assert e.get("/size/1").get("x-origin") == "one"
    assert e.get("/chat", websocket=True).status == 101


def test_limits_and_queue(example):
    e = example("14")
    for name in ("one", "two"):
        e.wait_err(f"reports/{name} up")
    assert answers(e) == {"one": 12}, "the first while it has room"

    def together(count, path):
        """(status, server, seconds, Retry-After) of each."""
        def ask(_):
            began = time.monotonic()
            response = e.get(path)
            return response.status, response.get("x-origin"), time.monotonic() - began, response.get("retry-after")
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return sorted(pool.map(ask, range(count)), key=lambda answer: answer[2])
    refused, served = [], []
    for answer in together(8, "/slow/1500"):
        (served if answer[0] == 200 else refused).append(answer)
    assert [status for status, *_ in refused] == [503, 503] and all(after and took < 1 for _, _, took, after in refused)
    assert sorted(name for _, name, *_ in served[:4]) == ["one", "one", "two", "two"]
    assert [status for status, *_ in served] == 6 * [200] and all(took > 2.9 for _, _, took, _ in served[4:]), "two have waited"
    late = next(answer for answer in together(5, "/slow/3500") if answer[0] != 200)
    assert late[0] == 503 and 1.9 < late[2] < 3.4 and late[3], "who waits longer than queue_timeout"


COMBINED = re.compile(r'^127\.0\.0\.1 - - \[[^]]+ \+0000\] "(\S+ \S+) HTTP/1\.1" (\d{3}) (\d+) "([^"]*)" "([^"]*)"$')


def test_error_pages_and_combined_log(example):
    e = example("15")
    e.wait_err("app/.* up")
    html, lines = "text/html; charset=utf-8", []

    def expect(path, status, kind, body, *fields, method="GET"):
        response = e.get(path, *fields, method=method)
        assert (response.status, response.get("content-type"), body in response.body) == (status, kind, True), (response.head, response.body)
        lines.append((f"{method} {path.partition('?')[0]}", str(status), str(len(response.body)), "", ""))
    expect("/nowhere?token=secret", 404, html, b"<h1>Not here</h1>")
    theirs = e.get("/app/status/404")
    assert theirs.status == 404 and b"Not here" not in theirs.body
    lines.append(("GET /app/status/404", "404", str(len(theirs.body)), "", ""))
    expect("/app/slow/9000", 504, html, b"<h1>Back soon</h1>")
    expect("/app/echo", 413, "application/json", b'"most": "16k"', "Content-Length: 16385", method="POST")
    expect("/app/echo", 200, "text/plain", b"POST /echo", "Content-Length: 0", method="POST")
    switch(e.origins["app"], b"fail")
    e.wait_err("app/.* down", 12)
    expect("/app/", 503, html, b"<h1>Back soon</h1>")
    wait_for(lambda: len(e.lines_out) >= len(lines), 5, "the log")
    found = [COMBINED.match(line).groups() for line in e.lines_out]
    assert sorted((a, b, c, *("" if text == "-" else text for text in rest)) for a, b, c, *rest in found) == sorted(lines)


def test_package_registry(example):
    e = example("16")
    for name in e.origins:
        e.wait_err(f"registry/{name} up")
    drawn = answers(e, 60)
    assert set(drawn) == {"one", "two", "three"} and min(drawn.values()) >= 5
    for path in ("/@acme%2Ftea", "/@acme%2ftea"):
        assert e.get(path).body.endswith(b": GET /@acme%2Ftea\n")
    wait_for(lambda: '"package":"@acme/tea"' in e.out(), 5, "the name, decoded, in the log")
    assert e.get("/@acme%2F..%2Fetc").status == 400, "never beside dot segments"
    large = b"Host: a\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n" + bytes(100000)
    for line, status in ((b"PUT /@acme%2Ftea", 200), (b"POST /@acme%2Ftea", 413), (b"PUT /a/b", 413)):
        with raw.connect(e.port(8080)) as s:
            s.sendall(line + b" HTTP/1.1\r\n" + large)
            assert raw.Response(s).status == status, line


# --- done-criterion 5: the same verdict ---

PATHS = ["/", "/ws", "/chat", "/feed", "/feed/", "/feed/news", "/feedx", "/rooms/tea", "/rooms/vip-1", "/rooms/a/b", "/status", "/status/", "/x/../status",
         "/rooms/%76ip-2", "/rooms//tea", "/a%2Fb", "/echo?a=b&c"]
HOSTS = ["127.0.0.1", "example.com", "www.example.com", "live.example.com", "LIVE.Example.com.", "x.example.com", "nowhere.test"]
OFFERS = [None, None, "", "chat", "superchat", "superchat.v2", "chat, superchat", "other", "x, chat"]
LINES = [None, None, None, "X-Canary: always", "X-Canary: no", "Cookie: canary=always", "Cookie: a=b; canary=never", "Cookie: preview=let-me-in",
         "Origin: https://evil.example", "Origin: http://127.0.0.1:@8080@", "Content-Length: 0"]
CURATED = [  # method, path, host, offered (None: no handshake), line, version
    ("GET", "/../x", "example.com", None, None, "13"), ("GET", "/%00", "example.com", None, None, "13"),
    ("GET", "/feed", "live.example.com", "", None, "8"), ("POST", "/ws", "example.com", "chat", None, "13"),
    ("HEAD", "/", "example.com", None, None, "13"), ("BREW", "/", "example.com", None, None, "13"),
    ("OPTIONS", "/status", "example.com", None, None, "13"), ("GET", "/", "a b", None, None, "13"),
    ("DELETE", "/rooms/tea", "www.example.com", None, "X-Canary: always", "13"),
]


def live_verdict(e, response):
    """(verdict, route) by the access line of the one request that was just made."""
    def entries():
        return [line for line in list(e.lines_out) if line.startswith("{") and '"event":"close"' not in line]
    wait_for(lambda: len(entries()) > e.entries_seen, 10, "an access line")
    e.entries_seen += 1
    assert len(entries()) == e.entries_seen
    entry = json.loads(entries()[-1])
    if "pool" in entry:
        return f'forward to pool "{entry["pool"]}"', entry["route"]
    if response is None:
        return "drop", entry["route"]
    if response.get("location"):
        return f"redirect {response.status} to {response.get('location')}", entry["route"]
    return f"reply {response.status}", entry.get("route")


@pytest.mark.parametrize("name,env", [*((name, {"LOG_FORMAT": "json"} if "combined" in name else {}) for name in NAMES), *((name, {"MAINTENANCE": "on"}) for name in NAMES if "maintenance" in name)])
def test_route_says_what_live_traffic_gets(example, name, env):
    e = example(name, env)
    rng = random.Random(name)
    has_tls = "tls = {" in e.file.read_text() and name[:2] != "01"
    cases = CURATED + [("GET", rng.choice(PATHS), rng.choice(HOSTS), rng.choice(OFFERS), rng.choice(LINES), "13") for i in range(40)]
    seen = set()
    for method, path, host, offered, line, version in cases:
        line = line and line.replace("@8080@", str(e.port(8080)))
        tls = has_tls and rng.random() < 0.5
        client = f"127.0.0.{rng.randrange(1, 250)}"
        lines = [line] if line else []
        response = e.get(path, *lines, host=host, tls=tls, method=method, protocols=offered or None, websocket=offered is not None,
                         client=client, version=version)
        scheme = ("wss" if tls else "ws") if offered is not None else ("https" if tls else "http")
        fields = [f"Host: {host}", *lines]
        fields += [f"Sec-WebSocket-Protocol: {offered}"] if offered else []
        fields += [f"Sec-WebSocket-Version: {version}"] if version != "13" else []
        args = ["-X", method, "--client", client]
        for field in fields:
            args += ["-H", field]
        done = e.route(*args, f"{scheme}://127.0.0.1:{e.port(8443 if tls else 8080)}{path}")
        assert done.returncode == 0, done.stderr
        printed = done.stdout.splitlines()
        found = re.match(r'route "([^"]+)"', printed[1])
        verdict = re.sub(r'^(forward to pool "[^"]+").*', r"\1", printed[0])  # without other pools and the key
        told = verdict, found and found.group(1)
        assert live_verdict(e, response) == told, (method, path, host, offered, line, client)
        seen.add(told)
    assert len(seen) >= 3, "the list tells more than one thing"
