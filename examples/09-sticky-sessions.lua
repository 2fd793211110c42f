-- A client stays with its server by a cookie: pages, and the WebSocket that they open (socket.io needs that).
--
--   moongate origin 9001 --name one & moongate origin 9002 --name two & moongate origin 9003 --name three &
--   moongate run examples/09-sticky-sessions.lua
--
--   curl -si http://127.0.0.1:8080/size/1 | grep -i -e x-origin -e set-cookie        (a cookie, once)
--   curl -sib cookies -c cookies http://127.0.0.1:8080/size/1 | grep -i x-origin     (repeat it: always the same server)
--   curl -X POST http://127.0.0.1:9001/healthz/fail                                  (clients of "one" move, once)
--
-- Open sockets are never moved; the next handshake follows the cookie.

listener "http" { bind = "127.0.0.1:8080" }

local servers = {
  { "127.0.0.1:9001", name = "one" },
  { "127.0.0.1:9002", name = "two" },
  { "127.0.0.1:9003", name = "three" },
}
local health = probe { path = "/healthz", every = "2s" }

-- The value is a keyed hash of the server's name. Two gateways side by side need the same key:
-- affinity = { cookie = "node", key = env.AFFINITY_KEY }      (openssl rand -hex 32 makes one)
local node = { cookie = "node", same_site = "lax" }

pool "web" { servers = servers, probe = health, affinity = node }

-- The same servers with the same names and the same cookie: both pools send a client to the same place.
pool "sockets" { servers = servers, probe = health, affinity = node, balance = "leastconn", tunnel_idle_timeout = "10m" }

route "status" { path = "/status", reply(200, "fine\n") }
route "sockets" { websocket = true, forward "sockets" }
route "web" { forward "web" }
