-- Canary: who asks for it by header or cookie gets the new version, and so does a fixed share of all clients.
--
--   moongate origin 9001 --name stable & moongate origin 9002 --name canary &
--   moongate run examples/06-canary-by-header.lua
--
--   curl -si http://127.0.0.1:8080/ -H 'X-Canary: always' | grep x-origin
--   curl -si http://127.0.0.1:8080/ -b canary=never       | grep x-origin
--   moongate route examples/06-canary-by-header.lua --client 192.0.2.3 --trace http://127.0.0.1:8080/

listener "http" { bind = "127.0.0.1:8080" }

pool "stable" { servers = { "127.0.0.1:9001" }, probe = { path = "/healthz" } }
pool "canary" { servers = { "127.0.0.1:9002" }, probe = { path = "/healthz" } }

-- Match keys first: they are compiled and cost nothing. A list in a header's value is "one of these".
route "asked-for-it" { header = { ["x-canary"] = { "always", "yes" } }, forward "canary" }
route "kept-it" { cookie = { canary = "always" }, forward "canary" }
route "refused-it" { cookie = { canary = "never" }, forward "stable" }

-- The same client always falls on the same side: a sum over its address, 0 to 99, against the share.
local SHARE = 10

local function side(text)
  local sum = 0
  for i = 1, #text do sum = (sum * 31 + text:byte(i)) % 997 end
  return sum % 100
end

route "share" { function(req)
  if side(req.client) >= SHARE then return end               -- nothing returned: the next route is tried
  req:set_header("x-canary", "share")
  req:log("canary", "share")                                 -- an extra field in the access log
  return forward "canary"
end }

route "everyone-else" { forward "stable" }
