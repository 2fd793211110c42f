-- What Azure Application Gateway's simplest set-up does: one listener on HTTP and one on HTTPS, a basic rule each to one
-- backend pool, WebSocket on both without a switch, and the pool gated by its HTTP probe.
--
--   moongate origin 9001 --name server-1 & moongate origin 9002 --name server-2 &
--   MOONGATE_CERT=$PWD/cert.pem MOONGATE_KEY=$PWD/key.pem moongate run examples/08-application-gateway-basic.lua
--   (how to make a certificate: see 04-tls-redirect.lua)
--
-- The handshake of RFC 6455, section 1.2:
--
--   curl -iN http://127.0.0.1:8080/chat -H 'Host: server.example.com' -H 'Upgrade: websocket' -H 'Connection: Upgrade' \
--     -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H 'Origin: http://example.com' \
--     -H 'Sec-WebSocket-Protocol: chat, superchat' -H 'Sec-WebSocket-Version: 13'
--   curl -X POST http://127.0.0.1:9001/healthz/fail      (server-1 gets no more traffic, WebSocket included)

-- Listeners (frontend IP and port, protocol, certificate).
listener "appGatewayHttpListener" { bind = "127.0.0.1:8080" }
listener "appGatewayHttpsListener" {
  bind = "127.0.0.1:8443",
  tls = { cert = env("MOONGATE_CERT", "cert.pem"), key = env("MOONGATE_KEY", "key.pem") },
}

-- Backend pool, backend settings and custom probe in one. The gateway's own defaults are 30 s, 30 s and 3 failures.
pool "appGatewayBackendPool" {
  servers = { "127.0.0.1:9001", "127.0.0.1:9002" },
  probe = { path = "/healthz", host = "server.example.com", every = "5s", timeout = "2s", fall = 3, expect = "200-399" },
  response_timeout = "30s",      -- its "request time-out"; it never cuts a WebSocket here
}

-- Basic rules: everything a listener takes goes to the pool. One route would do for both.
route "rule1" { listener = "appGatewayHttpListener", forward "appGatewayBackendPool" }
route "rule2" { listener = "appGatewayHttpsListener", forward "appGatewayBackendPool" }
