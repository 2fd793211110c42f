# SPDX-License-Identifier: MIT
"""Slow and hostile peers (requirements D22-D24, D27): what they cost, and what honest clients notice of them.

Processor time is the gateway's own (its clock), so that tests side by side do not count. Each attack lasts a few seconds.
"""

import contextlib
import os
import re
import resource
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

import pytest

import raw
import spin
from gateway import best_of, forwarding, instrumented, wait_for

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
LATE = 3.0        # seconds that a loaded machine may add
PAIRS, PAIRS_S, PAIRS_MIN = 150, 1.5, 40  # of requests, in so many seconds, but so many at least
MEDIAN_SLACK, P99_SLACK = 0.002, 0.01  # seconds that a busy machine takes from one of two and not from the other
P99_NOISE = 0.1  # seconds: beside a quiet run like that a try says little
WAITING = 0.05    # of a processor, when only waiting
HOLD_KB = 64      # a direction
STATE_KB = 16     # a request, its connections and its arena
STOPPED_S = float(os.environ.get("MOONGATE_STOPPED_SECONDS", "1"))  # how long the readers stand still


@pytest.fixture(scope="module", autouse=True)
def many_files():
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (old[1], old[1]))
    if old[1] < 5000:
        pytest.skip(f"at most {old[1]} descriptors are allowed here")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


class Honest:
    """A client of small requests; every fifth is on a connection of its own."""

    def __init__(self, port, tls=None):
        self.port, self.tls, self.sock, self.took = port, tls, None, []

    def ask(self):
        begun = time.monotonic()
        if self.sock is None:
            self.sock = raw.connect(self.port, tls=self.tls)
        self.sock.sendall(GET % b"/size/64")
        assert raw.Response(self.sock).status == 200
        self.took.append(time.monotonic() - begun)
        if len(self.took) % 5 == 0:
            self.close()

    def close(self):
        if self.sock:
            self.sock.close()
            self.sock = None

    def median(self):
        return statistics.median(self.took)

    def p99(self):
        """Without one in fifty, at least: of the second largest of 150 one moment of the machine makes what it likes."""
        return sorted(self.took)[-1 - len(self.took) // 50]


def serves(port, count=20):
    """So many honest requests are answered."""
    client = Honest(port)
    for _ in range(count):
        client.ask()
    client.close()
    return len(client.took) == count


class Gone(AssertionError):
    """The attackers have, before anything could be said."""


def assert_unharmed(gateway, twin, attackers, tls=None, tries=4):
    """D22-D24, issue 4 point 5: honest clients' p99 within 2x of the quiet run, while so many attackers are there.

    The quiet run is that of a twin, a gateway that nobody attacks, asked in turn with the attacked one: what a busy machine does it does to
    both, and a figure of before would be of another machine. What is left is chance, one stall that hits one of the two; so there are a few
    tries, of which one must hold, and slack of a time slice or two on top of the 2x, for that is 1 to 3 ms when the machine is quiet. A gateway
    that starves its honest clients does so in every try. One that takes the processor from its twin, too, fails share_of_processor(). Where the
    twin itself is starved, by the test's own threads, say, it is tried again.
    """
    said = []
    while len(said) < tries:
        ours, quiet = Honest(gateway.port(), tls), Honest(twin.port(), tls)
        begun = time.monotonic()
        while len(ours.took) < PAIRS and (len(ours.took) < PAIRS_MIN or time.monotonic() - begun < PAIRS_S):
            for client in (ours, quiet) if len(ours.took) % 2 else (quiet, ours):
                client.ask()
                time.sleep(0.002)
        ours.close()
        quiet.close()
        left = live(gateway)
        if left < attackers:
            raise Gone(f"{left} of {attackers:.0f} attackers are left to measure beside; before: {said}")
        said.append(f"median {quiet.median() * 1000:.1f} ms quiet, {ours.median() * 1000:.1f} ms attacked; "
                    f"p99 {quiet.p99() * 1000:.1f} ms quiet, {ours.p99() * 1000:.1f} ms attacked")
        if ours.median() > 2 * quiet.median() + MEDIAN_SLACK or ours.p99() > 2 * quiet.p99() + P99_SLACK:
            continue
        if quiet.p99() < P99_NOISE or len(said) == tries:
            return said[-1]
    raise AssertionError("honest clients are harmed: " + "; ".join(said))


@contextlib.contextmanager
def share_of_processor(gateway, most=WAITING):
    """What the gateway uses meanwhile is below most; a sanitizer makes each step several times as dear."""
    begun, ran = time.monotonic(), gateway.ran_s()
    yield
    share = (gateway.ran_s() - ran) / (time.monotonic() - begun)
    assert share < most * (4 if instrumented() else 1), f"{share:.1%} of a processor"


def live(gateway):
    c = gateway.counters()
    return c["clients_accepted"] - c["clients_closed"]


def settle(value, quiet=0.4):
    """Waits until value() stays the same for a while: whoever was to come is here."""
    def same():
        before = value()
        time.sleep(quiet)
        return value() == before
    wait_for(same, 5 + LATE, "no more of them")


# --- slowhttptest: the published attacks by the published tool ---

class Attack:
    """A run of Debian's slowhttptest; -p makes its own probe give up late, we have one of our own."""

    def __init__(self, *args):
        tool = shutil.which("slowhttptest")
        if not tool:
            pytest.skip("slowhttptest is not installed")
        self.proc = subprocess.Popen([tool, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.text = ""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.proc.stdout:
            self.text += re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", line.decode("utf-8", "replace"))

    def end(self):
        self.proc.terminate()
        self.proc.wait()
        self.thread.join(5)
        return self.text


ATTACKS = {
    # heads that never end: the absolute clock
    "slowloris": (["-H", "-c", 300, "-r", 300, "-i", 1, "-x", 12, "-l", 9], "/", "header timeout"),
    # bodies of ten bytes a second: never idle, below the minimum rate
    "slow body": (["-B", "-c", 200, "-r", 200, "-i", 1, "-x", 6, "-s", 8192, "-l", 16], "/echo", "below the minimum rate"),
    # a window of a few bytes, and five of them read a second
    "slow read": (["-X", "-c", 200, "-r", 200, "-w", 10, "-y", 20, "-n", 1, "-z", 5, "-l", 16], "/size/8000000", "below the minimum rate"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_d23_slowhttptest(start, origin, name):
    """D23: closed by clocks of ours, honest clients served as before, no processor used up, memory bounded."""
    args, path, cause = ATTACKS[name]
    text = forwarding(origin().address, listener='header_timeout = "6s", body_timeout = "20s", send_timeout = "20s",')
    gateway, twin = start(text), start(text)
    count = args[2]
    before = gateway.rss_kb()
    for last in (False, True):
        attack, accepted = Attack(*args, "-p", 20, "-u", gateway.url(path)), gateway.counters()["clients_accepted"]
        wait_for(lambda: gateway.counters()["clients_accepted"] - accepted >= count * 0.8, 5 + LATE, f"{count} connections of the attack")
        settle(lambda: gateway.counters()["clients_accepted"])
        try:
            assert_unharmed(gateway, twin, count * 0.8)
            with share_of_processor(gateway):
                time.sleep(1)
            break
        except Gone:  # on a machine that is late; all the more where honest clients are harmed, again and again
            if last:
                raise
        finally:
            grown = gateway.rss_kb() - before
            assert grown <= count * 2 * HOLD_KB + 2048, f"{grown} KB for {count} connections"
            wait_for(lambda: len(gateway.access(cause=cause)) >= count * 0.8, 12 + LATE, f"{count} connections ended by: {cause}")
            assert "Connection refused" not in attack.end()
    assert serves(gateway.port())


# --- stopped readers ---

class Flood:
    """A server that takes handshakes or GETs and then writes as fast as it can to everyone, on one thread."""

    PATTERN = bytes(range(256)) * 256

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self.listener.getsockname()[1]
        self.ending = threading.Event()
        self.sent, self.heads, self.moved_at = {}, {}, time.monotonic()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _answer(self, conn, head):
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
        if key:
            conn.sendall(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          f"Sec-WebSocket-Accept: {raw.accept_of(key.group(1).decode())}\r\n\r\n").encode())
        else:
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")

    def _run(self):
        poll = select.epoll()
        poll.register(self.listener, select.EPOLLIN)
        conns = {}
        while not self.ending.is_set():
            for fd, events in poll.poll(0.1):
                if fd == self.listener.fileno():
                    conn, _ = self.listener.accept()
                    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
                    conn.setblocking(False)
                    conns[conn.fileno()], self.heads[conn.fileno()] = conn, b""
                    poll.register(conn, select.EPOLLIN)
                    continue
                try:
                    with contextlib.suppress(BlockingIOError):
                        self._serve(conns[fd], fd)
                    poll.modify(fd, select.EPOLLOUT if fd in self.sent else select.EPOLLIN)  # what clients push stays unread
                except OSError:
                    conns.pop(fd).close()
        for conn in conns.values():
            conn.close()
        self.listener.close()

    def _serve(self, conn, fd):
        if fd not in self.sent:
            self.heads[fd] += conn.recv(65536)
            if b"\r\n\r\n" not in self.heads[fd]:
                return
            self._answer(conn, self.heads[fd])
            self.sent[fd] = 0
        for _ in range(64):  # then others have their turn
            at = self.sent[fd] % 65536
            self.sent[fd] += conn.send(self.PATTERN[at:])
            self.moved_at = time.monotonic()

    def close(self):
        self.ending.set()
        self.thread.join(5)


def stopped_client(port, small=True):
    """A client, mostly one whose kernel takes little: what is held, the gateway holds. (With such a small window and loopback's large
    packets the kernel itself may stall for minutes afterwards; those that are to read on have the usual buffers.)"""
    s = socket.socket()
    if small:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    s.settimeout(20)
    s.connect(("127.0.0.1", port))
    return s


def push(clients):
    """Every client sends until nobody takes any more."""
    data, total = b"p" * 65536, 0
    for s in clients:
        s.setblocking(False)
    quiet = 0
    while quiet < 3:
        moved = 0
        for s in clients:
            with contextlib.suppress(BlockingIOError):
                while True:
                    moved += s.send(data)
        total += moved
        quiet = 0 if moved else quiet + 1
        time.sleep(0.1)
    return total


@pytest.mark.parametrize("kind", ["tunnel", "http"])
def test_d22_stopped_readers_with_fast_senders(start, origin, kind):
    """D22: 1,000 of them: at most 64 KiB a direction, flat, no processor used, others served, and not a byte lost when they read again.

    MOONGATE_STOPPED_SECONDS=600 for the ten minutes of the requirement; with pytest -s it tells its figures. Without tcp_keepalive, for by
    that clock the kernel closes those that take nothing (the next test).
    """
    flood, count = Flood(), 200 if instrumented() else 1000
    other = origin()
    gateway = start(f'''
        listener "http" {{ bind = "127.0.0.1:@http@", min_rate = 0, send_timeout = "{60 + int(STOPPED_S)}s", tcp_keepalive = false }}
        pool "flood" {{ servers = {{ "127.0.0.1:{flood.port}" }}, probe = false }}
        pool "p" {{ servers = {{ "{other.address}" }}, probe = false }}
        route "flood" {{ path = "/flood", forward "flood" }}
        route "all" {{ forward "p" }}''')
    twin = start(forwarding(other.address))
    before = gateway.rss_kb()
    clients = []
    try:
        for i in range(count):
            s = stopped_client(gateway.port(), small=i % (count // 4) != 0)
            s.sendall(raw.handshake_bytes("/flood")[0] if kind == "tunnel" else GET % b"/flood")
            clients.append(s)
        wait_for(lambda: len(flood.sent) == count, 10 + LATE, "all of them answered")
        if kind == "tunnel":
            assert push(clients) >= count * 16384
        wait_for(lambda: time.monotonic() - flood.moved_at > 0.7, 15 + LATE, "the server held back")
        full = gateway.rss_kb()
        directions = 2 if kind == "tunnel" else 1
        assert full - before <= count * (directions * HOLD_KB + STATE_KB) + 4096, f"{(full - before) / count:.1f} KB each"
        ran, held = gateway.ran_s(), [full]
        with share_of_processor(gateway):
            begun = time.monotonic()
            while time.monotonic() - begun < STOPPED_S:
                time.sleep(min(5, STOPPED_S))
                held.append(gateway.rss_kb())
        ran = gateway.ran_s() - ran
        honest = assert_unharmed(gateway, twin, count)
        held.append(gateway.rss_kb())
        assert max(held) - full <= 2048, f"{full} KB, then up to {max(held)} KB"
        print(f"\n{count} stopped readers ({kind}) for {STOPPED_S:.0f} s: {before} KB before, {full} KB full ({(full - before) / count:.1f} KB each), "
              f"{min(held)} to {max(held)} KB meanwhile; {ran / STOPPED_S:.2%} of a processor; honest clients: {honest}")
        for s in clients[::count // 4]:  # some read on: all that was sent, in order
            s.settimeout(10)
            data = b""
            while len(data) < 1 << 20:
                got = s.recv(1 << 16)
                assert got
                data += got
            body = data.partition(b"\r\n\r\n")[2]
            assert body == (Flood.PATTERN * (len(body) // 65536 + 1))[:len(body)]
    finally:
        for s in clients:
            s.close()
        flood.close()
    wait_for(lambda: live(gateway) == 0, 5 + LATE, "all of them gone")


def test_who_takes_nothing_counts_as_vanished(start):
    """D22, F39: the kernel's clock for unacknowledged data (tcp_keepalive) ends a tunnel whose client stands still, window shut, data waiting."""
    flood = Flood()
    gateway = start(forwarding(f"127.0.0.1:{flood.port}", listener='tcp_keepalive = "2s",'))
    try:
        with stopped_client(gateway.port()) as s:
            s.sendall(raw.handshake_bytes("/flood")[0])
            wait_for(lambda: gateway.counters()["tunnels_opened"] == 1, 5, "the tunnel")
            begun = time.monotonic()
            wait_for(lambda: gateway.counters()["tunnels_closed"] == 1, 20 + LATE, "the tunnel's end")
            assert time.monotonic() - begun > 1
            assert gateway.wait_access(2)[1]["cause"] == "client reset"
    finally:
        flood.close()


# --- half-open floods ---

@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_d23_connections_that_say_nothing(start, origin, certificate, kind):
    """D23: 600 silent ones, and some that stop in the first record: ended by the absolute clock, costing next to nothing meanwhile."""
    tls = f'tls = {{ cert = "{certificate[0]}", key = "{certificate[1]}" }}, tls_timeout = "6s",' if kind == "tls" else ""
    text = forwarding(origin().address, listener=tls + 'header_timeout = "6s",')
    gateway, twin = start(text), start(text)
    context = raw.insecure_tls() if kind == "tls" else None
    begun, before = time.monotonic(), gateway.rss_kb()
    clients = []
    for i in range(600):
        s = socket.create_connection(("127.0.0.1", gateway.port()))
        if i % 3 == 1:
            s.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" if kind == "tls" else b"GET / HT")
        clients.append(s)
    opened = time.monotonic()
    wait_for(lambda: live(gateway) == 600, 3 + LATE, "all of them accepted: the silent ones after a second")
    with share_of_processor(gateway):
        time.sleep(1)
    grown = gateway.rss_kb() - before
    assert grown <= 600 * (64 if kind == "tls" else 8) + 1024, f"{grown / 600:.1f} KB each"
    assert_unharmed(gateway, twin, 600, tls=context)
    for s in clients:
        s.settimeout(8)
        raw.read_all(s)
        s.close()
    assert 5.5 < time.monotonic() - begun and time.monotonic() - opened < 6 + LATE * 2
    wait_for(lambda: live(gateway) == 0, 3, "all of them gone")
    if kind == "tls":
        assert gateway.counters()["tls_failures"] >= 600


# --- the limit of descriptors ---

def test_d24_churn_beyond_max_connections(start, origin):
    """Few descriptors (a hard limit of 256): who comes beyond max_connections is closed at once, the others are served, nothing is lost."""
    gateway = start(forwarding(origin().address), prefix=("prlimit", "--nofile=256:256", "--"))
    room = int(gateway.wait_err(r"room for (\d+) clients").group(1))
    assert 20 < room < 128
    refused, served, wrong, ending = [], [], [], threading.Event()

    def churn(seed):
        while not ending.is_set():
            batch = []
            try:
                for i in range(room // 4):
                    batch.append(raw.connect(gateway.port(), timeout=5))
                begun = time.monotonic()
                for i, s in enumerate(batch):
                    try:
                        s.sendall(GET % b"/size/10")
                        served.append(raw.Response(s).status)
                    except (EOFError, ConnectionError):
                        refused.append(time.monotonic() - begun)
                    if (i + seed) % 2:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError as error:
                wrong.append(repr(error))
            for s in batch:
                s.close()

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    most = gateway.fds()
    ending.set()
    for thread in threads:
        thread.join(20)
    c = gateway.counters()
    assert wrong == []
    assert set(served) == {200} and len(served) > 100
    assert c["clients_refused"] >= len(refused) > 0
    assert c["accept_errors"] == 0 and c["server_local_errors"] == 0, "max_connections leaves descriptors for what serves them"
    assert most < 256
    assert serves(gateway.port())


def test_d24_refused_at_once(start):
    """Beyond max_connections: accepted and closed within moments, not left in the queue."""
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\nroute "all" { reply(200) }', prefix=("prlimit", "--nofile=256:256", "--"))
    room = int(gateway.wait_err(r"room for (\d+) clients").group(1))
    kept = []
    for _ in range(room):  # one after the other, each answered: all of them are counted
        kept.append(raw.connect(gateway.port()))
        kept[-1].sendall(GET % b"/")
        assert raw.Response(kept[-1]).status == 200
    for _ in range(20):
        begun = time.monotonic()
        with raw.connect(gateway.port()) as s:
            assert raw.read_all(s)[0] == b""
        assert time.monotonic() - begun < LATE
    assert gateway.counters()["clients_refused"] == 20
    kept[0].sendall(GET % b"/")
    assert raw.Response(kept[0]).status == 200
    kept.pop().close()
    wait_for(lambda: live(gateway) == room - 1, 3, "room again")
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200
    for s in kept:
        s.close()


def limit_descriptors(gateway, count):
    """The soft limit, so that it can be raised again by anybody."""
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (count, resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize("workers", [1, 2])
def test_d24_accept_without_descriptors(start, workers):
    """EMFILE on accept: the listener rests and is tried again by a timer (under 5% of a processor), open connections and counters live,
    and those who waited are served as soon as there is room."""
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\nroute "all" { reply(200, "here") }', workers=workers)
    with raw.connect(gateway.port()) as first:
        first.sendall(GET % b"/")
        assert raw.Response(first).status == 200
        hard = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)[1]
        limit_descriptors(gateway, max(int(name) for name in os.listdir(f"/proc/{gateway.pid}/fd")) + 1 + 10)
        clients = [raw.connect(gateway.port()) for _ in range(60)]  # the kernel accepts them; most wait in its queue
        wait_for(lambda: gateway.counters()["accept_errors"] > 0, 3, "accept() failing")
        errors = gateway.counters()["accept_errors"]
        begun = time.monotonic()
        with share_of_processor(gateway):
            time.sleep(2)
        tried = gateway.counters()["accept_errors"] - errors
        assert 5 <= tried <= (time.monotonic() - begun) / 0.1 * workers + 4, f"{tried} tries in 2 s"
        first.sendall(GET % b"/")
        assert raw.Response(first).body == b"here"
        assert len(gateway.wait_access(2)) == 2
        limit_descriptors(gateway, hard)
        begun = time.monotonic()
        for s in clients:
            s.sendall(GET % b"/")
            assert raw.Response(s).body == b"here"
            s.close()
        assert time.monotonic() - begun < 1 + LATE


def test_d24_connect_without_descriptors(start, origin):
    """EMFILE on a server socket: 503, a cause and a counter of its own, nothing is held against the server; then all is well again."""
    gateway = start(forwarding(origin().address), workers=1)
    hard = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)[1]
    with raw.connect(gateway.port()) as s:
        wait_for(lambda: live(gateway) == 1, 3, "accepted")
        used = {int(name) for name in os.listdir(f"/proc/{gateway.pid}/fd")}
        limit_descriptors(gateway, min(set(range(max(used) + 2)) - used))  # the next descriptor is one too many
        for i in range(10):
            s.sendall(GET % b"/size/1")
            assert raw.Response(s).status == 503
        c = gateway.counters()
        assert c["server_local_errors"] >= 10 and c["server_connect_failures"] == 0
        assert len(gateway.wait_access(10, cause="out of descriptors, ports or memory")) == 10
        limit_descriptors(gateway, hard)
        s.sendall(GET % b"/size/1")
        assert raw.Response(s).status == 200


# --- clients that go while they wait ---

@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("where", ["queue", "server", "connect"])
def test_d27_client_gone_while_waiting(start, scripted, how, where):
    """D27: its slot is free and its wait ends within 1 s."""
    def handler(peer):
        peer.head()
        peer.wait_closed(20)

    if where == "connect":
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        fill = [socket.socket() for _ in range(4)]
        for s in fill:
            s.setblocking(False)
            s.connect_ex(full.getsockname())
        address = f"127.0.0.1:{full.getsockname()[1]}"
    else:
        address = scripted(handler).address
    one = f'{{ "{address}", max_connections = 1 }}' if where == "queue" else f'"{address}"'
    gateway = start(f'''listener "http" {{ bind = "127.0.0.1:@http@" }}
        pool "p" {{ servers = {{ {one} }}, probe = false, queue_timeout = "20s", connect_timeout = "20s", response_timeout = "20s" }}
        route "all" {{ forward "p" }}''')
    rounds = []

    def attempt():
        started = len(rounds) * 2
        clients = [raw.connect(gateway.port()) for _ in range(2)]
        for s in clients:
            s.sendall(GET % b"/")
            wait_for(lambda: gateway.counters()["requests_started"] == started + clients.index(s) + 1, 3 + LATE, "started")
            time.sleep(0.1)
        begun = time.monotonic()
        for s in reversed(clients):  # the one in the queue first
            if how == "rst":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        wait_for(lambda: gateway.counters()["requests_ended"] == started + 2, 5 + LATE, "both ended")
        rounds.append(time.monotonic() - begun)
        ended = gateway.wait_access(started + 2)
        assert {entry["cause"] for entry in ended} <= {"client gone", "client closed", "client reset"}
        c = gateway.counters()
        assert c["server_connects"] == c["server_closed"]
        return rounds[-1]

    best_of(attempt, 1)
    if where == "connect":
        for s in [full, *fill]:
            s.close()


# --- the detector itself ---

class Program:
    """What spin.py wants to know of a gateway, for any program."""

    def __init__(self, text, file):
        self.proc = subprocess.Popen([sys.executable, "-c", text])
        self.pid, self.file, self.lines_out, self.lines_err = self.proc.pid, file, [], []


PAIR = "import socket, time; a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname()); c, _ = a.accept()\n"
# By its processor time, so that it is no shorter where the machine is busy; again and again, as a look may be late there.
SHORT = PAIR + """
for i in range(20):
    till = time.process_time() + 1.2
    while time.process_time() < till:
        pass
    time.sleep(0.5)
time.sleep(60)"""
SMALL_CHANGE = PAIR + """
while True:
    till, kept = time.process_time() + 0.1, socket.socket()
    while time.process_time() < till:
        pass
    b.send(b"x" * 500)
    c.recv(500)"""
IN_PARTS = """import time
while True:
    till = time.monotonic() + 0.3
    while time.monotonic() < till:
        pass
    time.sleep(0.3)"""


@pytest.mark.parametrize("text,spins", [
    ("while True: pass", True), (SHORT, True), (SMALL_CHANGE, True), ("import time; time.sleep(60)", False), (IN_PARTS, False),
    (PAIR + "while True: b.send(b'x' * 100); c.recv(100)", False)],
    ids=["spins", "spins 1.2 s at a time", "spins and does little", "waits", "waits half the time", "works"])
def test_the_spin_detector(tmp_path, text, spins):
    (tmp_path / "none.lua").touch()
    program, own = Program(text, tmp_path / "none.lua"), spin.Detector()
    try:
        own.watch(program)
        watched = own.watched[0]
        if spins:
            wait_for(lambda: own.found, 90, "a spin found")
            if text == "while True: pass":
                with pytest.raises(AssertionError, match="spins"):
                    own.at_rest(program)
        else:
            wait_for(lambda: watched.looks >= 30 and (watched.judged >= 4 or "time.sleep" in text), 90, "three seconds")
            assert own.take() == []
    finally:
        program.proc.kill()
        program.proc.wait()
