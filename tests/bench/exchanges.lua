-- SPDX-License-Identifier: MIT
-- Moongate as tests/bench/exchanges plays it. The function is that of moongate.lua.in: it runs for every request and reads the subprotocol
-- and the path. Only /logged is in the access log.
settings { workers = 1, access_log = { to = "/dev/null" } }
listener "http" { bind = "127.0.0.1:80" }
pool "origin" { servers = { "127.0.0.1:9000" }, probe = false, keepalive = 8 }

local function decide(req)
  if req.ws and not req.ws:offers("chat") then return reply(403) end
  if req.path == "/forbidden" then return reply(403) end
  return forward "origin"
end

route "reply"  { path = "/reply", access_log = false, reply(403, "no\n") }
route "logged" { path = "/logged/*", decide }
route "all"    { access_log = false, decide }
