# SPDX-License-Identifier: MIT
"""Finds a gateway that spins: a thread that wants over 80% of a processor for 1 s while nothing gets on.

One light thread looks at every running gateway ten times a second: how long each of its threads ran, or waited for a processor, which says
the same on a busy machine. While one wants to run nearly all the time, the progress of the process is noted four times a second (bytes through
its TCP sockets, which sockets there are, log lines), and compared with what it was a second ago; so a spin of little more than a second is
found wherever it begins. Progress is by the processor time that was spent on it: what little happens beside a spin, or in another thread, does
not hide it. On a busy machine the second grows until the thread has had enough of a processor to show what it does with it. The end of a test
looks once more, when nothing should run at all.
"""

import os
import re
import socket
import struct
import threading
import time

SHARE = 0.8
WINDOW_S = 0.95   # between two looks, neither of which meets the begin or the end
LOOK_S = 0.1
MARK_S = 0.25
STIRS = 0.2       # of the time between two looks: a thread that wants less begins no spin
RAN_S = 0.4       # what a thread must have had of a processor before it is judged
EVENTS = 30       # a second of a processor: fewer sockets and lines than this, and
BYTES = 16384     # fewer bytes than this, is no progress: a tenth of what one-byte writes of TLS with a sanitizer make
REST_S, REST_RAN_S = 1.0, 0.1  # the same at rest, where nothing should run
REST_LOOK_S, REST_LOOKS = 0.01, 3
STARVED_S = 60.0  # and no longer than this

TICK = os.sysconf("SC_CLK_TCK")
SOCK_DIAG, DUMP, DONE, INFO = 20, 0x301, 3, 2  # linux/sock_diag.h, netlink.h, inet_diag.h
STATES = 0xffffffff & ~(1 << 6)  # of TCP, without time-wait: those belong to nobody


def threads(pid):
    """{thread: (it runs or waits for a processor, seconds it ran, seconds it waited for one)}"""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{name}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            try:
                with open(f"/proc/{pid}/task/{name}/schedstat") as file:
                    ran, waited = (int(word) / 1e9 for word in file.read().split()[:2])
            except FileNotFoundError:  # not in every kernel
                ran, waited = (int(fields[11]) + int(fields[12])) / TICK, 0.0
            found[name] = (fields[0] == "R", ran, waited)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended, or one of its threads did
    return found


class Wants:
    """How long each thread of a process has wanted a processor, and had it, since this began."""

    def __init__(self, pid, short=False):
        self.pid, self.at, self.last, self.short = pid, time.monotonic(), threads(pid), short
        self.wanted, self.stirring = dict.fromkeys(self.last, 0.0), False

    def look(self):
        now, found = time.monotonic(), threads(self.pid)
        passed, self.stirring = now - self.at, False
        for name, (runs, ran, waited) in found.items():
            _, ran_before, waited_before = self.last.get(name, (runs, ran, waited))
            wanted = ran - ran_before + waited - waited_before
            if runs and (wanted <= 0 or self.short):  # the kernel adds a wait when it is over, a run at its next tick
                wanted = passed
            self.wanted[name] = self.wanted.get(name, 0.0) + min(wanted, passed)
            self.stirring |= wanted > STIRS * passed
        self.at, self.last = now, found


class Mark:
    """A moment from which on a thread may have spun."""

    def __init__(self, wants, progress=None):
        self.at, self.wanted, self.progress = wants.at, dict(wants.wanted), progress
        self.ran = {name: ran for name, (_, ran, _) in wants.last.items()}

    def running(self, wants):
        """{thread: seconds it ran} of those that wanted a processor nearly all the time since."""
        return {name: ran - self.ran[name] for name, (_, ran, _) in wants.last.items()
                if name in self.ran and wants.wanted[name] - self.wanted[name] > SHARE * (wants.at - self.at)}


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
            request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 1 << (INFO - 1), STATES)
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
        self.gateway, self.wants, self.marks = gateway, Wants(gateway.pid), []
        self.looks = self.judged = 0
        # A rule in Lua may run that long, and only then there is a line.
        budgets = re.findall(r'rule_cpu = "(\d+)(ms|s)"', gateway.file.read_text())
        self.budget_s = max((int(number) * (0.001 if unit == "ms" else 1) for number, unit in budgets), default=0)

    def take_progress(self):
        """Sockets with their bytes, and lines."""
        return tcp_bytes(self.gateway.pid), len(self.gateway.lines_out) + len(self.gateway.lines_err)

    def stuck(self, before, after, ran):
        (bytes_before, lines_before), (bytes_after, lines_after) = before, after
        sockets = set(bytes_before) | set(bytes_after)
        moved = sum(abs(bytes_after.get(inode, 0) - bytes_before.get(inode, 0)) for inode in sockets)
        events = len(set(bytes_before) ^ set(bytes_after)) + lines_after - lines_before
        return events < (1 if self.budget_s else EVENTS * ran) and moved < BYTES * ran

    def look(self):
        """None, or what is wrong; to be called again and again."""
        self.wants.look()
        self.looks += 1
        self.marks = [mark for mark in self.marks if mark.running(self.wants)]
        over = [mark for mark in self.marks if self.wants.at - mark.at >= WINDOW_S + self.budget_s
                and max(mark.running(self.wants).values()) >= RAN_S]
        due = self.wants.stirring and (not self.marks or self.wants.at - self.marks[-1].at >= MARK_S)
        if not over and not due:
            return None
        progress, wrong = self.take_progress(), None
        for mark in over:
            running = mark.running(self.wants)
            self.judged += 1
            if self.stuck(mark.progress, progress, max(running.values())):
                spent = {name: f"{ran:.2f}" for name, ran in sorted(running.items())}
                wrong = f"spins: in {self.wants.at - mark.at:.2f} s threads ran for {spent} s, and nothing got on"
        self.marks = [mark for mark in self.marks if mark not in over] + [Mark(self.wants, progress)] * due
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
        wants = Wants(gateway.pid, short=True)
        begun, looks = Mark(wants), 0
        while True:
            time.sleep(REST_LOOK_S)
            wants.look()
            looks += 1
            running, seconds = begun.running(wants), wants.at - begun.at
            if not running and looks >= REST_LOOKS:
                return
            if running and (seconds >= REST_S and max(running.values()) >= REST_RAN_S or seconds > STARVED_S):
                raise AssertionError(f"spins: nothing to do, and threads {sorted(running)} ran all of {seconds:.2f} s")

    def take(self):
        found, self.found = self.found, []
        return found


detector = Detector()
