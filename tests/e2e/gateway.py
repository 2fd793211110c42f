# SPDX-License-Identifier: MIT
"""The real binary on free ports: start, logs, counters, rest, stop."""

import itertools
import json
import os
import pathlib
import random
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

from spin import detector

ROOT = pathlib.Path(__file__).resolve().parents[2]
REST_LOOK_S = 0.1
KEPT_PIPES = 4  # empty ones that a worker keeps for the next bulk flow


def binary():
    """The moongate to test: MOONGATE_BIN, else the one in the usual build folders."""
    named = os.environ.get("MOONGATE_BIN")
    places = [named] if named else [ROOT / "build" / "moongate", ROOT / "moongate"]
    for place in places:
        if place and os.access(place, os.X_OK):
            return str(pathlib.Path(place).resolve())
    raise RuntimeError("no moongate binary: build first, or set MOONGATE_BIN")


def instrumented():
    """The binary is built with a sanitizer, whose own memory stands beside every allocation."""
    content = pathlib.Path(binary()).read_bytes()
    return b"__asan_init" in content or b"__tsan_init" in content


def keeps_signals_back():
    """ThreadSanitizer does, until the thread calls the C library again, which an endless loop in Lua never does: its budget cannot end it."""
    return b"__tsan_init" in pathlib.Path(binary()).read_bytes()


# Below the range that the kernel gives to outgoing connections: none of those can take a port between here and its use.
# Test processes side by side (pytest-xdist names them gw0, gw1, ...) have parts of their own.
PART = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
PORTS = itertools.cycle(random.sample(range(10240 + PART * 2500, 10240 + (PART + 1) * 2500), 2500))


def free_port(family=socket.AF_INET, host="127.0.0.1", also=0):
    """A port that nobody uses now and that was not given out lately; also: so is the one so much above it."""
    while True:
        port = next(PORTS)
        try:
            for number in {port, port + also}:
                with socket.socket(family, socket.SOCK_STREAM) as s:
                    s.bind((host, number))
            return port
        except OSError:
            continue


def wait_for(check, timeout=5.0, what="condition"):
    """Calls check until it gives something true; returns that."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out after {timeout} s: {what}")
        time.sleep(0.02)


def best_of(attempt, most, tries=4):
    """attempt() gives seconds; one of a few must be at most so many. A late machine spoils some of them, a late gateway each."""
    took = []
    while not took or took[-1] > most:
        assert len(took) < tries, f"at most {most} s are right, it took " + ", ".join(f"{seconds:.2f}" for seconds in took)
        took.append(attempt())


class Process:
    """A started program whose output lines are kept."""

    def __init__(self, args, env=None, cwd=None):
        self.lines_out, self.lines_err = [], []
        self.proc = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                     env={**os.environ, **(env or {})}, cwd=cwd)
        self.threads = [threading.Thread(target=self._read, args=pair, daemon=True)
                        for pair in ((self.proc.stdout, self.lines_out), (self.proc.stderr, self.lines_err))]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    @property
    def pid(self):
        return self.proc.pid

    def err(self):
        return "\n".join(self.lines_err)

    def out(self):
        return "\n".join(self.lines_out)

    def wait_err(self, pattern, timeout=5.0, after=0):
        """Waits for a stderr line that matches; returns the match."""
        def look():
            for line in self.lines_err[after:]:
                found = re.search(pattern, line)
                if found:
                    return found
            if self.proc.poll() is not None:
                time.sleep(0.1)
                for line in self.lines_err[after:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                raise AssertionError(f"ended with {self.proc.returncode} before /{pattern}/:\n{self.err()}")
            return None
        return wait_for(look, timeout, f"/{pattern}/ on stderr, which holds:\n{self.err()}")

    def stop(self, sig=signal.SIGTERM, timeout=20.0):
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
            try:
                self.proc.wait(timeout)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
                raise AssertionError(f"did not stop within {timeout} s of signal {sig}:\n{self.err()[-4000:]}")
        for thread in self.threads:
            thread.join(5)
        return self.proc.returncode


class Gateway(Process):
    """moongate run with a configuration text. {port} names in it are free ports made on first use."""

    def __init__(self, folder, text, workers=2, env=None, settings="", ready=True, prefix=()):
        self.folder = pathlib.Path(folder)
        self.file = self.folder / "gateway.lua"
        self.ports = {}
        self.fds_at_start = None
        self.fds_more = 0  # descriptors that a test knows of: probes under way
        if "settings" not in text:
            text = f'settings {{ workers = {workers}, access_log = {{ to = "stdout", format = "json" }}, ' \
                   f'drain_timeout = "2s", {settings} }}\n' + text
        self.file.write_text(re.sub(r"@([a-z]\w*)@", lambda m: str(self.port(m.group(1))), text))
        super().__init__([*prefix, binary(), "run", str(self.file)], env=env, cwd=str(self.folder))
        if ready:
            try:
                self.workers = int(self.wait_err(r"serving .* with (\d+) workers", 20).group(1))
            except AssertionError:
                self.proc.kill()
                self.proc.wait()
                raise
            self.fds_at_start, self.pipes_at_start = self.fds(), self.fds("pipe:")
            detector.watch(self)

    def port(self, name="http"):
        if name not in self.ports:
            self.ports[name] = free_port()
        return self.ports[name]

    def url(self, path="/", scheme="http", port=None, host="127.0.0.1"):
        return f"{scheme}://{host}:{self.port(port or ('https' if scheme in ('https', 'wss') else 'http'))}{path}"

    def access(self, **want):
        """Access lines so far whose fields equal want."""
        found = []
        for line in list(self.lines_out):
            if not line.startswith("{"):
                continue
            entry = json.loads(line)
            if all(entry.get(key) == value for key, value in want.items()):
                found.append(entry)
        return found

    def wait_access(self, count=1, timeout=5.0, **want):
        return wait_for(lambda: (lambda got: got if len(got) >= count else None)(self.access(**want)), timeout,
                        f"{count} access lines with {want}; there are:\n{self.out()[-3000:]}\n{self.err()[-2000:]}")

    def counters(self):
        after = len(self.lines_err)
        self.proc.send_signal(signal.SIGUSR1)
        found = self.wait_err(r"SIGUSR1: counters (\{.*\})", 30, after)
        return json.loads(found.group(1))

    def fds(self, kind=""):
        """How many descriptors are open, or those whose target begins with kind."""
        folder, count = f"/proc/{self.pid}/fd", 0
        for name in os.listdir(folder):
            try:
                count += os.readlink(f"{folder}/{name}").startswith(kind)
            except FileNotFoundError:
                pass  # closed meanwhile
        return count

    def rss_kb(self):
        """This process's own share of memory; 0 where a sanitizer makes the figure say nothing."""
        if instrumented():
            return 0
        for line in pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise AssertionError("no Pss")

    def ran_s(self):
        """Processor time of all its threads, to the microsecond: of its clock, whose number the kernel makes of its id."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def at_rest(self):
        """None when counters reconcile, else what does not."""
        c = self.counters()
        wrong = []
        for opened, closed in (("clients_accepted", "clients_closed"), ("requests_started", "requests_ended"),
                               ("tunnels_opened", "tunnels_closed")):
            if c[opened] != c[closed]:
                wrong.append(f"{opened} {c[opened]} != {closed} {c[closed]}")
        kept = c["server_connects"] - c["server_closed"]
        if kept < 0:
            wrong.append(f"server_connects {c['server_connects']} < server_closed {c['server_closed']}")
        fds = self.fds()
        if self.fds_at_start is not None:
            spare = min(self.fds("pipe:") - self.pipes_at_start, KEPT_PIPES * 2 * self.workers)
            if fds > self.fds_at_start + kept + spare + self.fds_more:
                wrong.append(f"{fds} descriptors, {self.fds_at_start} at the start, {kept} kept connections, {spare} of spare pipes")
        return wrong

    def assert_rest(self, timeout=6.0):
        """Live connections and counters go back to rest: seconds of a quiet machine, as a busy one makes each look longer."""
        for _ in range(int(timeout / REST_LOOK_S)):
            wrong = self.at_rest()
            if not wrong:
                return
            time.sleep(REST_LOOK_S)
        raise AssertionError("not at rest: " + "; ".join(wrong))

    def close(self, expect=0):
        code = self.stop()
        err = self.err()
        assert code == expect, f"exit code {code}, expected {expect}:\n{err[-6000:]}"
        for bad in ("AddressSanitizer", "runtime error:", "LeakSanitizer", "ThreadSanitizer"):
            assert bad not in err, err[-8000:]


class Origin(Process):
    """moongate origin on a free port."""

    def __init__(self, name="origin", port=None, args=()):
        self.port = port or free_port()
        self.name = name
        super().__init__([binary(), "origin", str(self.port), "--name", name, *args])
        wait_for(self._up, 10, f"origin on {self.port}: {self.err()}")

    def _up(self):
        if self.proc.poll() is not None:
            raise AssertionError(f"origin ended: {self.err()}")
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


class RecordingOrigin:
    """A server that keeps the raw bytes of each connection and answers by a function.

    answer(conn, data, state) is called after each receive with all bytes so far of the connection; it may send and
    returns True to close. Default: one fixed response once the head is complete.
    """

    def __init__(self, answer=None, response=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", host="127.0.0.1"):
        self.answer = answer or self._fixed
        self.response = response
        self.connections = []
        self.listener = socket.create_server((host, 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.address = f"{host}:{self.port}"
        self.closing = False
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _fixed(self, conn, data, state):
        while True:
            end = bytes(data).find(b"\r\n\r\n", state.get("at", 0))
            if end < 0:
                return False
            state["at"] = end + 4
            conn.sendall(self.response)

    def _accept(self):
        while not self.closing:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            data = bytearray()
            self.connections.append(data)
            threading.Thread(target=self._serve, args=(conn, data), daemon=True).start()

    def _serve(self, conn, data):
        state = {}
        with conn:
            try:
                while not self.closing:
                    ready, _, _ = select.select([conn], [], [], 0.5)
                    if not ready:
                        continue
                    got = conn.recv(65536)
                    if not got:
                        state["eof"] = True
                        if not state.get("keep"):
                            return
                        time.sleep(0.05)
                    data += got
                    if self.answer(conn, data, state):
                        return
            except OSError:
                return

    @property
    def bytes(self):
        return b"".join(bytes(c) for c in self.connections)

    def requests(self):
        """Heads received, over all connections, in order of connection."""
        return [part for c in self.connections for part in bytes(c).split(b"\r\n\r\n") if part]

    def close(self):
        self.closing = True
        stop_listening(self.listener)


def stop_listening(listener):
    """Closes a listening socket on which another thread waits in accept()."""
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    listener.close()


def forwarding(*addresses, listener="", pool="probe = false,", route="", before=""):
    """A configuration with one listener, one pool of these servers and one route to it; the others are more keys.

    Kept connections outlive what tests wait for: one that is closed was closed for a reason.
    """
    servers = ", ".join(f'"{address}"' for address in addresses)
    return (f'listener "http" {{ bind = "127.0.0.1:@http@", {listener} }}\n'
            f'pool "p" {{ servers = {{ {servers} }}, keepalive_timeout = "60s", {pool} }}\n{before}\n'
            f'route "all" {{ {route} forward "p" }}\n')


class Peer:
    """One accepted connection of a ScriptedOrigin."""

    def __init__(self, sock, index):
        self.sock, self.index = sock, index
        self.data = b""
        sock.settimeout(10)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _read(self):
        got = self.sock.recv(65536)
        if not got:
            raise EOFError("the gateway closed")
        return got

    def _more(self):
        self.data += self._read()

    def until(self, end):
        while end not in self.data:
            self._more()
        got, _, self.data = self.data.partition(end)
        return got + end

    def head(self):
        """The next request's head, with its empty line."""
        return self.until(b"\r\n\r\n")

    def take(self, n):
        parts, have = [self.data], len(self.data)
        while have < n:  # joined once: a large body would be copied for each read
            parts.append(self._read())
            have += len(parts[-1])
        data = b"".join(parts)
        got, self.data = data[:n], data[n:]
        return got

    def body(self, head):
        """The body that belongs to head, decoded; trailers are kept in self.trailers."""
        fields = dict(fields_of(head))
        if fields.get("transfer-encoding") != "chunked":
            return self.take(int(fields.get("content-length", 0)))
        parts, self.trailers = [], []
        while True:
            size = int(self.until(b"\r\n"), 16)  # extensions are not forwarded: they would raise here
            if size == 0:
                break
            parts.append(self.take(size))
            assert self.take(2) == b"\r\n"
        while (line := self.until(b"\r\n")) != b"\r\n":
            self.trailers.append(line[:-2].decode())
        return b"".join(parts)

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, body=b"ok", head=b"HTTP/1.1 200 OK\r\n"):
        self.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_closed(self, timeout=5.0):
        """Seconds until the gateway closed or reset; what came before it is kept in self.data."""
        start = time.monotonic()
        self.sock.settimeout(timeout)
        try:
            while got := self.sock.recv(65536):
                self.data += got
        except ConnectionResetError:
            pass
        return time.monotonic() - start


def fields_of(head):
    """[(lower name, value)] of a head."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [(line.partition(":")[0].lower(), line.partition(":")[2].strip()) for line in lines if line]


class ScriptedOrigin:
    """A server whose handler(peer) runs in a thread for each connection; it is closed when the handler returns.

    A handler may raise EOFError or OSError (the gateway closed); any other exception fails the test at its end.
    """

    def __init__(self, handler, host="127.0.0.1", path=None):
        self.handler = handler
        self.peers, self.threads, self.errors = [], [], []
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen(64)
            self.address = f"unix:{path}"
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.listener = socket.create_server((host, 0), family=family, backlog=256)
            self.port = self.listener.getsockname()[1]
            self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            peer = Peer(sock, len(self.peers))
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, peer):
        try:
            self.handler(peer)
        except (EOFError, OSError):
            pass
        except BaseException as error:  # noqa: B902: told by close()
            self.errors.append(error)
        finally:
            peer.sock.close()

    def close(self):
        stop_listening(self.listener)
        for peer in self.peers:
            try:
                peer.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(2)
        if self.errors:
            raise self.errors[0]
