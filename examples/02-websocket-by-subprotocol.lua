-- WebSocket by subprotocol: Sec-WebSocket-Protocol chooses the pool, with match keys alone (no Lua runs per request).
--
--   moongate origin 9001 --name chat --subprotocols chat &
--   moongate origin 9002 --name superchat --subprotocols superchat &
--   moongate run examples/02-websocket-by-subprotocol.lua
--
--   wscat -s superchat -c ws://127.0.0.1:8080/any/path
--   moongate route examples/02-websocket-by-subprotocol.lua -H 'Sec-WebSocket-Protocol: chat' ws://127.0.0.1:8080/

listener "http" { bind = "127.0.0.1:8080" }

pool "chat" { servers = { "127.0.0.1:9001" }, probe = { path = "/healthz" } }
pool "superchat" { servers = { "127.0.0.1:9002" }, probe = { path = "/healthz" } }

-- Browsers send where a page came from; a socket opened by somebody else's page stops here. `false` in the list lets
-- clients pass that send no Origin (programs).
route "foreign" {
  websocket = true,
  except = { origin = { false, "http://127.0.0.1:8080", "http://localhost:8080" } },
  reply(403, "not from this origin\n"),
}

-- `subprotocol` matches when some offered one is in the list, and implies a valid handshake. The better one first:
-- a client that offers both gets superchat.
route "superchat" { subprotocol = { "superchat", "superchat.v2" }, forward "superchat" }
route "chat" { subprotocol = "chat", forward "chat" }
route "other-sockets" { websocket = true, reply(404, "offer the subprotocol chat or superchat\n") }

route "page" { forward "chat" }
