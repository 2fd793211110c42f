# SPDX-License-Identifier: MIT
"""Raw clients: exact bytes out, what came back, and a small reader of responses."""

import base64
import hashlib
import os
import socket
import ssl
import struct


def connect(port, host="127.0.0.1", timeout=10.0, tls=None, server_name=None):
    s = socket.create_connection((host, port), timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        s = tls.wrap_socket(s, server_hostname=server_name or "localhost")
    return s


def insecure_tls(**kwargs):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context() would read every CA of the system
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for key, value in kwargs.items():
        setattr(context, key, value)
    return context


def read_all(s):
    """Everything until the peer closes; a reset ends it too and is told by the second value."""
    data = bytearray()
    try:
        while True:
            got = s.recv(1 << 20)
            if not got:
                return bytes(data), False
            data += got
    except ConnectionResetError:
        return bytes(data), True


def send_all(port, data, host="127.0.0.1", timeout=10.0, shut=False, **kwargs):
    """Sends data, returns all that comes back until the close."""
    with connect(port, host, timeout, **kwargs) as s:
        try:
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_all(s)[0]


def read_until(s, end, limit=1 << 20):
    data = b""
    while end not in data:
        got = s.recv(4096)
        if not got:
            break
        data += got
        assert len(data) < limit
    return data


class Response:
    """One response read from a socket; rest holds what was read behind it."""

    def __init__(self, s, head_only=False, rest=b""):
        data = rest
        while b"\r\n\r\n" not in data:
            got = s.recv(65536)
            if not got:
                raise EOFError(f"closed in the head: {data!r}")
            data += got
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.head = head
        self.status_line = lines[0]
        self.status = int(lines[0].split()[1])
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        self.rest = data
        self.body = b""
        if head_only or self.status in (204, 304) or 100 <= self.status < 200:
            return
        if self.get("transfer-encoding") == "chunked":
            self._chunked(s)
        elif self.get("content-length") is not None:
            self._need(s, int(self.get("content-length")))
            size = int(self.get("content-length"))
            self.body, self.rest = self.rest[:size], self.rest[size:]
        else:
            more, self.reset = read_all(s)
            self.body, self.rest = self.rest + more, b""

    def get(self, name, default=None):
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return default

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def _need(self, s, n):
        parts, size = [self.rest], len(self.rest)
        while size < n:
            got = s.recv(1 << 20)
            if not got:
                raise EOFError(f"closed in the body after {size} of {n}")
            parts.append(got)
            size += len(got)
        self.rest = b"".join(parts)

    def _line(self, s):
        while b"\r\n" not in self.rest:
            got = s.recv(65536)
            if not got:
                raise EOFError("closed in a chunk")
            self.rest += got
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def _chunked(self, s):
        body = bytearray()
        while True:
            size = int(self._line(s).split(b";")[0], 16)
            if size == 0:
                break
            self._need(s, size + 2)
            body += self.rest[:size]
            self.rest = self.rest[size + 2:]
        self.body = bytes(body)
        self.trailers = []
        while True:
            line = self._line(s)
            if not line:
                return
            self.trailers.append(tuple(part.strip() for part in line.decode("latin-1").split(":", 1)))


def request(port, head, body=b"", **kwargs):
    """One request on a connection of its own."""
    with connect(port, **kwargs) as s:
        s.sendall(head + body)
        return Response(s, head_only=head.startswith(b"HEAD "))


def handshake_bytes(path="/", host="localhost", protocols=None, key=None, extra=b"", version="13"):
    key = key or base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Version: {version}"]
    if protocols:
        lines.append(f"Sec-WebSocket-Protocol: {protocols}")
    return "\r\n".join(lines).encode() + b"\r\n" + extra + b"\r\n", key


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


def frame(payload, opcode=1, masked=True, fin=True):
    head = bytes([(0x80 if fin else 0) | opcode])
    mask_bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([mask_bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def read_frame(s, rest=b""):
    """(opcode, payload, rest) of one unmasked frame."""
    def need(n):
        nonlocal rest
        while len(rest) < n:
            got = s.recv(65536)
            if not got:
                raise EOFError("closed in a frame")
            rest += got
    need(2)
    opcode, size, at = rest[0] & 15, rest[1] & 127, 2
    if size == 126:
        need(4)
        size, at = struct.unpack("!H", rest[2:4])[0], 4
    elif size == 127:
        need(10)
        size, at = struct.unpack("!Q", rest[2:10])[0], 10
    need(at + size)
    return opcode, rest[at:at + size], rest[at + size:]


def open_websocket(port, path="/", host="localhost", protocols=None, extra=b"", **kwargs):
    """(socket, response) of a finished handshake; response.rest holds early frames."""
    s = connect(port, **kwargs)
    head, key = handshake_bytes(path, host, protocols, extra=extra)
    s.sendall(head)
    response = Response(s)
    if response.status == 101:
        assert response.get("sec-websocket-accept") == accept_of(key)
    return s, response
