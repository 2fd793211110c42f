-- Client certificates (mTLS): everybody may read, who shows a certificate that we trust may come to /admin.
--
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
--     -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout key.pem -out cert.pem
--   export MOONGATE_CERT=$PWD/cert.pem MOONGATE_KEY=$PWD/key.pem
--   moongate origin 9001 --name web &
--   moongate run examples/12-client-certificates.lua
--
--   curl -sk https://localhost:8443/admin/echo                                             (403)
--   curl -sk --cert $MOONGATE_CERT --key $MOONGATE_KEY https://localhost:8443/admin/echo   (x-client: CN=localhost)
--
-- To keep the example short, one self-signed certificate plays the server, the client and the CA. In earnest the CA is your own
-- (openssl req -x509 with CA:TRUE, then openssl x509 -req -CA for each client), and a listener for services alone says
-- client_cert = "require": then nobody gets past the handshake without one.

listener "http" { bind = "127.0.0.1:8080" }

listener "https" {
  bind = "127.0.0.1:8443",
  tls = {
    cert = env("MOONGATE_CERT", "cert.pem"), key = env("MOONGATE_KEY", "key.pem"),
    client_ca = env("MOONGATE_CLIENT_CA", env("MOONGATE_CERT", "cert.pem")), client_cert = "ask",
  },
}

-- Towards servers that ask: tls = { ca = "ca.pem", cert = "gateway.pem", key = "gateway.key" }.
pool "web" { servers = { "127.0.0.1:9001" }, probe = { path = "/healthz" } }

-- Under "ask" any certificate comes through: what counts is `verified`.
local function need_certificate(req)
  local cert = req.tls and req.tls.cert
  if not (cert and cert.verified) then return reply(403, "a client certificate is needed\n") end
  req:set_header("x-client", cert.subject)
  req:log("certificate", cert.fingerprint)
end

-- No client can say who it is by a header of its own.
route "names" { request_headers = { ["x-client"] = false }, function() end }
route "admin" { path = "/admin/*", need_certificate, forward("web", { path = "/*" }) }
route "web"   { forward "web" }
