# SPDX-License-Identifier: MIT
"""What tests/bench/quick and tests/bench/compare share: processes pinned to a processor, their processor time and
memory, and the load programs. Nothing here knows which proxy it is about."""
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
DESCRIPTORS = 20000
USER = "user root;" if os.geteuid() == 0 else ""  # nginx's workers must reach the temporary folder


class Failure(Exception):
    pass


def default_moongate():
    return os.environ.get("MOONGATE") or next(
        (p for p in (os.path.abspath("moongate"), os.path.join(TOP, "build", "moongate"), os.path.join(TOP, "moongate"))
         if os.access(p, os.X_OK)), "moongate")


def missing(programs):
    return sorted(program for program in programs if not shutil.which(program))


def two_processors():
    """(for the proxy, for load and origin)"""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise Failure("two processors are needed: one for the proxy, one for load and origin")
    return cpus[0], cpus[1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(command, cpus, **more):
    """A process that may use these processors, with as many descriptors as allowed."""
    def prepare():
        os.sched_setaffinity(0, cpus)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return subprocess.Popen(command, preexec_fn=prepare, **more)


def family(pid):
    """pid and its descendants."""
    pids = [pid]
    for parent in pids:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as f:
                    pids += [int(child) for child in f.read().split()]
        except OSError:
            pass
    return pids


def stop(process, patience=5):
    if process is None or process.poll() is not None:
        return
    members = family(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()


def cpu_us(pid):
    """Processor time of a process and its children, all threads."""
    total = 0
    for member in family(pid):
        for task in os.listdir(f"/proc/{member}/task"):
            try:
                with open(f"/proc/{member}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
            except OSError:
                pass
    return total / 1000


def memory_kb(pid):
    """Pss of a process and its children; Rss where the kernel has no Pss for us."""
    total = 0
    for member in family(pid):
        with open(f"/proc/{member}/smaps_rollup") as f:
            fields = dict(line.split(":", 1) for line in f if ":" in line)
        total += int(fields.get("Pss", fields["Rss"]).split()[0])
    return total


def tcp_is_short_of_memory():
    """The kernel is above its limit and shrinks windows: bulk flows then stall, whatever the proxy does."""
    try:
        with open("/proc/sys/net/ipv4/tcp_mem") as f:
            limit = int(f.read().split()[1])
        with open("/proc/net/sockstat") as f:
            words = next(line for line in f if line.startswith("TCP:")).split()
        return int(words[words.index("mem") + 1]) > limit
    except (OSError, StopIteration, ValueError):
        return False


def answers(address, path):
    try:
        with socket.create_connection(address, 1) as s:
            s.settimeout(2)
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return s.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def fill(template, values):
    """A template's text with each @word@ replaced."""
    with open(os.path.join(HERE, template)) as f:
        return re.sub(r"@(\w+)@", lambda match: str(values[match.group(1)]), f.read())


class Field:
    """A run's folder, processors, and all that it started."""

    def __init__(self):
        self.proxy_cpu, self.load_cpu = two_processors()
        self.load_cpus = {self.load_cpu}
        self.processes = []
        self.folder = tempfile.mkdtemp(prefix="moongate-bench-")

    def close(self):
        for process in reversed(self.processes):
            stop(process, 2)
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def build(self, name, *libraries):
        """A C program of this folder."""
        flags = os.environ.get("CFLAGS", "-O2").split()
        program = self.path(name)
        command = [os.environ.get("CC", "cc"), *flags, "-std=c11", "-D_GNU_SOURCE", "-o", program,
                   os.path.join(HERE, name + ".c"), *libraries]
        if subprocess.run(command, check=False).returncode != 0:
            raise Failure(f"{name}.c does not compile" + (": is libssl-dev installed?" if "-lssl" in libraries else ""))
        return program

    def build_wsload(self):
        self.wsload = self.build("wsload", "-lssl", "-lcrypto", "-pthread")

    def make_certificate(self):
        """A P-256 key and its certificate: paths of both."""
        cert, key = self.path("cert.pem"), self.path("key.pem")
        if not os.path.exists(cert):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                            "-keyout", key, "-out", cert], check=True, capture_output=True)
        return cert, key

    def run_server(self, name, command, cpus, address, path="/size/64"):
        """Starts it and waits until it serves."""
        log_path = self.path("log")
        with open(log_path, "w") as log:
            process = start(command, cpus, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.processes.append(process)
        deadline = time.monotonic() + 20
        while not answers(address, path):
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log_path, errors="replace") as f:
                    raise Failure(f"{name} does not serve:\n{f.read()[-2000:]}")
            time.sleep(0.05)
        return process

    def stop(self, process):
        stop(process, 2)
        if process in self.processes:
            self.processes.remove(process)

    def wrk(self, url, seconds, connections, headers=()):
        """Requests answered in that time."""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *(f"-H{field}" for field in headers), url]
        out = start(command, self.load_cpus, stdout=subprocess.PIPE, text=True).communicate()[0]
        if "Non-2xx" in out or "Socket errors" in out or "requests in" not in out:
            raise Failure(f"wrk {url}: {out}")
        return int(out.split(" requests in")[0].split()[-1])


class Load:
    """wsload with its tunnels open; what it does is in wsload.c."""

    def __init__(self, field, port, tunnels, tls=False):
        self.field = field
        command = [field.wsload, *(["--tls"] if tls else []), str(port), "/ws", str(tunnels)]
        self.process = start(command, field.load_cpus, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        field.processes.append(self.process)
        self.expect("open")

    def expect(self, word):
        words = self.process.stdout.readline().split()
        if not words or words[0] != word:
            raise Failure("wsload failed")
        return words

    def do(self, *command):
        """Returns how much of it was done."""
        self.process.stdin.write(" ".join(str(word) for word in command) + "\n")
        self.process.stdin.flush()
        return int(self.expect("done")[1])

    def close(self):
        self.process.stdin.close()
        if self.process.wait(20) != 0:
            raise Failure("wsload failed")
        self.field.processes.remove(self.process)


class Idlers:
    """HTTP clients that are kept alive behind one request each."""

    def __init__(self, port, count, path):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count + 100:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 1000), hard))
        self.sockets = []
        for _ in range(count):
            s = socket.create_connection(("127.0.0.1", port), 10)
            self.sockets.append(s)
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            got = b""
            while b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < length_of(got):
                more = s.recv(65536)
                if not more:
                    raise Failure("an idle client was closed")
                got += more

    def close(self):
        for s in self.sockets:
            s.close()


def length_of(head):
    return int(re.search(rb"\r\ncontent-length: *(\d+)", head, re.I).group(1))
