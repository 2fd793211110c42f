# SPDX-License-Identifier: MIT
"""The corpus of malformed and borderline messages: its reader, and the rigs that play a case whole and in two pieces.

A case is played on many connections at once, one a cut, in lock-step: the first pieces are sent on all, the kernel is asked until the gateway
has read them, then the second ones follow. Everything runs in one thread, so what the other side saw is known when the verdicts are.
"""

import collections
import pathlib
import re
import resource
import selectors
import socket
import struct
import time

import raw

FOLDER = pathlib.Path(__file__).parent / "corpus"
CUT_HEAD = 300  # a head up to this is cut at every offset,
CUT_ALL = 600   # and so is a whole message up to this; what is longer at some offsets, spread over it, and near its end,
CUT_SOME, CUT_LAST = 64, 32
CUT_NONE = 65536  # unless it is endless
FILES = 4096    # two sockets a cut
GOOD = b"GET /good HTTP/1.1\r\nHost: good\r\nConnection: close\r\n\r\n"
GOOD_SEEN = b"GET /good HTTP/1.1\r\nHost: good\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3


class Case:
    """One message: where it stands, what is sent, what must become of it."""

    def __init__(self, file, line, name, section, defaults):
        self.place, self.name, self.section = f"{file}:{line}", name, section
        self.point = section.split()[0]
        self.fields = dict(defaults)

    def __getattr__(self, key):
        try:
            return self.fields[key]
        except KeyError:
            raise AttributeError(key) from None

    def get(self, key, default=None):
        return self.fields.get(key, default)

    @property
    def id(self):
        return f"{self.point}-{self.name}".replace(" ", "-")

    @property
    def cuts(self):
        """0 is the whole message in one piece."""
        size = len(self.send)
        if size <= CUT_ALL:
            return range(size or 1)
        if size > CUT_NONE:
            return range(1)
        head = self.send.find(b"\r\n\r\n") + 4
        every = range(head + 1 if 4 <= head <= CUT_HEAD else 1)
        return sorted({*every, *range(0, size, -(-size // CUT_SOME)), *range(size - CUT_LAST, size)})


def unescape(text, macros):
    r"""\r \n \t \\ \xHH, \<NAME> for what `let NAME` stands for, \{N|text} for text N times."""
    out, at = bytearray(), 0
    while at < len(text):
        if text[at] != "\\":
            out += text[at].encode("ascii")
            at += 1
            continue
        kind = text[at + 1]
        at += 2
        if kind in "rnt\\":
            out += {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}[kind]
        elif kind == "x":
            out.append(int(text[at:at + 2], 16))
            at += 2
        elif kind == "<":
            end = text.index(">", at)
            out += macros[text[at:end]]
            at = end + 1
        elif kind == "{":
            end, depth = at, 1
            while depth:
                end = min(i for i in (text.find("\\{", end), text.find("\\}", end)) if i >= 0) + 2
                depth += 1 if text[end - 1] == "{" else -1
            count, _, inner = text[at:end - 2].partition("|")
            out += unescape(inner, macros) * int(count)
            at = end
        else:
            raise ValueError(f"unknown escape \\{kind}")
    return bytes(out)


RAW_KEYS = ("send", "server", "client", "request")
KEYS = (*RAW_KEYS, "want", "why", "rfc", "then")


def read_cases(name):
    """The cases of one file of the corpus; its format is told in corpus/README."""
    cases, macros, section, defaults, case = [], {}, None, {}, None
    for number, line in enumerate((FOLDER / name).read_text("ascii").split("\n"), 1):
        place = f"{name}:{number}"
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        if line.startswith("let "):
            key, _, value = line[4:].partition(" ")
            macros[key] = unescape(value.strip(), macros)
        elif line.startswith("["):
            section, defaults, case = text.strip("[]"), {}, None
        elif not line.startswith(" "):
            case = Case(name, number, text, section, defaults)
            cases.append(case)
        else:
            key, colon, value = text.partition(":")
            assert colon and key in KEYS, f"{place}: no key of a case: {text}"
            fields = case.fields if case else defaults
            value = value[1:] if value.startswith(" ") else value
            if key in RAW_KEYS:
                value = unescape(value, macros)
                if case and key in case.fields and key not in defaults:
                    value = case.fields[key] + value
            fields[key] = value
    for case in cases:
        for key in ("send", "want", "why"):
            assert key in case.fields, f"{case.place}: {case.name}: no {key}"
    names = collections.Counter((case.section, case.name) for case in cases)
    assert all(count == 1 for count in names.values()), [name for name, count in names.items() if count > 1]
    return cases


# --- what stands in the kernel unread ---

def unread(local=0, remote=0):
    """Bytes that sockets at this local or to this remote port have not read yet (sock_diag(7))."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:
        body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 1 << 1 | 1 << 8)  # established, close-wait
        body += struct.pack("!HH16s16sI8s", local, remote, b"", b"", 0, b"\xff" * 8)
        s.sendto(struct.pack("=IHHII", 16 + len(body), 20, 0x301, 1, 0) + body, (0, 0))
        total = 0
        while True:
            data = s.recv(1 << 18)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                if kind == 3:  # done
                    return total
                if kind == 2:
                    raise OSError(-struct.unpack_from("=i", data, 16)[0], "sock_diag")
                total += struct.unpack_from("=I", data, 72)[0]
                data = data[size + 3 & ~3:]


def settle(pump, **ports):
    """Until the gateway has read all that stands at its ports, or will not; where sock_diag is not allowed, a while."""
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pump(0.001)
        try:
            if unread(**ports) == 0:
                return
        except OSError:
            pump(0.01)
            return


# --- messages as the server got them ---

def take_message(data):
    """(message, rest) of one whole request as a gateway may write it, (None, data) when more must come; anything odd raises."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None, data
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", head), f"line ends in {head!r}"
    lengths = re.findall(rb"\r\nContent-Length: (\d+)(?=\r\n|$)", head)
    chunked = re.findall(rb"\r\nTransfer-Encoding: chunked(?=\r\n|$)", head)
    framing = re.findall(rb"(?i)\r\n(?:content-length|transfer-encoding) *:", head)
    assert len(framing) == len(lengths) + len(chunked) <= 1, f"framing of {head!r}"
    if chunked:
        body, rest = take_chunks(rest)
        return (head + end + body, rest) if rest is not None else (None, data)
    size = int(lengths[0]) if lengths else 0
    if len(rest) < size:
        return None, data
    return head + end + rest[:size], rest[size:]


def take_chunks(data):
    """(the body as one chunk and its trailer, rest); rest is None when more must come, the body then holds what is there."""
    got, at = b"", 0
    while True:
        line, end, _ = data[at:].partition(b"\r\n")
        if not end:
            return got, None
        assert re.fullmatch(rb"0|[1-9a-f][0-9a-f]{0,15}", line), f"chunk line {line!r}"
        size = int(line, 16)
        at += len(line) + 2
        if size == 0:
            break
        got += data[at:at + size]
        if len(data) < at + size + 2:
            return got, None
        assert data[at + size:at + size + 2] == b"\r\n", f"chunk end in {data!r}"
        at += size + 2
    body = (b"%x\r\n%s\r\n" % (len(got), got) if got else b"") + b"0\r\n"
    while True:
        line, end, _ = data[at:].partition(b"\r\n")
        if not end:
            return got, None
        at += len(line) + 2
        body += line + end
        if not line:
            return body, data[at:]


def without_ours(head, port):
    """A forwarded message without the five fields that the gateway always adds; each must stand there once and be right."""
    host = re.search(rb"\r\nHost: ([^\r]*)\r\n", head)
    assert host and len(re.findall(rb"(?i)\r\nhost:", head.partition(b"\r\n\r\n")[0])) == 1, f"Host in {head!r}"
    ours = [rb"X-Request-Id: [0-9a-f]{32}", rb"X-Forwarded-For: 127\.0\.0\.1", rb"X-Forwarded-Proto: http",
            rb"X-Forwarded-Host: " + re.escape(host.group(1)), b"X-Forwarded-Port: %d" % port]
    for line in ours:
        head, count = re.subn(rb"\r\n" + line + rb"(?=\r\n)", b"", head, count=1)
        assert count, f"{line!r} in {head!r}"
    return head


# --- the rigs ---

class Rig:
    """Sockets of a case, clients and server both, driven by one selector."""

    def __init__(self, port=None):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < FILES:  # below 0 there is no limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard) if hard >= 0 else FILES, hard))
        self.port = port  # the gateway's
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.servers, self.clients = [], []

    def close(self):
        self.end_clients()
        self.end_servers()
        self.selector.close()
        self.listener.close()

    def end_clients(self):
        for end in self.clients:
            end.close(self.selector)
        self.clients = []

    def end_servers(self):
        for end in self.servers:
            end.close(self.selector)
        self.servers = []

    def connect(self):
        end = End(raw.connect(self.port, timeout=10))
        self.clients.append(end)
        self.selector.register(end.sock, selectors.EVENT_READ, end)
        return end

    def on_server(self, end):
        """Something came to a server's connection, or it ended."""

    def pump(self, timeout):
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                self._accept()
                continue
            key.data.receive(self.selector)
            if key.data.is_server:
                self.on_server(key.data)

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(10)
            end = End(sock, is_server=True)
            self.servers.append(end)
            self.selector.register(sock, selectors.EVENT_READ, end)

    def until(self, check, what, timeout=5.0):
        limit = time.monotonic() + timeout
        while not check():
            assert time.monotonic() < limit, f"timed out: {what()}"
            self.pump(0.05)


class End:
    def __init__(self, sock, is_server=False):
        self.sock, self.is_server = sock, is_server
        self.data, self.messages = b"", []
        self.over, self.reset, self.tunnel = False, False, False

    def receive(self, selector):
        try:
            got = self.sock.recv(1 << 18)
        except ConnectionResetError:
            got, self.reset = b"", True
        self.data += got
        if not got:
            self.over = True
            selector.unregister(self.sock)

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def close(self, selector):
        if not self.over:
            selector.unregister(self.sock)
        self.over = True
        self.sock.close()


class RequestRig(Rig):
    """Plays requests; its server records and answers each with 200, or with the right 101."""

    def on_server(self, end):
        while not end.tunnel:
            message, end.data = take_message(end.data)
            if message is None:
                return
            end.messages.append(without_ours(message, self.port))
            if b"\r\nUpgrade: websocket\r\n" in message:
                assert end.data == b"", "bytes before the 101"
                end.tunnel = True
                end.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                         + raw.accept_of(KEY.decode()).encode() + b"\r\n\r\n")
            else:
                end.send(OK[:-2] if message.startswith(b"HEAD ") else OK)
        if end.data.endswith(GOOD) and not end.over:
            end.sock.shutdown(socket.SHUT_WR)

    def play(self, case):
        """(what each client got, what the server got) for the message whole and in two pieces at every cut."""
        self.clients = []
        for cut in case.cuts:
            end = self.connect()
            end.send(case.send[:cut] if cut else case.send + GOOD)
        if len(self.clients) > 1:
            settle(self.pump, local=self.port)
            for cut, end in zip(case.cuts, self.clients):
                if cut:
                    end.send(case.send[cut:] + GOOD)
        self.until(lambda: all(end.over for end in self.clients),
                   lambda: f"open at cut {[c for c, e in zip(case.cuts, self.clients) if not e.over][:5]}: "
                           f"{[e.data for e in self.clients if not e.over][:1]}")
        got = [end.data for end in self.clients]
        self.end_clients()
        # What was forwarded in part ends with its client.
        self.until(lambda: all(end.over or not end.data and not end.tunnel for end in self.servers), lambda: "the server's part stays open")
        for _ in range(2):
            self.pump(0)
        seen = collections.Counter(message for end in self.servers for message in end.messages)
        parts = [end.data for end in self.servers if end.data]
        for end in self.servers:
            end.messages = []
            if end.over:
                end.data = b""
                end.sock.close()
        self.servers = [end for end in self.servers if not end.over]
        return got, seen, parts


class ResponseRig(Rig):
    """Plays answers: each client asks for its own cut, the server's connections answer in lock-step."""

    def on_server(self, end):
        head, blank, rest = end.data.partition(b"\r\n\r\n")
        if blank and not getattr(end, "head", None):
            end.head, end.data = head + blank, rest
            if end.head.startswith(b"GET /good "):
                end.head = None  # the gateway may ask on this connection again
                end.send(OK)

    def play(self, case, request):
        """(what each client got, the servers' connections by cut). request: with %d for the cut."""
        self.clients = []
        self.end_servers()
        for cut in case.cuts:
            self.connect().send(request % cut)
        count = len(self.clients)
        waiting = lambda: [end for end in self.servers if getattr(end, "head", None) and not end.over]  # noqa: E731
        self.until(lambda: len(waiting()) == count, lambda: f"{len(waiting())} of {count} requests at the server")
        asked = {int(re.match(rb"\S+ /(\d+) ", end.head).group(1)): end for end in waiting()}
        for cut, end in asked.items():
            end.send(case.send[:cut] if cut else case.send)
        if count > 1:
            settle(self.pump, remote=self.listener.getsockname()[1])
        for cut, end in asked.items():
            if cut:
                end.send(case.send[cut:])
            if case.get("then") == "close":
                try:
                    end.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            end.head, end.data = None, b""  # what comes now is another request
        return asked


def read_responses(data, head_only=False):
    """[(status, head, body)] of whole responses, and what is left behind them; framing of ours and of the rigs only."""
    found = []
    while data.startswith(b"HTTP/1.1 "):
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            break
        status = int(head[9:12])
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if status == 101:
            return found + [(status, head, b"")], rest
        if re.search(rb"(?i)\r\ntransfer-encoding: chunked", head) and not head_only:
            body, rest = take_chunks(rest)
            if rest is None:
                break
        else:
            size = 0 if head_only and not found or status in (204, 304) or status < 200 else int(length.group(1)) if length else len(rest)
            if len(rest) < size:
                break
            body, rest = rest[:size], rest[size:]
        found.append((status, head, body))
        data = rest
    return found, data
