# SPDX-License-Identifier: MIT
"""The process: stopping by signals, what SIGHUP says, busy ports, descriptors, privileges."""

import os
import pathlib
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

import gateway as gateway_module
import raw
from gateway import forwarding, free_port, wait_for

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
FIXED = 'listener "http" { bind = "127.0.0.1:@http@" }\nroute "all" { reply(200, "ok") }\n'

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def refuses(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) != 0


def ended(gateway, timeout):
    """Seconds until the process ended, which must be well."""
    begun = time.monotonic()
    assert gateway.proc.wait(timeout) == 0, gateway.err()
    return time.monotonic() - begun


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stop_at_rest(start, sig):
    """Idle connections are closed at once."""
    gateway = start(FIXED)
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        assert raw.Response(s).status == 200
        gateway.proc.send_signal(sig)
        assert ended(gateway, 5) < 1.5
        assert raw.read_all(s)[0] == b""
    gateway.wait_err("SIGTERM" if sig == signal.SIGTERM else "SIGINT")
    gateway.wait_err("stopped: counters")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_finished(start, origin, sig):
    gateway = start(forwarding(origin().address))
    with raw.connect(gateway.port()) as slow, raw.connect(gateway.port()) as upload:
        slow.sendall(GET % b"/slow/700")
        upload.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        time.sleep(0.15)
        gateway.proc.send_signal(sig)
        wait_for(lambda: refuses(gateway.port()), 3, "no new connections")
        assert gateway.proc.poll() is None
        upload.sendall(b"def")
        for s in (slow, upload):
            response = raw.Response(s)
            assert response.status == 200 and response.get("connection") == "close"
            assert raw.read_all(s)[0] == b""
        assert b"abcdef" in response.body
    ended(gateway, 5)


def test_a_response_under_way_is_finished(start, origin):
    gateway = start(forwarding(origin().address))
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/stream/5/150")
        got = raw.read_until(s, b"data:")
        gateway.proc.send_signal(signal.SIGTERM)
        got += raw.read_all(s)[0]
    assert got.count(b"data:") == 5 and got.endswith(b"\r\n0\r\n\r\n")
    assert ended(gateway, 5) < 1


def test_drain_timeout(start, scripted):
    """What takes longer is cut; tunnels stay until then and are told."""
    def handler(peer):
        head = peer.head()
        if b"Upgrade" in head:
            key = dict(gateway_module.fields_of(head))["sec-websocket-key"]
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
                      raw.accept_of(key).encode() + b"\r\n\r\n")
        peer.wait_closed(10)

    text = forwarding(scripted(handler).address)
    gateway = start('settings { workers = 2, access_log = { to = "stdout" }, drain_timeout = "800ms" }\n' + text)
    tunnel, response = raw.open_websocket(gateway.port())
    assert response.status == 101
    with raw.connect(gateway.port()) as s, tunnel:
        s.sendall(GET % b"/")
        time.sleep(0.1)
        begun = time.monotonic()
        gateway.proc.send_signal(signal.SIGTERM)
        assert raw.read_all(tunnel)[0] in (b"", b"\x88\x02\x03\xe9")
        assert 0.7 < time.monotonic() - begun < 3
        assert raw.read_all(s)[0] == b""
    ended(gateway, 5)
    gateway.wait_err("drain timeout")
    assert {entry["cause"] for entry in gateway.wait_access(3) if "cause" in entry} == {"shutdown"}


def test_a_second_signal_ends_it_now(start, origin):
    text = 'settings { workers = 2, access_log = { to = "stdout" }, drain_timeout = "30s" }\n' + forwarding(origin().address)
    gateway = start(text)
    s, response = raw.open_websocket(gateway.port())
    assert response.status == 101
    gateway.proc.send_signal(signal.SIGTERM)
    gateway.wait_err("SIGTERM: ")
    time.sleep(0.2)
    assert gateway.proc.poll() is None
    gateway.proc.send_signal(signal.SIGTERM)
    assert ended(gateway, 5) < 2
    s.close()


def test_a_tunnel_that_ends_lets_the_process_go(start, origin):
    text = 'settings { workers = 2, access_log = { to = "stdout" }, drain_timeout = "30s" }\n' + forwarding(origin().address)
    gateway = start(text)
    s, response = raw.open_websocket(gateway.port())
    gateway.proc.send_signal(signal.SIGTERM)
    gateway.wait_err("SIGTERM: ")
    s.sendall(raw.frame(b"still here"))
    assert raw.read_frame(s, response.rest)[1] == b"still here"
    s.close()
    assert ended(gateway, 5) < 2


def test_stop_before_the_first_answer_of_a_probe(start, scripted):
    """Requests that wait for a probe hold the process no longer than others."""
    text = 'settings { workers = 2, access_log = { to = "stdout" }, drain_timeout = "500ms" }\n'
    gateway = start(text + forwarding(scripted(lambda peer: peer.wait_closed(10)).address, pool='probe = { timeout = "10s" },'))
    with raw.connect(gateway.port()) as s:
        s.sendall(GET % b"/")
        time.sleep(0.2)
        gateway.proc.send_signal(signal.SIGTERM)
        assert ended(gateway, 8) < 3


def test_sighup_says_what_is_missing_and_changes_nothing(start, origin):
    gateway = start(forwarding(origin().address))
    s, response = raw.open_websocket(gateway.port())
    gateway.file.write_text("this is no Lua")
    gateway.proc.send_signal(signal.SIGHUP)
    gateway.wait_err("SIGHUP: reload is not in this version")
    s.sendall(raw.frame(b"hello"))
    assert raw.read_frame(s, response.rest)[1] == b"hello"
    assert raw.request(gateway.port(), GET % b"/").status == 200
    s.close()


def test_sigpipe_and_sigusr1(start):
    gateway = start(FIXED)
    gateway.proc.send_signal(signal.SIGPIPE)
    assert raw.request(gateway.port(), GET % b"/").status == 200
    assert gateway.counters()["requests_started"] == 1


# --- starting ---

@pytest.mark.parametrize("second", [False, True])
def test_a_busy_port(moongate, tmp_path, second):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        file = tmp_path / "g.lua"
        first = f'listener "free" {{ bind = "127.0.0.1:{free_port()}" }}\n' if second else ""
        file.write_text(f'{first}listener "taken" {{ bind = "127.0.0.1:{port}" }}\nroute "all" {{ reply(200) }}\n')
        done = moongate("run", file)
    assert done.returncode == 1
    assert re.search(rf'g\.lua:{2 if second else 1}: listener "taken": .*127\.0\.0\.1:{port}.*in use', done.stderr), done.stderr


def test_a_port_taken_by_another_gateway(start, moongate, tmp_path):
    """Two gateways do not silently share a port."""
    gateway = start(FIXED)
    done = moongate("run", gateway.file)
    assert done.returncode == 1 and "in use" in done.stderr


def test_a_bad_file(moongate, tmp_path):
    file = tmp_path / "g.lua"
    file.write_text('listener "a" { bind = "127.0.0.1:1", colour = "red" }\nroute "all" { forward "nowhere" }\n')
    done = moongate("run", file)
    assert done.returncode == 1
    assert "g.lua:1: " in done.stderr and "colour" in done.stderr and "g.lua:2: " in done.stderr and "nowhere" in done.stderr
    assert moongate("run", tmp_path / "none.lua").returncode == 1
    assert moongate("run").returncode != 0
    assert moongate("run", "--colour", file).returncode != 0


def test_an_unwritable_log(moongate, tmp_path):
    file = tmp_path / "g.lua"
    file.write_text(f'settings {{ access_log = {{ to = "{tmp_path}/no/such/folder" }} }}\n' + FIXED.replace("@http@", str(free_port())))
    done = moongate("run", file)
    assert done.returncode == 1 and "no/such/folder" in done.stderr


def test_the_descriptor_limit_is_raised(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gateway = start(FIXED)
    line = next(line for line in pathlib.Path(f"/proc/{gateway.pid}/limits").read_text().splitlines() if line.startswith("Max open files"))
    assert line.split()[3] == line.split()[4]
    gateway.wait_err(r"room for \d+ clients or tunnels")


def test_the_shortfall_is_said_in_tunnels(start, tmp_path):
    """A hard limit too low for what was asked for."""
    file = tmp_path / "g.lua"
    file.write_text("settings { workers = 1, max_connections = 5000 }\n" + FIXED.replace("@http@", str(free_port())))
    made = gateway_module.Process(["sh", "-c", f"ulimit -n 500 && exec '{gateway_module.binary()}' run '{file}'"])
    try:
        made.wait_err(r"max_connections = 5000, but the limit of 500 open files leaves room for \d+ tunnels: \d+ short")
        made.wait_err("serving ")
    finally:
        assert made.stop() == 0


# --- privileges ---

@pytest.fixture
def open_folder():
    """A folder that any user can read; pytest's own are closed to others."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield pathlib.Path(folder)
    shutil.rmtree(folder)


def low_port():
    for port in range(1023, 600, -1):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    pytest.skip("no low port can be bound here")


@needs_root
def test_privileges_are_dropped_in_every_thread(open_folder):
    """Bound as root, below 1024; then the user's, its group alone, and no way back."""
    port = low_port()
    nobody = pwd.getpwnam("nobody")
    text = f'listener "http" {{ bind = "127.0.0.1:{port}" }}\nroute "all" {{ reply(200, "ok") }}\n'
    gateway = gateway_module.Gateway(open_folder, text, settings='user = "nobody",')
    try:
        threads = list(pathlib.Path(f"/proc/{gateway.pid}/task").iterdir())
        assert len(threads) >= 4
        for thread in threads:
            status = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
            assert set(status["Uid"].split()) == {str(nobody.pw_uid)}
            assert set(status["Gid"].split()) == {str(nobody.pw_gid)}
            assert status["Groups"].split() in ([], [str(nobody.pw_gid)])
            assert int(status["CapEff"], 16) & ~(1 << 10) == 0 and status["NoNewPrivs"].strip() == "1"
        assert raw.request(port, GET % b"/").body == b"ok"
        gateway.assert_rest()
    finally:
        gateway.close()


@needs_root
def test_group_alone_and_both(open_folder):
    text = f'listener "http" {{ bind = "127.0.0.1:{free_port()}" }}\nroute "all" {{ reply(200, "ok") }}\n'
    gateway = gateway_module.Gateway(open_folder, text, settings='user = "nobody", group = "daemon",')
    try:
        status = pathlib.Path(f"/proc/{gateway.pid}/status").read_text()
        assert re.search(r"^Gid:\s+1\s+1\s+1\s+1$", status, re.M)
    finally:
        gateway.close()


@needs_root
def test_files_that_the_user_cannot_read_are_refused_by_name(moongate, open_folder):
    file = open_folder / "g.lua"
    file.write_text(f'settings {{ user = "nobody" }}\nlistener "http" {{ bind = "127.0.0.1:{free_port()}" }}\nroute "all" {{ reply(200) }}\n')
    file.chmod(0o600)
    done = moongate("run", file)
    assert done.returncode == 1 and str(file) in done.stderr and "cannot read" in done.stderr


@needs_root
@pytest.mark.parametrize("words,says", [('user = "no-such-user"', "no-such-user"), ('group = "no-such-group"', "no-such-group")])
def test_unknown_names(moongate, tmp_path, words, says):
    file = tmp_path / "g.lua"
    file.write_text(f'settings {{ {words} }}\nlistener "http" {{ bind = "127.0.0.1:{free_port()}" }}\nroute "all" {{ reply(200) }}\n')
    done = moongate("run", file)
    assert done.returncode == 1 and says in done.stderr


@needs_root
def test_user_without_root(open_folder):
    file = open_folder / "g.lua"
    file.write_text(f'settings {{ user = "nobody" }}\nlistener "http" {{ bind = "127.0.0.1:{free_port()}" }}\nroute "all" {{ reply(200) }}\n')
    binary = open_folder / "moongate"
    shutil.copy(gateway_module.binary(), binary)
    done = subprocess.run([binary, "run", file], capture_output=True, text=True, timeout=20, user="daemon", group="daemon", extra_groups=[],
                          stdin=subprocess.DEVNULL, cwd=open_folder)
    assert done.returncode == 1 and "root" in done.stderr
