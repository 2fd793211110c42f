# SPDX-License-Identifier: MIT
"""Fixtures: everything a test starts is ended with it, by its process id, and each gateway must be at rest."""

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import gateway as gateway_module  # noqa: E402
from gateway import Gateway, Origin, RecordingOrigin, ScriptedOrigin  # noqa: E402
from spin import detector  # noqa: E402


class Run:
    """Starts gateways; end() sees to it that each of them is at rest and ends well."""

    def __init__(self, folder):
        self.folder, self.running = folder, []

    def __call__(self, text, rest=True, **options):
        folder = self.folder / f"gateway{len(self.running)}"
        folder.mkdir(exist_ok=True)
        made = Gateway(folder, text, **options)
        made.check_rest = rest
        self.running.append(made)
        return made

    def end(self):
        problems = []
        for made in self.running:
            try:
                if made.proc.poll() is None:
                    if made.check_rest:
                        made.assert_rest()
                        detector.at_rest(made)
                    made.close()
            except AssertionError as error:
                problems.append(str(error))
                if made.proc.poll() is None:
                    made.proc.kill()
                    made.proc.wait()
        assert not problems, "\n".join(problems)


@pytest.fixture(autouse=True)
def no_spin():
    """No gateway may use a processor up while nothing gets on; see spin.py."""
    yield
    found = detector.take()
    assert not found, "\n".join(found)


@pytest.fixture
def start(tmp_path):
    """start(text, **options) -> Gateway, checked for rest and a clean exit at the end of the test."""
    run = Run(tmp_path)
    yield run
    run.end()


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory):
    """The same for one gateway that all tests of a file share."""
    run = Run(tmp_path_factory.mktemp("shared"))
    yield run
    run.end()


@pytest.fixture
def origin():
    """origin(name, ...) -> a `moongate origin` process."""
    running = []

    def run(name="origin", **options):
        made = Origin(name, **options)
        running.append(made)
        return made

    yield run
    for made in running:
        made.stop()


@pytest.fixture
def recorder():
    """recorder(...) -> RecordingOrigin."""
    running = []

    def run(*args, **options):
        made = RecordingOrigin(*args, **options)
        running.append(made)
        return made

    yield run
    for made in running:
        made.close()


@pytest.fixture
def scripted():
    """scripted(handler, ...) -> ScriptedOrigin."""
    running = []

    def run(*args, **options):
        made = ScriptedOrigin(*args, **options)
        running.append(made)
        return made

    yield run
    for made in running:
        made.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(cert path, key path) of a self-signed certificate for localhost, *.example.com and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder, "localhost", "DNS:localhost,DNS:*.example.com,IP:127.0.0.1")


def make_certificate(folder, name, alternatives):
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName={alternatives}"], check=True, capture_output=True)
    return str(cert), str(key)


@pytest.fixture
def moongate():
    """moongate(*args) -> finished process of the binary."""
    def run(*args, timeout=30, **options):
        return subprocess.run([gateway_module.binary(), *map(str, args)], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, **options)
    return run
