-- A pool with weights, a backup, and probes that decide who gets traffic.
--
--   moongate origin 9001 --name big & moongate origin 9002 --name small & moongate origin 9003 --name spare &
--   moongate run examples/05-weighted-pool-with-backup.lua
--
--   for i in 1 2 3 4 5 6; do curl -si http://127.0.0.1:8080/ | grep x-origin; done     (big three times of four)
--   curl -X POST http://127.0.0.1:9001/healthz/fail                                    (big is out within seconds)
--   curl -X POST http://127.0.0.1:9002/healthz/fail                                    (now the backup answers)
--   curl -X POST http://127.0.0.1:9001/healthz/ok                                      (and big is back)

listener "http" { bind = "127.0.0.1:8080" }

pool "web" {
  balance = "roundrobin",
  servers = {
    { "127.0.0.1:9001", name = "big", weight = 3 },
    { "127.0.0.1:9002", name = "small", weight = 1 },
    { "127.0.0.1:9003", name = "spare", backup = true },      -- used only while no other server is up
  },
  -- Healthy is 200-399 (`expect` changes it). Down after 3 failures in a row, up again after 2 answers.
  probe = { path = "/healthz", every = "2s", timeout = "500ms", rise = 2, fall = 3 },
  connect_timeout = "1s",
  retries = 2,                                               -- only where nothing can happen twice
}

-- A second view of the same servers: long-lived sockets go to the server with the fewest of them.
pool "sockets" {
  balance = "leastconn",
  servers = { { "127.0.0.1:9001", name = "big", weight = 3 }, { "127.0.0.1:9002", name = "small" } },
  probe = { path = "/healthz", every = "2s" },
  tunnel_idle_timeout = "10m",
}

route "sockets" { websocket = true, forward "sockets" }
route "web" { forward "web" }
