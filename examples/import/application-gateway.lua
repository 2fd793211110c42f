-- Made by moongate import arm from the application gateway appGateway.
-- Lines with NOTE say what has no counterpart here or had to be assumed. Besides:
-- a WebSocket that is silent ends after tunnel_idle_timeout (1h); Azure ends it after the request time-out;
-- paths differ by case here, there they do not (import with --ignore-case); "/a/*" takes "/a" as well;
-- X-Forwarded-For, -Proto, -Host and -Port are set here, and what a client sends in them is dropped.
-- NOTE: autoscaleConfiguration has no counterpart: one process, all cores (settings: workers)

listener "http" {
  bind = "0.0.0.0:80",
}

-- NOTE: sslCertificate chat-cert is in a Key Vault (https://example.vault.azure.net/secrets/chat): export it as PEM
--   to the paths below
listener "https" {
  bind = "0.0.0.0:443",
  tls = {
    cert = "chat-cert.pem", key = "chat-cert.key",
  },
}

-- backendAddressPool chat with backendHttpSettings websocket
pool "chat" {
  servers = { "10.0.1.1", "10.0.1.2" }, port = 9000,
  response_timeout = "60s", upgrade_timeout = "60s",
  affinity = { cookie = "ApplicationGatewayAffinity" },
  probe = { -- "healthz"
    path = "/healthz", host = "server.example.com", expect = "200-399",
    every = "10s", timeout = "5s", fall = 2, rise = 1,
  },
}

-- backendAddressPool web with backendHttpSettings https
pool "web" {
  servers = { "web.internal.example.com" }, port = 443,
  tls = true,
  host = "server",
  response_timeout = "30s", upgrade_timeout = "30s",
  probe = { -- Azure's default
    path = "/", expect = "200-399",
    every = "30s", timeout = "30s", fall = 3, rise = 1,
  },
}

route "site/chat" {
  listener = "https", host = "server.example.com", path = { "/chat", "/chat/*" },
  forward "chat",
}
route "site" { listener = "https", host = "server.example.com", forward "web" }

route "to-https" { listener = "http", redirect { scheme = "https", host = "server.example.com", status = 301 } }
