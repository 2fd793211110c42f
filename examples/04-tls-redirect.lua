-- TLS, and plain HTTP that only redirects to it. WebSockets work on https (wss) with nothing to switch on.
--
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
--     -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout key.pem -out cert.pem
--   moongate origin 9001 --name web &
--   MOONGATE_CERT=$PWD/cert.pem MOONGATE_KEY=$PWD/key.pem moongate run examples/04-tls-redirect.lua
--
--   curl -i http://127.0.0.1:8080/echo?x=1          (308 to https, path and query kept)
--   curl -i --cacert cert.pem https://localhost:8443/echo

listener "http" { bind = "127.0.0.1:8080" }

listener "https" {
  bind = "127.0.0.1:8443",
  tls = { cert = env("MOONGATE_CERT", "cert.pem"), key = env("MOONGATE_KEY", "key.pem"), min = "1.2" },
  -- Set on every answer that leaves here; `false` removes what the server said.
  response_headers = { ["strict-transport-security"] = "max-age=86400", server = false },
}

pool "web" { servers = { "127.0.0.1:9001" }, probe = { path = "/healthz" } }

-- Browsers follow no redirect in a WebSocket handshake, so it is told instead.
route "use-wss" { listener = "http", websocket = true, reply(403, "use wss\n") }
route "to-https" { listener = "http", redirect { scheme = "https", port = 8443, status = 308 } }

-- The server learns the scheme from X-Forwarded-Proto, which is always ours.
route "web" { listener = "https", forward "web" }
