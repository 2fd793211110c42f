# SPDX-License-Identifier: MIT
"""TLS on both sides (requirements part C): versions, certificates by SNI, resumption, verified servers, clean and unclean ends."""

import hashlib
import random
import socket
import ssl
import subprocess
import threading
import time

import pytest

import raw
from conftest import make_certificate
from gateway import forwarding, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # old ones are offered on purpose

GET = b"GET %s HTTP/1.1\r\nHost: example.com\r\n\r\n"
V = ssl.TLSVersion


def https(certificate, more="", tls="", body='function(req) return reply(200, req.tls.version .. " " .. req.tls.cipher) end'):
    return (f'listener "https" {{ bind = "127.0.0.1:@https@", tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}", {tls} }}, {more} }}\n'
            f'route "all" {{ {body} }}\n')


def hello(gateway, context=None, name=None, session=None, port="https"):
    s = socket.create_connection(("127.0.0.1", gateway.port(port)), 10)
    return (context or raw.insecure_tls()).wrap_socket(s, server_hostname=name or "localhost", session=session)


def ask(s, path=b"/"):
    s.sendall(GET % path)
    return raw.Response(s)


def failed_handshake(gateway, context, name=None):
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as error:
        hello(gateway, context, name).close()
    return str(error.value)


def failures(gateway, count):
    wait_for(lambda: gateway.counters()["tls_failures"] == count, 5, f"{count} failed handshakes")


# --- 17: versions, suites, names ---

@pytest.mark.parametrize("version,text", [(V.TLSv1_2, "TLSv1.2"), (V.TLSv1_3, "TLSv1.3")])
def test_versions(start, certificate, version, text):
    gateway = start(https(certificate))
    with hello(gateway, raw.insecure_tls(minimum_version=version, maximum_version=version)) as s:
        assert s.version() == text and s.compression() is None
        assert ask(s).body.decode() == f"{text} {s.cipher()[0]}"
    assert gateway.wait_access(1)[0]["tls"] == text


def test_old_versions_are_refused(start, certificate):
    gateway = start(https(certificate))
    for version in (V.TLSv1, V.TLSv1_1):
        context = raw.insecure_tls()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = version, version
        assert "protocol version" in failed_handshake(gateway, context).lower().replace("_", " ")
    failures(gateway, 2)


def test_least_version(start, certificate):
    gateway = start(https(certificate, tls='min = "1.3"'))
    failed_handshake(gateway, raw.insecure_tls(maximum_version=V.TLSv1_2))
    with hello(gateway) as s:
        assert s.version() == "TLSv1.3"


def test_only_aead_suites(start, tmp_path, certificate):
    rsa = [str(tmp_path / name) for name in ("rsa.pem", "rsa.key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", rsa[1], "-out", rsa[0], "-days", "2",
                    "-subj", "/CN=rsa.test", "-addext", "subjectAltName=DNS:rsa.test"], check=True, capture_output=True)
    gateway = start(https(certificate, tls=f'certs = {{ {{ cert = "{rsa[0]}", key = "{rsa[1]}" }} }}'))
    context = raw.insecure_tls(maximum_version=V.TLSv1_2)
    context.set_ciphers("ALL:@SECLEVEL=0")
    names = [suite["name"] for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"]
    assert "ECDHE-RSA-AES128-SHA" in names
    taken = set()
    for server_name in ("localhost", "rsa.test"):
        for name in names:
            context.set_ciphers(f"{name}:@SECLEVEL=0")
            try:
                hello(gateway, context, server_name).close()
                taken.add(name)
            except (ssl.SSLError, ConnectionResetError):
                pass
    assert taken == {f"ECDHE-{kind}-{suite}" for kind in ("ECDSA", "RSA")
                     for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")}


def test_no_renegotiation_and_no_early_data(start, certificate):
    gateway = start(https(certificate))
    address = f"127.0.0.1:{gateway.port('https')}"
    done = subprocess.run(["openssl", "s_client", "-connect", address, "-tls1_2"], input="R\n", capture_output=True, text=True, timeout=20)
    assert "no renegotiation" in done.stdout + done.stderr
    ask_first = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    done = subprocess.run(["openssl", "s_client", "-connect", address, "-tls1_3", "-ign_eof"], input=ask_first, capture_output=True,
                          text=True, timeout=20)
    assert "Max Early Data: 0" in done.stdout and "Post-Handshake New Session Ticket arrived" in done.stdout


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sni")
    return {name: make_certificate(folder, name, alternatives) for name, alternatives in {
        "default": "DNS:default.test", "exact": "DNS:a.example.com,DNS:other.test", "wild": "DNS:*.example.com",
        "named": "DNS:ignored.test"}.items()}


@pytest.mark.parametrize("name,expected", [
    ("a.example.com", "exact"), ("A.EXAMPLE.COM", "exact"), ("other.test", "exact"), ("b.example.com", "wild"),
    ("x.b.example.com", "default"), ("example.com", "default"), ("nowhere.test", "default"), ("given.test", "named"),
    ("ignored.test", "default"), (None, "default"),
])
def test_certificate_by_sni(start_sni, name, expected):
    gateway, certificates = start_sni
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", gateway.port("https")), 10) as plain:
        with context.wrap_socket(plain, server_hostname=name) as s:
            pem = ssl.DER_cert_to_PEM_cert(s.getpeercert(binary_form=True))
            assert pem.split() == open(certificates[expected][0]).read().split()
            assert ask(s).body.decode() == (name or "none").lower()


@pytest.fixture(scope="module")
def start_sni(start_shared, certificates):
    pair = {name: f'cert = "{cert}", key = "{key}"' for name, (cert, key) in certificates.items()}
    return start_shared(f'''
        listener "https" {{ bind = "127.0.0.1:@https@", tls = {{ {pair["default"]}, certs = {{
            {{ {pair["wild"]} }}, {{ {pair["exact"]} }}, ["given.test"] = {{ {pair["named"]} }} }} }} }}
        route "all" {{ function(req) return reply(200, req.tls.sni or "none") end }}'''), certificates


def test_alpn(start, certificate):
    gateway = start(https(certificate, body='function(req) return reply(200, tostring(req.tls.alpn)) end'))
    context = raw.insecure_tls()
    with hello(gateway, context) as s:
        assert s.selected_alpn_protocol() is None and ask(s).body == b"nil"
    for offered in (["http/1.1"], ["h2", "http/1.1"], ["http/1.1", "h2"]):
        context.set_alpn_protocols(offered)
        with hello(gateway, context) as s:
            assert s.selected_alpn_protocol() == "http/1.1" and ask(s).body == b"http/1.1"
    context.set_alpn_protocols(["h2"])
    assert "no application protocol" in failed_handshake(gateway, context)


def test_plain_http_to_a_tls_port(start, certificate):
    gateway = start(https(certificate))
    got = raw.send_all(gateway.port("https"), GET % b"/")
    assert b"HTTP/1.1 200" not in got
    failures(gateway, 1)
    with hello(gateway) as s:
        assert ask(s).status == 200


# --- 19: resumption ---

@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3])
def test_tickets_resume_on_every_worker(start, certificate, version):
    """A counter in an upvalue counts per worker: it stays below the number of requests when both served."""
    gateway = start("local served = 0\n" + https(certificate, body='''function(req)
        served = served + 1
        return reply(200, tostring(served))
    end'''), workers=2)
    context = raw.insecure_tls(minimum_version=version, maximum_version=version)
    with hello(gateway, context) as s:
        assert not s.session_reused
        ask(s)
        session = s.session
        assert session.has_ticket
    open_, most = [], 0
    for i in range(30):
        s = hello(gateway, context, session=session)
        assert s.session_reused
        most = max(most, int(ask(s).body))
        open_.append(s)
    for s in open_:
        s.close()
    assert most < 31, "both workers served"


def test_a_session_does_not_cross_listeners(start, certificate):
    text = "".join(f'listener "{name}" {{ bind = "127.0.0.1:@{name}@", tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }} }}\n'
                   for name in ("one", "two"))
    gateway = start(text + 'route "all" { reply(200, "ok") }')
    context = raw.insecure_tls()
    with hello(gateway, context, port="one") as s:
        ask(s)
        session = s.session
    with hello(gateway, context, port="one", session=session) as s:
        assert s.session_reused
    try:
        with hello(gateway, context, port="two", session=session) as s:
            assert not s.session_reused
    except ssl.SSLError:
        pass  # refusing is as good


# --- 18: records and ends ---

def test_many_requests_in_one_record(start, origin, certificate):
    gateway = start(forwarding(origin().address, listener=f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}'))
    with raw.connect(gateway.port(), tls=raw.insecure_tls()) as s:
        s.sendall(b"".join(GET % (b"/size/%d" % i) for i in range(100)))
        rest = b""
        for i in range(100):
            response = raw.Response(s, rest=rest)
            rest = response.rest
            assert len(response.body) == i


def test_records_of_one_byte(start, origin, certificate):
    gateway = start(forwarding(origin().address, listener=f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}'))
    with raw.connect(gateway.port(), tls=raw.insecure_tls()) as s:
        for byte in b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n" + b"x" * 40:
            s.sendall(bytes([byte]))
        assert raw.Response(s).body.endswith(b"x" * 40)


def test_our_end_is_told_by_close_notify(start, origin, certificate):
    """A body that ends with the connection is whole only when close_notify says so."""
    gateway = start(forwarding(origin().address, listener=f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}'))
    plain = socket.create_connection(("127.0.0.1", gateway.port()), 10)
    with raw.insecure_tls().wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as s:
        s.sendall(b"GET /size/100000?chunked=1 HTTP/1.0\r\n\r\n")
        got = b""
        while more := s.recv(65536):
            got += more
    assert len(got.partition(b"\r\n\r\n")[2]) == 100000


@pytest.fixture(scope="module")
def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def ending(context, polite, head=b"HTTP/1.1 200 OK\r\n\r\n"):
    def handler(peer):
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        peer.head()
        peer.send(head + b"half of it")
        if polite:
            try:
                peer.sock.unwrap()
            except (ssl.SSLError, OSError):
                pass
    return handler


@pytest.mark.parametrize("old", [False, True])
def test_eof_without_close_notify_is_an_abort(start, scripted, server_context, certificate, old):
    gateway = start(forwarding(scripted(ending(server_context, False)).address, pool=f'probe = false, tls = {{ ca = "{certificate[0]}" }},'))
    with raw.connect(gateway.port()) as s:
        if old:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            got, broken = raw.read_all(s)
            assert broken, "nothing but a reset tells a cut body from a whole one"
        else:
            s.sendall(GET % b"/")
            with pytest.raises(EOFError):
                raw.Response(s)
    entry = gateway.wait_access(1)[0]
    assert (entry["cause"], entry["side"], entry["status"]) == ("response cut short", "server", 200)


@pytest.mark.parametrize("old", [False, True])
def test_close_notify_is_an_end(start, scripted, server_context, certificate, old):
    gateway = start(forwarding(scripted(ending(server_context, True)).address, pool=f'probe = false, tls = {{ ca = "{certificate[0]}" }},'))
    if old:
        got = raw.send_all(gateway.port(), b"GET / HTTP/1.0\r\n\r\n")
        assert got.endswith(b"\r\n\r\nhalf of it")
    else:
        assert raw.request(gateway.port(), GET % b"/").body == b"half of it"
    assert gateway.wait_access(1)[0]["cause"] == "done"


def test_a_client_that_ends_without_close_notify(start, origin, certificate):
    """Most do: what they asked for was answered, and nothing is logged as broken."""
    gateway = start(forwarding(origin().address, listener=f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}'))
    with raw.connect(gateway.port(), tls=raw.insecure_tls()) as s:
        assert ask(s, b"/size/10").status == 200
    assert gateway.wait_access(1)[0]["cause"] == "done"
    assert gateway.counters()["tls_failures"] == 0


# --- 20: towards servers ---

@pytest.mark.parametrize("tls,status,why", [
    ("tls = true", 502, "self-signed certificate"),
    ("tls = {}", 502, "self-signed certificate"),
    ('tls = { ca = "@CA@" }', 200, None),
    ("tls = { verify = false }", 200, None),
    ('tls = { ca = "@CA@", sni = "host.example.com" }', 200, None),
    ('tls = { ca = "@CA@", sni = "localhost" }', 200, None),
    ('tls = { ca = "@CA@", sni = "other.test" }', 502, "ostname mismatch"),
    ('tls = { verify = false, sni = "other.test" }', 200, None),
])
def test_servers_are_verified_by_default(start, origin, certificate, tls, status, why):
    server = origin(args=("--tls-cert", certificate[0], "--tls-key", certificate[1]))
    gateway = start(forwarding(server.address, pool="probe = false, retries = 0, " + tls.replace("@CA@", certificate[0])))
    assert raw.request(gateway.port(), GET % b"/size/5").status == status
    s, response = raw.open_websocket(gateway.port())
    s.close()
    assert response.status == (101 if status == 200 else 502)
    if why:
        entry = gateway.wait_access(2)[0]
        assert entry["cause"] == "server TLS failed" and entry["side"] == "server" and why in entry["detail"]


def test_a_server_is_asked_by_its_name(start, scripted, certificate):
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda s, name, c: names.append(name)
    context.set_alpn_protocols(["http/1.1"])

    def handler(peer):
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        names.append(peer.sock.selected_alpn_protocol())
        peer.head()
        peer.answer()

    server = scripted(handler)
    gateway = start(forwarding(f"localhost:{server.port}", pool=f'probe = false, tls = {{ ca = "{certificate[0]}" }},'))
    assert raw.request(gateway.port(), GET % b"/").status == 200
    assert names == ["localhost", "http/1.1"]
    gateway = start(forwarding(server.address, pool=f'probe = false, tls = {{ ca = "{certificate[0]}" }},'))
    assert raw.request(gateway.port(), GET % b"/").status == 200
    assert names[2:] == [None, "http/1.1"], "an address is no name (RFC 6066)"


def test_probes_use_tls_and_verify_too(start, origin, certificate):
    server = origin(args=("--tls-cert", certificate[0], "--tls-key", certificate[1]))
    good = start(forwarding(server.address, pool=f'probe = {{ path = "/healthz" }}, tls = {{ ca = "{certificate[0]}" }},'))
    assert raw.request(good.port(), GET % b"/size/5").status == 200
    bad = start(forwarding(server.address, pool='probe = { path = "/healthz", every = "500ms", fast = "200ms" }, tls = true,'))
    bad.wait_err(r"down: GET /healthz: .*(certificate|TLS)", 5)
    assert raw.request(bad.port(), GET % b"/size/5").status == 503


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"x", b"\x16\x03\x01\x00\x02\x01\x00", b""])
def test_plaintext_from_a_tls_server_is_502(start, scripted, answer):
    def handler(peer):
        peer.sock.recv(100)
        peer.send(answer)

    gateway = start(forwarding(scripted(handler).address, pool="probe = false, retries = 0, tls = { verify = false },"))
    assert raw.request(gateway.port(), GET % b"/").status == 502
    entry = gateway.wait_access(1)[0]
    assert entry["side"] == "server" and entry["status"] == 502


def test_tls_from_a_plaintext_server_is_502(start, origin, certificate):
    server = origin(args=("--tls-cert", certificate[0], "--tls-key", certificate[1]))
    gateway = start(forwarding(server.address))
    assert raw.request(gateway.port(), GET % b"/").status == 502
    assert gateway.wait_access(1)[0]["side"] == "server"


def test_a_server_that_stalls_in_its_handshake(start, scripted):
    gateway = start(forwarding(scripted(lambda peer: peer.wait_closed()).address,
                               pool='probe = false, retries = 0, tls = { verify = false }, connect_timeout = "600ms",'))
    begin = time.monotonic()
    assert raw.request(gateway.port(), GET % b"/").status in (502, 504)
    assert time.monotonic() - begin < 2.5
    assert gateway.wait_access(1)[0]["side"] == "server"


# --- 21: stalled handshakes ---

def client_hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    s = raw.insecure_tls().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        s.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("how", ["silent", "part", "drip", "half"])
def test_a_stalled_handshake_ends_at_tls_timeout(start, certificate, how):
    gateway = start(https(certificate, more='tls_timeout = "700ms",'))
    data = client_hello()
    with raw.connect(gateway.port("https")) as s:
        begin = time.monotonic()
        if how == "part":
            s.sendall(data[:50])
        elif how == "half":
            s.sendall(data)  # and never the Finished
        elif how == "drip":
            threading.Thread(target=drip, args=(s, data), daemon=True).start()
        raw.read_all(s)
        assert 0.6 < time.monotonic() - begin < 2.2
    failures(gateway, 1)


def drip(s, data):
    try:
        for byte in data:
            s.sendall(bytes([byte]))
            time.sleep(0.1)
    except OSError:
        pass


def test_stalled_handshakes_hold_nobody_up(start, certificate):
    gateway = start(https(certificate, more='tls_timeout = "10s",'))
    stalled = [raw.connect(gateway.port("https")) for i in range(50)]
    part = client_hello()[:100]
    for s in stalled:
        s.sendall(part)
    begin = time.monotonic()
    for i in range(10):
        with hello(gateway) as s:
            assert ask(s).status == 200
    assert time.monotonic() - begin < 3
    for s in stalled:
        s.close()
    failures(gateway, 50)


# --- all four combinations ---

SIDES = [(front, back) for front in ("plain", "tls") for back in ("plain", "tls")]


@pytest.fixture
def between(start, origin, certificate):
    """between(front, back) -> (gateway, how clients connect)."""
    def run(front, back):
        server = origin(args=("--tls-cert", certificate[0], "--tls-key", certificate[1]) if back == "tls" else ())
        gateway = start(forwarding(
            server.address, listener=f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}' if front == "tls" else "",
            pool='tls = { ca = "%s" },' % certificate[0] if back == "tls" else ""))
        return gateway, raw.insecure_tls() if front == "tls" else None
    return run


@pytest.mark.parametrize("front,back", SIDES)
def test_bodies_of_5_mib(between, tmp_path, certificate, front, back):
    gateway, _ = between(front, back)
    scheme = "https" if front == "tls" else "http"
    base = gateway.url("", scheme=scheme, port="http", host="localhost")
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(random.Random(7).randbytes(5 << 20))
    curl = ["curl", "-sS", "--fail", "--cacert", certificate[0], "--resolve", f"localhost:{gateway.port()}:127.0.0.1", "-o", str(got)]
    subprocess.run([*curl, f"{base}/size/{5 << 20}"], check=True, timeout=60)
    plain = got.read_bytes()
    assert len(plain) == 5 << 20
    subprocess.run([*curl, f"{base}/size/{5 << 20}?chunked=1"], check=True, timeout=60)
    assert got.read_bytes() == plain
    subprocess.run([*curl, f"{base}/size/{5 << 20}?close=1"], check=True, timeout=60)
    assert got.read_bytes() == plain
    for more in ([], ["-H", "Transfer-Encoding: chunked"]):
        subprocess.run([*curl, *more, "--data-binary", f"@{sent}", f"{base}/echo"], check=True, timeout=60)
        assert got.read_bytes().endswith(sent.read_bytes())


@pytest.mark.parametrize("front,back", SIDES)
def test_websocket_of_random_sizes(between, front, back):
    """16 MiB each way as frames of random sizes, written and read in random pieces: equal digests."""
    gateway, tls = between(front, back)
    rng = random.Random(f"{front}{back}")
    s, response = raw.open_websocket(gateway.port(), tls=tls, timeout=60)
    assert response.status == 101
    payloads, total = [], 0
    while total < 16 << 20:
        payloads.append(rng.randbytes(rng.choice((1, 125, 126, 4000, 65535, 65536, 300000))))
        total += len(payloads[-1])
    sent, got = hashlib.sha256(), hashlib.sha256()
    wire = b"".join(b"%b%b" % (head_of(len(payload)), payload) for payload in payloads)  # a mask of zeros masks nothing
    if tls:
        s = Duplex(s)
    with s:
        def write():
            at = 0
            while at < len(wire):
                size = rng.choice((1, 100, 16384, 70000, 200000))
                s.sendall(wire[at:at + size])
                at += size
        writer = threading.Thread(target=write)
        writer.start()
        want = sum(len(payload) + len(head_of(len(payload))) - 4 for payload in payloads)
        data, reader = [response.rest], random.Random(5)
        have = len(response.rest)
        while have < want:
            more = s.recv(reader.choice((10, 5000, 65536)))
            assert more, f"ended after {have} of {want}"
            data.append(more)
            have += len(more)
        writer.join()
    rest = b"".join(data)
    for payload in payloads:
        opcode, echoed, at = frame_at(rest)
        rest = memoryview(rest)[at:]
        sent.update(payload)
        got.update(echoed)
    assert len(rest) == 0 and sent.digest() == got.digest()


def head_of(size):
    """A client's frame head with a mask of zeros."""
    if size < 126:
        return bytes([0x82, 0x80 | size]) + bytes(4)
    if size < 65536:
        return bytes([0x82, 0x80 | 126]) + size.to_bytes(2, "big") + bytes(4)
    return bytes([0x82, 0x80 | 127]) + size.to_bytes(8, "big") + bytes(4)


def frame_at(data):
    size, at = data[1], 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, at = int.from_bytes(data[2:10], "big"), 10
    return data[0] & 15, data[at:at + size], at + size


class Duplex:
    """A TLS socket that one thread may read while another writes: Python's own objects must not be shared like that."""

    def __init__(self, s):
        self.s, self.lock = s, threading.Lock()
        s.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.s.close()

    def _wait(self):
        time.sleep(0.0005)

    def sendall(self, data):
        while data:
            with self.lock:
                try:
                    data = data[self.s.send(data):]
                    continue
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    pass
            self._wait()

    def recv(self, size):
        while True:
            with self.lock:
                try:
                    return self.s.recv(size)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
            self._wait()
