# SPDX-License-Identifier: MIT
"""Finds a gateway that spins: a thread that wants over 80% of a processor for 1 s while nothing gets on.

One light thread looks at every running gateway twice a second: the time its threads ran, and waited to run, so that a busy machine
hides nothing. Only when one was busy for a second is its progress taken (bytes through its TCP sockets, which sockets there are,
log lines), and compared after another second of the same. The end of a test looks once more, when nothing should run at all.
"""

import os
import socket
import struct
import threading
import time

SHARE = 0.8
WINDOW_S = 1.0
LOOK_S = 0.5
EVENTS = 10       # sockets, lines: fewer than this in a busy second, and
BYTES = 4096      # fewer bytes than this, is no progress
REST_S = 0.03     # how long the end of a test looks for a thread that runs on

SOCK_DIAG, DUMP, DONE, INFO = 20, 0x301, 3, 2  # linux/sock_diag.h, netlink.h, inet_diag.h


def threads(pid):
    """{thread: (seconds on a processor, seconds it waited for one)}"""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{name}/schedstat") as file:
                ran, waited = file.read().split()[:2]
            found[name] = (int(ran) / 1e9, int(waited) / 1e9)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended, or one of its threads did
    return found


def busy(before, after, seconds):
    """The threads that wanted more than SHARE of this time, and got some of it."""
    return {name for name, (ran, waited) in after.items() if name in before and
            ran + waited - sum(before[name]) > SHARE * seconds and ran - before[name][0] > 0.1 * seconds}


def tcp_bytes(pid):
    """{inode: bytes both ways} of a process's TCP sockets, by NETLINK_SOCK_DIAG."""
    own = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            own.add(int(target[8:-1]))
    found = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:
            request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 1 << (INFO - 1), 0xffffffff)
            s.settimeout(2)
            s.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG, DUMP, 1, 0) + request)
            over = False
            while not over:
                data = s.recv(1 << 20)
                while len(data) >= 16 and not over:
                    size, kind = struct.unpack_from("=IH", data)
                    over = kind != SOCK_DIAG
                    inode = struct.unpack_from("=I", data, 16 + 68)[0] if not over else 0
                    if inode in own:
                        found[inode] = tcp_info_bytes(data[16 + 72:size])
                    data = data[(size + 3) & ~3:]
    return found


def tcp_info_bytes(attributes):
    while len(attributes) >= 4:
        size, kind = struct.unpack_from("=HH", attributes)
        if kind == INFO and size >= 4 + 136:
            return sum(struct.unpack_from("=QQ", attributes, 4 + 120))  # tcpi_bytes_acked, tcpi_bytes_received
        attributes = attributes[max((size + 3) & ~3, 4):]
    return 0


class Watched:
    def __init__(self, gateway):
        self.gateway, self.at, self.threads, self.progress = gateway, time.monotonic(), threads(gateway.pid), None

    def take_progress(self):
        """Sockets with their bytes, and lines."""
        return tcp_bytes(self.gateway.pid), len(self.gateway.lines_out) + len(self.gateway.lines_err)

    def stuck(self, progress):
        (before, lines_before), (after, lines_after) = self.progress, progress
        moved = sum(abs(after.get(inode, 0) - before.get(inode, 0)) for inode in set(before) | set(after))
        least = 1 if "rule_cpu" in self.gateway.file.read_text() else EVENTS  # a long budget: a line when it is over
        return len(set(before) ^ set(after)) + lines_after - lines_before < least and moved < BYTES

    def look(self):
        """None, or what is wrong; to be called again and again."""
        now = time.monotonic()
        if now - self.at < WINDOW_S:
            return None
        seen = threads(self.gateway.pid)
        running = busy(self.threads, seen, now - self.at)
        progress = self.take_progress() if running else None
        wrong = None
        if progress is not None and self.progress is not None and self.stuck(progress):
            spent = {name: f"{seen[name][0] - self.threads[name][0]:.2f}" for name in sorted(running)}
            wrong = f"spins: in {now - self.at:.2f} s threads ran for {spent} s, and nothing got on"
        self.at, self.threads, self.progress = now, seen, progress
        return wrong


class Detector:
    """Everything that was started is watched until it ends."""

    def __init__(self):
        self.lock, self.watched, self.found, self.thread = threading.Lock(), [], [], None

    def watch(self, gateway):
        with self.lock:
            self.watched.append(Watched(gateway))
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, daemon=True)
                self.thread.start()

    def _run(self):
        while True:
            time.sleep(LOOK_S)
            with self.lock:
                self.watched = [each for each in self.watched if each.gateway.proc.poll() is None]
                watched = list(self.watched)
            for each in watched:
                try:
                    wrong = each.look()
                except (OSError, struct.error):
                    continue  # it ended meanwhile
                if wrong:
                    self.found.append(wrong)

    def at_rest(self, gateway):
        """For a gateway with nothing to do: a thread that runs all of a moment is watched for a second."""
        for wait in (REST_S, WINDOW_S):
            begun, before = time.monotonic(), threads(gateway.pid)
            time.sleep(wait)
            after = threads(gateway.pid)
            running = busy(before, after, time.monotonic() - begun)
            if not running:
                return
        raise AssertionError(f"spins: nothing to do, and threads {sorted(running)} ran all of {wait} s")

    def take(self):
        found, self.found = self.found, []
        return found


detector = Detector()
