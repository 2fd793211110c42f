-- The client's address through balancers that pass TCP on (HAProxy in mode tcp, network load balancers): the PROXY protocol.
--
--   moongate origin 9001 --name web &
--   moongate run examples/11-proxy-protocol.lua
--
--   curl -s http://127.0.0.1:8080/who                            (a client that comes straight here)
--   curl -s --haproxy-protocol http://127.0.0.1:9090/who         (one that says whom it comes for)
--   curl -s --interface 127.0.0.5 http://127.0.0.1:8080/inner/who    (127.0.0.5, through a second hop)
--   curl -s --max-time 2 http://127.0.0.1:9090/who | grep x      (nothing: closed, since it said nothing)
--
-- Name only balancers in proxy_protocol_from: whoever is in it may claim any address.

listener "direct" { bind = "127.0.0.1:8080" }

-- Connections from these peers begin with a header, version 1 or 2, in front of TLS if there is any. Others may not send one.
listener "balanced" { bind = "127.0.0.1:9090", proxy_protocol_from = { "127.0.0.1", "10.0.0.0/8" } }

pool "web" { servers = { "127.0.0.1:9001" }, probe = { path = "/healthz" } }

-- A server that reads the header: here it is the listener above. Its connections belong to one client each and are not kept.
pool "inner" { servers = { "127.0.0.1:9090" }, probe = { path = "/healthz" }, proxy_protocol = "v2" }

route "who"   { path = "/who", function(req) return reply(200, req.client .. "\n") end }
route "inner" { listener = "direct", path = "/inner/*", forward("inner", { path = "/*" }) }
route "probe" { listener = "balanced", path = "/healthz", access_log = false, forward "web" }
route "web"   { forward "web" }
