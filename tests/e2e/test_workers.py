# SPDX-License-Identifier: MIT
"""Several workers: fresh connections go to the one with fewest, and thousands of routes are found by any of them."""

import os
import subprocess
import time

import raw
from gateway import binary, instrumented

COUNT = """
listener "http" {{ bind = "127.0.0.1:@http@" }}
local served = 0 -- a worker's own
route "count" {{ function(req) served = served + 1 return reply(200, tostring(served)) end }}
"""


def test_paced_connections_are_spread_over_the_workers(start):
    """EPOLLEXCLUSIVE alone gives nearly all of these to one worker; a local of each Lua state tells who has how many."""
    gateway = start(COUNT.format(), workers=2)
    held, counts = [], []
    for _ in range(60):
        s = raw.connect(gateway.port())
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        counts.append(int(raw.Response(s).body))
        held.append(s)  # kept open: what counts is how many each worker holds
        time.sleep(0.005)
    assert counts.count(1) == 2, counts  # both workers took some
    assert max(counts) <= 40, counts  # and neither nearly all
    for s in held:
        s.close()


def test_four_workers_hold_tunnels_evenly(start, origin):
    server = origin()
    gateway = start(f"""
listener "http" {{ bind = "127.0.0.1:@http@" }}
pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}
local served = 0
route "count" {{ websocket = true, function(req) served = served + 1 req:set_header("x-served", served) end, forward "p" }}
on_response(function(req, resp) if resp.tunnel then resp:set_header("x-served", req:header("x-served")) end end)
""", workers=4)
    held, counts = [], []
    for _ in range(80):
        s, response = raw.open_websocket(gateway.port())
        assert response.status == 101
        counts.append(int(response.get("x-served")))
        held.append(s)
        time.sleep(0.003)
    assert counts.count(1) == 4, counts
    assert max(counts) <= 32, counts
    for s in held:
        s.close()


def test_ten_thousand_routes_load_in_under_a_second(tmp_path):
    """Of processor time, which other work on the machine does not lengthen; five times that with a sanitizer's checks."""
    path = tmp_path / "many.lua"
    path.write_text('listener "http" { bind = "127.0.0.1:1" }\npool "p" { servers = { "127.0.0.1:2" }, probe = false }\n' +
                    "".join(f'route "site-of-a-customer-in-production-{i}" {{ host = {{ "h{i}.example.com", "*.h{i}.example.com" }}, path = "/app{i}/*", '
                            f'header = {{ ["x-tenant"] = "t{i}" }}, forward "p" }}\n' for i in range(10000)))
    # The load, the same in a worker's state, and the index of the routes.
    child = subprocess.Popen([binary(), "route", path, "-H", "x-tenant: t9999", "http://h9999.example.com/app9999/"], stdout=subprocess.PIPE)
    said = child.stdout.read()
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    assert status == 0 and b'"site-of-a-customer-in-production-9999"' in said
    assert usage.ru_utime + usage.ru_stime < (5 if instrumented() else 1)


def test_ten_thousand_routes(start, origin):
    server = origin()
    lines = [f'route "r{i}" {{ host = "h{i}.example.com", path = "/app{i}/:id", '
             f'function(req) return reply(200, "{i} " .. req.params.id) end }}' if i % 1000 == 999 else
             f'route "r{i}" {{ host = {{ "h{i}.example.com", "*.h{i}.example.com" }}, path = "/app{i}/*", reply(200, "{i}") }}'
             for i in range(10000)]
    gateway = start('listener "http" { bind = "127.0.0.1:@http@" }\n'
                    f'pool "p" {{ servers = {{ "{server.address}" }}, probe = false }}\n' + "\n".join(lines) +
                    '\nroute "rest" { forward "p" }\n')

    def get(host, path):
        return raw.request(gateway.port(), f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    for i in (0, 1, 4998, 5000, 9998):
        assert get(f"h{i}.example.com", f"/app{i}/x").body == str(i).encode()
        assert get(f"deep.h{i}.example.com", f"/app{i}").body == str(i).encode()
    for i in (999, 9999):
        assert get(f"h{i}.example.com", f"/app{i}/x%20y").body == f"{i} x y".encode()
    assert get("h1.example.com", "/size/7").get("x-origin") == "origin"
