# SPDX-License-Identifier: MIT
"""Finds a gateway that spins: a thread that wants over 80% of a processor for 1 s while nothing gets on.

One light thread looks at every running gateway ten times a second: which of its threads run or wait for a processor, and how long each has
run. So a busy machine hides nothing: a second in which a thread wanted on at nearly every look is made longer until it has had its share to
show what it does with it. Only after such a second is the progress taken (bytes through its TCP sockets, which sockets there are, log
lines), and compared after another of the same. The end of a test looks once more, when nothing should run at all.
"""

import os
import socket
import struct
import threading
import time

SHARE = 0.8
WINDOW_S = 1.0
LOOK_S = 0.1
LOOKS = 8         # of a second, at least: fewer say nothing
RAN_S = 0.1       # what a thread must have had of a processor before it is judged
EVENTS = 10       # sockets, lines: fewer than this in a busy second, and
BYTES = 4096      # fewer bytes than this, is no progress
REST_LOOK_S, REST_LOOKS = 0.01, 3  # the end of a test looks so often for a thread that runs on
STARVED_S = 60.0  # and no longer than this

TICK = os.sysconf("SC_CLK_TCK")
SOCK_DIAG, DUMP, DONE, INFO = 20, 0x301, 3, 2  # linux/sock_diag.h, netlink.h, inet_diag.h


def threads(pid):
    """{thread: (it runs or waits for a processor, seconds it ran)}"""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{name}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            found[name] = (fields[0] == "R", (int(fields[11]) + int(fields[12])) / TICK)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended, or one of its threads did
    return found


class Window:
    """What a process's threads want from now on."""

    def __init__(self, pid):
        self.pid, self.begun, self.looks = pid, time.monotonic(), 0
        self.first = self.last = threads(pid)
        self.wanted = dict.fromkeys(self.first, 0)

    def look(self):
        self.looks += 1
        self.last = threads(self.pid)
        for name, (wants, _) in self.last.items():
            if wants and name in self.wanted:
                self.wanted[name] += 1

    def seconds(self):
        return time.monotonic() - self.begun

    def ran(self, name):
        return self.last[name][1] - self.first[name][1]

    def running(self):
        """The threads that wanted a processor nearly all the time."""
        return {name for name, times in self.wanted.items() if name in self.last and times > SHARE * self.looks}

    def over(self):
        """Long enough, and each that wanted a processor has had some of it."""
        return self.seconds() >= WINDOW_S and self.looks >= LOOKS and all(self.ran(name) >= RAN_S for name in self.running())


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
        self.gateway, self.window, self.progress, self.windows = gateway, Window(gateway.pid), None, 0

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
        window = self.window
        window.look()
        if not window.over():
            return None
        running = window.running()
        progress = self.take_progress() if running else None
        wrong = None
        if progress is not None and self.progress is not None and self.stuck(progress):
            spent = {name: f"{window.ran(name):.2f}" for name in sorted(running)}
            wrong = f"spins: in {window.seconds():.2f} s threads ran for {spent} s, and nothing got on"
        self.window, self.progress = Window(self.gateway.pid), progress
        self.windows += 1
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
        """For a gateway with nothing to do: a thread that wants on all of a moment is watched until that is certain."""
        window = Window(gateway.pid)
        while True:
            time.sleep(REST_LOOK_S)
            window.look()
            running = window.running()
            if not running and window.looks >= REST_LOOKS:
                return
            if running and (window.over() or window.seconds() > STARVED_S):
                raise AssertionError(f"spins: nothing to do, and threads {sorted(running)} ran all of {window.seconds():.2f} s")

    def take(self):
        found, self.found = self.found, []
        return found


detector = Detector()
