# SPDX-License-Identifier: MIT
"""The command line as a user meets it: help and versions, exit codes, check, demo, origin."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess

import pytest

from gateway import ROOT, binary, free_port

COMMANDS = ("run", "check", "route", "dump", "demo", "origin")


def moongate(*arguments, env=None, cwd=None):
    return subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=30, cwd=cwd,
                          env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL)


def write(folder, text, name="gateway.lua"):
    path = folder / name
    path.write_text(text)
    return path


GOOD = """
listener "http" { bind = "127.0.0.1:8080" }
pool "web" { servers = { "127.0.0.1:9001" } }
route "web" { forward "web" }
"""


def test_help_and_version_everywhere():
    top = moongate("--help")
    assert top.returncode == 0 and all(f"moongate {name}" in top.stdout for name in COMMANDS)
    assert moongate("--version").stdout.startswith("moongate ")
    for name in COMMANDS:
        shown = moongate(name, "--help")
        assert shown.returncode == 0 and shown.stdout.startswith(f"usage: moongate {name}") and not shown.stderr
        assert moongate("help", name).stdout == shown.stdout
        assert moongate(name, "--version").stdout == moongate("--version").stdout


def test_what_is_unknown_is_an_error():
    for arguments in ((), ("frobnicate",), ("--frobnicate",), *((name, "--frobnicate") for name in COMMANDS)):
        result = moongate(*arguments)
        assert result.returncode == 2 and result.stderr and not result.stdout, arguments
    assert "did you mean 'check'" in moongate("chekc").stderr
    for arguments in (("check",), ("check", "a", "b"), ("origin",), ("origin", "70000"), ("demo", "--port", "x"),
                      ("demo", "--bind", "nowhere"), ("origin", "0", "--name")):
        assert moongate(*arguments).returncode == 2, arguments


def test_output_that_cannot_be_written_is_a_failure():
    with open("/dev/full", "w", encoding="ascii") as full:
        assert subprocess.run([binary(), "--help"], stdout=full, stderr=subprocess.DEVNULL).returncode == 1


def test_check_says_all_mistakes_with_file_and_line(tmp_path):
    assert moongate("check", write(tmp_path, GOOD)).returncode == 0
    bad = write(tmp_path, 'listener "http" { bind = "127.0.0.1:8080", bimd = 1 }\npool "a" { servers = { "127.0.0.1:1" } }\n'
                          'pool "a" { servers = { "127.0.0.1:1" } }\nroute "r" { path = "/x", forward "nowhere" }\n')
    result = moongate("check", bad)
    assert result.returncode == 1 and result.stdout == ""
    assert all(f"gateway.lua:{line}:" in result.stderr for line in (1, 3, 4)), result.stderr
    assert "bimd" in result.stderr and "did you mean" in result.stderr
    assert moongate("check", tmp_path / "absent.lua").returncode == 1


def test_dump_of_the_language():
    for option, name in (("--meta", "moongate.lua"), ("--luacheck", "moongate.luacheckrc")):
        shown = moongate("dump", option)
        assert shown.returncode == 0 and shown.stdout == (ROOT / "lua" / "meta" / name).read_text()
    assert moongate("dump", "--meta", "x.lua").returncode == 2


def test_check_strict_refuses_warnings(tmp_path):
    path = write(tmp_path, GOOD.replace("9001\" }", "9001\" }, response_timeout = 5000"))
    assert "warning" in moongate("check", path).stderr and moongate("check", path).returncode == 0
    assert moongate("check", "--strict", path).returncode == 1


def test_check_loads_keys(tmp_path, certificate):
    cert, key = map(str, certificate)
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", other], check=True,
                   capture_output=True)
    text = GOOD.replace('8080"', '8080", tls = { cert = "%s", key = "%s" }')
    assert moongate("check", write(tmp_path, text % (cert, key))).returncode == 0
    result = moongate("check", write(tmp_path, text % (cert, other)))
    assert result.returncode == 1 and "gateway.lua:2:" in result.stderr and str(other) in result.stderr, result.stderr


@pytest.fixture
def demo(tmp_path):
    """A demo on free ports: (process, port, its temporary folder)."""
    while True:
        port = free_port()
        if port + 363 < 65536:
            break
    process = subprocess.Popen([binary(), "demo", "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    process.shown = "".join(lines)
    yield process, port, tmp_path
    if process.poll() is None:
        process.kill()
    process.stdout.close()
    process.wait()


def test_demo_serves_its_page_on_http_and_https(demo):
    process, port, folder = demo
    assert "01-quickstart.lua" in process.shown and f"http://127.0.0.1:{port}/" in process.shown
    context = ssl.create_default_context(cafile=next(folder.glob("*/cert.pem")))
    for client in (http.client.HTTPConnection("127.0.0.1", port, timeout=10),
                   http.client.HTTPSConnection("localhost", port + 363, timeout=10, context=context)):
        client.request("GET", "/")
        answer = client.getresponse()
        assert answer.status == 200 and answer.getheader("x-origin") == "chat"
        assert b"superchat" in answer.read()
        client.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 0
    assert not list(folder.iterdir())


def test_demo_says_that_a_port_is_busy(demo):
    _, port, _ = demo
    result = moongate("demo", "--port", port)
    assert result.returncode == 1 and f"port {port}" in result.stderr and "in use" in result.stderr


def test_origin_alone():
    process = subprocess.Popen([binary(), "origin", "0", "--name", "solo"], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1])
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    client.request("GET", "/headers", headers={"x-a": "b"})
    answer = client.getresponse()
    assert answer.getheader("x-origin") == "solo" and ["x-a", "b"] in json.loads(answer.read())
    client.close()
    with socket.create_connection(("127.0.0.1", port)):
        process.terminate()
        assert process.wait(timeout=10) == 0
    process.stdout.close()
