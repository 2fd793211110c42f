# SPDX-License-Identifier: MIT
"""moongate import arm: what it prints loads, and routes as the template says, for real clients and servers."""

import base64
import json
import ssl
import subprocess

import pytest

import raw
from gateway import ROOT, Origin, free_port, wait_for

GATEWAY = "/subscriptions/0/resourceGroups/g/providers/Microsoft.Network/applicationGateways/gw"
# RFC 6455, section 1.2.
HANDSHAKE = (b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n"
             b"Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n")


def ref(kind, name, end=""):
    return {"id": f"{GATEWAY}/{kind}/{name}{end}"}


def import_file(moongate, path, *options):
    result = moongate("import", "arm", path, *options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def make_pfx(folder, name, password):
    """(PFX in base64, PEM of the certificate)."""
    cert, key, pfx = folder / f"{name}.crt", folder / f"{name}.k", folder / f"{name}.pfx"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out",
                    cert, "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"], check=True, capture_output=True)
    subprocess.run(["openssl", "pkcs12", "-export", "-inkey", key, "-in", cert, "-out", pfx, "-passout", f"pass:{password}"], check=True,
                   capture_output=True)
    return base64.b64encode(pfx.read_bytes()).decode(), cert


def get(port, path="/", host="localhost", **options):
    return raw.request(port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), **options)


def open_handshake(port, **options):
    s = raw.connect(port, **options)
    s.sendall(HANDSHAKE)
    return s, raw.Response(s)


@pytest.fixture
def chat_origin():
    made = Origin("chat-server", args=("--subprotocols", "chat,superchat"))
    yield made
    made.stop()


def template(ports, chat, web, pfx_a, pfx_b):
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "parameters": {"gatewayName": {"type": "string", "defaultValue": "gw"}},
        "variables": {"id": "[resourceId('Microsoft.Network/applicationGateways', parameters('gatewayName'))]"},
        "resources": [{
            "type": "Microsoft.Network/applicationGateways", "name": "[parameters('gatewayName')]", "properties": {
                "sku": {"tier": "WAF_v2"}, "autoscaleConfiguration": {"minCapacity": 1},
                "frontendIPConfigurations": [{"name": "public", "properties": {"publicIPAddress": {"id": "x"}}}],
                "frontendPorts": [{"name": "plain", "properties": {"port": ports[0]}}, {"name": "secure", "properties": {"port": ports[1]}}],
                "sslCertificates": [{"name": "cert-a", "properties": {"data": pfx_a, "password": "inside"}},
                                    {"name": "cert-b", "properties": {"data": pfx_b}}],
                "probes": [{"name": "health", "properties": {"protocol": "Http", "host": "server.example.com", "path": "/healthz",
                                                             "interval": 1, "timeout": 1, "unhealthyThreshold": 2}}],
                "backendAddressPools": [{"name": "chat", "properties": {"backendAddresses": [{"ipAddress": "127.0.0.1"}]}},
                                        {"name": "web", "properties": {"backendAddresses": [{"fqdn": "localhost"}]}}],
                "backendHttpSettingsCollection": [
                    {"name": "chat-http", "properties": {"port": chat, "protocol": "Http", "probe": {"id": "[concat(variables('id'), '/probes/health')]"}}},
                    {"name": "web-http", "properties": {"port": web, "protocol": "Http", "cookieBasedAffinity": "Enabled"}}],
                "httpListeners": [
                    {"name": name, "properties": {
                        "frontendIPConfiguration": ref("frontendIPConfigurations", "public"), "frontendPort": ref("frontendPorts", port),
                        "protocol": protocol, **more}}
                    for name, port, protocol, more in (
                        ("http", "plain", "Http", {}),
                        ("a", "secure", "Https", {"hostName": "a.example.com", "sslCertificate": ref("sslCertificates", "cert-a")}),
                        ("b", "secure", "Https", {"hostNames": ["b.example.com", "*.b.example.com"],
                                                  "sslCertificate": ref("sslCertificates", "cert-b")}))],
                "redirectConfigurations": [
                    {"name": "to-a", "properties": {"redirectType": "Permanent", "targetListener": ref("httpListeners", "a"),
                                                    "includePath": True, "includeQueryString": True}},
                    {"name": "docs", "properties": {"redirectType": "Found", "targetUrl": "https://docs.example.org/shop", "includePath": True}}],
                "urlPathMaps": [{"name": "map", "properties": {
                    "defaultBackendAddressPool": ref("backendAddressPools", "web"),
                    "defaultBackendHttpSettings": ref("backendHttpSettingsCollection", "web-http"),
                    "pathRules": [
                        {"name": "chat", "properties": {"paths": ["/chat", "/chat/*"], "backendAddressPool": ref("backendAddressPools", "chat"),
                                                        "backendHttpSettings": ref("backendHttpSettingsCollection", "chat-http")}},
                        {"name": "docs", "properties": {"paths": ["/docs/*", "/manual"],
                                                        "redirectConfiguration": ref("redirectConfigurations", "docs")}}]}}],
                "requestRoutingRules": [
                    {"name": "http", "properties": {"ruleType": "Basic", "priority": 30, "httpListener": ref("httpListeners", "http"),
                                                    "redirectConfiguration": ref("redirectConfigurations", "to-a")}},
                    {"name": "a", "properties": {"ruleType": "PathBasedRouting", "priority": 10, "httpListener": ref("httpListeners", "a"),
                                                 "urlPathMap": ref("urlPathMaps", "map")}},
                    {"name": "b", "properties": {"ruleType": "Basic", "priority": 20, "httpListener": ref("httpListeners", "b"),
                                                 "backendAddressPool": ref("backendAddressPools", "web"),
                                                 "backendHttpSettings": ref("backendHttpSettingsCollection", "web-http")}}]}}]}


def subject(port, name):
    """Common name of the certificate that is shown for this server name."""
    with raw.connect(port, tls=raw.insecure_tls(), server_name=name) as s:
        der = s.getpeercert(binary_form=True)
    shown = subprocess.run(["openssl", "x509", "-noout", "-subject"], input=ssl.DER_cert_to_PEM_cert(der), capture_output=True, text=True)
    return shown.stdout.strip().rpartition("=")[2].strip()


def test_a_whole_template(start, origin, chat_origin, moongate, tmp_path):
    ports, web, pem = (free_port(), free_port()), origin("web-server"), tmp_path / "pem"
    pem.mkdir()
    pfx_a, _ = make_pfx(tmp_path, "a.example.com", "inside")
    pfx_b, _ = make_pfx(tmp_path, "b.example.com", "outside")
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template(ports, chat_origin.port, web.port, pfx_a, pfx_b)))
    text = import_file(moongate, path, "--bind", "127.0.0.1", "--pfx-out", pem, "--pfx-password", "wrong", "--pfx-password", "outside")
    assert "NOTE: autoscaleConfiguration" in text and "NOTE: sku WAF_v2" in text and "NOTE: sslCertificate" not in text
    assert (pem / "cert-a.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "g.lua").write_text(text)
    checked = moongate("check", "--strict", tmp_path / "g.lua")
    assert checked.returncode == 0, checked.stderr
    gateway = start('settings { workers = 2, access_log = { to = "stdout" }, drain_timeout = "2s" }\n' + text)
    tls = {"tls": raw.insecure_tls()}
    for name, shown in (("a.example.com", "a.example.com"), ("b.example.com", "b.example.com"), ("nobody.example.com", "a.example.com")):
        assert subject(ports[1], name) == shown
    moved = get(ports[0], "/x?y=1", "a.example.com")
    assert (moved.status, moved.get("location")) == (301, f"https://a.example.com:{ports[1]}/x?y=1")
    for where, target in (("/docs/x/y?z", "https://docs.example.org/shop/docs/x/y"), ("/manual", "https://docs.example.org/shop/manual")):
        moved = get(ports[1], where, "a.example.com", server_name="a.example.com", **tls)
        assert (moved.status, moved.get("location").replace(":443/", "/")) == (302, target)
    for host, where, server in (("a.example.com", "/", "web-server"), ("a.example.com", "/chat", "chat-server"),
                                ("a.example.com", "/chat/x", "chat-server"), ("a.example.com", "/chats", "web-server"),
                                ("b.example.com", "/chat", "web-server"), ("x.b.example.com", "/", "web-server")):
        answer = get(ports[1], where, host, server_name=host, **tls)
        assert (answer.status, answer.get("x-origin")) == (200, server), (host, where)
        assert ("ApplicationGatewayAffinity=" in " ".join(answer.all("set-cookie"))) == (server == "web-server")
    assert get(ports[1], "/", "c.example.com", server_name="a.example.com", **tls).status == 404
    assert gateway.proc.poll() is None


FRAGMENTS = """
Listeners, as they were pasted:
```json
"frontendPorts": [ { "Name": "appGatewayFrontendPort80", "Properties": { "Port": "@plain@" }, },
    { "name": "appGatewayFrontendPort443", "properties": { "port": @secure@ } } ],
"httpListeners": [
        {
            "name": "appGatewayHttpsListener",
            "properties": {
                "FrontendIPConfiguration": { "Id": "/subscriptions/{subscriptionId/frontendIPConfigurations/DefaultFrontendPublicIP" },
                "FrontendPort": { "Id": "/subscriptions/{subscriptionId/resourceGroups/{g/frontendPorts/appGatewayFrontendPort443'" },
                "Protocol": "Https",
                "SslCertificate": { "Id": "/subscriptions/{subscriptionId/sslCertificates/appGatewaySslCert1'" },
            }
        },
        {
            "name": "appGatewayHttpListener",
            "properties": {
                "FrontendPort": { "Id": "[concat(variables('gatewayId'), '/frontendPorts/appGatewayFrontendPort80')" },
                "Protocol": "Http",
            }
        }
    ],
```
// pools
"backendAddressPools": [{ "name": "ContosoServerPool", "properties": { "BackendAddresses": [ { "IpAddress": "127.0.0.1" }, ] } }]
"backendHttpSettingsCollection": [{ "name": "appGatewayBackendHttpSettings", "properties": { "Port": @chat@, "Protocol": "Http",
    "Probe": { "Id": "/probes/health')]" }, } }],
"probes": [ { "name": "health", "properties": { "Path": "/healthz", "interval": 1, "timeout": 1, "unhealthyThreshold": 2 } } ]
"requestRoutingRules": [{
    "name": "<ruleName1>",
    "properties": {
        "RuleType": "Basic",
        "httpListener": { "id": "/subscriptions/{subscriptionId}/httpListeners/appGatewayHttpsListener')]" },
        "backendAddressPool": { "id": "/subscriptions/{subscriptionId}/backendAddressPools/ContosoServerPool')]" },
        "backendHttpSettings": { "id": "/subscriptions/{subscriptionId}/backendHttpSettingsCollection/appGatewayBackendHttpSettings')]" }
    }

}, {
    "name": "<ruleName2>",
    "properties": {
        "RuleType": "Basic",
        "httpListener": { "id": "/subscriptions/{subscriptionId}/httpListeners/appGatewayHttpListener')]" },
        "backendAddressPool": { "id": "[resourceId('x/backendAddressPools', variables('gw'), 'ContosoServerPool')]" },
        "backendHttpSettings": { "id": "backendHttpSettingsCollection/appGatewayBackendHttpSettings" }

    }
}]
""".replace("Listeners, as they were pasted:", "/* listeners, as they were pasted */")


def test_fragments_and_the_handshake_of_the_rfc(start, chat_origin, moongate, tmp_path):
    ports = {"plain": free_port(), "secure": free_port(), "chat": chat_origin.port}
    text = FRAGMENTS
    for name, port in ports.items():
        text = text.replace(f"@{name}@", str(port))
    (tmp_path / "fragments.json").write_text(text)
    pem = tmp_path / "pem"
    pem.mkdir()
    make_pfx(tmp_path, "server.example.com", "secret")
    (tmp_path / "password").write_text("secret\n")
    out = import_file(moongate, tmp_path / "fragments.json", "--bind", "127.0.0.1", "--pfx-out", pem, "--pfx",
                      f"appGatewaySslCert1={tmp_path / 'server.example.com.pfx'}", "--pfx-password-file", tmp_path / "password")
    gateway = start('settings { workers = 2, access_log = { to = "stdout" }, drain_timeout = "2s" }\n' + out)
    listeners = ((ports["plain"], {}), (ports["secure"], {"tls": raw.insecure_tls(), "server_name": "server.example.com"}))
    for port, options in listeners:
        s, answer = open_handshake(port, **options)
        with s:
            assert (answer.status, answer.get("x-origin")) == (101, "chat-server"), answer.head
            assert answer.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert answer.get("sec-websocket-protocol") == "chat"
            s.sendall(raw.frame(b"hello"))
            assert raw.read_frame(s, answer.rest)[:2] == (1, b"hello")
            s.sendall(raw.frame(b"\x03\xe8", opcode=8))
            raw.read_all(s)
    entries = gateway.wait_access(2, event="open")
    assert {(entry["route"], entry["pool"]) for entry in entries} == {("ruleName1", "ContosoServerPool"), ("ruleName2", "ContosoServerPool")}

    # The probe gates WebSocket, and lets it in again.
    raw.request(chat_origin.port, b"POST /healthz/fail HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def all_answer(status):
        for port, options in listeners:
            s, answer = open_handshake(port, **options)
            s.close()
            if answer.status != status:
                return False
        return True

    wait_for(lambda: all_answer(503), 15, "503 while the probe fails")
    raw.request(chat_origin.port, b"POST /healthz/ok HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    wait_for(lambda: all_answer(101), 15, "101 once the probe is well")


def test_placeholders_are_named_by_check(moongate, tmp_path):
    text = FRAGMENTS
    for name in ("plain", "secure", "chat"):
        text = text.replace(f"@{name}@", {"plain": "80", "secure": "443", "chat": "9000"}[name])
    (tmp_path / "f.json").write_text(text)
    (tmp_path / "f.lua").write_text(import_file(moongate, tmp_path / "f.json"))
    checked = moongate("check", tmp_path / "f.lua")
    assert checked.returncode == 1 and "appGatewaySslCert1.pem" in checked.stderr and "appGatewaySslCert1.key" in checked.stderr
    assert len(checked.stderr.splitlines()) == 3, checked.stderr  # these two, and the sum


def test_paths_whatever_their_case(moongate, tmp_path):
    source = ROOT / "examples" / "import" / "application-gateway.json"
    for name in ("chat-cert.pem", "chat-cert.key"):
        (tmp_path / name).write_text("")
    for options, pool in (((), "web"), (("--ignore-case",), "chat")):
        text = import_file(moongate, source, *options).replace("  tls = {\n    cert = \"chat-cert.pem\", key = \"chat-cert.key\",\n  },\n", "")
        (tmp_path / "c.lua").write_text(text)
        routed = moongate("route", tmp_path / "c.lua", "--listener", "https", "-H", "Host: server.example.com", "--expect", pool,
                          "http://server.example.com/CHAT/x")
        assert routed.returncode == 0, routed.stdout + routed.stderr


@pytest.mark.parametrize("options", [(), ("--ignore-case",)])
@pytest.mark.parametrize("paths,path,target", [
    # The table of "Override backend path" in Azure's manual, and what lies beside it.
    (None, "/home/", "/over/home/"), (None, "/home/second/", "/over/home/second/"), (["/rule*"], "/rule/home/", "/over/home/"),
    (["/rule*"], "/rule/home/second/", "/over/home/second/"), (["/rule/home*"], "/rule/home/", "/over/"),
    (["/rule/home*"], "/rule/home/second/", "/over/second/"), (["/rule/"], "/rule/", "/over/"), (["/rule/*"], "/rule/home/", "/over/home/"),
    (["/images*", "/v/*"], "/v/q?a=b", "/over/q?a=b"), (["/images*", "/v/*"], "/images/a%20b*", "/over/a%20b*"), (["/v/*", "/images*"], "/images/q", "/over/q"),
    (["/chat", "/chat/*"], "/chat", "/over/"), (["/chat", "/chat/*"], "/chat/Tea", "/over/Tea"), (["/b/*", "/chat"], "/chat", "/over/"),
])
def test_paths_in_front(moongate, tmp_path, options, paths, path, target):
    to = {"backendAddressPool": ref("backendAddressPools", "p"), "backendHttpSettings": ref("backendHttpSettingsCollection", "s")}
    rule = {"name": "r", "httpListener": ref("httpListeners", "l"), **(to if not paths else {"urlPathMap": ref("urlPathMaps", "m")})}
    (tmp_path / "f.json").write_text(json.dumps({
        "frontendPorts": [{"name": "http", "port": 8080}], "httpListeners": [{"name": "l", "frontendPort": ref("frontendPorts", "http")}],
        "backendAddressPools": [{"name": "p", "backendAddresses": [{"ipAddress": "127.0.0.1"}]}],
        "backendHttpSettingsCollection": [{"name": "s", "port": 80, "path": "/over/"}],
        "urlPathMaps": [{"name": "m", "pathRules": [{"name": "one", "paths": paths or [], **to}]}], "requestRoutingRules": [rule]}))
    text = import_file(moongate, tmp_path / "f.json", *options)
    (tmp_path / "f.lua").write_text(text)
    assert "in front" not in text and moongate("check", "--strict", tmp_path / "f.lua").returncode == 0
    for asked in (path, path.replace("/rule", "/RULE").replace("/chat", "/CHAT").replace("/v/", "/V/") if options else path):
        routed = moongate("route", tmp_path / "f.lua", f"http://a:8080{asked}")
        assert routed.returncode == 0 and f"\nGET {target} HTTP/1.1\n" in routed.stdout, text + routed.stdout


@pytest.mark.parametrize("front", ["/fr%2Fx", "/a/../b", "/a/%2e%2e/b", "/a*b"])
@pytest.mark.parametrize("paths", [["/v/*"], ["/we-b.x/*", "/n*"]])
def test_a_path_in_front_that_nothing_could_be_sent_by_is_left_out(moongate, tmp_path, front, paths):
    to = {"backendAddressPool": ref("backendAddressPools", "p"), "backendHttpSettings": ref("backendHttpSettingsCollection", "s")}
    (tmp_path / "f.json").write_text(json.dumps({
        "frontendPorts": [{"name": "http", "port": 8080}], "httpListeners": [{"name": "l", "frontendPort": ref("frontendPorts", "http")}],
        "backendAddressPools": [{"name": "p", "backendAddresses": [{"ipAddress": "127.0.0.1"}]}],
        "backendHttpSettingsCollection": [{"name": "s", "port": 80, "path": front}],
        "urlPathMaps": [{"name": "m", "pathRules": [{"name": "one", "paths": paths, **to}]}],
        "requestRoutingRules": [{"name": "r", "httpListener": ref("httpListeners", "l"), "urlPathMap": ref("urlPathMaps", "m")}]}))
    text = import_file(moongate, tmp_path / "f.json")
    (tmp_path / "f.lua").write_text(text)
    assert f"the path {front} that it puts in front is left out" in text
    assert moongate("check", "--strict", tmp_path / "f.lua").returncode == 0
    asked = paths[0].replace("*", "q")
    assert f"\nGET {asked} HTTP/1.1\n" in moongate("route", tmp_path / "f.lua", f"http://a:8080{asked}").stdout


def test_the_example_is_what_import_prints(moongate):
    folder = ROOT / "examples" / "import"
    assert import_file(moongate, folder / "application-gateway.json") == (folder / "application-gateway.lua").read_text()


def test_what_cannot_be_imported_is_said(moongate, tmp_path):
    bad = tmp_path / "bad.json"
    for text, said in (('{\n"a": what', "bad.json: line 2"), ('{ "a": ', 'bad.json: line 1: the JSON ends too early: the value of "a"'),
                       ('{ "a": [', "ends too early"), ('{"a": 1}', "no httpListeners"), ("", "no httpListeners")):
        bad.write_text(text)
        result = moongate("import", "arm", bad)
        assert result.returncode == 1 and said in result.stderr and not result.stdout
    assert moongate("import", "arm", tmp_path / "absent.json").returncode == 1
    for arguments in ((), ("arm",), ("nginx", bad), ("arm", bad, "--pfx", "x.pfx"), ("arm", bad, "--frobnicate"), ("arm", bad, "--bind")):
        assert moongate("import", *arguments).returncode == 2, arguments


@pytest.mark.parametrize("bind,said", [
    *[(text, f"an address without a port, not '{text}'") for text in ("1.2.3", "localhost", "127.0.0.1:80", "[127.0.0.1:80]:80", "[::1]", "", "::1::",
                                                                       "public=localhost", "public=", "=127.0.0.1", "a=b=127.0.0.1")],
    ("nofe=1.2.3.4", "no frontendIPConfiguration nofe: there is public"),
])
def test_binds_are_looked_at(moongate, bind, said):
    source = ROOT / "examples" / "import" / "application-gateway.json"
    result = moongate("import", "arm", source, "--bind", "127.0.0.1", "--bind", bind)
    assert result.returncode == 2 and said in result.stderr and "--bind" in result.stderr and not result.stdout, result.stderr
    assert 'bind = "127.0.0.9:' in import_file(moongate, source, "--bind", "PUBLIC=127.0.0.9")
