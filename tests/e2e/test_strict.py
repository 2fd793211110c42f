# SPDX-License-Identifier: MIT
"""What is refused, byte by byte (requirements A): raw requests and responses, the outcome, and what the other side may have seen of them.

One gateway and one recording server serve the whole file. The server must never see a byte of a refused request; a client must never see a
refused answer.
"""

import random
import re
import socket
import time

import pytest

import raw
from gateway import RecordingOrigin, ScriptedOrigin, forwarding, wait_for

H = b"Host: a\r\n"
GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


def get(line=b"", target=b"/", version=b"HTTP/1.1", host=H):
    return b"GET " + target + b" " + version + b"\r\n" + host + line + b"\r\n"


def post(fields, body=b"", version=b"HTTP/1.1"):
    return b"POST / " + version + b"\r\n" + H + fields + b"\r\n" + body


CL = b"Content-Length: "
TE = b"Transfer-Encoding: "
CHUNKED = b"Transfer-Encoding: chunked\r\n"

# name, bytes, status
REFUSED = [
    # A1: request line, version, target, method
    ("version 2.0", get(version=b"HTTP/2.0"), 505),
    ("version 1.2", get(version=b"HTTP/1.2"), 505),
    ("version 0.9", get(version=b"HTTP/0.9"), 505),
    ("version 9.9", get(version=b"HTTP/9.9"), 505),
    ("version in lower case", get(version=b"http/1.1"), 400),
    ("version without a dot", get(version=b"HTTP/11"), 400),
    ("version with three numbers", get(version=b"HTTP/1.1.1"), 400),
    ("version with two digits", get(version=b"HTTP/1.10"), 400),
    ("version with a sign", get(version=b"HTTP/+1.1"), 400),
    ("version of another protocol", get(version=b"ICE/1.1"), 400),
    ("no version", b"GET /\r\n" + H + b"\r\n", 400),
    ("HTTP/0.9 alone", b"GET /\r\n\r\n", 400),
    ("empty version", b"GET / \r\n" + H + b"\r\n", 400),
    ("two spaces behind the method", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("tab behind the method", b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("space before the method", b" GET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("space behind the version", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400),
    ("no method", b" / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("method that is no token", b"G(T / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("unknown method", b"FROB / HTTP/1.1\r\n" + H + b"\r\n", 501),
    ("method in lower case", b"get / HTTP/1.1\r\n" + H + b"\r\n", 501),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    ("PRI, the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    ("target with a fragment", get(target=b"/a#b"), 400),
    ("target with a byte above ASCII", get(target=b"/\xc3\xa9"), 400),
    ("target with a control character", get(target=b"/a\x01b"), 400),
    ("target with DEL", get(target=b"/a\x7fb"), 400),
    ("target with NUL", get(target=b"/a\x00b"), 400),
    ("target with a tab", get(target=b"/a\tb"), 400),
    ("target without a slash", get(target=b"a"), 400),
    ("target of a query alone", get(target=b"?a"), 400),
    ("star with GET", get(target=b"*"), 400),
    ("star with more", b"OPTIONS *x HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("absolute form, another host", get(target=b"http://b/"), 400),
    ("absolute form, another port", get(target=b"http://a:81/"), 400),
    ("absolute form with user information", get(target=b"http://u@a/"), 400),
    ("absolute form with user information in Host too", get(target=b"http://u@a/", host=b"Host: u@a\r\n"), 400),
    ("absolute form, another scheme", get(target=b"ftp://a/"), 400),
    ("absolute form, no authority", get(target=b"http:///x", host=b"Host:\r\n"), 400),
    ("authority form", get(target=b"a:80"), 400),
    ("escape of one digit", get(target=b"/%4"), 400),
    ("escape of no digits", get(target=b"/%zz"), 400),
    ("escaped NUL", get(target=b"/%00"), 400),
    ("encoded slash", get(target=b"/a%2Fb"), 400),
    ("above the root", get(target=b"/../a"), 400),
    ("above the root, escaped", get(target=b"/%2e%2E/a"), 400),
    ("above the root, in the middle", get(target=b"/a/../../b"), 400),
    ("dot segment with a parameter", get(target=b"/a/..;x/b"), 400),
    ("dot segment and backslash", get(target=b"/a/..\\b"), 400),
    # A2: Host
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", get(host=H + H), 400),
    ("two different Hosts", get(host=H + b"Host: b\r\n"), 400),
    ("Host with a comma", get(host=b"Host: a,b\r\n"), 400),
    ("Host with a space", get(host=b"Host: a b\r\n"), 400),
    ("Host with an at sign", get(host=b"Host: u@a\r\n"), 400),
    ("Host with a slash", get(host=b"Host: a/b\r\n"), 400),
    ("Host with a control character", get(host=b"Host: a\x02\r\n"), 400),
    ("Host with a bad port", get(host=b"Host: a:x\r\n"), 400),
    ("Host with a port that is too large", get(host=b"Host: a:65536\r\n"), 400),
    ("Host with a question mark", get(host=b"Host: a?b\r\n"), 400),
    ("Host with an open bracket", get(host=b"Host: [::1\r\n"), 400),
    ("Host that is no IPv6 address", get(host=b"Host: [zz]\r\n"), 400),
    # A3: lines and fields
    ("bare LF behind the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400),
    ("bare LF behind a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("bare LF for the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("only LFs", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare CR behind the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    ("bare CR in a value", get(b"X: a\rb\r\n"), 400),
    ("CR CR LF", get(b"X: a\r\r\n"), 400),
    ("CR LF CR X for the end", b"GET / HTTP/1.1\r\nHost: a\r\n\rX", 400),
    ("two empty lines before the request", b"\r\n\r\n" + GOOD, 400),
    ("LF before the request", b"\n" + GOOD, 400),
    ("folded line", get(b"X: a\r\n b\r\n"), 400),
    ("folded line with a tab", get(b"X: a\r\n\tb\r\n"), 400),
    ("folded first line", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("folded Transfer-Encoding", post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), 400),
    ("NUL in a value", get(b"X: a\x00b\r\n"), 400),
    ("NUL as the first byte of a value", get(b"X: \x00\r\n"), 400),
    ("DEL in a value", get(b"X: \x7f\r\n"), 400),
    ("ESC in a value", get(b"X: \x1b[0m\r\n"), 400),
    ("vertical tab in a value", get(b"X: a\x0bb\r\n"), 400),
    ("space before the colon", get(b"X : a\r\n"), 400),
    ("tab before the colon", get(b"X\t: a\r\n"), 400),
    ("space before the colon of Transfer-Encoding", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    ("space before the colon of Content-Length", post(b"Content-Length : 3\r\n", b"abc"), 400),
    ("empty name", get(b": a\r\n"), 400),
    ("line without a colon", get(b"X\r\n"), 400),
    ("name with a space", get(b"X Y: a\r\n"), 400),
    ("name with a quote", get(b'X"Y: a\r\n'), 400),
    ("name with a byte above ASCII", get(b"X\xe9: a\r\n"), 400),
    ("name with NUL", get(b"X\x00Y: a\r\n"), 400),
    ("name in parentheses", get(b"(x): a\r\n"), 400),
    ("nothing but garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    # A4: Content-Length and Transfer-Encoding
    ("length with a sign", post(CL + b"+3\r\n", b"abc"), 400),
    ("length below zero", post(CL + b"-1\r\n", b"abc"), 400),
    ("length in hex", post(CL + b"0x3\r\n", b"abc"), 400),
    ("length with text", post(CL + b"3a\r\n", b"abc"), 400),
    ("length with a space inside", post(CL + b"3 3\r\n", b"abc"), 400),
    ("length with a point", post(CL + b"3.0\r\n", b"abc"), 400),
    ("empty length", post(CL + b"\r\n", b""), 400),
    ("length as a list", post(CL + b"3, 3\r\n", b"abc"), 400),
    ("length as a list of two", post(CL + b"3,4\r\n", b"abc"), 400),
    ("length twice, the same", post(CL + b"3\r\n" + CL + b"3\r\n", b"abc"), 400),
    ("length twice, different", post(CL + b"3\r\n" + CL + b"4\r\n", b"abcd"), 400),
    ("length of 2^63", post(CL + b"9223372036854775808\r\n"), 400),
    ("length of 2^64 + 3", post(CL + b"18446744073709551619\r\n", b"abc"), 400),
    ("length and coding", post(CL + b"5\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    ("coding and length", post(CHUNKED + CL + b"5\r\n", b"0\r\n\r\n"), 400),
    ("coding and length zero", post(CHUNKED + CL + b"0\r\n", b"0\r\n\r\n"), 400),
    ("coding in HTTP/1.0", post(CHUNKED, b"0\r\n\r\n", b"HTTP/1.0"), 400),
    ("coding twice", post(CHUNKED + CHUNKED, b"0\r\n\r\n"), 400),
    ("coding twice, identity", post(CHUNKED + TE + b"identity\r\n", b"0\r\n\r\n"), 400),
    ("empty coding", post(TE + b"\r\n", b"0\r\n\r\n"), 400),
    ("chunked, chunked", post(TE + b"chunked, chunked\r\n", b"0\r\n\r\n"), 400),
    ("chunked, identity", post(TE + b"chunked, identity\r\n", b"0\r\n\r\n"), 400),
    ("identity", post(TE + b"identity\r\n", b""), 400),
    ("gzip alone", post(TE + b"gzip\r\n", b""), 400),
    ("gzip, chunked", post(TE + b"gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    ("xchunked", post(TE + b"xchunked\r\n", b"0\r\n\r\n"), 400),
    ("chunked with a comma", post(TE + b"chunked,\r\n", b"0\r\n\r\n"), 400),
    ("comma and chunked", post(TE + b", chunked\r\n", b"0\r\n\r\n"), 400),
    ("chunked in quotes", post(TE + b'"chunked"\r\n', b"0\r\n\r\n"), 400),
    ("chunked with a parameter", post(TE + b"chunked;q=1\r\n", b"0\r\n\r\n"), 400),
    ("chunked and a tab", post(TE + b"chunked\t\r\n", b"0\r\n\r\n"), 400),
    ("vertical tab and chunked", post(TE + b"\x0bchunked\r\n", b"0\r\n\r\n"), 400),
    # A6, and what stands beside
    ("101 fields", get(b"X: a\r\n" * 100), 431),
    ("a head of 33 KiB", get(b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000) for i in range(33))), 431),
    ("a line of 33 KiB", get(b"X: " + b"v" * 33000 + b"\r\n"), 431),
    ("a target of 8 KiB and one", get(target=b"/" + b"t" * 8192), 414),
    ("a target without end", b"GET /" + b"t" * 20000, 414),
    ("a head without end", b"GET / HTTP/1.1\r\n" + H + b"X: " + b"v" * 40000, 431),
    ("a method without end", b"G" * 40000, None),
    ("malformed Connection", get(b"Connection: (\r\n"), 400),
    ("an expectation that nobody knows", get(b"Expect: magic\r\n"), 417),
    # B11: handshakes that are none
    ("handshake without a key", get(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"), 400),
    ("handshake with a short key",
     get(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YWJj\r\n"), 400),
    ("handshake of an old version",
     get(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 426),
    ("handshake by POST", b"POST" + get(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")[3:], 400),
]

# A5: chunked bodies that break behind their head: name, the body
BROKEN_CHUNKS = [
    ("no digits", b"\r\nabc\r\n0\r\n\r\n"),
    ("no hex digits", b"g\r\n"),
    ("a sign", b"+3\r\nabc\r\n0\r\n\r\n"),
    ("below zero", b"-3\r\nabc\r\n0\r\n\r\n"),
    ("0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
    ("an underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    ("a space before the size", b" 3\r\nabc\r\n0\r\n\r\n"),
    ("a space behind the size", b"3 \r\nabc\r\n0\r\n\r\n"),
    ("17 digits", b"00000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("2^63", b"8000000000000000\r\nabc"),
    ("LF behind the size", b"3\nabc\r\n0\r\n\r\n"),
    ("CR behind the size", b"3\rabc\r\n0\r\n\r\n"),
    ("LF behind the data", b"3\r\nabc\n0\r\n\r\n"),
    ("CR behind the data", b"3\r\nabc\r0\r\n\r\n"),
    ("data longer than its size", b"3\r\nabcd\r\n0\r\n\r\n"),
    ("LF in an extension", b"3;a\nabc\r\n0\r\n\r\n"),
    ("junk as an extension", b"3;=\r\nabc\r\n0\r\n\r\n"),
    ("an extension without a name", b"3;\r\nabc\r\n0\r\n\r\n"),
    ("a NUL in an extension", b"3;a=\x00\r\nabc\r\n0\r\n\r\n"),
    ("an open quote", b'3;a="b\r\nabc\r\n0\r\n\r\n'),
    ("an extension of 300 bytes", b"3;" + b"e" * 300 + b"\r\nabc\r\n0\r\n\r\n"),
    ("17 KiB of extensions", (b"1;" + b"e" * 200 + b"\r\na\r\n") * 90 + b"0\r\n\r\n"),
    ("a folded trailer", b"0\r\nX: a\r\n b\r\n\r\n"),
    ("a trailer without a colon", b"0\r\nX\r\n\r\n"),
    ("a trailer with a space before the colon", b"0\r\nX : a\r\n\r\n"),
    ("an LF in the trailer", b"0\r\nX: a\n\r\n"),
    ("a NUL in the trailer", b"0\r\nX: \x00\r\n\r\n"),
    ("a trailer without end", b"0\r\nX: " + b"t" * 40000),
]

# What looks odd and is right: name, bytes, what the server must have got
TAKEN = [
    ("one empty line before the request", b"\r\n" + GOOD, b"GET /good HTTP/1.1\r\n"),
    ("white space around a value", get(b"X: \t a \t\r\n"), b"\r\nX: a\r\n"),
    ("no white space", get(b"X:a\r\n"), b"\r\nX: a\r\n"),
    ("an empty value", get(b"X:\r\n"), b"\r\nX: \r\n"),
    ("bytes above ASCII in a value", get(b"X: \xff\xc3\xa9\r\n"), b"\r\nX: \xff\xc3\xa9\r\n"),
    ("every byte that a name may hold", get(b"!#$%&'*+-.^`|~09azAZ: a\r\n"), b"\r\n!#$%&'*+-.^`|~09azAZ: a\r\n"),
    ("absolute form", get(target=b"http://a/x?y"), b"GET /x?y HTTP/1.1\r\nHost: a\r\n"),
    ("absolute form in capitals", get(target=b"HTTP://A/x"), b"GET /x HTTP/1.1\r\nHost: a\r\n"),
    ("absolute form without a path", get(target=b"http://a"), b"GET / HTTP/1.1\r\n"),
    ("absolute form with a query alone", get(target=b"http://a?q"), b"GET /?q HTTP/1.1\r\n"),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", b"OPTIONS * HTTP/1.1\r\n"),
    ("a path to be collapsed", get(target=b"/a/./b//c/../d/%7e%41?x=/../y"), b"GET /a/b/d/~A?x=/../y HTTP/1.1\r\n"),
    ("PATCH", b"PATCH / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\nx", b"PATCH / HTTP/1.1\r\n"),
    ("a method of WebDAV", b"PROPFIND / HTTP/1.1\r\n" + H + b"\r\n", b"PROPFIND / HTTP/1.1\r\n"),
    ("100 fields", get(b"X: a\r\n" * 99), b"\r\nX: a\r\n"),
    ("a target of 8 KiB", get(target=b"/" + b"t" * 8191), b"GET /" + b"t" * 8191 + b" HTTP/1.1\r\n"),
    ("a field of 20 KiB", get(b"X: " + b"v" * 20000 + b"\r\n"), b"\r\nX: " + b"v" * 20000 + b"\r\n"),
    ("a length with zeros", post(CL + b"0000000000000000000000003\r\n", b"abc"), b"\r\nContent-Length: 3\r\n"),
    ("CHUNKED in capitals", post(TE + b"CHUNKED\r\n", b"3\r\nabc\r\n0\r\n\r\n"), b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("16 digits of a chunk", post(CHUNKED, b"0000000000000003\r\nabc\r\n0\r\n\r\n"), b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("extensions of every kind", post(CHUNKED, b'3;a;b=c;d="e;\\"\r"\r\nabc\r\n0;z\r\n\r\n'.replace(b"\r\"", b'"')), b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("an upgrade to h2c", get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), b"GET / HTTP/1.1\r\n"),
    ("an upgrade to TLS", get(b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"), b"GET / HTTP/1.1\r\n"),
    ("empty elements in Connection", get(b"Connection: ,, x-a ,\r\nX-A: 1\r\n"), b"GET / HTTP/1.1\r\n"),
    ("Proxy-Connection", get(b"Proxy-Connection: Upgrade\r\nUpgrade: websocket\r\n"), b"GET / HTTP/1.1\r\n"),
]


@pytest.fixture(scope="module")
def front(start_shared):
    """(gateway, recording server), shared by this file's tests of requests."""
    def answer(conn, data, state):
        head, end, body = bytes(data).partition(b"\r\n\r\n")
        framing = head.lower()
        length = re.search(rb"content-length: (\d+)", framing)
        if b"transfer-encoding" in framing:
            whole = re.search(rb"(^|\r\n)0\r\n([^\r]+\r\n)*\r\n$", body)
        else:
            whole = end and len(body) >= (int(length.group(1)) if length else 0)
        if whole and not state.get("answered"):
            state["answered"] = True
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        return False

    server = RecordingOrigin(answer)
    gateway = start_shared(forwarding(server.address))
    yield gateway, server
    server.close()


def ids(table):
    return [row[0].replace(" ", "-") for row in table]


def outcome(port, data, pieces=None):
    """(status of the first answer or None, all bytes) of a connection that sends data, whole or in pieces."""
    with raw.connect(port, timeout=5) as s:
        try:
            for piece in pieces or [data]:
                s.sendall(piece)
                if pieces:
                    time.sleep(0.002)
        except OSError:
            pass
        got = raw.read_all(s)[0]
    return (int(got.split(b" ")[1]) if got.startswith(b"HTTP/1.1 ") else None), got


@pytest.mark.parametrize("name,data,status", REFUSED, ids=ids(REFUSED))
def test_refused_requests(front, name, data, status):
    gateway, server = front
    before = len(server.connections)
    got, text = outcome(gateway.port(), data + GOOD)
    assert got == status if status else got is None or got >= 400, text
    assert text.count(b"HTTP/1.1 ") == 1, "nothing behind it is answered"
    assert b"\r\nConnection: close\r\n" in text, text
    if status == 426:
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in text
    if status == 405:
        assert b"\r\nAllow: " in text
    assert len(server.connections) == before, "the server saw something"


@pytest.mark.parametrize("name,body", BROKEN_CHUNKS, ids=ids(BROKEN_CHUNKS))
def test_broken_chunks(front, name, body):
    """400, and what the server saw of it is never a whole message."""
    gateway, server = front
    before = len(server.connections)
    got, text = outcome(gateway.port(), post(CHUNKED, b"5\r\nstart\r\n" + body + GOOD))
    assert text.count(b"HTTP/1.1 ") == 1 and got == 400, text
    for seen in server.connections[before:]:
        assert b"\r\n0\r\n" not in bytes(seen) and b"/good" not in bytes(seen), bytes(seen)


@pytest.mark.parametrize("name,data,seen", TAKEN, ids=ids(TAKEN))
def test_odd_but_right_requests(front, name, data, seen):
    gateway, server = front
    before = len(server.connections)
    with raw.connect(gateway.port(), timeout=5) as s:
        s.sendall(data)
        assert raw.Response(s).status == 200
    assert len(server.connections) == before + 1
    wait_for(lambda: seen in bytes(server.connections[-1]), 3, f"{seen!r} in {bytes(server.connections[-1])!r}")
    head = bytes(server.connections[-1]).partition(b"\r\n\r\n")[0].lower()
    for gone in (b"\r\nconnection:", b"\r\nupgrade:", b"\r\nhttp2-settings:", b"\r\nproxy-connection:", b"\r\nx-a:"):
        assert gone not in head


def test_forwarded_heads_have_nothing_ambiguous(front):
    """Whatever odd thing was taken: CRLF only, one Host, one framing."""
    gateway, server = front
    for name, data, seen in TAKEN:
        before = len(server.connections)
        with raw.connect(gateway.port(), timeout=5) as s:
            s.sendall(data)
            raw.Response(s)
        head = bytes(server.connections[before]).partition(b"\r\n\r\n")[0]
        lines = head.split(b"\r\n")
        assert head.replace(b"\r\n", b"").count(b"\n") == 0 and head.replace(b"\r\n", b"").count(b"\r") == 0
        names = [line.split(b":")[0].lower() for line in lines[1:]]
        assert names.count(b"host") == 1
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1


def test_cut_anywhere_is_the_same(front):
    """The same inputs in two pieces, cut at every offset (long ones: at some): the same verdict, the same bytes at the server."""
    gateway, server = front
    rng = random.Random(3)
    rows = [row for row in REFUSED if row[2] and len(row[1]) < 200]
    picked = rng.sample(rows, 8)
    for name, data, status in picked:
        for cut in sorted(rng.sample(range(1, len(data)), min(8, len(data) - 1))):
            got, text = outcome(gateway.port(), None, [data[:cut], data[cut:] + GOOD])
            assert got == status, f"{name} cut at {cut}: {text!r}"
    for name, data, seen in rng.sample([row for row in TAKEN if len(row[1]) < 300 and b"3\r\nabc" not in row[2]], 6):
        for cut in sorted(rng.sample(range(1, len(data)), min(8, len(data) - 1))):
            before = len(server.connections)
            with raw.connect(gateway.port(), timeout=5) as s:
                s.sendall(data[:cut])
                time.sleep(0.002)
                s.sendall(data[cut:])
                assert raw.Response(s).status == 200, f"{name} cut at {cut}"
            wait_for(lambda: seen in bytes(server.connections[before]), 3, f"{name} cut at {cut}")


def test_byte_by_byte(front):
    gateway, server = front
    data = post(CHUNKED, b"3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
    with raw.connect(gateway.port(), timeout=5) as s:
        for i in range(len(data)):
            s.sendall(data[i:i + 1])
        assert raw.Response(s).status == 200
    wait_for(lambda: bytes(server.connections[-1]).endswith(b"0\r\nX-Sum: 1\r\n\r\n"), 3, "the trailer")
    assert b"".join(bytes(server.connections[-1]).partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]).startswith(b"abc"), "in any chunks"


def test_the_answer_arrives_though_the_client_goes_on_sending(front):
    """A refused upload is read on for a while, so that no reset destroys the answer."""
    gateway, _ = front
    for i in range(5):
        with raw.connect(gateway.port(), timeout=10) as s:
            s.sendall(b"POST / HTTP/1.1\r\n" + H + CL + b"x\r\n\r\n")
            for k in range(20):
                s.sendall(b"u" * 20000)
            got, reset = raw.read_all(s)
            assert got.startswith(b"HTTP/1.1 400 ") and not reset


def test_guard_and_parser_agree(front):
    """After all of the above (any order): no head on which the two readers differed."""
    gateway, _ = front
    for name, data, status in REFUSED[:20]:
        outcome(gateway.port(), data)
    assert gateway.counters()["parser_mismatches"] == 0


# --- answers ---

OK = b"HTTP/1.1 200 OK\r\n"

BAD_ANSWERS = [
    ("no status line", b"hello\r\n\r\n"),
    ("version 2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("version 0.9", b"HTTP/0.9 200 OK\r\n\r\n"),
    ("lower case", b"http/1.1 200 OK\r\n\r\n"),
    ("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("status 099", b"HTTP/1.1 099 OK\r\n\r\n"),
    ("status of letters", b"HTTP/1.1 abc OK\r\n\r\n"),
    ("two spaces before the status", b"HTTP/1.1  200 OK\r\n\r\n"),
    ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    ("bare CR in the reason", b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"),
    ("NUL in the reason", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n"),
    ("empty line first", b"\r\n" + OK + CL + b"2\r\n\r\nok"),
    ("folded line", OK + b"X: a\r\n b\r\n" + CL + b"0\r\n\r\n"),
    ("space before the colon", OK + b"Content-Length : 2\r\n\r\nok"),
    ("no colon", OK + b"X\r\n\r\n"),
    ("NUL in a value", OK + b"X: \x00\r\n\r\n"),
    ("bad name", OK + b"X Y: a\r\n\r\n"),
    ("two lengths", OK + CL + b"2\r\n" + CL + b"3\r\n\r\nok"),
    ("two equal lengths", OK + CL + b"2\r\n" + CL + b"2\r\n\r\nok"),
    ("length as a list", OK + CL + b"2, 2\r\n\r\nok"),
    ("length with a sign", OK + CL + b"+2\r\n\r\nok"),
    ("length near 2^64", OK + CL + b"18446744073709551617\r\n\r\nok"),
    ("length and coding", OK + CL + b"2\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    ("coding in HTTP/1.0", b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    ("coding twice", OK + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n"),
    ("gzip, chunked", OK + TE + b"gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("identity", OK + TE + b"identity\r\n\r\nok"),
    ("empty coding", OK + TE + b"\r\n\r\nok"),
    ("an unsolicited 101", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ("a 101 behind a 103", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    ("17 interim answers", b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + OK + CL + b"0\r\n\r\n"),
    ("a head of 300 KiB", OK + b"".join(b"X-%d: %s\r\n" % (i, b"v" * 3000) for i in range(100)) + b"\r\n"),
    ("an endless head", OK + b"X: " + b"v" * 1000000),
    ("closed in the head", OK + b"Content-Le"),
    ("nothing", b""),
    ("a bad interim answer", b"HTTP/1.1 103 Early\r\nX : a\r\n\r\n" + OK + CL + b"0\r\n\r\n"),
]

# Fine as a head, broken in the body: the client sees an abort, never a clean end.
BROKEN_ANSWERS = [
    ("no chunk size", OK + CHUNKED + b"\r\nzz\r\n"),
    ("LF behind a chunk size", OK + CHUNKED + b"\r\n2\nok\r\n0\r\n\r\n"),
    ("chunk too long", OK + CHUNKED + b"\r\n2\r\nokk\r\n0\r\n\r\n"),
    ("17 digits", OK + CHUNKED + b"\r\n00000000000000002\r\nok\r\n0\r\n\r\n"),
    ("junk extension", OK + CHUNKED + b"\r\n2;=\r\nok\r\n0\r\n\r\n"),
    ("no last chunk", OK + CHUNKED + b"\r\n2\r\nok\r\n"),
    ("last chunk without its end", OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n"),
    ("folded trailer", OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nX: a\r\n b\r\n\r\n"),
    ("short length", OK + CL + b"10\r\n\r\nok"),
]


@pytest.fixture(scope="module")
def back(start_shared):
    """(gateway, box, server): the server answers every connection's first head with box[0], then closes."""
    box = [b""]

    def handler(peer):
        peer.head()
        if box[0]:
            peer.send(box[0])

    server = ScriptedOrigin(handler)
    gateway = start_shared(forwarding(server.address), workers=1)
    yield gateway, box, server
    server.close()


@pytest.mark.parametrize("name,data", BAD_ANSWERS, ids=ids(BAD_ANSWERS))
def test_bad_answers(back, name, data):
    gateway, box, _ = back
    box[0] = data
    with raw.connect(gateway.port(), timeout=5) as s:
        s.sendall(GOOD)
        rest, response = b"", None
        while response is None or response.status < 200:
            response = raw.Response(s, rest=rest)
            rest = response.rest
        assert response.status == 502, response.head
        assert response.body == b"502 Bad Gateway\n" and response.get("x") is None
        s.sendall(GOOD.replace(b"Host", b"Connection: close\r\nHost"))
        assert b"HTTP/1.1 502 " in raw.read_all(s)[0], "the client's connection went on"


@pytest.mark.parametrize("name,data", BROKEN_ANSWERS, ids=ids(BROKEN_ANSWERS))
def test_broken_answers(back, name, data):
    gateway, box, _ = back
    box[0] = data
    with raw.connect(gateway.port(), timeout=5) as s:
        s.sendall(GOOD)
        try:
            response = raw.Response(s)
        except EOFError:
            return
        assert response.status == 502


def test_odd_but_right_answers(back):
    gateway, box, _ = back
    for data, status, body in [
            (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
            (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
            (b"HTTP/1.0 200 OK\r\n\r\nok", 200, b"ok"),
            (b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok", 999, b"ok"),
            (b"HTTP/1.1 404 N\xf6\r\nContent-Length: 2\r\n\r\nok", 404, b"ok"),
            (OK + CHUNKED + b"\r\n2;a=b\r\nok\r\n0;c\r\nX-T: 1\r\n\r\n", 200, b"ok")]:
        box[0] = data
        response = raw.request(gateway.port(), GOOD)
        assert (response.status, response.body) == (status, body), data


def test_answers_cut_anywhere_are_the_same(start, scripted):
    """Heads, interim answers, chunks and trailers of a server in two pieces, cut at every offset."""
    whole = (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK + b"Set-Cookie: a=b\r\n" + CHUNKED + b"\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
    bad = OK + b"X-A: b\r\nX-B : c\r\n" + CL + b"2\r\n\r\nok"

    def handler(peer):
        while True:
            data, cut = re.match(rb"GET /(\w+)/(\d+)", peer.head()).groups()
            data, cut = whole if data == b"whole" else bad, int(cut)
            peer.send(data[:cut])
            time.sleep(0.003)
            peer.send(data[cut:])

    gateway = start(forwarding(scripted(handler).address), workers=1)
    with raw.connect(gateway.port()) as s:
        for cut in range(1, len(whole)):
            s.sendall(b"GET /whole/%d HTTP/1.1\r\nHost: a\r\n\r\n" % cut)
            early = raw.Response(s)
            final = raw.Response(s, rest=early.rest)
            assert (early.status, early.get("link"), final.status, final.get("set-cookie"), final.body, final.trailers, final.rest) == (
                103, "a", 200, "a=b", b"abcde", [("X-Sum", "1")], b""), cut
        for cut in range(1, len(bad)):
            s.sendall(b"GET /bad/%d HTTP/1.1\r\nHost: a\r\n\r\n" % cut)
            assert raw.Response(s).status == 502, cut


def test_bytes_without_a_request_close_the_servers_connection(start, scripted):
    """Behind an answer, or on a kept connection: never taken for the next answer."""
    def handler(peer):
        peer.head()
        if peer.index == 0:
            peer.send(OK + CL + b"2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        elif peer.index == 1:
            peer.answer()
            time.sleep(0.1)
            peer.send(OK + CL + b"6\r\n\r\npoison")
        elif peer.index == 2:
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n" + OK + CL + b"6\r\n\r\npoison")
        else:
            peer.answer()
        peer.wait_closed()

    server = scripted(handler)
    gateway = start(forwarding(server.address), workers=1)
    assert raw.request(gateway.port(), GOOD).body == b"ok"
    assert raw.request(gateway.port(), GOOD).body == b"ok"
    time.sleep(0.3)
    assert raw.request(gateway.port(), GOOD).status == 204
    assert raw.request(gateway.port(), GOOD).body == b"ok"
    assert len(server.peers) == 4


def test_connection_strips_nothing_of_ours(front):
    gateway, server = front
    raw.request(gateway.port(), get(b"Connection: x-forwarded-for, host, content-length, x-request-id, x-mine\r\nX-Mine: 1\r\nX-Request-Id: abc\r\n"))
    head = bytes(server.connections[-1]).lower()
    for kept in (b"\r\nx-forwarded-for: 127.0.0.1\r\n", b"\r\nhost: a\r\n", b"\r\nx-request-id: abc\r\n"):
        assert kept in head
    assert b"x-mine" not in head and b"\r\nconnection" not in head


def test_a_slow_head_is_one_verdict(front):
    """A refusal comes at the first bad byte, not only when the head is whole."""
    gateway, _ = front
    with raw.connect(gateway.port(), timeout=5) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00")
        assert raw.Response(s).status == 400


def test_unread_socket_of_a_refused_client_is_given_back(front):
    """A client that is refused and stays is let go of after the bounded lingering read."""
    gateway, _ = front
    with raw.connect(gateway.port(), timeout=8) as s:
        s.sendall(b"BAD\r\n\r\n")
        assert raw.Response(s).status in (400, 501)
        start = time.monotonic()
        s.settimeout(8)
        with pytest.raises(OSError):
            while time.monotonic() - start < 6:
                s.sendall(b"x")
                time.sleep(0.05)
            raise AssertionError("still open")
        assert time.monotonic() - start < 5
    assert isinstance(s, socket.socket)
