# SPDX-License-Identifier: MIT
"""A8: what is forwarded is canonical. For every accepted input, listed and generated, the bytes towards the server are the same requests to
python's h11, to Node's HTTP server (llhttp), to us (the access log) and to whoever meant them: count, method, target, fields, body, trailers.
"""

import base64
import json
import pathlib
import random
import re
import shutil
import string
import subprocess

import h11
import pytest

import corpus_rig as rig
from gateway import forwarding, wait_for

METHODS = (b"GET HEAD POST PUT DELETE OPTIONS TRACE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT MKACTIVITY CHECKOUT MERGE "
           b"M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK BIND REBIND UNBIND ACL").split()
BODY_BY_NATURE = (b"POST", b"PUT", b"PATCH")
OURS = ("x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port")
UNRESERVED = string.ascii_letters + string.digits + "-._~"


def normal_path(path):
    """The path that is forwarded, told by the rules and not by our code: escapes of unreserved characters decoded, dots and slashes collapsed."""
    if path == "*":
        return path

    def escape(match):
        char = chr(int(match.group(1), 16))
        return char if char in UNRESERVED else match.group(0).upper()

    parts = re.sub("%([0-9A-Fa-f]{2})", escape, path).split("/")[1:]
    kept = []
    for part in parts:
        if part == "..":
            if not kept:
                return None  # above the root
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept) + ("/" if kept and parts[-1] in ("", ".", "..") else "")


class Generator:
    """Requests that are accepted, in every spelling that is, each with what it means: (method, target, fields, body, trailers)."""

    SEGMENTS = ["a", "bc", "", "", ".", "..", "%20x", "%7e", "%41%2d", "%c3%A4", "x;y=1", "(z)", "...", "a:b@c", "!$&'*+,", "%5C", "%25"]

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def token(self, alphabet=string.ascii_letters + string.digits + "!#$%&'*+-.^`|~"):
        return "".join(self.rng.choice(alphabet) for _ in range(self.rng.randint(1, 12)))

    def space(self):
        return self.rng.choice(["", " ", " ", "\t", " \t ", "   "])

    def value(self):
        middle = "".join(self.rng.choice(string.ascii_letters + string.punctuation + " \t" + "\x80\xe4\xff") for _ in range(self.rng.randint(0, 30)))
        return middle.strip(" \t")

    def target(self):
        while True:
            path = "/" + "/".join(self.rng.choice(self.SEGMENTS) for _ in range(self.rng.randint(0, 6)))
            if normal_path(path):
                break
        query = self.rng.choice(["", "", "?", "?" + "".join(self.rng.choice(string.ascii_letters + "=&%/?.+;:@'\"<>[]{}|\\^`~") for _ in range(20))])
        return path, query

    def chunks(self, body):
        at, out = 0, b""
        while at < len(body):
            size = self.rng.randint(1, len(body) - at)
            digits = ("%x" if self.rng.random() < 0.5 else "%X") % size
            extension = self.rng.choice(["", "", ";a", " ; a = b", ';q="x;y\\"z"', ";a=b;c"])
            out += ("0" * self.rng.randint(0, 3) + digits + extension + "\r\n").encode() + body[at:at + size] + b"\r\n"
            at += size
        trailers = [("T-" + self.token(string.ascii_letters), self.value()) for _ in range(self.rng.choice([0, 0, 1, 2]))]
        lines = "".join(f"{name}:{self.space()}{value}{self.space()}\r\n" for name, value in trailers)
        return out + b"0" * self.rng.randint(1, 4) + b"\r\n" + lines.encode("latin-1") + b"\r\n", trailers

    def request(self):
        method = self.rng.choice(METHODS)
        path, query = self.target()
        host = self.rng.choice(["a", "Example.COM", "a.b:8080", "127.0.0.1", "[::1]:81", "host."])
        fields = [(self.rng.choice(["X-", "h", "Accept-"]) + self.token(), self.value()) for _ in range(self.rng.randint(0, 6))]
        lines = [f"{name}:{self.space()}{value}{self.space()}" for name, value in fields]
        if self.rng.random() < 0.3:
            name = "X-Hop-" + self.token(string.ascii_letters)
            lines += [f"Connection: keep-alive{self.rng.choice([', ', ',', ' ,, '])}{name.upper()}", f"{name}: 1"]
        if self.rng.random() < 0.2:
            lines += ["Connection: Upgrade", "Upgrade: h2c", "X_Dropped: 1"]
        body = bytes(self.rng.randrange(256) for _ in range(self.rng.choice([0, 1, 50, 3000])))
        trailers, framing, framed = [], self.rng.choice(["none", "length", "chunked"]), b""
        if framing == "length":
            lines.append(f"Content-Length: {self.rng.choice(['', '0', '000'])}{len(body)}")
            framed, ours = body, [("content-length", str(len(body)))]
        elif framing == "chunked":
            lines.append("Transfer-Encoding: " + self.rng.choice(["chunked", "Chunked", "CHUNKED"]))
            (framed, trailers), ours = self.chunks(body), [("transfer-encoding", "chunked")]
        else:
            body, ours = b"", [("content-length", "0")] if method in BODY_BY_NATURE else []
        lines.insert(self.rng.randint(0, len(lines)), self.rng.choice(["Host", "HOST", "host"]) + f":{self.space()}{host}{self.space()}")
        form = self.rng.choice(["", "", "", "http://" + host])
        data = method + f" {form}{path}{query} HTTP/1.1\r\n".encode() + "".join(line + "\r\n" for line in lines).encode("latin-1") + b"\r\n" + framed
        meant = (method.decode(), normal_path(path) + query, [("host", host)] + [(n.lower(), v) for n, v in fields] + ours, body,
                 [(n.lower(), v) for n, v in trailers])
        return data, meant


class Recorder(rig.RequestRig):
    """Keeps the raw bytes of its connections beside the messages."""

    def __init__(self):
        super().__init__()
        self.streams = []

    def on_server(self, end):
        if not hasattr(end, "stream"):
            end.stream, end.taken = bytearray(), 0
            self.streams.append(end.stream)
        if not end.tunnel:
            end.stream += end.data[end.taken:]
        super().on_server(end)
        end.taken = len(end.data)

    def ask(self, data):
        """Sends data on a connection of its own and waits for its end."""
        end = self.connect()
        end.send(data + rig.GOOD)
        self.until(lambda: end.over, lambda: f"no end of {data[:300]!r}: {end.data!r}")
        self.end_clients()
        return end.data


def by_h11(stream):
    """The requests in a connection's bytes as h11 reads them."""
    found, conn = [], h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    conn.receive_data(bytes(stream))
    while True:
        event = conn.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            return found
        if isinstance(event, h11.Request):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((head.method.decode(), head.target.decode(), latin(head.headers), body, latin(event.headers)))
            conn.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            conn.send(h11.EndOfMessage())
            if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                return found
            conn.start_next_cycle()


def latin(headers):
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]


def by_node(streams, counts):
    node = shutil.which("node") or shutil.which("nodejs")
    assert node, "Node is missing (Debian: nodejs)"
    text = json.dumps({"streams": [{"data": base64.b64encode(bytes(s)).decode(), "count": n} for s, n in zip(streams, counts)]})
    done = subprocess.run([node, str(pathlib.Path(__file__).parent / "canonical.js")], input=text, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = []
    for seen in json.loads(done.stdout):
        assert not seen["error"], seen
        found.append([(m["method"], m["url"], pairs(m["headers"]), m["body"].encode("latin-1"), pairs(m["trailers"])) for m in seen["messages"]])
    return found


def pairs(flat):
    return [(name.lower(), value) for name, value in zip(flat[::2], flat[1::2])]


def without_ours(fields):
    return [(name, value) for name, value in fields if name not in OURS]


def agree(streams, gateway):
    """All readers read the same in these connections; returns the requests, in no order but within a connection."""
    read = [by_h11(stream) for stream in streams]
    for stream, ours, nodes in zip(streams, read, by_node(streams, [len(one) for one in read])):
        assert ours == nodes, f"h11 and Node differ on {bytes(stream)!r}"
        rest = bytes(stream)
        for _ in ours:
            message, rest = rig.take_message(rest)
        assert message is not None and rest == b"", f"left over: {rest!r}"
    everything = [request for one in read for request in one]
    wait_for(lambda: len(gateway.access()) >= len(everything), 10, "a log line for each")
    entries = {entry["id"]: entry for entry in gateway.access()}
    assert len(entries) == len(gateway.access()) == len(everything), "one line and one id a request"
    for method, target, fields, body, _ in everything:
        assert [fields_named(fields, name) for name in OURS].count(1) == len(OURS), fields
        named = dict(fields)
        entry = entries[named["x-request-id"]]
        query = "?" + entry["query"] if "query" in entry else ""
        host = re.sub(r":\d+$", "", named["host"]).lower().rstrip(".")
        assert (entry["method"], normal_path(entry["path"]) + query, entry["host"], entry["bytes_in"]) == (method, target, host, len(body)), entry
    return everything


def fields_named(fields, name):
    return sum(1 for one, _ in fields if one == name)


@pytest.fixture
def recording(start):
    made = Recorder()
    gateway = start('settings { workers = 1, access_log = { to = "stdout", format = "json", query = true } }\n' + forwarding(made.address))
    made.port = gateway.port()
    yield gateway, made
    made.close()


def test_generated_requests_mean_the_same_to_everybody(recording):
    """A8, A10: methods, target forms, white space, hop fields, every framing, pipelined."""
    gateway, made = recording
    generator = Generator(8)
    meant = []
    for _ in range(150):
        batch = [generator.request() for _ in range(generator.rng.randint(1, 4))]
        got = made.ask(b"".join(generator.rng.choice([b"", b"", b"\r\n"]) + data for data, _ in batch))
        assert got.count(b"HTTP/1.1 200 OK\r\n") == len(batch) + 1 and b"HTTP/1.1 4" not in got, (got, batch)
        meant += [request for _, request in batch] + [("GET", "/good", [("host", "good")], b"", [])]
    seen = [(method, target, without_ours(fields), body, trailers) for method, target, fields, body, trailers in agree(made.streams, gateway)]
    # Connections to the server are kept and few: the order within each is that of the clients, which came one by one.
    assert sorted(seen) == sorted(meant)
    assert len(seen) > 400


LISTED = [case for name in ("requests-taken.txt", "chunks.txt", "upgrades.txt") for case in rig.read_cases(name)
          if not re.search(r"\b[45]\d\d\b|101", case.want)]


def test_listed_requests_mean_the_same_to_everybody(recording):
    """A8: the accepted messages of the corpus; what each means is what it says there."""
    gateway, made = recording
    meant = []
    for case in LISTED:
        made.ask(case.send)
        meant += by_h11(case.server) + ([] if "close" in case.want else [("GET", "/good", [("host", "good")], b"", [])])
    seen = [(method, target, without_ours(fields), body, trailers) for method, target, fields, body, trailers in agree(made.streams, gateway)]
    assert sorted(seen) == sorted(meant)


def test_handshakes_mean_the_same_to_everybody(recording):
    """A8, B11: a forwarded WebSocket handshake is one to h11 and Node, too."""
    gateway, made = recording
    cases = [case for case in rig.read_cases("upgrades.txt") if case.want == "101"]
    for case in cases:
        made.ask(case.send)
    read = [by_h11(stream[:stream.index(b"\r\n\r\n") + 4]) for stream in map(bytes, made.streams)]
    heads = [stream[:stream.index(b"\r\n\r\n") + 4] for stream in map(bytes, made.streams)]
    assert by_node(heads, [1] * len(heads)) == read and all(len(one) == 1 for one in read)
    seen = [(method, target, without_ours(fields), body, trailers) for [(method, target, fields, body, trailers)] in read]
    assert seen == [by_h11(case.server)[0] for case in cases]
    wait_for(lambda: len(gateway.access(event="open")) == len(cases), 10, "a log line for each")
    entries = {entry["id"]: entry for entry in gateway.access(event="open")}
    for [(method, target, fields, _, _)] in read:
        entry = entries.pop(dict(fields)["x-request-id"])
        query = "?" + entry["query"] if "query" in entry else ""
        assert (method, normal_path(entry["path"]) + query, entry["host"]) == ("GET", target, dict(fields)["host"]), entry
    assert not entries and {entry["event"] for entry in gateway.access()} <= {"open", "close"}
