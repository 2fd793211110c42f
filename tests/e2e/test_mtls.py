# SPDX-License-Identifier: MIT
"""Client certificates: asked for by listeners (requirements C19 too), and ours towards servers."""

import datetime
import json
import re
import socket
import ssl
import subprocess
import time

import pytest

import raw
from gateway import forwarding, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
V = ssl.TLSVersion
VERSIONS = pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3], ids=["1.2", "1.3"])
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Authority:
    """A CA made by openssl, and what it signs."""

    def __init__(self, folder, name):
        self.folder = folder / name
        self.folder.mkdir()
        self.cert, key = str(self.folder / "ca.pem"), str(self.folder / "ca.key")
        (self.folder / "index.txt").touch()
        (self.folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self.folder}/index.txt\nnew_certs_dir={self.folder}\nrand_serial=yes\n"
            f"default_md=sha256\npolicy=p\nunique_subject=no\ncertificate={self.cert}\nprivate_key={key}\n"
            "[p]\norganizationName=optional\ncommonName=supplied\n")
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", self.cert,
                 "-days", "2", "-subj", f"/O=Example/CN={name} CA")

    def run(self, *args):
        return subprocess.run(["openssl", *args], check=True, capture_output=True, text=True).stdout

    def sign(self, name, subject=None, extensions="extendedKeyUsage=clientAuth\n", begin=-3600, end=86400):
        """(cert path, key path); begin and end are seconds from now."""
        cert, key, csr, ext = (str(self.folder / f"{name}.{kind}") for kind in ("pem", "key", "csr", "ext"))
        with open(ext, "w") as f:
            f.write(extensions)
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", csr,
                 "-utf8", "-subj", subject or f"/O=Example/CN={name}")
        now = datetime.datetime.utcnow()
        dates = [(now + datetime.timedelta(seconds=s)).strftime("%Y%m%d%H%M%SZ") for s in (begin, end)]
        self.run("ca", "-batch", "-utf8", "-config", str(self.folder / "ca.cnf"), "-in", csr, "-out", cert, "-notext", "-extfile", ext,
                 "-startdate", dates[0], "-enddate", dates[1])
        return cert, key


class Parties:
    def __init__(self, folder):
        self.ca, self.other = Authority(folder, "good"), Authority(folder, "other")
        self.alice = self.ca.sign("alice", extensions="extendedKeyUsage=clientAuth\nsubjectAltName=DNS:alice.example,IP:10.1.2.3,IP:2001:db8::9,"
                                                      "email:alice@example.com,URI:spiffe://example/alice\n")
        self.mallory = self.other.sign("alice")  # the same name, signed by somebody else
        self.old = self.ca.sign("old", begin=-7200, end=-3600)
        self.future = self.ca.sign("future", begin=3600, end=7200)
        self.server = self.ca.sign("server", extensions="extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost\n")


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    return Parties(tmp_path_factory.mktemp("mtls"))


# What rules see, as JSON made by hand: no library is asked for.
SHOW = r'''route "show" { function(req)
  local c = req.tls.cert
  if not c then return reply(200, "null") end
  local san = {}
  for i, name in ipairs(c.san) do san[i] = ("%q"):format(name) end
  return reply(200, ('{"subject":%q,"issuer":%q,"serial":%q,"fingerprint":%q,"not_before":%d,"not_after":%d,"verified":%s,"san":[%s]}'):format(
    c.subject, c.issuer, c.serial, c.fingerprint, c.not_before, c.not_after, c.verified, table.concat(san, ",")):gsub("\\", "\\\\"):gsub('\\\\"', '\\"'), nil)
end }
'''


def listener(certificate, tls, name="https"):
    return f'listener "{name}" {{ bind = "127.0.0.1:@{name}@", tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}", {tls} }} }}\n'


def context(identity=None, version=None):
    made = raw.insecure_tls()
    if version:
        made.minimum_version = made.maximum_version = version
    if identity:
        made.load_cert_chain(*identity)
    return made


def hello(gateway, made, session=None, name="localhost", port="https"):
    s = socket.create_connection(("127.0.0.1", gateway.port(port)), 10)
    return made.wrap_socket(s, server_hostname=name, session=session)


def ask(gateway, made, **kwargs):
    """(what rules saw, the session's socket, closed)"""
    with hello(gateway, made, **kwargs) as s:
        s.sendall(GET)
        body = raw.Response(s).body
        return json.loads(body), s.session, s.session_reused


def refused(gateway, made, **kwargs):
    """The handshake fails; in TLS 1.3 the client learns of it with its first read."""
    with pytest.raises((ssl.SSLError, ConnectionResetError, BrokenPipeError, EOFError)):
        with hello(gateway, made, **kwargs) as s:
            s.sendall(GET)
            raw.Response(s)


# --- require ---

@VERSIONS
def test_require(start, certificate, parties, version):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "require"') + SHOW, settings='log_level = "debug",')
    cert, _, _ = ask(gateway, context(parties.alice, version))
    assert cert["verified"] is True and cert["subject"] == "CN=alice,O=Example"
    for identity in (None, parties.mallory, parties.old, parties.future, parties.server):
        refused(gateway, context(identity, version))
    wait_for(lambda: gateway.counters()["tls_failures"] == 5, 5, "five failed handshakes")
    assert len(gateway.wait_access(1)) == 1
    for why in ("peer did not return a certificate", "certificate verify failed"):
        gateway.wait_err(rf'listener "https": TLS handshake with 127\.0\.0\.1:\d+ failed: .*{why}')


def test_a_ca_means_require(start, certificate, parties):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}"') + SHOW)
    refused(gateway, context())
    assert ask(gateway, context(parties.alice))[0]["verified"]


def test_none_is_none(start, certificate, parties):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "none"') + SHOW)
    assert ask(gateway, context())[0] is None
    assert ask(gateway, context(parties.alice))[0] is None  # not asked, so not shown


def test_every_certificate_of_the_listener_asks(start, certificate, parties):
    more = f'certs = {{ ["other.test"] = {{ cert = "{parties.server[0]}", key = "{parties.server[1]}" }} }},'
    gateway = start(listener(certificate, f'{more} client_ca = "{parties.ca.cert}"') + SHOW)
    for name in ("localhost", "other.test"):
        refused(gateway, context(), name=name)
        refused(gateway, context(parties.mallory), name=name)
        assert ask(gateway, context(parties.alice), name=name)[0]["verified"]


def test_curl(start, certificate, parties):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "require"') + SHOW)
    url = f"https://127.0.0.1:{gateway.port('https')}/"
    done = subprocess.run(["curl", "-sk", "--cert", parties.alice[0], "--key", parties.alice[1], url], capture_output=True, text=True, timeout=20)
    assert json.loads(done.stdout)["subject"] == "CN=alice,O=Example"
    assert subprocess.run(["curl", "-sk", url], capture_output=True, timeout=20).returncode != 0


def test_acceptable_names_are_told(start, certificate, parties):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}"') + SHOW)
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port('https')}", "-cert", parties.alice[0], "-key",
                           parties.alice[1]], input="", capture_output=True, text=True, timeout=20)
    assert re.search(r"Acceptable client certificate CA names\nO = Example, CN = good CA\n", done.stdout)
    assert "other CA" not in done.stdout


# --- ask ---

@VERSIONS
def test_ask(start, certificate, parties, version):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "ask"') + SHOW)
    assert ask(gateway, context(None, version))[0] is None
    assert ask(gateway, context(parties.alice, version))[0]["verified"] is True
    for identity in (parties.mallory, parties.old, parties.future, parties.server):
        assert ask(gateway, context(identity, version))[0]["verified"] is False
    assert gateway.counters()["tls_failures"] == 0


def test_routes_decide(start, certificate, parties):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "ask"') + '''
route "inner" { path = "/admin/*", function(req)
  local cert = req.tls.cert
  if not (cert and cert.verified and cert.subject == "CN=alice,O=Example") then return reply(403, "no") end
  req.tls.cert.subject = "kept for the request"
  return reply(200, req.tls.cert.subject)
end }
route "all" { reply(200, "open") }
''')
    for identity, status in ((None, 403), (parties.mallory, 403), (parties.old, 403), (parties.alice, 200)):
        with hello(gateway, context(identity)) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /admin/ HTTP/1.1\r\nHost: a\r\n\r\n")
            first = raw.Response(s)
            assert first.body == b"open" and raw.Response(s, rest=first.rest).status == status


def test_fields(start, certificate, parties):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "ask"') + SHOW)
    cert = ask(gateway, context(parties.alice))[0]
    text = parties.ca.run("x509", "-in", parties.alice[0], "-noout", "-serial", "-fingerprint", "-sha256", "-dates")
    assert cert["serial"] == re.search(r"serial=(\w+)", text)[1]
    assert cert["fingerprint"] == re.search(r"Fingerprint=([\w:]+)", text)[1].replace(":", "").lower()
    assert cert["not_before"] == ssl.cert_time_to_seconds(re.search("notBefore=(.*)", text)[1])
    assert cert["not_after"] == ssl.cert_time_to_seconds(re.search("notAfter=(.*)", text)[1])
    assert cert["issuer"] == "CN=good CA,O=Example"
    assert cert["san"] == ["DNS:alice.example", "IP:10.1.2.3", "IP:2001:db8::9", "email:alice@example.com", "URI:spiffe://example/alice"]
    assert ask(gateway, context(parties.mallory))[0]["san"] == []


def test_odd_names_stay_in_their_field(start, recorder, certificate, parties):
    """Commas, quotes, line ends and other scripts in a subject cannot become a header of their own."""
    odd = parties.ca.sign("odd", subject='/O=Ex\\, "ample"/CN=a,b\u00fc', extensions="subjectAltName=DNS:a\n")
    server = recorder()
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}"') + f'''
pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}
route "all" {{ function(req) req:set_header("x-subject", req.tls.cert.subject) end, forward "p" }}
''')
    with hello(gateway, context(odd)) as s:
        s.sendall(GET)
        assert raw.Response(s).status == 200
    said = re.search(rb"x-subject: ([^\r]*)\r\n", server.bytes)[1]
    assert said.startswith(b"CN=a\\,b\\C3\\BC,O=Ex") and said.isascii()


# --- resumption ---

@VERSIONS
def test_resumed_sessions_keep_their_certificate(start, certificate, parties, version):
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "ask"') + SHOW)
    for identity in (parties.alice, parties.mallory, parties.old, None):
        made = context(identity, version)
        first, session, reused = ask(gateway, made)
        assert not reused
        again, _, reused = ask(gateway, made, session=session)
        # A certificate that is not valid any more is judged anew each time.
        assert again == first and reused is (identity is not parties.old)


@VERSIONS
def test_resumption_under_another_name(start, certificate, parties, version):
    more = f'certs = {{ ["other.test"] = {{ cert = "{parties.server[0]}", key = "{parties.server[1]}" }} }},'
    gateway = start(listener(certificate, f'{more} client_ca = "{parties.ca.cert}"') + SHOW)
    made = context(parties.alice, version)
    made.check_hostname = False
    session = ask(gateway, made, name="localhost")[1]
    for name in ("other.test", "localhost"):
        assert ask(gateway, made, session=session, name=name)[0]["verified"] is True


@VERSIONS
@pytest.mark.parametrize("weak", ['', 'client_ca = "@CA@", client_cert = "ask"', 'client_ca = "@CA@", client_cert = "none"',
                                  'client_ca = "@OTHER@", client_cert = "require"'])
def test_sessions_of_other_listeners_open_no_door(start, certificate, parties, version, weak):
    weak = weak.replace("@CA@", parties.ca.cert).replace("@OTHER@", parties.other.cert)
    gateway = start(listener(certificate, weak, "weak") + listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "require"') + SHOW)
    made = context(parties.mallory if "OTHER" in weak or parties.other.cert in weak else None, version)
    _, session, _ = ask(gateway, made, port="weak")
    assert session is not None
    refused(gateway, made, session=session)
    assert ask(gateway, made, session=session, port="weak")[2] is True  # where it began it is resumed
    strong = context(parties.alice, version)
    _, session, _ = ask(gateway, strong)
    if parties.other.cert not in weak:
        seen, _, reused = ask(gateway, strong, session=session, port="weak")
        assert not reused and (seen is None) == ("ask" not in weak)


@VERSIONS
def test_a_certificate_that_ended_meanwhile_is_not_resumed(start, certificate, parties, version):
    short = parties.ca.sign("short", end=4)
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "require"')
                    + listener(certificate, f'client_ca = "{parties.ca.cert}", client_cert = "ask"', "asking") + SHOW)
    made = context(short, version)
    _, session, _ = ask(gateway, made)
    first, asked, _ = ask(gateway, made, port="asking")
    assert first["verified"] is True
    assert ask(gateway, made, session=session)[2] is True
    time.sleep(max(0, first["not_after"] - time.time()) + 1.1)
    refused(gateway, made, session=session)
    seen, _, reused = ask(gateway, made, session=asked, port="asking")
    assert not reused and seen["verified"] is False


def test_websocket(start, origin, certificate, parties):
    server = origin()
    gateway = start(listener(certificate, f'client_ca = "{parties.ca.cert}"') + f'''
pool "p" {{ servers = {{ "{server.address}" }} }}
route "all" {{ function(req) req:set_header("x-user", req.tls.cert.subject) end, forward "p" }}
''')
    made = context(parties.alice)
    s, response = raw.open_websocket(gateway.port("https"), "/ws", tls=made)
    with s:
        s.sendall(raw.frame(b"hello"))
        assert response.status == 101 and raw.read_frame(s, response.rest)[1] == b"hello"


# --- towards servers ---

@pytest.fixture
def strict(scripted, parties):
    """A TLS server that wants a certificate of the good CA and answers with its subject."""
    class Strict:
        def __init__(self):
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*parties.server)
            self.context.load_verify_locations(parties.ca.cert)
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.seen = []
            self.server = scripted(self.handle)
            self.address = f"localhost:{self.server.port}"

        def handle(self, peer):
            peer.sock = self.context.wrap_socket(peer.sock, server_side=True)
            name = dict(part[0] for part in peer.sock.getpeercert()["subject"])["commonName"]
            self.seen.append(name)
            while True:
                peer.head()
                peer.answer(name.encode())
    return Strict()


@VERSIONS
def test_ours_towards_servers(start, strict, parties, version):
    strict.context.minimum_version = strict.context.maximum_version = version
    tls = f'tls = {{ ca = "{parties.ca.cert}", cert = "{parties.alice[0]}", key = "{parties.alice[1]}" }},'
    gateway = start(forwarding(strict.address, pool=f'probe = {{ path = "/" }}, {tls}'))
    gateway.wait_err(" up: ")  # the probe shows it, too
    assert raw.request(gateway.port(), GET).body == b"alice"
    assert set(strict.seen) == {"alice"}


@VERSIONS
def test_servers_refuse_others(start, strict, parties, version):
    strict.context.minimum_version = strict.context.maximum_version = version
    own = {"none": "", "mallory": f'cert = "{parties.mallory[0]}", key = "{parties.mallory[1]}"'}
    for name, more in own.items():
        gateway = start(forwarding(strict.address, pool=f'probe = false, tls = {{ ca = "{parties.ca.cert}", {more} }},'))
        assert raw.request(gateway.port(), GET).status == 502, name
    assert strict.seen == []


def test_pools_with_other_certificates_share_no_connection(start, strict, parties):
    bob = parties.ca.sign("bob")
    pools = "".join(f'pool "{name}" {{ servers = {{ "{strict.address}" }}, probe = false, tls = {{ ca = "{parties.ca.cert}", '
                    f'cert = "{pair[0]}", key = "{pair[1]}" }} }}\nroute "{name}" {{ path = "/{name}", forward "{name}" }}\n'
                    for name, pair in (("alice", parties.alice), ("bob", bob)))
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\n' + pools, workers=1)
    for name in ("alice", "bob", "alice", "bob"):
        assert raw.request(gateway.port(), b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % name.encode()).body == name.encode()
    assert gateway.counters()["server_reused"] == 2


# --- the file ---

def test_mistakes_are_named(moongate, tmp_path, certificate, parties):
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing here\n")
    own = f'cert = "{certificate[0]}", key = "{certificate[1]}"'
    for text, says in (
            (f'listener "a" {{ bind = "127.0.0.1:1", tls = {{ {own}, client_cert = "require" }} }}', "client_cert needs client_ca"),
            (f'listener "a" {{ bind = "127.0.0.1:1", tls = {{ {own}, client_cert = "ask" }} }}', "client_cert needs client_ca"),
            (f'listener "a" {{ bind = "127.0.0.1:1", tls = {{ {own}, client_ca = "{parties.ca.cert}", client_cert = "maybe" }} }}', "tls.client_cert"),
            (f'listener "a" {{ bind = "127.0.0.1:1", tls = {{ {own}, client_ca = "/nonexistent.pem" }} }}',
             'listener "a": tls.client_ca: cannot read "/nonexistent.pem": No such file or directory'),
            (f'listener "a" {{ bind = "127.0.0.1:1", tls = {{ {own}, client_ca = "{empty}" }} }}', f"client_ca {empty}: no PEM certificate in it"),
            ('pool "p" { servers = { "a:1" }, tls = { cert = "x.pem" } }', "tls: key is missing"),
            ('pool "p" { servers = { "a:1" }, tls = { key = "x.key" } }', "tls: cert is missing"),
            ('pool "p" { servers = { "a:1" }, tls = { cert = "/nonexistent.pem", key = "/nonexistent.key" } }',
             'pool "p": tls.key: cannot read "/nonexistent.key"'),
            (f'pool "p" {{ servers = {{ "a:1" }}, tls = {{ cert = "{parties.alice[0]}", key = "{parties.mallory[1]}" }} }}',
             "does not belong to certificate")):
        file = tmp_path / "a.lua"
        file.write_text('listener "b" { bind = "127.0.0.1:2" }\n' + text + '\nroute "r" { reply(200) }\n')
        done = moongate("check", file)
        assert done.returncode == 1 and says in done.stderr + done.stdout, (text, done.stderr + done.stdout)
