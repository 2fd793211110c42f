# SPDX-License-Identifier: MIT
"""Names of servers: addresses come and go with what a name server says, and no tunnel notices."""

import collections
import json
import os
import random
import re
import socket
import threading
import time

import pytest

import raw
from dns import NameServer
from gateway import fields_of, wait_for

GET = b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def dns():
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
def family():
    """family(count) -> origins on 127.0.0.1, 127.0.0.2, ... that share one port; each answers its own address."""
    def make(count, first=1):
        for _ in range(50):
            made = []
            try:
                port = 0
                for i in range(count):
                    made.append(Origin(f"127.0.0.{first + i}", port))
                    port = made[0].port
                running.extend(made)
                return made
            except OSError:
                for origin in made:
                    origin.close()
        raise AssertionError("no port that is free on all addresses")
    running = []
    yield make
    for origin in running:
        origin.close()


class Origin:
    """HTTP and WebSocket echo (bytes, unread) on one address."""

    def __init__(self, host, port):
        self.host = host
        self.listener = socket.create_server((host, port), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.hosts = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        data = b""
        with sock:
            while True:
                try:
                    while b"\r\n\r\n" not in data:
                        more = sock.recv(65536)
                        if not more:
                            return
                        data += more
                    head, _, data = data.partition(b"\r\n\r\n")
                    fields = dict(fields_of(head))
                    self.hosts.append(fields.get("host"))
                    if "sec-websocket-key" in fields:
                        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Origin: "
                                     + self.host.encode() + b"\r\nSec-WebSocket-Accept: "
                                     + raw.accept_of(fields["sec-websocket-key"]).encode() + b"\r\n\r\n")
                        while True:
                            more = sock.recv(65536)
                            if not more:
                                return
                            sock.sendall(more)
                    sock.sendall(b"HTTP/1.1 200 OK\r\nX-Origin: " + self.host.encode() + b"\r\nContent-Length: 0\r\n\r\n")
                except OSError:
                    return

    def close(self):
        try:
            self.listener.shutdown(2)
        except OSError:
            pass
        self.listener.close()


def named(dns, port, servers='"web.test"', keys="probe = false"):
    return f'''settings {{ nameservers = {{ "{dns.address}" }}, log_level = "debug" }}
        listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ {servers} }}, port = {port}, resolve = "200ms", {keys} }}
        route "all" {{ forward "p" }}'''


def tally(gateway, count=12):
    with raw.connect(gateway.port()) as s:
        names = collections.Counter()
        for _ in range(count):
            s.sendall(GET)
            names[raw.Response(s).get("x-origin")] += 1
        return names


def wait_tally(gateway, want, count=12):
    wait_for(lambda: set(tally(gateway, count)) == set(want), 5, f"answers of {want}")


@pytest.mark.parametrize("balance", ["roundrobin", "leastconn", "random", "hash", "first"])
def test_addresses_come_and_go(start, dns, family, balance):
    a, b, c = family(3)
    dns.names["web.test"] = [a.host, b.host]
    gateway = start(named(dns, a.port, keys=f'probe = false, slow_start = false, balance = "{balance}"'))
    if balance in ("roundrobin", "leastconn"):
        assert tally(gateway) == {a.host: 6, b.host: 6}
    assert set(tally(gateway)) <= {a.host, b.host}
    dns.names["web.test"] = [c.host, b.host]
    gateway.wait_err(rf"p/web\.test:{a.port}\(127\.0\.0\.3\) is new: .* has 3 addresses now")
    gateway.wait_err(rf"p/web\.test:{a.port}\(127\.0\.0\.1\) has left: .* has 2 addresses now")
    assert set(tally(gateway)) <= {b.host, c.host}
    dns.names["web.test"] = [a.host]
    wait_tally(gateway, [a.host])
    assert set(a.hosts) == {"a"}


def test_tunnels_live_on(start, dns, family):
    a, b = family(2)
    dns.names["web.test"] = [a.host]
    gateway = start(named(dns, a.port, keys='probe = "tcp"'))
    gateway.wait_err(r"\(127\.0\.0\.1\) up")
    tunnel, response = raw.open_websocket(gateway.port())
    assert response.get("x-origin") == a.host
    dns.names["web.test"] = [b.host]
    gateway.wait_err(r"\(127\.0\.0\.1\) has left")
    gateway.wait_err(r"\(127\.0\.0\.2\) up")
    a.close()  # nobody connects there any more, and no probe does
    assert set(tally(gateway)) == {b.host}
    for i in range(20):
        message = os.urandom(2000)
        tunnel.sendall(message)
        got = b""
        while len(got) < len(message):
            got += tunnel.recv(65536)
        assert got == message
        time.sleep(0.02)
    assert "(127.0.0.1) down" not in gateway.err()
    dns.names["web.test"] = [a.host, b.host]  # and comes back as another object
    gateway.wait_err(r"\(127\.0\.0\.1\) is new")
    tunnel.sendall(b"still here")
    assert tunnel.recv(100) == b"still here"
    tunnel.close()


def test_failure_keeps_the_last_answer(start, dns, family):
    a, = family(1)
    dns.names["web.test"] = [a.host]
    gateway = start(named(dns, a.port))
    for mood, names in (("fail", [a.host]), ("answer", None), ("answer", [])):
        dns.mood = mood
        if names is None:
            del dns.names["web.test"]
        else:
            dns.names["web.test"] = names
        asked = len(dns.asked)
        wait_for(lambda: len(dns.asked) > asked + 6, 10, "three more rounds of questions")
        assert set(tally(gateway, 3)) == {a.host}
    said = re.findall(r"cannot resolve web\.test: .*; keeping its last 1 address \(.*\)", gateway.err())
    assert len(said) == 1, gateway.err()
    dns.names["web.test"] = ["127.0.0.77", a.host]
    gateway.wait_err("web.test resolves again")


def test_starts_without_an_answer(start, dns, family):
    a, = family(1)
    dns.mood = "silent"
    begin = time.monotonic()
    gateway = start(named(dns, a.port))
    assert time.monotonic() - begin < 6
    gateway.wait_err(rf"p/web\.test:{a.port} down: cannot resolve web\.test: .*; trying again every 0\.2 s \(.*nameservers")
    assert raw.request(gateway.port(), GET).status == 503
    dns.names["web.test"] = [a.host]
    dns.mood = "answer"
    gateway.wait_err(r"\(127\.0\.0\.1\) is new", 15)
    assert set(tally(gateway, 3)) == {a.host}


def test_server_that_drops_questions_about_ipv6(start, dns, family):
    a, b = family(2)
    dns.silent_types = {28}
    dns.names["web.test"] = [a.host]
    gateway = start(named(dns, a.port))
    assert set(tally(gateway, 3)) == {a.host}
    dns.names["web.test"] = [b.host]
    gateway.wait_err(r"\(127\.0\.0\.1\) has left", 10)
    assert set(tally(gateway, 3)) == {b.host}


def test_srv(start, dns, scripted):
    def handler(name):
        def run(peer):
            while True:
                peer.head()
                peer.send(b"HTTP/1.1 200 OK\r\nX-Origin: " + name + b"\r\nContent-Length: 0\r\n\r\n")
        return run
    a, b, c = [scripted(handler(name)) for name in (b"a", b"b", b"c")]
    dns.names["one.test"], dns.names["two.test"] = ["127.0.0.1"], ["127.0.0.1"]
    dns.names["_ws._tcp.chat.test"] = [(10, 3, a.port, "one.test"), (10, 1, b.port, "two.test"), (20, 1, c.port, "two.test")]
    gateway = start(named(dns, 1, servers='"srv:_ws._tcp.chat.test"', keys='probe = false, host = "server", slow_start = false').replace(
        "port = 1,", ""), workers=1)
    assert tally(gateway, 40) == {"a": 30, "b": 10}
    dns.names["_ws._tcp.chat.test"] = [(20, 1, c.port, "two.test")]
    wait_tally(gateway, ["c"])
    gateway.wait_err(rf"p/srv:_ws\._tcp\.chat\.test\(127\.0\.0\.1:{a.port}\) has left")
    dns.names["_ws._tcp.chat.test"] = [(20, 1, c.port, "two.test"), (1, 0, a.port, "one.test")]
    wait_tally(gateway, ["a"])


def test_answers_too_long_for_udp(start, dns, family):
    """They come by TCP; 32 addresses are taken, and that there are more is said."""
    origins = family(3)
    dns.names["web.test"] = [origins[0].host] + ["127.0.9.%d" % i for i in range(1, 45)]
    gateway = start(named(dns, origins[0].port, keys='probe = { path = "/", every = "100ms", timeout = "500ms" }'))
    gateway.wait_err("web.test has more than 32 addresses; the others are left out")
    gateway.wait_err(r"\(127\.0\.0\.1\) up")
    assert dns.by_tcp and set(tally(gateway)) == {origins[0].host}
    dns.names["web.test"] = [origin.host for origin in origins]
    gateway.wait_err(r"\(127\.0\.0\.3\) up")
    wait_tally(gateway, [origin.host for origin in origins])


def test_hosts_file_wins(start, dns, family):
    a, = family(1)
    dns.mood = "silent"
    gateway = start(named(dns, a.port, servers='"localhost"', keys='probe = "tcp"'))
    gateway.wait_err(r"p/localhost:\d+\(127\.0\.0\.1\) up")
    assert set(tally(gateway, 3)) == {a.host}
    assert not dns.asked


def test_affinity_and_name(start, dns, family):
    """Each address has a cookie of its own; forward{server = } takes any address of the name."""
    a, b = family(2)
    dns.names["web.test"] = [a.host, b.host]
    gateway = start(named(dns, a.port, keys='probe = false, affinity = { cookie = "node" }').replace(
        'route "all"', f'route "named" {{ path = "/named", forward("p", {{ server = "web.test:{a.port}" }}) }} route "all"'))
    first = raw.request(gateway.port(), GET)
    cookie = first.get("set-cookie").split(";")[0].encode()
    for _ in range(6):
        again = raw.request(gateway.port(), GET.replace(b"\r\n\r\n", b"\r\nCookie: " + cookie + b"\r\n\r\n"))
        assert again.get("x-origin") == first.get("x-origin") and not again.get("set-cookie")
    dns.names["web.test"] = [b.host if first.get("x-origin") == a.host else a.host]
    gateway.wait_err("has left")
    moved = raw.request(gateway.port(), GET.replace(b"\r\n\r\n", b"\r\nCookie: " + cookie + b"\r\n\r\n"))
    assert moved.get("x-origin") != first.get("x-origin") and moved.get("set-cookie")
    assert raw.request(gateway.port(), GET.replace(b"/who", b"/named")).get("x-origin") == moved.get("x-origin")


def test_under_load(start, dns, family):
    """Addresses change a hundred times under traffic of several workers: nothing fails, nothing is left."""
    origins = family(6)
    dns.names["web.test"] = [origin.host for origin in origins[:3]]
    gateway = start(named(dns, origins[0].port).replace('"200ms"', '"100ms"'), workers=4)
    stop, failures = threading.Event(), []

    def run():
        while not stop.is_set():
            try:
                with raw.connect(gateway.port()) as s:
                    for _ in range(50):
                        s.sendall(GET)
                        response = raw.Response(s)
                        if response.status != 200:
                            failures.append(response.status)
            except (OSError, AssertionError) as error:
                failures.append(error)
    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        dns.names["web.test"] = [origin.host for origin in random.sample(origins, random.randint(1, 5))]
        time.sleep(0.15)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(re.findall("has left", gateway.err())) > 10


@pytest.mark.parametrize("text, mistake", [
    ('settings { nameservers = "no address" }', "nameservers"),
    ('settings { nameservers = { "127.0.0.1:53", "unix:/x" } }', "nameservers[2]"),
    ('pool "q" { servers = { "srv:" } }', "servers[1]"),
    ('pool "q" { servers = { "srv:_ws._tcp.test:80" } }', "servers[1]"),
])
def test_mistakes(moongate, tmp_path, text, mistake):
    file = tmp_path / "moongate.lua"
    file.write_text(text + '\nlistener "http" { bind = "127.0.0.1:1" }\npool "p" { servers = { "127.0.0.1:2" } }\nroute "all" { forward "p" }\n')
    done = moongate("check", file)
    assert done.returncode == 1 and mistake in done.stderr and ":1:" in done.stderr


def test_dump(moongate, tmp_path):
    file = tmp_path / "moongate.lua"
    file.write_text('settings { nameservers = { "127.0.0.1", "[::1]:5353" } } listener "http" { bind = "127.0.0.1:1" }\n'
                    'pool "p" { servers = { "srv:_ws._tcp.chat.test" } }\nroute "all" { forward "p" }\n')
    dumped = json.loads(moongate("dump", file).stdout)
    assert dumped["settings"]["nameservers"] == "127.0.0.1:53,[::1]:5353"
    assert dumped["pools"][0]["servers"][0]["address"] == "srv:_ws._tcp.chat.test"
