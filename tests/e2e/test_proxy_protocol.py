# SPDX-License-Identifier: MIT
"""The PROXY protocol: from proxies in front (proxy_protocol_from), and towards servers (proxy_protocol)."""

import os
import shutil
import socket
import ssl
import struct
import subprocess
import time

import pytest

import raw
from gateway import forwarding, free_port, wait_for

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LONG_S = 90  # seconds, for a busy machine
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SAY = '''route "say" { function(req)
  return reply(200, req.client .. " " .. req.peer, { ["x-tls"] = req.tls and req.tls.version or "none" }) end }\n'''


def v2(family, block, command=0x21):
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(block)) + block


def block4(source="192.0.2.7", destination="198.51.100.1", sport=4711, dport=443):
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", sport, dport)


def block6(source="2001:db8::7", destination="2001:db8::1", sport=4711, dport=443):
    return socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination) + struct.pack("!HH", sport, dport)


V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"
V2 = v2(0x11, block4() + b"\x01\x00\x02h2" + b"\xee\x00\x20" + b"t" * 32)


def saying(listener='proxy_protocol_from = "127.0.0.1"', more=""):
    return f'listener "http" {{ bind = "127.0.0.1:@http@", {listener} }}\n{more}{SAY}'


def said(port, data, **kwargs):
    return raw.request(port, data, **kwargs).body.decode()


# --- in ---

@pytest.mark.parametrize("header,client", [
    (V1, "192.0.2.7"), (V2, "192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"), (v2(0x21, block6()), "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 443\r\n", "192.0.2.7"), (v2(0x12, block4()), "192.0.2.7"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"), (b"PROXY UNKNOWN what is not said here\r\n", "127.0.0.1"),
    (v2(0x00, b"", 0x20), "127.0.0.1"), (v2(0x11, block4(), 0x20), "127.0.0.1"), (v2(0x00, b"\xee\0\1x"), "127.0.0.1"),
    (v2(0x31, b"/run/x.sock".ljust(108, b"\0") + bytes(108)), "unix:"),
    (v2(0x11, block4() + b"\xee\x0f\x01" + b"t" * 0xf01), "192.0.2.7"),
])
def test_address_follows_the_header(start, header, client):
    gateway = start(saying())
    assert said(gateway.port(), header + GET) == f"{client} {client}"
    assert gateway.wait_access(1)[0]["client"] == client


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_cut_at_every_byte(start, header):
    gateway = start(saying(f'proxy_protocol_from = "127.0.0.1", header_timeout = "{LONG_S}s"'))  # a busy machine makes each pause longer
    data = header + LAST
    for cut in range(1, len(header) + 3):
        with raw.connect(gateway.port(), timeout=LONG_S) as s:
            s.sendall(data[:cut])
            time.sleep(0.002)
            s.sendall(data[cut:])
            assert raw.Response(s).body == b"192.0.2.7 192.0.2.7", cut
    with raw.connect(gateway.port(), timeout=LONG_S) as s:
        for at in range(len(data)):
            s.sendall(data[at:at + 1])
            time.sleep(0.001)
        assert raw.Response(s).body == b"192.0.2.7 192.0.2.7"


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_kept_and_pipelined_requests_keep_the_address(start, header):
    gateway = start(saying())
    with raw.connect(gateway.port()) as s:
        s.sendall(header + GET + GET)
        first = raw.Response(s)
        assert first.body == raw.Response(s, rest=first.rest).body == b"192.0.2.7 192.0.2.7"
        time.sleep(0.05)
        s.sendall(GET)
        assert raw.Response(s).body == b"192.0.2.7 192.0.2.7"
        s.sendall(V1 + GET)  # only in front of all
        assert raw.Response(s).status == 400


@pytest.mark.parametrize("data", [
    GET, b"X", b"\x16\x03\x01\x02\x00\x01", b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n" + GET,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n" + GET, b"PROXY TCP4 192.0.2.07 198.51.100.1 4711 443\r\n" + GET,
    b"PROXY UNKNOWN" + b"x" * 100 + b"\r\n" + GET, b"\r\n\r\n" + GET, SIGNATURE + b"\x21\x11\x00\x0b" + block4() + GET,
    SIGNATURE + b"\x31\x11\x00\x0c" + block4() + GET, SIGNATURE + b"\x22\x11\x00\x0c" + block4() + GET,
    SIGNATURE + b"\x21\x41\x00\x0c" + block4() + GET, SIGNATURE + b"\x21\x11\xff\xff",
])
def test_no_header_no_answer(start, data):
    gateway = start(saying())
    assert raw.send_all(gateway.port(), data, timeout=5) == b""
    assert gateway.counters()["proxy_headers_bad"] == 1
    gateway.wait_err(r"closed a connection from 127\.0\.0\.1, which is in proxy_protocol_from: ")
    assert said(gateway.port(), V1 + LAST) == "192.0.2.7 192.0.2.7"


@pytest.mark.parametrize("data", [b"", V1[:20], V2[:14], V2[:40]])
def test_end_inside_the_header(start, data):
    gateway = start(saying())
    began = time.monotonic()
    assert raw.send_all(gateway.port(), data, shut=True) == b""
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_other_peers_are_never_believed(start, header):
    gateway = start(saying('proxy_protocol_from = { "127.0.0.2", "10.0.0.0/8" }'))
    assert said(gateway.port(), GET) == "127.0.0.1 127.0.0.1"
    with raw.connect(gateway.port()) as s:
        s.sendall(header + GET)
        assert raw.Response(s).status == 400
    assert gateway.wait_access(1, status=400)[0]["client"] == "127.0.0.1"
    with socket.create_connection(("127.0.0.1", gateway.port()), 10, source_address=("127.0.0.2", 0)) as s:
        s.sendall(header + GET)
        assert raw.Response(s).body == b"192.0.2.7 192.0.2.7"
    assert gateway.counters()["proxy_headers_bad"] == 0


def test_listener_without_the_key(start):
    gateway = start(saying(""))
    with raw.connect(gateway.port()) as s:
        s.sendall(V1 + GET)
        assert raw.Response(s).status == 400


def test_header_timeout_is_absolute(start):
    gateway = start(saying('proxy_protocol_from = "127.0.0.0/8", header_timeout = "600ms"'))
    for header in (b"", V1[:-1], V2[:-1]):
        began = time.monotonic()
        with raw.connect(gateway.port()) as s:
            try:
                for at in range(0, len(header)):
                    s.sendall(header[at:at + 1])
                    time.sleep(0.04)
            except OSError:
                pass
            assert raw.read_all(s)[0] == b""
        assert 0.4 < time.monotonic() - began < 4
    assert gateway.counters()["proxy_headers_bad"] == 3


def test_idle_connection_behind_the_header(start):
    gateway = start(saying('proxy_protocol_from = "127.0.0.1", header_timeout = "500ms"'))
    with raw.connect(gateway.port()) as s:
        s.sendall(V2)
        began = time.monotonic()
        assert raw.read_all(s)[0] == b""
        assert 0.3 < time.monotonic() - began < 3


def tls_listener(certificate, more=""):
    return f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}, proxy_protocol_from = "127.0.0.1", {more}'


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_before_tls(start, certificate, header):
    gateway = start(saying(tls_listener(certificate)))
    for pause in (0, 0.05):
        s = raw.connect(gateway.port())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = raw.insecure_tls().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        if pause:
            s.sendall(header)
            time.sleep(pause)
            s.sendall(outgoing.read())
        else:
            s.sendall(header + outgoing.read())  # the ClientHello in the same segment
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(s.recv(65536))
        tls.write(LAST)
        s.sendall(outgoing.read())
        answer = b""
        while got := s.recv(65536):
            incoming.write(got)
            try:
                while part := tls.read(65536):
                    answer += part
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
        s.close()
        assert answer.endswith(b"192.0.2.7 192.0.2.7") and b"x-tls: TLSv1.3" in answer
    assert gateway.counters()["tls_handshakes"] == 2


def test_tls_timeout_behind_the_header(start, certificate):
    gateway = start(saying(tls_listener(certificate, 'tls_timeout = "500ms"')))
    with raw.connect(gateway.port()) as s:
        s.sendall(V1)
        began = time.monotonic()
        assert raw.read_all(s)[0] == b""
        assert 0.3 < time.monotonic() - began < 3
    assert gateway.counters()["tls_failures"] == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl(start, certificate, scheme):
    gateway = start(saying(tls_listener(certificate) if scheme == "https" else 'proxy_protocol_from = "127.0.0.0/8"'))
    done = subprocess.run(["curl", "-sk", "--haproxy-protocol", f"{scheme}://127.0.0.1:{gateway.port()}/"], capture_output=True,
                          text=True, timeout=20)
    assert done.stdout == "127.0.0.1 127.0.0.1"


def test_forwarding_headers_follow(start, recorder):
    server = recorder()
    gateway = start(forwarding(server.address, listener='proxy_protocol_from = "127.0.0.1", trusted_proxies = "203.0.113.0/24"'))
    lie = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
    raw.request(gateway.port(), V1 + lie)
    head = server.bytes
    assert b"X-Forwarded-For: 192.0.2.7\r\n" in head and b"X-Forwarded-Port: 443\r\n" in head and b"9.9.9.9" not in head
    raw.request(gateway.port(), v2(0x11, block4("203.0.113.5")) + lie)  # the peer that the header names is trusted
    assert b"X-Forwarded-For: 9.9.9.9, 203.0.113.5\r\n" in server.bytes
    assert sorted(line["client"] for line in gateway.wait_access(2)) == ["192.0.2.7", "9.9.9.9"]
    raw.request(gateway.port(), v2(0, b"", 0x20) + lie)
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in server.bytes


def test_websocket_behind_a_header(start, origin):
    server = origin()
    gateway = start(forwarding(server.address, listener='proxy_protocol_from = "127.0.0.1"', pool="probe = false,"))
    head, key = raw.handshake_bytes("/ws")
    with raw.connect(gateway.port()) as s:
        s.sendall(V2 + head)
        response = raw.Response(s)
        assert response.status == 101 and response.get("sec-websocket-accept") == raw.accept_of(key)
        s.sendall(raw.frame(b"hello"))
        assert raw.read_frame(s, response.rest)[1] == b"hello"
    lines = gateway.wait_access(2)
    assert {line["client"] for line in lines} == {"192.0.2.7"}


# --- out ---

def served(peer):
    """Reads a PROXY header off a scripted peer: (source, destination) texts, or None for our own connection."""
    first = peer.take(12)
    if first != SIGNATURE:
        peer.data = first + peer.data
        words = peer.until(b"\r\n").decode().split()
        assert words[0] == "PROXY"
        return None if words[1] == "UNKNOWN" else (f"{words[2]}:{words[4]}", f"{words[3]}:{words[5]}")
    command, family, size = struct.unpack("!BBH", peer.take(4))
    block = peer.take(size)
    if command == 0x20:
        assert family == 0 and block == b""
        return None
    assert command == 0x21 and family == 0x11
    sport, dport = struct.unpack("!HH", block[8:])
    return f"{socket.inet_ntoa(block[:4])}:{sport}", f"{socket.inet_ntoa(block[4:8])}:{dport}"


@pytest.fixture
def headers(scripted):
    """A server that answers each request with what the PROXY header of its connection said."""
    class Headers:
        def __init__(self):
            self.seen = []
            self.server = scripted(self.handle)
            self.address = self.server.address

        def handle(self, peer):
            says = served(peer)
            self.seen.append(says)
            while True:
                head = peer.head()
                peer.body(head)
                self.last = head
                peer.answer(repr(says).encode())
    return Headers()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_header_towards_servers(start, headers, version):
    gateway = start(forwarding(headers.address, pool=f'probe = false, proxy_protocol = "{version}",'))
    want = []
    for client in range(2):
        with raw.connect(gateway.port()) as s:
            name = "%s:%d" % s.getsockname()
            for _ in range(2):
                s.sendall(GET)
                assert raw.Response(s).body.decode() == repr((name, f"127.0.0.1:{gateway.port()}"))
                want.append((name, f"127.0.0.1:{gateway.port()}"))
    assert headers.seen == want  # a connection each: none was kept, for the same client or another
    assert b"connection: close" in headers.last.lower()
    counters = gateway.counters()
    assert counters["server_reused"] == 0 and counters["server_connects"] == counters["server_closed"] == 4


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_post_and_upgrade_towards_servers(start, headers, version):
    gateway = start(forwarding(headers.address, pool=f'probe = false, proxy_protocol = "{version}",'))
    with raw.connect(gateway.port()) as s:
        body = os.urandom(200000)
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert raw.Response(s).body.decode() == repr(("%s:%d" % s.getsockname(), f"127.0.0.1:{gateway.port()}"))
        head, _ = raw.handshake_bytes("/")
        s.sendall(head)
        assert raw.Response(s).status == 200  # the server did not upgrade; the header came first here, too
    assert len(headers.seen) == 2


def test_address_is_req_client(start, headers):
    gateway = start(forwarding(headers.address, pool='probe = false, proxy_protocol = "v1",', listener='trusted_proxies = "127.0.0.1"'))
    with raw.connect(gateway.port()) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
        assert raw.Response(s).body.decode() == repr(("203.0.113.9:0", f"127.0.0.1:{gateway.port()}"))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_header_before_tls_towards_servers(start, scripted, certificate, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    says = []

    def handle(peer):
        want = 16 if version == "v2" else 1
        while peer.sock.recv(want, socket.MSG_PEEK | socket.MSG_WAITALL) and len(peer.data) == 0:
            if version == "v2":
                peer.data = peer.sock.recv(16 + struct.unpack("!H", peer.sock.recv(16, socket.MSG_PEEK)[14:])[0])
            else:
                while not peer.data.endswith(b"\r\n"):
                    peer.data += peer.sock.recv(1)
        says.append(served(peer))
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        peer.head()
        peer.answer()

    server = scripted(handle)
    gateway = start(forwarding(f"localhost:{server.port}", pool=f'probe = false, proxy_protocol = "{version}", tls = {{ ca = "{certificate[0]}" }},'))
    with raw.connect(gateway.port()) as s:
        name = "%s:%d" % s.getsockname()
        s.sendall(GET)
        assert raw.Response(s).status == 200
    assert says == [(name, f"127.0.0.1:{gateway.port()}")]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("probe", ['{ path = "/up", every = "200ms" }', '"tcp"'])
def test_probes_are_our_own_connections(start, scripted, version, probe):
    seen = []

    def handle(peer):
        seen.append(served(peer))
        peer.head()
        peer.answer()

    server = scripted(handle)
    gateway = start(forwarding(server.address, pool=f'probe = {probe}, proxy_protocol = "{version}",'), rest=False)
    gateway.wait_err(r" up: ")
    wait_for(lambda: seen, 5, "a probe")
    with raw.connect(gateway.port()) as s:
        name = "%s:%d" % s.getsockname()
        s.sendall(GET)
        assert raw.Response(s).status == 200
    assert (name, f"127.0.0.1:{gateway.port()}") in seen
    assert [says for says in seen if says != (name, f"127.0.0.1:{gateway.port()}")] == [None] * (len(seen) - 1)


def test_probe_of_another_port_has_no_header(start, headers, recorder):
    health = recorder()
    gateway = start(forwarding(headers.address, pool=f'probe = {{ port = {health.port}, path = "/up" }}, proxy_protocol = "v2",'))
    gateway.wait_err(r" up: ")
    assert health.bytes.startswith(b"GET /up HTTP/1.1\r\n")
    assert raw.request(gateway.port(), LAST).status == 200


@pytest.mark.parametrize("probe", ['{ path = "/" }', '{ websocket = true, path = "/ws" }'])
def test_two_gateways(start, origin, probe):
    server = origin()
    inner = start(forwarding(server.address, listener='proxy_protocol_from = "127.0.0.1"', pool="") + 'on_open(function(t) log.info("opened by %s", t.client) end)\n')
    outer = start(forwarding(f"127.0.0.1:{inner.port()}", pool=f'probe = {probe}, proxy_protocol = "v2",',
                             listener='trusted_proxies = "127.0.0.1"'))
    outer.wait_err(" up: ")
    s, response = raw.open_websocket(outer.port(), "/ws", extra=b"X-Forwarded-For: 203.0.113.77\r\n")
    with s:
        assert response.status == 101
        s.sendall(raw.frame(b"through"))
        assert raw.read_frame(s, response.rest)[1] == b"through"
    inner.wait_err(r"opened by 203\.0\.113\.77")
    assert inner.counters()["proxy_headers_bad"] == 0


haproxy = pytest.mark.skipif(not shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin"), reason="no haproxy here")


class Haproxy:
    def __init__(self, folder, text):
        self.port = free_port()
        file = folder / "haproxy.cfg"
        file.write_text("defaults\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n" + text.replace("@port@", str(self.port)))
        path = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
        self.proc = subprocess.Popen([path, "-db", "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", self.port)) == 0, 10, "haproxy")
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.wait(10)


@haproxy
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_from_haproxy(start, tmp_path, send):
    gateway = start(saying('proxy_protocol_from = "127.0.0.1"'), rest=False)
    with Haproxy(tmp_path, f"listen a\n  mode tcp\n  bind 127.0.0.1:@port@\n  server s 127.0.0.1:{gateway.port()} {send}\n") as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), 10, source_address=("127.0.0.9", 0)) as s:
            s.sendall(LAST)
            assert raw.Response(s).body == b"127.0.0.9 127.0.0.9"


@haproxy
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_to_haproxy(start, tmp_path, version):
    say = 'http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst_port]"'
    with Haproxy(tmp_path, f"frontend a\n  mode http\n  bind 127.0.0.1:@port@ accept-proxy\n  {say}\n") as proxy:
        gateway = start(forwarding(f"127.0.0.1:{proxy.port}", pool=f'probe = {{ path = "/" }}, proxy_protocol = "{version}",'))
        with socket.create_connection(("127.0.0.1", gateway.port()), 10, source_address=("127.0.0.9", 0)) as s:
            s.sendall(LAST)
            assert raw.Response(s).body.decode().strip() == f"127.0.0.9 {s.getsockname()[1]} {gateway.port()}"


# --- the file ---

@pytest.mark.parametrize("text,says", [
    ('listener "a" { bind = "127.0.0.1:1", proxy_protocol_from = "everyone" }', 'proxy_protocol_from: "everyone" is no address or block'),
    ('listener "a" { bind = "127.0.0.1:1", proxy_protocol_from = { "10.0.0.1/8" } }', "no bits behind the prefix"),
    ('pool "p" { servers = { "127.0.0.1:1" }, proxy_protocol = "v3" }', "proxy_protocol"),
    ('pool "p" { servers = { "127.0.0.1:1" }, proxy_protocol = true }', "proxy_protocol"),
])
def test_mistakes_are_named(moongate, tmp_path, text, says):
    file = tmp_path / "a.lua"
    file.write_text('listener "b" { bind = "127.0.0.1:2" }\n' + text + '\nroute "r" { reply(200) }\n')
    done = moongate("check", file)
    assert done.returncode == 1 and says in done.stderr + done.stdout


def test_dump(moongate, tmp_path):
    file = tmp_path / "a.lua"
    file.write_text('listener "a" { bind = "127.0.0.1:1", proxy_protocol_from = { "10.0.0.0/8" } }\n'
                    'pool "p" { servers = { "127.0.0.1:1" }, proxy_protocol = "v2" }\nroute "r" { forward "p" }\n')
    done = moongate("dump", file)
    assert '"proxy_protocol": "v2"' in done.stdout and "10.0.0.0/8" in done.stdout
