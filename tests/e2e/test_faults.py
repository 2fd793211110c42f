# SPDX-License-Identifier: MIT
"""Fault injection (requirements D24, F38 and the promises about faults): the Nth call of each kind fails, for N until all of a request or a
tunnel passes, plain and TLS. Each time that connection ends cleanly, within its time and without a wrong byte; no socket of it stays; the
next one works; nothing leaks and the counters are even at the end (conftest). Needs tests/faults/moongate-faults, which `make check` builds."""

import errno
import mmap
import os
import pathlib
import socket
import struct
import time

import pytest

import raw
from gateway import binary, instrumented, wait_for

KINDS = ["none", "accept", "socket", "connect", "read", "write", "epoll_ctl", "epoll_wait", "pipe", "splice", "buffer", "lua",
         "openssl"]
BODY = bytes(i * 31 % 251 for i in range(30000))
ANSWER = bytes(i * 17 % 241 for i in range(40000))
BYE = b"bye"
BULK = bytes(i * 13 % 239 for i in range(150000))
PATIENCE = 20.0  # seconds, for a busy machine: far below every timeout of the configuration, so that none can hide a lost wake-up
STEPS_MAX = 60  # of one sweep; longer ones (OpenSSL allocates thousands of times a handshake) take every kth N, or come in parts
PARTS = 4

LONG_LISTENER = 'tls_timeout = "90s", header_timeout = "90s", body_timeout = "90s", send_timeout = "90s"'
LONG_POOL = 'probe = false, retries = 0, connect_timeout = "90s", upgrade_timeout = "90s", response_timeout = "90s", half_close_timeout = "90s"'
CONFIG = '''
listener "http" {{ bind = "127.0.0.1:@http@", {listener} }}
listener "https" {{ bind = "127.0.0.1:@https@", {listener}, tls = {{ cert = "{cert}", key = "{key}" }} }}
pool "origin" {{ servers = {{ "{origin}" }}, {pool} }}
pool "fresh" {{ servers = {{ "{origin}" }}, {pool}, keepalive = 0 }}
pool "self" {{ servers = {{ "127.0.0.1:@https@" }}, {pool}, keepalive = 0, tls = {{ verify = false }} }}
route "secure" {{ listener = "http", path = "/tls/*", function(req)
    req:set_header("x-note", (req:header("x-note") or "") .. "; seen by " .. req.listener .. string.rep("+", 100))
end, forward("self", {{ path = "/*" }}) }}
route "fresh" {{ path = "/fresh", forward "fresh" }}
route "all" {{ function(req)
    req:set_header("x-note", (req:header("x-note") or "") .. "; seen by " .. req.listener .. string.rep("-", 100))
end, forward "origin" }}
'''


class Faults:
    """The control page shared with the program; see struct faults in tests/faults/moongate-faults.c."""

    def __init__(self, path):
        path.write_bytes(b"\0" * 4096)
        self.file = open(path, "r+b")
        self.page = mmap.mmap(self.file.fileno(), 4096)

    def arm(self, kind, after=1, error=0, times=1):
        self.page[0:4] = struct.pack("=I", 0)
        self.page[4:16] = struct.pack("=iiI", after, times, error)
        self.page[20:24] = struct.pack("=I", 0)
        self.page[0:4] = struct.pack("=I", KINDS.index(kind))

    def fired(self):
        return struct.unpack("=I", self.page[20:24])[0]

    def disarm(self):
        self.page[0:4] = struct.pack("=I", 0)
        return self.fired()

    def calls(self):
        """Calls since arm(kind, after=1 << 30)."""
        return (1 << 30) - struct.unpack("=i", self.page[4:8])[0]

    def shorten(self, chunk):
        self.page[16:20] = struct.pack("=I", chunk)


def serve(peer):
    """The server: an upgrade is answered and echoed until BYE, another request gets ANSWER in chunks."""
    while True:
        head = peer.head()
        if b"upgrade: websocket" in head.lower():
            key = [line.split(b":")[1].strip().decode() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")]
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      b"Sec-WebSocket-Accept: " + raw.accept_of(key[0]).encode() + b"\r\n\r\n")
            while got := peer.data or peer.sock.recv(65536):
                peer.data = b""
                if got == BYE:
                    return
                peer.send(got)
            return
        assert peer.body(head) == BODY, "the server got another body"
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(ANSWER), 15000):
            part = ANSWER[at:at + 15000]
            peer.send(b"%x\r\n" % len(part) + part + b"\r\n")
        peer.send(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory, certificate):
    program = pathlib.Path(binary()).parent / "tests" / "faults" / "moongate-faults"
    if not os.access(program, os.X_OK):
        pytest.skip("tests/faults/moongate-faults is not built (make check)")
    return program


@pytest.fixture
def rig(made, start, scripted, certificate, tmp_path, monkeypatch):
    """(gateway, faults): the program with faults on demand, with one worker."""
    monkeypatch.setenv("MOONGATE_BIN", str(made))
    faults = Faults(tmp_path / "faults")
    origin = scripted(serve)
    text = CONFIG.format(cert=certificate[0], key=certificate[1], origin=origin.address, listener=LONG_LISTENER, pool=LONG_POOL)
    gateway = start(text, workers=1, env={"MOONGATE_FAULTS": str(tmp_path / "faults")})
    gateway.fds_more = 8  # empty pipes kept for the next bulk flow
    return gateway, faults


def ask(gateway, path):
    """One POST: its status, or "closed". What is a whole answer must be the right one."""
    try:
        with raw.connect(gateway.port(), timeout=PATIENCE) as s:
            s.sendall(b"POST %s HTTP/1.1\r\nHost: a.example\r\nX-Note: n\r\nContent-Length: %d\r\n\r\n" % (path, len(BODY)) + BODY)
            response = raw.Response(s)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return "closed"
    assert response.status != 200 or response.body == ANSWER, "a clean end of a wrong answer"
    return response.status


def tunnel(gateway, path, bulk=BULK):
    """One tunnel with an echo of bulk: 101, another status, or "closed". What comes must be a prefix of what was sent."""
    try:
        s, response = raw.open_websocket(gateway.port(), path.decode(), host="a.example", timeout=PATIENCE)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return "closed"
    with s:
        if response.status != 101:
            return response.status
        got, sent = bytearray(response.rest), 0
        try:
            while len(got) < len(bulk):
                if sent < len(bulk) and sent - len(got) < 90000:
                    s.sendall(bulk[sent:sent + 30000])
                    sent += 30000
                    continue
                data = s.recv(65536)
                if not data:
                    break
                got += data
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert got == bulk[:len(got)], "another byte in the tunnel"
    return 101 if len(got) == len(bulk) else "closed"


EXCHANGES = {"request": (ask, b"/x", 200), "fresh request": (ask, b"/fresh", 200), "tunnel": (tunnel, b"/x", 101), "tls request": (ask, b"/tls/x", 200),
             "tls tunnel": (tunnel, b"/tls/x", 101)}


class Quiet:
    """How many sockets the gateway holds when nothing is under way: its own and a kept connection."""

    def __init__(self, gateway):
        gateway.assert_rest(PATIENCE)
        self.gateway, self.most = gateway, gateway.fds("socket:")

    def wait(self, what):
        end = time.monotonic() + PATIENCE
        while (now := self.gateway.fds("socket:")) > self.most:
            assert time.monotonic() < end, f"{what}: {now} sockets, {self.most} when quiet"
            time.sleep(0.001)


def sweep(rig, what, kind, error, times=1, part=None):
    """Fails the Nth call for each N (of this part); returns the outcomes of the exchanges that were hit."""
    gateway, faults = rig
    run, path, good = EXCHANGES[what]
    assert run(gateway, path) == good
    faults.arm(kind, 1 << 30)
    assert run(gateway, path) == good
    faults.disarm()
    calls = faults.calls()
    quiet = Quiet(gateway)
    first, stride = (1, max(1, calls // STEPS_MAX)) if part is None else (1 + part, PARTS)
    outcomes = []
    # One more than were seen: the sweep ends with an exchange that passes whole.
    for n in [*range(first, calls + 1, stride), calls + 40]:
        faults.arm(kind, n, error, times)
        begun = time.monotonic()
        outcome = run(gateway, path)
        fired = faults.disarm()
        assert time.monotonic() - begun < PATIENCE, (what, kind, n, outcome)
        if fired:
            outcomes.append(outcome)
        else:
            assert outcome == good, f"{what}: no {kind} failed, yet {outcome}"
        quiet.wait(f"{what}: {kind} {n} ({errno.errorcode.get(error, error)}, {outcome})")
        after = run(gateway, path)
        assert after == good, f"{what}: the one after {kind} {n} ({errno.errorcode.get(error, error)}, {outcome}) gave {after}"
        assert gateway.proc.poll() is None
    return outcomes


@pytest.mark.parametrize("what", EXCHANGES)
@pytest.mark.parametrize("kind,error", [
    ("read", errno.ECONNRESET), ("write", errno.EPIPE), ("write", errno.ECONNRESET), ("write", errno.ENOBUFS),
    ("epoll_ctl", errno.ENOMEM), ("socket", errno.EMFILE), ("connect", errno.ECONNREFUSED),
    ("buffer", errno.ENOMEM), ("lua", errno.ENOMEM)])
def test_each_call_fails_in_turn(rig, what, kind, error):
    outcomes = sweep(rig, what, kind, error)
    none = (what == "request" and kind in ("socket", "connect")) or (what == "fresh request" and kind == "lua")
    assert none or outcomes, "nothing of this kind was called"


@pytest.mark.parametrize("what,part", [("tls request", None), *(("tls tunnel", part) for part in range(PARTS))])
def test_each_openssl_allocation_fails_in_turn(rig, what, part):
    """Every one of a tunnel; of a request, whose handshakes are the same, some all over it."""
    assert sweep(rig, what, "openssl", errno.ENOMEM, part=None if instrumented() else part)


@pytest.mark.parametrize("end", ["client", "client half", "server"])
def test_each_openssl_allocation_at_the_end_of_a_tunnel_fails_in_turn(rig, end):
    """From the first FIN on, so that the few allocations there are all met: none may leave a half of the tunnel behind."""
    gateway, faults = rig
    tunnel(gateway, b"/tls/x")
    quiet, n, fired = Quiet(gateway), 0, 1
    while fired:
        n += 1
        s, response = raw.open_websocket(gateway.port(), "/tls/x", host="a.example", timeout=PATIENCE)
        with s:
            assert response.status == 101
            s.sendall(b"echo")
            assert raw.read_until(s, b"echo") == b"echo"
            faults.arm("openssl", n, errno.ENOMEM)
            if end == "client half":
                s.shutdown(socket.SHUT_WR)
            elif end == "server":
                s.sendall(BYE)
            if end != "client":
                assert raw.read_all(s)[0] == b""
        quiet.wait(f"allocation {n} from the {end}'s end on")
        fired = faults.disarm()
        assert n < 1000
    assert n > 3, "hardly an allocation"


@pytest.mark.parametrize("what", EXCHANGES)
def test_interrupted_and_empty_calls_change_nothing(rig, what):
    """EINTR anywhere, and EAGAIN where the kernel has something after all."""
    good = EXCHANGES[what][2]
    for kind, error in (("read", errno.EINTR), ("write", errno.EINTR), ("read", errno.EAGAIN), ("write", errno.EAGAIN), ("epoll_wait", errno.EINTR)):
        assert set(sweep(rig, what, kind, error)) == {good}, (kind, error)


@pytest.mark.parametrize("what", EXCHANGES)
def test_short_reads_and_writes(rig, what):
    gateway, faults = rig
    run, path, good = EXCHANGES[what]
    for chunk in (700, 4000, 16384):
        faults.shorten(chunk)
        assert run(gateway, path) == good
    faults.shorten(0)


def test_tiny_reads_and_writes(rig):
    gateway, faults = rig
    for path in (b"/x", b"/tls/x"):
        faults.shorten(1)
        s, response = raw.open_websocket(gateway.port(), path.decode(), host="a.example", timeout=PATIENCE)
        with s:
            assert response.status == 101
            s.sendall(b"0123456789" * 20)
            got = response.rest
            while len(got) < 200:
                got += s.recv(4096)
            assert got == b"0123456789" * 20
        faults.shorten(0)


@pytest.mark.parametrize("what", ["request", "tls tunnel"])
@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED, errno.EINTR, errno.EPROTO])
def test_accept_fails(rig, what, error):
    """Out of descriptors the connection waits in the backlog for the timer; an aborted one is only gone."""
    gateway, faults = rig
    run, path, good = EXCHANGES[what]
    assert run(gateway, path) == good
    faults.arm("accept", 1 << 30)
    assert run(gateway, path) == good
    faults.disarm()
    for n in range(1, faults.calls() + 1):
        before = gateway.counters()["accept_errors"]
        faults.arm("accept", n, error, times=3)
        outcomes = [run(gateway, path)]
        # Three in a row; a connection that is lost leaves some for the next.
        while faults.fired() == 0:
            outcomes.append(run(gateway, path))
        faults.disarm()
        assert run(gateway, path) == good
        assert set(outcomes) <= ({"closed", 502, good} if error == errno.ECONNABORTED else {good}), (n, outcomes)
        counted = gateway.counters()["accept_errors"] - before
        assert (counted > 0) == (error in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS))


def test_a_listener_that_cannot_be_watched_again_is_tried_again(rig):
    """Out of descriptors it was taken out of the set; the kernel refuses to have it back, a few times."""
    gateway, faults = rig
    run, path, good = EXCHANGES["fresh request"]
    faults.arm("accept", 1, errno.EMFILE)
    with raw.connect(gateway.port(), timeout=PATIENCE) as s:
        wait_for(faults.fired, PATIENCE, "no descriptor for it")
        faults.arm("epoll_ctl", 1, errno.ENOMEM, times=3)
        wait_for(lambda: faults.fired() == 3, PATIENCE, "refused three times")
        faults.disarm()
        s.sendall(b"no request\r\n\r\n")
        assert raw.Response(s).status == 400  # taken, and answered
    assert run(gateway, path) == good


@pytest.mark.parametrize("kind,error", [("socket", errno.EMFILE), ("socket", errno.ENFILE), ("socket", errno.ENOBUFS),
                                        ("connect", errno.EADDRNOTAVAIL), ("connect", errno.ENOBUFS)])
def test_what_fails_here_is_a_503(rig, kind, error):
    """D24: our own want of descriptors, memory or ports is a 503 with a counter of its own, and no mark against the server."""
    gateway, faults = rig
    for what in ("fresh request", "tunnel"):
        run, path, good = EXCHANGES[what]
        before = gateway.counters()
        faults.arm(kind, 1, error)
        assert run(gateway, path) == 503
        assert faults.disarm() == 1
        after = gateway.counters()
        assert after["server_local_errors"] == before["server_local_errors"] + 1
        assert after["server_connect_failures"] == before["server_connect_failures"]
        assert run(gateway, path) == good


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.ENOMEM, errno.EPERM])
def test_a_request_that_has_left_is_not_sent_again(made, start, recorder, tmp_path, monkeypatch, error):
    """D25: to this host it goes out with the connect; when the connection then cannot be watched, it has left, and is a 503."""
    monkeypatch.setenv("MOONGATE_BIN", str(made))
    faults = Faults(tmp_path / "faults")
    server = recorder()
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ "{server.address}" }}, probe = false, retries = 3 }}
route "all" {{ forward "p" }}
""", workers=1, env={"MOONGATE_FAULTS": str(tmp_path / "faults")})
    with raw.connect(gateway.port(), timeout=PATIENCE) as s:
        s.sendall(b"POST / HTTP/1.1\r\n")  # the client's own connection is watched from here on
        wait_for(lambda: gateway.counters()["clients_accepted"] == 1, PATIENCE, "accepted")
        faults.arm("epoll_ctl", 1, error)
        s.sendall(b"Host: a.example\r\nContent-Length: 0\r\n\r\n")
        assert raw.Response(s).status == 503
    assert faults.disarm() == 1
    counters = gateway.counters()
    assert counters["server_local_errors"] == 1 and counters["server_connect_failures"] == 0
    time.sleep(0.3)
    assert b"".join(server.connections).count(b"POST / ") == 1, "the server got it once"


@pytest.mark.parametrize("kind,error", [("pipe", errno.EMFILE), ("splice", errno.EINTR), ("splice", errno.EAGAIN), ("splice", errno.ECONNRESET)])
def test_bulk_without_a_pipe(rig, kind, error):
    """A pipe that is not to be had, or a splice that says to come back: copied or tried again. A reset is the end."""
    gateway, faults = rig
    bulk = BULK * 12
    fired = 0
    for n in range(1, 9):
        faults.arm(kind, n, error, times=2)
        outcome = tunnel(gateway, b"/x", bulk)
        hit = faults.disarm()
        fired += hit
        # The last one may look for bytes behind the last.
        assert outcome == 101 or (hit and error == errno.ECONNRESET), (n, outcome)
        assert tunnel(gateway, b"/x") == 101
    assert fired, f"no {kind} at all"


def test_no_memory_for_a_while(rig):
    """All buffers fail for a while: what was under way ends, by the close or by an answer that says no, then all is as before."""
    gateway, faults = rig
    ends = {"closed", 431, 500, 502, 503}
    for what, (run, path, good) in EXCHANGES.items():
        assert run(gateway, path) == good
        quiet = Quiet(gateway)
        for n in (1, 2, 3, 6, 9):
            faults.arm("buffer", n, errno.ENOMEM, times=1000)
            outcome = run(gateway, path)
            fired = faults.disarm()
            # The first three are needed for any answer; a later one may be missed behind it only, or not come at all.
            assert (fired and outcome in ends) if n <= 3 else (outcome in ends | {good}), f"{what}: {fired} buffers failed from {n} on: {outcome}"
            quiet.wait(f"{what}: no buffers from {n} on ({outcome})")
            assert run(gateway, path) == good
