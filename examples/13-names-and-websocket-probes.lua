-- Servers by name, asked for again while all runs, and probes that shake hands as a client does.
--
--   moongate origin 9001 --name one &
--   moongate run examples/13-names-and-websocket-probes.lua
--
--   curl -si http://127.0.0.1:8080/size/1 | grep -i x-origin           (one)
--   moongate route examples/13-names-and-websocket-probes.lua ws://127.0.0.1:8080/chat
--
-- The log names each address: chat/localhost:9001(127.0.0.1) up: WebSocket /chat: 101, pong, Close 1000
-- Where localhost is [::1], too, that address is a second server, and down: the origin listens on IPv4 only.

listener "http" { bind = "127.0.0.1:8080" }

-- /etc/hosts, then A and AAAA records. An address that is new takes its share once it is well; on one that is gone the
-- tunnels go on to their end. SRV records would bring ports, weights and backups with them:
--   servers = { "srv:_ws._tcp.chat.internal" }
-- Who answers is in resolv.conf, or said here:
--   settings { nameservers = { "10.0.0.53" } }
pool "chat" {
  servers = { "localhost:9001" },
  resolve = "10s",
  -- A listener that still shakes hands while the loop behind it hangs sends no pong.
  probe = { websocket = true, path = "/chat", ping = true, every = "2s", timeout = "1s" },
}

route "status" { path = "/status", reply(200, "fine\n") }
route "all" { forward "chat" }
