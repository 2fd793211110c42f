# SPDX-License-Identifier: MIT
"""`moongate demo`: the page, both WebSockets over http and https, by clients and by a real browser."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request

import pytest
import websockets

import gateway as gateway_module
import raw
from gateway import Process, free_port, wait_for


class Demo(Process):
    def __init__(self, *args, env=None):
        super().__init__([gateway_module.binary(), "demo", *args], env=env)
        wait_for(self._ready, 20, "the demo's welcome")
        self.http = int(re.search(r"curl -i http://\S+?:(\d+)/echo", self.out()).group(1))
        self.https = int(re.search(r"curl -ik https://\S+?:(\d+)/echo", self.out()).group(1))

    def _ready(self):
        if self.proc.poll() is not None:
            raise AssertionError(f"ended with {self.proc.returncode}: {self.err()}")
        return "Ctrl-C ends it." in self.out()

    def access(self, **want):
        entries = [json.loads(line) for line in list(self.lines_out) if line.startswith("{")]
        return [entry for entry in entries if all(entry.get(key) == value for key, value in want.items())]


@pytest.fixture
def demo(tmp_path):
    running = []

    def run(*args, env=None):
        made = Demo(*(args or ("--port", "0")), env={"TMPDIR": str(tmp_path), **(env or {})})
        running.append(made)
        return made

    yield run
    for made in running:
        assert made.stop() == 0, made.err()
        assert "Sanitizer" not in made.err() and "runtime error" not in made.err()
    assert not list(tmp_path.glob("moongate-demo-*")), "the certificate's folder is removed"


def test_what_it_says(demo, tmp_path):
    d = demo()
    assert re.search(r"^  /\S*/01-quickstart\.lua$", d.out(), re.M) and os.path.exists(re.search(r"^  (/\S*quickstart\.lua)$", d.out(), re.M).group(1))
    for text in (f"http://127.0.0.1:{d.http}/", f"https://127.0.0.1:{d.https}/", "curl -i ", f"ws://127.0.0.1:{d.http}/ws", "moongate route "):
        assert text in d.out()
    folder, = tmp_path.glob("moongate-demo-*")
    assert {(path.name, path.stat().st_mode & 0o077) for path in folder.iterdir()} == {("cert.pem", 0), ("key.pem", 0)}


def test_the_page_over_http_and_https(demo):
    d = demo()
    page = urllib.request.urlopen(f"http://127.0.0.1:{d.http}/", timeout=10)
    text = page.read().decode()
    assert page.headers["content-type"].startswith("text/html") and "<title>Moongate demo</title>" in text
    assert "superchat" in text and not re.search(r"(src|href)=.?http", text), "nothing from elsewhere"
    again = urllib.request.urlopen(f"https://localhost:{d.https}/", timeout=10, context=raw.insecure_tls()).read().decode()
    assert again == text


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_both_websockets(demo, scheme):
    d = demo()
    port = d.https if scheme == "wss" else d.http

    async def run():
        for offered, pool in ((["chat"], "chat"), (["superchat"], "superchat"), (["x", "superchat", "chat"], "superchat"), (["chat", "superchat"], "chat")):
            options = {"ssl": raw.insecure_tls()} if scheme == "wss" else {}
            async with websockets.connect(f"{scheme}://127.0.0.1:{port}/ws?hello", subprotocols=offered, **options) as s:
                assert s.subprotocol == pool and await s.recv() == pool
                await s.send("hello through it")
                assert await s.recv() == "hello through it"
        with pytest.raises(websockets.InvalidStatusCode) as refused:
            async with websockets.connect(f"ws://127.0.0.1:{d.http}/ws"):
                pass
        assert refused.value.status_code == 404
    asyncio.run(run())
    wait_for(lambda: len(d.access(event="close")) == 4, 5)
    assert {entry["route"] for entry in d.access(event="close")} == {"sockets"}


def test_the_certificate_names_this_machine(demo, tmp_path):
    d = demo()
    context = ssl.create_default_context(cafile=str(next(tmp_path.glob("moongate-demo-*/cert.pem"))))
    for name in ("localhost", "127.0.0.1"):
        with raw.connect(d.https, tls=context, server_name=name) as s:
            s.sendall(b"GET /size/3 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert raw.Response(s).status == 200


def test_the_lines_it_prints_work(demo):
    """The curl handshake and the verdict, as a shell would run them."""
    d = demo()
    text = d.out().replace("\\\n", " ")
    handshake = re.search(r"handshake +(curl -iN .*)", text).group(1)
    done = subprocess.run(["sh", "-c", handshake + " --max-time 2"], capture_output=True, text=True, timeout=20)
    assert done.stdout.startswith("HTTP/1.1 101 ") and re.search(r"sec-websocket-protocol: chat\r?\n", done.stdout, re.I)
    verdict = re.search(r"verdict +(.*)", text).group(1)
    assert verdict.startswith(f"{gateway_module.binary()} route "), "as it was started: it need not be in PATH"
    done = subprocess.run(["sh", "-c", verdict], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stdout.startswith('forward to pool "chat"'), done.stderr


def test_what_is_in_path_is_named_without_one(tmp_path):
    (tmp_path / "moongate").symlink_to(gateway_module.binary())
    (tmp_path / "tmp").mkdir()
    process = Process(["moongate", "demo", "--port", "0"], env={"TMPDIR": str(tmp_path / "tmp"), "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    try:
        wait_for(lambda: "Ctrl-C ends it." in process.out(), 20, "the demo's welcome")
        assert re.search(r"verdict +moongate route /", process.out())
    finally:
        assert process.stop() == 0, process.err()


def test_a_chosen_port_and_address(demo):
    port = free_port(also=363)
    d = demo("--port", str(port), "--bind", "127.0.0.1")
    assert (d.http, d.https) == (port, port + 363)


def test_ipv6(demo):
    d = demo("--port", "0", "--bind", "::1")
    assert f"http://[::1]:{d.http}/" in d.out()
    with raw.connect(d.http, host="::1") as s:
        s.sendall(b"GET /size/3 HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        assert raw.Response(s).status == 200


@pytest.mark.parametrize("offset", [0, 363])
def test_a_busy_port_is_told_clearly(moongate, tmp_path, offset):
    first = free_port(also=363)
    port = first + offset
    with socket.create_server(("127.0.0.1", port)):
        done = moongate("demo", "--port", first, env={**os.environ, "TMPDIR": str(tmp_path)})
        assert done.returncode == 1 and f"port {port} of 127.0.0.1 is in use" in done.stderr and "--port N" in done.stderr
        assert not list(tmp_path.glob("moongate-demo-*"))


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c(tmp_path, sig):
    d = Demo("--port", "0", env={"TMPDIR": str(tmp_path)})
    assert d.stop(sig) == 0
    assert not list(tmp_path.iterdir())


def test_ctrl_c_does_not_wait_for_the_tunnels_of_an_open_page(demo):
    d = demo()
    with raw.open_websocket(d.http, path="/ws", protocols="chat")[0]:
        begun = time.monotonic()
        assert d.stop(signal.SIGINT) == 0
        assert time.monotonic() - begun < 10 # the drain_timeout of the example is a minute


# --- a real browser ---

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_browser_opens_both_sockets(demo, tmp_path, scheme):
    d = demo()
    port = d.https if scheme == "https" else d.http
    browser = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
               "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
               "--ignore-certificate-errors", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom",
               f"{scheme}://127.0.0.1:{port}/"]
    done = subprocess.run(browser, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    wait_for(lambda: len(d.access(event="close")) >= 2, 10, f"two tunnels opened and closed:\n{d.out()[-2000:]}\n{done.stderr[-2000:]}")
    closes = {entry["pool"]: entry for entry in d.access(event="close")}
    assert set(closes) == {"chat", "superchat"}
    for pool, entry in closes.items():
        assert entry["listener"] == scheme and entry["subprotocol"] == pool and entry["route"] == "sockets"
        assert entry["bytes_in"] > len(f"hello through {pool}") and entry["bytes_out"] > entry["bytes_in"] - 4
    page = d.access(event="request", path="/")[0]
    assert page["status"] == 200 and page["listener"] == scheme
    if "open, the server chose" in done.stdout:  # virtual time may run out before the sockets are open
        for pool in ("chat", "superchat"):
            assert re.search(rf'id="{pool}".*?class="pool">{pool}<', done.stdout, re.S)
