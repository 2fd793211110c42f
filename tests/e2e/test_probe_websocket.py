# SPDX-License-Identifier: MIT
"""Probes that shake hands: against real servers (python3-websockets, our own origin) and against ones that are nearly right."""

import asyncio
import base64
import hashlib
import threading

import pytest
import websockets

import raw
from gateway import fields_of

FAST = 'every = "200ms", fast = "60ms", timeout = "500ms", fall = 1, rise = 1'


def probed(server, keys):
    return f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ "{server}" }}, probe = {{ websocket = true, {keys}, {FAST} }} }}
        route "all" {{ forward "p" }}'''


class RealServer:
    """python3-websockets on a thread: what a deployed server does with handshakes, pings and Close frames."""

    def __init__(self, **options):
        self.closes = []
        self.paths = []
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, args=(options,), daemon=True)
        self.thread.start()
        assert self.ready.wait(5)

    def _run(self, options):
        asyncio.set_event_loop(self.loop)

        async def handler(websocket, path=None):
            self.paths.append(path if path is not None else websocket.path)
            await websocket.send("welcome")
            try:
                async for message in websocket:
                    await websocket.send(message)
            finally:
                self.closes.append(websocket.close_code)

        async def serve():
            self.server = await websockets.serve(handler, "127.0.0.1", 0, **options)
            self.port = self.server.sockets[0].getsockname()[1]
            self.ready.set()

        self.loop.run_until_complete(serve())
        self.loop.run_forever()

    def close(self):
        async def end():
            self.server.close()
            await self.server.wait_closed()
            self.loop.call_soon(self.loop.stop)
        asyncio.run_coroutine_threadsafe(end(), self.loop)
        self.thread.join(5)


@pytest.fixture
def real():
    servers = []

    def make(**options):
        servers.append(RealServer(**options))
        return servers[-1]
    yield make
    for server in servers:
        server.close()


def test_real_server(start, real):
    server = real(subprotocols=["chat"])
    gateway = start(probed(f"127.0.0.1:{server.port}", 'path = "/feed?probe=1", subprotocol = "chat", ping = true'))
    gateway.wait_err(rf"p/127.0.0.1:{server.port} up: WebSocket /feed\?probe=1: 101, pong, Close 1000")
    raw.open_websocket(gateway.port(), protocols=["chat"])[0].close()
    assert server.paths[0] == "/feed?probe=1"
    assert server.closes and server.closes[0] == 1000


def test_subprotocol_that_the_server_does_not_know(start, real):
    server = real(subprotocols=["other"])
    gateway = start(probed(f"127.0.0.1:{server.port}", 'path = "/", subprotocol = "chat"'))
    gateway.wait_err(r'down: WebSocket /: 101, but without the subprotocol "chat"')
    assert raw.request(gateway.port(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 503


def test_server_that_wants_an_origin(start, real):
    server = real(origins=["https://example.com"])
    gateway = start(probed(f"127.0.0.1:{server.port}", 'path = "/"'))
    gateway.wait_err(r"down: WebSocket /: 403, expected 101 \(.*headers")
    again = start(probed(f"127.0.0.1:{server.port}", 'path = "/", headers = { origin = "https://example.com" }'))
    again.wait_err(r"up: WebSocket /: 101, Close 1000")


def test_own_origin(start, origin):
    a = origin("a")
    gateway = start(probed(a.address, 'path = "/", ping = true'))
    gateway.wait_err(f"p/{a.address} up: WebSocket /: 101, pong, Close 1000")


def test_tls(start, certificate, origin):
    a = origin("a")
    inner = start(f'''listener "https" {{ bind = "127.0.0.1:@https@", tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }} }}
        pool "o" {{ servers = {{ "{a.address}" }}, probe = false }}
        route "all" {{ forward "o" }}''')
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ "127.0.0.1:{inner.port("https")}" }}, tls = {{ ca = "{certificate[0]}", sni = "localhost" }},
            probe = {{ websocket = true, path = "/", ping = true, {FAST} }} }}
        route "all" {{ forward "p" }}''')
    gateway.wait_err(r"up: WebSocket /: 101, pong, Close 1000")


def accepted(head, accept=None):
    key = dict(fields_of(head))["sec-websocket-key"].encode()
    right = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + \
        (accept or right) + b"\r\n\r\n"


@pytest.mark.parametrize("name, what", [
    ("wrong accept", "101 with the wrong Sec-WebSocket-Accept"),
    ("hangs", "101, but no Close within 500 ms"),
    ("fin", "101, then the connection ended without a Close frame"),
    ("going away", "101, then Close 1001, expected 1000"),
])
def test_nearly_right(start, scripted, name, what):
    def handler(peer):
        head = peer.head()
        if name == "wrong accept":
            peer.send(accepted(head, b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="))
            return
        peer.send(accepted(head))
        if name == "hangs":
            peer.wait_closed(5)
        elif name == "going away":
            peer.send(b"\x88\x02\x03\xe9")
            peer.wait_closed(5)
    server = scripted(handler)
    gateway = start(probed(server.address, 'path = "/"'))
    gateway.wait_err(f"down: WebSocket /: {what}")


def test_it_comes_back(start, scripted):
    """426 to a plain probe names the key; a server that recovers is up again."""
    state = {"status": b"503 Service Unavailable"}

    def handler(peer):
        head = peer.head()
        if state["status"]:
            peer.send(b"HTTP/1.1 " + state["status"] + b"\r\nContent-Length: 0\r\n\r\n")
            return
        peer.send(accepted(head))
        frame = peer.take(8)
        assert frame[0] == 0x88 and frame[1] == 0x82
        assert bytes(b ^ frame[2 + i] for i, b in enumerate(frame[6:])) == b"\x03\xe8"
        peer.send(b"\x88\x02\x03\xe8")
        peer.wait_closed(5)
    server = scripted(handler)
    gateway = start(probed(server.address, 'path = "/"'))
    gateway.wait_err("down: WebSocket /: 503, expected 101")
    state["status"] = None
    gateway.wait_err("up: WebSocket /: 101, Close 1000")
    state["status"] = b"426 Upgrade Required"
    plain = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ "{server.address}" }}, probe = {{ path = "/", {FAST} }} }}
        route "all" {{ forward "p" }}''')
    plain.wait_err(r"down: GET /: 426, expected 200-399 \(.*websocket = true")


@pytest.mark.parametrize("keys, mistake", [
    ('websocket = true, expect = 101', "expect"),
    ('websocket = true, method = "POST"', "method"),
    ('ping = true', "only with websocket = true"),
    ('subprotocol = "chat"', "only with websocket = true"),
    ('websocket = true, subprotocol = "no token"', "subprotocol"),
    ('websocket = true, headers = { ["sec-websocket-protocol"] = "x" }', "sec-websocket-protocol"),
])
def test_mistakes(moongate, tmp_path, keys, mistake):
    file = tmp_path / "moongate.lua"
    file.write_text(f'listener "http" {{ bind = "127.0.0.1:1" }}\npool "p" {{ servers = {{ "127.0.0.1:2" }}, probe = {{ {keys} }} }}\n'
                    'route "all" { forward "p" }\n')
    done = moongate("check", file)
    assert done.returncode == 1
    assert mistake in done.stderr and ":2:" in done.stderr
