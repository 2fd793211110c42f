# SPDX-License-Identifier: MIT
"""D28: the wall clock may jump; timers do not follow it."""

import datetime
import os
import socket
import subprocess
import time

import raw

# The wall clock stands still before the file named by MOONGATE_TEST_JUMP exists, and is an hour ahead, or back, as it says.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, out);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
        long shift = 0;
        const char *path = getenv("MOONGATE_TEST_JUMP");
        FILE *file = path ? fopen(path, "r") : NULL;
        if (file) {
            if (fscanf(file, "%ld", &shift) != 1)
                shift = 0;
            fclose(file);
        }
        out->tv_sec += shift;
    }
    return result;
}
"""


def test_d28_the_wall_clock_moves_no_timer(start, tmp_path):
    """D28: an hour ahead, then an hour back: an idle connection and one within its head live exactly as long as they should."""
    source, library, jump = tmp_path / "jump.c", tmp_path / "jump.so", tmp_path / "jump"
    source.write_text(SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    asan = os.environ.get("ASAN_OPTIONS", "")
    gateway = start('listener "http" { bind = "127.0.0.1:@http@", idle_timeout = "3s", header_timeout = "3s" }\nroute "all" { reply(200, "ok") }\n',
                    env={"LD_PRELOAD": str(library), "MOONGATE_TEST_JUMP": str(jump), "ASAN_OPTIONS": asan + ":verify_asan_link_order=0"})
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for shift in (3600, -3600):
        with raw.connect(gateway.port()) as idle, raw.connect(gateway.port()) as head:
            idle.sendall(get)
            assert raw.Response(idle).status == 200
            head.sendall(get[:10])
            begun = time.monotonic()
            time.sleep(0.5)
            jump.write_text(f"{shift}\n")
            assert raw.request(gateway.port(), get).status == 200
            ends = {}
            for s, name in ((idle, "idle"), (head, "head")):
                s.settimeout(6)
                raw.read_all(s) if name == "idle" else wait_408(s)
                ends[name] = time.monotonic() - begun
            assert all(2.5 < seconds < 5 for seconds in ends.values()), ends
    times = [datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00")) for entry in gateway.wait_access(6)]
    assert max(times) - min(times) > datetime.timedelta(minutes=50), "the shim did nothing"


def wait_408(s: socket.socket):
    assert raw.Response(s).status == 408
