-- Servers that can do only so much at a time: one is filled before the next is used, then a short queue, then 503.
--
--   moongate origin 9001 --name one & moongate origin 9002 --name two &
--   moongate run examples/14-limits-and-queue.lua
--
--   curl -si http://127.0.0.1:8080/slow/1000 | grep -i x-origin                 (one, as long as it has room)
--   seq 8 | xargs -P 8 -I _ curl -s -o /dev/null -w '%{http_code} %{time_total}\n' http://127.0.0.1:8080/slow/1000
--                                   (four after 1 s, two that waited after 2 s, two are answered 503 at once)
--   moongate route examples/14-limits-and-queue.lua http://127.0.0.1:8080/slow/1000

-- Whoever comes above this many client connections is closed at once; it keeps one listener from using up all of the process.
listener "http" { bind = "127.0.0.1:8080", max_connections = 500 }

-- "first": the first server of the list that has room, so that the last ones can be switched off in quiet hours.
pool "reports" {
  balance = "first",
  servers = {
    { "127.0.0.1:9001", name = "one", max_connections = 2 },   -- requests and tunnels at once, over all workers
    { "127.0.0.1:9002", name = "two", max_connections = 2 },
  },
  queue = 2,                                                 -- so many wait, in the order in which they came
  queue_timeout = "2s",                                      -- and so long; then it is 503 with Retry-After, too
  probe = { path = "/healthz", every = "2s" },               -- its own requests do not count
}

route "status" { path = "/status", reply(200, "fine\n") }
route "reports" { forward "reports" }
