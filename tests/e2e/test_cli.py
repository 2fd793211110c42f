# SPDX-License-Identifier: MIT
"""The command line: help, exit codes, and what check, route and dump print."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess

import pytest

import gateway as gateway_module
import raw
from gateway import ROOT, Process, free_port, wait_for

COMMANDS = ["run", "check", "route", "dump", "demo", "origin", "import"]


@pytest.fixture
def write(tmp_path):
    """write(text, name) -> path of a file."""
    def run(text, name="gateway.lua"):
        path = tmp_path / name
        path.write_text(text)
        return path
    return run


GOOD = '''listener "http" { bind = "127.0.0.1:8080" }
pool "web" { servers = { "127.0.0.1:9001" } }
route "all" { forward "web" }
'''

# --- help and usage ---


def test_help_and_version(moongate):
    done = moongate("--help")
    assert done.returncode == 0 and not done.stderr
    for command in COMMANDS:
        assert re.search(rf"^  moongate {command}\b", done.stdout, re.M)
    assert "exit codes" in done.stdout
    version = moongate("--version")
    assert version.returncode == 0 and re.fullmatch(r"moongate \d+\.\d+\S*\n", version.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_version_of_each_command(moongate, command):
    done = moongate(command, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: moongate {command}") and not done.stderr
    assert moongate("help", command).stdout == done.stdout
    assert moongate(command, "--version").stdout == moongate("--version").stdout
    assert "--help" in done.stdout


@pytest.mark.parametrize("args,says", [
    ([], "usage:"), (["--bogus"], "unknown option '--bogus'"), (["frob"], "unknown command 'frob'"), (["chekc"], "did you mean 'check'"),
    (["help", "frob"], "unknown command"),
    (["run"], "FILE"), (["run", "a", "b"], "FILE"), (["check"], "file"), (["check", "a", "b"], "one too many"), (["route", "x.lua"], "URL"),
    (["route", "-H"], "needs a value"), (["route", "-H", "bad", "x.lua", "http://a/"], "no header"), (["route", "--expect"], "needs a value"), (["route", "x.lua", "ftp://a/"], "scheme"),
    (["route", "x.lua", "http:///a"], "host"),
    (["route", "x.lua", "http://x/a b"], "a space (write %20)"), (["route", "x.lua", "http://x/a\nb"], "a control character"), (["route", "--client", "x", "x.lua", "http://a/"], "address"), (["dump"], "FILE"),
    (["demo", "--port", "x"], "port"), (["demo", "--port", "70000"], "port"), (["demo", "--port"], "needs a value"),
    (["demo", "--bind", "nowhere"], "IP address"), (["demo", "extra"], "extra"),
    (["origin"], "port"), (["origin", "x"], "port"), (["origin", "70000"], "port"), (["origin", "1", "2"], "one too many"),
    (["origin", "1", "--bind", "nowhere"], "IP address"), (["origin", "--name"], "needs a value"), (["origin", "1", "--tls-key", "k"], "--tls-cert"), (["origin", "1", "--name", "a b"], "name"),
    *[([command, "--bogus", "x"], "unknown option '--bogus'") for command in COMMANDS],
])
def test_usage_errors_exit_with_2(moongate, args, says):
    done = moongate(*args)
    assert done.returncode == 2 and not done.stdout and says in done.stderr
    assert "Sanitizer" not in done.stderr


def test_output_that_cannot_be_written_is_a_failure(moongate):
    with open("/dev/full", "w") as full:
        done = subprocess.run([gateway_module.binary(), "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 1 and "stdout" in done.stderr


# --- check ---

MISTAKES = '''listener "http" { bind = "127.0.0.1:99999", bnid = 1 }
listener "http" { bind = "127.0.0.1:80" }
pool "web" { servers = { "127.0.0.1:1", { "127.0.0.1:2", weight = "x" } }, probe = { every = 0 } }
pool "none"
route "a" { path = "/x", forward "wbe" }
route "b" { host = 5, function(req) return forwrad "web" end }
route "c" { }
route "d" { reply(200), reply(201) }
route "e" { http = 1, nil, reply(200) }
route "f" { listener = "htpp", reply(99) }
local x = http.get { pool = "web" }
settings { workers = "many" }
route "g" { function() return nosuch.x end, on_error = "sometimes" }
route "h" { on_error = "next", reply(200) }
route "i" { header = { ["x y"] = "1" }, client = "10.0.0.0/99", method = "GE T", reply(200) }
pool "tls" { servers = { "127.0.0.1:1" }, tls = { ca = "missing.pem" } }
listener "tls" { bind = "127.0.0.1:1", tls = { cert = "missing.pem", key = "missing.key" } }
'''
EXPECTED = [
    (1, '"127.0.0.1:99999" is no address'), (1, 'unknown key "bnid" (did you mean "bind"?)'), (2, "declared twice"),
    (3, "servers[2].weight"), (3, "probe.every: a zero duration"), (4, "its table is missing"),
    (5, 'unknown pool "wbe" (did you mean "web"?)'), (6, "host:"), (6, 'unknown global "forwrad" (did you mean "forward"?)'),
    (7, "no steps"), (8, "step 2 never runs"), (9, "step 1 is nil"), (9, 'unknown key "http"'),
    (10, 'unknown listener "htpp" (did you mean "http"?)'), (10, "status"), (11, '"http" is not in this version'), (12, "workers"),
    (13, 'unknown global "nosuch"'), (13, "on_error"), (14, "on_error"), (15, "header:"), (15, "10.0.0.0/99"), (15, "GE T"),
    (16, "missing.pem"), (17, "missing.pem"),
]


def test_check_lists_every_mistake_with_its_place(moongate, write):
    file = write(MISTAKES)
    done = moongate("check", file)
    assert done.returncode == 1 and not done.stdout
    lines = done.stderr.splitlines()
    for number, says in EXPECTED:
        assert any(line.startswith(f"{file}:{number}: ") and says in line for line in lines), (number, says, done.stderr)
    places = [int(re.match(rf"{re.escape(str(file))}:(\d+): ", line).group(1)) for line in lines[:-1]]
    assert places == sorted(places)
    assert lines[-1] == f"{file}: {len(lines) - 1} mistakes"
    assert moongate("run", file).stderr.splitlines() == lines[:-1], "run says the same and opens nothing"
    assert moongate("run", file).returncode == 1
    for command in (["dump", file], ["route", file, "http://a/"]):
        done = moongate(*command)
        assert done.returncode == 1 and done.stderr.splitlines() == lines[:-1]


@pytest.mark.parametrize("word", ["json", "crypto", "dict", "limit", "slots", "every", "http"])
def test_words_that_come_later_are_known(moongate, write, word):
    done = moongate("check", write(GOOD + f'\nlocal x = {word}.x\n' if word in ("json", "crypto", "http") else GOOD + f'\n{word} "x" {{}}\n'))
    assert done.returncode == 1 and f'"{word}" is not in this version' in done.stderr


@pytest.mark.parametrize("text,line,says", [
    ("x = = 1\n", 1, "unexpected symbol"), ("listener 'a' {\n", 2, "expected"), ("error('stop')\n", 1, "stop"),
    ("local t = nil\nt.x = 1\n", 2, "index"), ("local x = env.MOONGATE_SURELY_UNSET\n" + GOOD, 1, "is not set"),
    (GOOD + 'include "none.lua"\n', 4, "none.lua"), (GOOD + 'local m = require "none"\n', 4, "none"),
    (GOOD + 'local t = readfile "none.txt"\n', 4, "none.txt"), (GOOD + "local s = strict { a = 1 }\nprint(s.b)\n", 5, '"b"'),
    (GOOD + "local f = io.open\n", 4, '"io"'), (GOOD + "local c = coroutine.create\n", 4, '"coroutine"'),
])
def test_check_of_files_that_do_not_run(moongate, write, text, line, says):
    file = write(text)
    done = moongate("check", file)
    assert done.returncode == 1
    assert re.search(rf"^{re.escape(str(file))}:{line}: .*{re.escape(says)}", done.stderr, re.M), done.stderr


def test_check_of_a_file_that_is_not_there(moongate, tmp_path):
    done = moongate("check", tmp_path / "none.lua")
    assert done.returncode == 1 and "none.lua: No such file" in done.stderr


def test_check_ok_and_strict(moongate, write):
    done = moongate("check", write(GOOD))
    assert done.returncode == 0 and not done.stderr and "ok: 1 listener, 1 pool, 1 route" in done.stdout
    file = write(GOOD.replace('8080"', '8080", header_timeout = 5000'))
    done = moongate("check", file)
    assert done.returncode == 0 and done.stderr.startswith(f"{file}:1: warning: ") and "5000ms" in done.stderr
    done = moongate("check", "--strict", file)
    assert done.returncode == 1 and "refused by --strict" in done.stderr
    assert moongate("check", "--strict", write(GOOD)).returncode == 0


def test_check_opens_certificates_but_no_socket(moongate, write, certificate):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        tls = f'tls = {{ cert = "{certificate[0]}", key = "%s" }}'
        assert moongate("check", write(GOOD.replace('8080"', f'8080", {tls % certificate[1]}').replace("8080", str(port)))).returncode == 0
    write("no key", "other.key")
    done = moongate("check", write(GOOD.replace('8080"', f'8080", {tls % "other.key"}')))
    assert done.returncode == 1 and ":1: listener" in done.stderr and "other.key" in done.stderr
    write("no key", "third.key")
    done = moongate("check", write(GOOD.replace('8080"', f'8080", tls = {{ certs = {{ {{ cert = "{certificate[0]}", key = "other.key" }}, '
                                                f'{{ cert = "{certificate[0]}", key = "third.key" }} }} }}') +
                                   f'pool "t" {{ servers = "127.0.0.1:1", tls = {{ ca = "other.key" }}, wieght = 1 }}\nlistener "x" {{}}\n'))
    for says in ("other.key", "third.key", "CA file", "wieght", "bind is missing"):
        assert says in done.stderr, "all at once: mistakes in the text, and in what it names"


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.lua")))
def test_the_commands_at_the_head_of_an_example(tmp_path, certificate, example):
    """As a shell runs them beside the examples, with the certificate where its command puts it; what serves is only checked."""
    for name, target in (("cert.pem", certificate[0]), ("key.pem", certificate[1]), ("examples", ROOT / "examples"), ("moongate", gateway_module.binary())):
        (tmp_path / name).symlink_to(target)
    head = re.match(r"(?:--.*\n)+", (ROOT / "examples" / example).read_text()).group(0)
    lines = re.sub(r"\\\n--", "", head).splitlines()
    commands = [match.group(1) for line in lines for match in [re.match(r"--   ((?:export|\S+=\S+ .*moongate run|moongate run|moongate route) .*?)(?:   *\(.*)?$", line)] if match]
    assert any(f"moongate run examples/{example}" in command for command in commands), head
    script = "\n".join(["set -e", *commands]).replace("moongate run", "moongate check --strict")
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "refused: " not in done.stdout and "no route decided" not in done.stdout, done.stdout


def test_check_warns_of_a_certificate_that_has_expired(moongate, write, certificate, tmp_path):
    old = tmp_path / "old.pem"
    subprocess.run(["openssl", "x509", "-in", certificate[0], "-signkey", certificate[1], "-days", "-1", "-out", old], check=True, capture_output=True)
    file = write(GOOD.replace('8080"', f'8080", tls = {{ cert = "{old}", key = "{certificate[1]}" }}'))
    done = moongate("check", file)
    assert done.returncode == 0 and ":1: warning: listener" in done.stderr and "has expired" in done.stderr
    assert moongate("check", "--strict", file).returncode == 1


def test_check_looks_for_users_and_the_logs_folder(moongate, write, tmp_path):
    (tmp_path / "file").write_text("")
    for words, says in (('user = "no-such-user"', 'settings: user "no-such-user": there is no such user'), ('group = "no-such-group"', "no such group"),
                        (f'access_log = {{ to = "{tmp_path}/none/access.log" }}', f'settings: access_log "{tmp_path}/none/access.log": its folder does not exist'),
                        (f'access_log = {{ to = "{tmp_path}/file/access.log" }}', "its folder does not exist")):
        file = write(f"settings {{ {words} }}\n" + GOOD)
        done = moongate("check", file)
        assert done.returncode == 1 and not done.stdout and done.stderr.startswith(f"{file}: ") and says in done.stderr, done.stderr
        done = moongate("run", file)
        assert done.returncode == 1, "so it is no more than what run would refuse"
    for words in ('user = "nobody", group = "nogroup"', f'access_log = {{ to = "{tmp_path}/access.log" }}', 'access_log = { to = "access.log" }',
                  'access_log = { to = "stderr" }', "access_log = false"):
        done = moongate("check", "--strict", write(f"settings {{ {words} }}\n" + GOOD))
        assert done.returncode == 0, done.stderr
    file = write('settings { access_log = { to = "none/access.log" } }\n' + GOOD)
    done = moongate("check", file)
    assert done.returncode == 0 and f"{file}: warning: settings: access_log" in done.stderr and "below this one" in done.stderr


def test_modules_includes_and_files(moongate, write, tmp_path):
    (tmp_path / "sites").mkdir()
    write('pool "b" { servers = { "127.0.0.1:2" } }\nroute "b" { path = "/b", forward "b" }\n', "sites/b.lua")
    write('pool "a" { servers = { "127.0.0.1:1" } }\nroute "a" { path = "/a", forward "a" }\n', "sites/a.lua")
    write('return { status = 203 }\n', "settings.lua")
    write("the text\n", "text.txt")
    file = write('local s = require "settings"\nlistener "http" { bind = "127.0.0.1:1" }\ninclude "sites/*.lua"\n'
                 'route "all" { reply(s.status, readfile "text.txt") }\n')
    dumped = json.loads(moongate("dump", file).stdout)
    assert [route["name"] for route in dumped["routes"]] == ["a", "b", "all"]
    assert dumped["routes"][1]["place"].endswith("sites/b.lua:2") and dumped["routes"][2]["steps"][0]["body"] == "the text\n"
    write('pool "b" { servers = { "127.0.0.1:2" }, x = 1 }\n', "sites/b.lua")
    done = moongate("check", file)
    assert done.returncode == 1 and re.search(r"sites/b\.lua:1: pool \"b\": unknown key \"x\"", done.stderr)


# --- route ---

ROUTES = '''listener "http"  { bind = { "127.0.0.1:8080", "[::1]:8080" }, max_body = 100 }
listener "other" { bind = "127.0.0.1:8081" }
listener "https" { bind = "127.0.0.1:8443", tls = { cert = "%s", key = "%s" } }
pool "chat" { servers = { "10.0.1.1:9000", "10.0.1.2:9000" } }
pool "web"  { servers = { { "10.0.3.1:8080", name = "one" } }, host = "server" }
route "office"  { client = "192.0.2.0/24", path = "/admin", reply(200, "welcome\\n", { ["x-a"] = "1" }) }
route "port"    { listener = "other", reply(204) }
route "sni"     { sni = "secret.example", reply(200) }
route "chat"    { subprotocol = "chat", function(req) req:set_header("x-room", req:query("room") or "none") end, forward "chat" }
route "not"     { except = { method = "GET" }, reply(405) }
route "bad"     { path = "/bad", function() error("broken") end }
route "drop"    { path = "/drop", drop() }
route "move"    { path = "/old/*", redirect { scheme = "https", path = "/new/*", status = 301 } }
route "when"    { when = function(req) return req:cookie("a") == "1" end, forward("web", { path = "/cookie", server = "one" }) }
route "hooked"  { path = "/hooked", reply(200), on_response = function(req, resp) resp:set_header("x-hook", "yes") end }
route "web"     { host = "*.example.com", forward "web" }
'''


@pytest.fixture
def routes(moongate, write, certificate):
    """routes(*args) -> finished `moongate route` on ROUTES."""
    file = write(ROUTES % certificate)
    return lambda *args: moongate("route", *args[:-1], file, args[-1])


@pytest.mark.parametrize("args,verdict,more", [
    (["http://a.example.com/x?y=1"], 'forward to pool "web"', ['route "web" at ', "GET /x?y=1 HTTP/1.1\nHost: 10.0.3.1:8080\n", "X-Forwarded-For: 127.0.0.1"]),
    (["http://other.test/"], "reply 404", ["no route decided", "HTTP/1.1 404 "]),
    (["--client", "192.0.2.7", "http://b.example.com/admin"], "reply 200", ['route "office"', "x-a: 1\n", "\nwelcome\n"]),
    (["--client", "2001:db8::1", "http://b.example.com/"], "forward", ["X-Forwarded-For: 2001:db8::1\n"]),
    (["http://b.example.com:8081/admin"], "reply 204", ['route "port"']),
    (["--listener", "other", "http://b.example.com/"], "reply 204", ['route "port"']),
    (["https://secret.example/"], "reply 200", ['route "sni"']),
    (["-H", "Sec-WebSocket-Protocol: x, chat", "ws://a.test/r?room=7"], 'forward to pool "chat"', ["x-room: 7\n", "Upgrade: websocket\n", "Sec-WebSocket-Version: 13\n"]),
    (["-H", "Sec-WebSocket-Protocol: chat", "wss://a.test/r"], 'forward to pool "chat"', ["x-room: none\n", "X-Forwarded-Proto: https\n"]),
    (["-H", "Sec-WebSocket-Protocol: chat", "http://a.test/r"], "reply 404", []),
    (["-X", "POST", "http://a.example.com/"], "reply 405", ['route "not"']),
    (["-X", "HEAD", "http://a.example.com/"], "forward", ["HEAD / HTTP/1.1\n"]),
    (["http://a.example.com/bad"], "reply 500", ['route "bad"', "its function failed"]),
    (["http://a.example.com/drop"], "drop", ['route "drop"']),
    (["http://a.example.com/old/x/y?z=1"], "redirect 301 to https://a.example.com/new/x/y?z=1", ["Location: https://"]),
    (["-H", "Cookie: b=2; a=1", "http://a.test/q"], 'forward to pool "web" server "one"', ["GET /cookie HTTP/1.1\n"]),
    (["http://a.test/hooked"], "reply 200", ["x-hook: yes\n"]),
    (["http://a.example.com/a/../../x"], "reply 400", ["refused: "]),
    (["http://a.example.com/%00"], "reply 400", ["refused: "]),
    (["-H", "Host:", "http://a.example.com/"], "reply 400", ["refused: "]),
    (["-H", "Sec-WebSocket-Version: 8", "ws://a.example.com/"], "reply 426", ["refused: "]),
    (["-X", "BREW", "http://a.example.com/"], "reply 501", ["refused: "]),
    (["-X", "CONNECT", "http://a.example.com/"], "reply 405", ["refused: "]),
    (["-H", "Content-Length: 101", "http://a.example.com/"], "reply 413", ["max_body"]),
    (["-H", "X-Bad : 1", "http://a.example.com/"], "reply 400", ["refused: "]),
])
def test_route_says_what_would_be_done(routes, args, verdict, more):
    done = routes(*args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(verdict)
    for text in more:
        assert text in done.stdout, done.stdout


def test_route_places_and_trace(routes):
    done = routes("--trace", "http://a.example.com/old")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r'route "move" at .*/gateway\.lua:13', lines[1])
    trace = [re.match(r'  .*/gateway\.lua:(\d+): route "(\w+)": (.*)', line).groups() for line in lines[2:lines.index("")]]
    assert [int(line) for line, name, why in trace] == sorted(int(line) for line, name, why in trace)
    why = {name: text for line, name, text in trace}
    assert why["office"].startswith("no, ") and "listener" in why["port"] and "sni" in why["sni"] and "except" in why["not"]
    assert why["move"] == "yes, it decides" and "web" not in why
    assert "when said so" in routes("--trace", "http://a.example.com/").stdout


def test_route_expect(routes):
    assert routes("--expect", 'pool "web"', "http://a.example.com/").returncode == 0
    done = routes("--expect", "reply 200", "http://a.example.com/")
    assert done.returncode == 1 and "expected" in done.stderr
    assert routes("--expect", "500", "http://a.example.com/bad").returncode == 0
    done = routes("--listener", "none", "http://a/")
    assert done.returncode == 1 and 'no listener "none"' in done.stderr


def test_route_does_not_guess_a_port(routes, moongate, write):
    for url, scheme, port in (("https://x:9999/", "https", 9999), ("http://x:8443/", "http", 8443), ("wss://x:8080/", "https", 8080)):
        done = routes(url)
        assert done.returncode == 1 and not done.stdout and f"no listener takes {scheme} on port {port}; there are" in done.stderr
        assert '"http" (http 127.0.0.1:8080 [::1]:8080), "other" (http 127.0.0.1:8081), "https" (https 127.0.0.1:8443)' in done.stderr
    done = routes("--listener", "https", "https://x:9999/")
    assert done.returncode == 0 and not done.stderr
    assert not routes("https://secret.example/").stderr, "a URL without a port: the first listener of its scheme"
    done = moongate("route", write(GOOD), "wss://x/")
    assert done.returncode == 0 and done.stdout.startswith("forward") and 'no listener speaks https: judged as if it came by http to "http"' in done.stderr


LIVE = '''settings { workers = 1, access_log = false, error_pages = { [404] = "<p>nothing here</p>", [405] = "not so", [413] = "too much",
                                                               [500] = '{"error": "ours"}' } }
listener "http" { bind = "127.0.0.1:@http@", max_body = 10, response_headers = { ["x-all"] = "1" } }
pool "kept" { servers = { "@server@" }, probe = false }
pool "alone" { servers = { "@server@" }, probe = false, proxy_protocol = "v1" }
route "kept" { path = "/kept", forward "kept" }
route "alone" { path = "/alone", forward "alone" }
route "reply" { path = "/reply", reply(404, "the route's\\n") }
route "move" { path = "/move", redirect { path = "/to" } }
route "throw" { path = "/throw", function() error "no" end }
route "hook" { path = "/hook", response_headers = { ["x-route"] = "2" }, on_response = function() error "no" end, reply(200, "x") }
route "stand" { path = "/in", response_headers = { ["x-route"] = "2" }, on_response = function() return reply(201, "mine") end, reply(200) }
route "body" { path = "/body", response_headers = { ["x-route"] = "2" }, reply(200, "taken\\n") }
'''


def live_and_route(start, moongate, recorder):
    """get(lines of a head, ...) -> (answer from the live gateway, head and body that `moongate route` prints), on LIVE."""
    server = recorder()
    gateway = start(LIVE.replace("@server@", server.address))

    def ask(method, path, *fields):
        lines = ["Host: a", "User-Agent: moongate-route", "Accept: */*", *fields]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()
        answer = raw.request(gateway.port(), head)
        options = [word for field in lines for word in ("-H", field)]
        done = moongate("route", "-X", method, *options, gateway.file, f"http://127.0.0.1:{gateway.port()}{path}")
        assert done.returncode == 0, done.stderr
        return answer, done.stdout.partition("\n\n")[2], server
    return ask


@pytest.mark.parametrize("method,path,fields,status", [
    ("GET", "/nowhere", (), 404), ("HEAD", "/nowhere", (), 404), ("GET", "/reply", (), 404), ("HEAD", "/reply", (), 404), ("GET", "/move", (), 302),
    ("GET", "/throw", (), 500), ("GET", "/hook", (), 500), ("GET", "/in", (), 201), ("GET", "/body", (), 200),
    ("POST", "/body", ("Content-Length: 11",), 413), ("CONNECT", "/", (), 405), ("BREW", "/", (), 501), ("GET", "/%00", (), 400),
    ("GET", "/", ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 8"), 426),
])
def test_route_prints_the_answer_of_live_traffic(start, moongate, recorder, method, path, fields, status):
    answer, printed, _ = live_and_route(start, moongate, recorder)(method, path, *fields)
    lines = [line for line in answer.head.decode().split("\r\n") if not line.startswith(("Date: ", "Connection: "))]
    body = answer.body.decode()
    assert answer.status == status and printed == "\n".join([*lines, "", body]) + ("" if not body or body.endswith("\n") else "\n")


@pytest.mark.parametrize("pool,closes", [("kept", False), ("alone", True)])
def test_route_prints_the_head_that_servers_get(start, moongate, recorder, pool, closes):
    answer, printed, server = live_and_route(start, moongate, recorder)("GET", f"/{pool}?x=1")
    assert answer.status == 200
    came = server.bytes.decode().replace("\r\n", "\n")
    came = came.partition("\n")[2] if closes else came  # the PROXY line
    without_id = [re.sub(r"(?mi)^x-request-id: .*\n", "", text) for text in (came, printed)]
    assert without_id[0] == without_id[1] and ("Connection: close\n" in came) == closes


@pytest.mark.parametrize("path,cookies,route", [
    ("/?a=1", ("b=1",), "guarded"), ("/?%61=1&a=2", ("b=1; b=2",), "guarded"), ("/?a=2&a=1", ("b=1",), "all"), ("/?a=1", ("b=2; b=1",), "all"),
    ("/?a=1", ("c=0", "b=1", "b=2"), "guarded"), ("/?a=1", ("b=2", "b=1"), "all"),
])
def test_the_first_of_a_name_decides_and_all_are_forwarded(moongate, write, path, cookies, route):
    file = write(GOOD.replace("route ", '''route "guarded" { query = { a = "1" }, cookie = { b = "1" },
        function(req) req:set_header("x-first", req:query("a") .. req:cookie("b")) end, forward "web" }\nroute '''))
    done = moongate("route", *[word for cookie in cookies for word in ("-H", f"Cookie: {cookie}")], file, f"http://a:8080{path}")
    assert done.returncode == 0 and f'route "{route}"' in done.stdout
    assert f"GET {path} HTTP/1.1\n" in done.stdout and all(cookie in done.stdout for cookie in cookies)
    assert ("x-first: 11\n" in done.stdout) == (route == "guarded")


@pytest.mark.skipif(gateway_module.keeps_signals_back(), reason="ThreadSanitizer keeps the signal back that ends a loop")
def test_route_ends_a_loop(moongate, write):
    done = moongate("route", write(GOOD + 'route "loop" { function() while true do end end }\n'), "http://a/", timeout=20)
    assert done.returncode == 0, "the first route decides"
    file = write('listener "http" { bind = "127.0.0.1:1" }\nroute "loop" { function() while true do end end }\n')
    done = moongate("route", file, "http://a/", timeout=20)
    assert done.returncode == 0 and done.stdout.startswith("reply 500")


# --- dump ---

def test_dump(moongate, write, certificate):
    file = write(ROUTES % certificate + '''
pool "more" { servers = { { "127.0.0.1:5", weight = 3 }, { "127.0.0.1:6", backup = true } }, connect_timeout = "250ms", balance = "leastconn",
              tunnel_idle_timeout = 90, tunnel_max_age = "2h", response_timeout = false,
              probe = { path = "/h", headers = { authorization = "Bearer hidden-1" }, every = "3s", expect = "200-299" } }
route "secret" { header = { authorization = "Bearer hidden-2", ["x-shown"] = "shown" }, cookie = { id = "hidden-3" },
                 request_headers = { authorization = "Bearer hidden-4", ["x-gone"] = false, ["x-set"] = "v" }, max_body = "16m", forward "more" }
''')
    done = moongate("dump", file)
    assert done.returncode == 0 and not done.stderr
    dumped = json.loads(done.stdout)
    assert [listener["name"] for listener in dumped["listeners"]] == ["http", "other", "https"]
    assert dumped["listeners"][0]["bind"] == ["127.0.0.1:8080", "[::1]:8080"] and dumped["listeners"][0]["max_body"] == 100
    more = {pool["name"]: pool for pool in dumped["pools"]}["more"]
    assert [(s["weight"], s["backup"]) for s in more["servers"]] == [(3, False), (1, True)]
    assert (more["connect_timeout_ms"], more["tunnel_idle_timeout_ms"], more["tunnel_max_age_ms"]) == (250, 90000, 7200000)
    assert more["response_timeout_ms"] is None and more["balance"] == "leastconn" and more["probe"]["every_ms"] == 3000
    secret = dumped["routes"][-1]
    assert secret["max_body"] == 16 << 20 and secret["place"].endswith(":21")
    assert secret["request_headers"]["x-gone"] is False and secret["request_headers"]["x-set"] == "v"
    for i in range(1, 5):
        assert f"hidden-{i}" not in done.stdout
    assert "shown" in done.stdout and "redacted" in done.stdout and "PRIVATE KEY" not in done.stdout
    assert certificate[1] in done.stdout, "the key's path is no secret"


# --- run ---

def test_run_names_what_cannot_be_opened(moongate, write):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = moongate("run", write(GOOD.replace("8080", str(port))))
        assert done.returncode == 1 and str(port) in done.stderr and "in use" in done.stderr.lower()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_with_0(write, sig):
    port = free_port()
    process = Process([gateway_module.binary(), "run", str(write(GOOD.replace("8080", str(port)).replace("}\nroute", ", probe = false }\nroute")))])
    try:
        process.wait_err("serving", 20)
        after = len(process.lines_err)
        process.proc.send_signal(signal.SIGHUP)
        process.wait_err("reload is not in this version", 5, after)
        process.proc.send_signal(signal.SIGPIPE)
        assert raw.request(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 502
    finally:
        assert process.stop(sig) == 0, process.err()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_run_says_what_it_serves(start):
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\nroute "all" { reply(204) }', workers=2)
    wait_for(lambda: "serving" in gateway.err() and re.search(r"room for \d+ clients or tunnels", gateway.err()), 5)
    assert os.path.exists(f"/proc/{gateway.pid}/task") and gateway.port()


# --- what the manual says of ends ---

def manual_example(page, before):
    """The literal display behind a text, as it is rendered."""
    display = (ROOT / "man" / page).read_text().partition(before)[2].partition(".Bd -literal")[2]
    return display.partition("\n")[2].partition(".Ed")[0].replace("\\e", "\\")


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_manuals_jq_shows_all_but_closes(tmp_path):
    causes = dict(re.findall(r'X\(\w+, "([^"]+)", "(\w+)"\)', (ROOT / "src/traffic/cause.h").read_text()))
    (tmp_path / "access.log").write_text("".join(json.dumps({"event": event, "cause": cause, "side": side}) + "\n"
                                                 for event in ("close", "request") for cause, side in causes.items()))
    command = manual_example("moongate.8", "All tunnels that ended by anything but a close")
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["event"] for line in shown} == {"close"}, done.stderr
    assert [line["cause"] for line in shown] == [cause for cause in causes if cause not in ("client closed", "server closed")]


def test_the_manuals_on_close_is_silent_on_clean_closes(start, origin):
    server = origin("one")
    gateway = start(manual_example("moongate-rules.7", ".Ss Why tunnels end") + f'''
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ "127.0.0.1:{server.port}" }}, probe = false }}
route "all" {{ websocket = true, forward "p" }}''')
    s, _ = raw.open_websocket(gateway.port())
    s.sendall(raw.frame(b"\x03\xe8", opcode=8))
    raw.read_all(s)
    s.close()
    closed, = gateway.wait_access(1, event="close")
    assert (closed["cause"], closed["side"], closed["subprotocol"]) == ("server closed", "server", ""), "though the client began it"
    s, _ = raw.open_websocket(gateway.port())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    gateway.wait_access(2, event="close")
    wait_for(lambda: re.search(r"warn .*: client reset after \d+ s", gateway.err()), 5)
    assert "closed after" not in gateway.err()


def test_dump_of_the_language(moongate):
    for option, name in (("--meta", "moongate.lua"), ("--luacheck", "moongate.luacheckrc")):
        shown = moongate("dump", option)
        assert shown.returncode == 0 and shown.stdout == (ROOT / "lua" / "meta" / name).read_text()
    assert moongate("dump", "--meta", "x.lua").returncode == 2
