-- Quickstart: one address, two pools, and a rule in Lua that reads the WebSocket handshake.
--
-- `moongate demo` runs this file against two origins of its own. To run it by itself:
--
--   moongate origin 9001 --name chat &
--   moongate origin 9002 --name superchat &
--   moongate run examples/01-quickstart.lua
--
-- Then open http://127.0.0.1:8080/ in a browser, or look at a handshake (Ctrl-C ends it):
--
--   curl -iN http://127.0.0.1:8080/ws -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
--        -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H 'Sec-WebSocket-Protocol: superchat'
--
-- What would happen to a request, without sending one:
--
--   moongate route examples/01-quickstart.lua -H 'Sec-WebSocket-Protocol: chat' ws://127.0.0.1:8080/ws

-- env(NAME, DEFAULT): the demo chooses ports and certificate by the environment.
listener "http" { bind = env("MOONGATE_DEMO_HTTP", "127.0.0.1:8080") }

local certificate = env("MOONGATE_DEMO_CERT", "")
if certificate ~= "" then
  listener "https" {
    bind = env("MOONGATE_DEMO_HTTPS", "127.0.0.1:8443"),
    tls = { cert = certificate, key = env("MOONGATE_DEMO_KEY") },
  }
end

-- Each server is asked for /healthz; one that does not answer 200-399 gets no traffic, WebSocket included.
pool "chat" { servers = { env("MOONGATE_DEMO_CHAT", "127.0.0.1:9001") }, probe = { path = "/healthz" } }
pool "superchat" { servers = { env("MOONGATE_DEMO_SUPERCHAT", "127.0.0.1:9002") }, probe = { path = "/healthz" } }

-- Routes are tried from the top. This one takes every valid WebSocket handshake; its function decides by the
-- subprotocols that the client offers, in the client's order.
local pools = { chat = "chat", superchat = "superchat" }

route "sockets" { websocket = true, function(req)
  for _, protocol in ipairs(req.ws.subprotocols) do
    if pools[protocol] then return forward(pools[protocol]) end
  end
  return reply(404, "offer the subprotocol chat or superchat\n")
end }

-- Everything else, the page included.
route "page" { forward "chat" }
