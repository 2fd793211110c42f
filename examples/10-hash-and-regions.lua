-- A topic always meets at one server, and a region stands in for another.
--
--   moongate origin 9001 --name one & moongate origin 9002 --name two & moongate origin 9003 --name three &
--   moongate origin 9004 --name eu & moongate origin 9005 --name us &
--   moongate run examples/10-hash-and-regions.lua
--
--   for topic in a b c d a b c d; do curl -si "http://127.0.0.1:8080/feed?topic=$topic" | grep -i x-origin; done
--   moongate route examples/10-hash-and-regions.lua 'http://127.0.0.1:8080/feed?topic=tea'
--   curl -si http://127.0.0.1:8080/size/1 | grep -i x-origin           (eu)
--   curl -X POST http://127.0.0.1:9004/healthz/fail                    (and within seconds it is us)

listener "http" { bind = "127.0.0.1:8080" }

local health = probe { path = "/healthz", every = "2s" }

-- Consistent: a fourth server would take about a quarter of the topics and leave all others where they are.
-- hash_bound = false: a topic stays whole even when it is the only one that anybody wants (the default lets
-- it flow over to a second server once the first has twice its share).
pool "feed" {
  balance = "hash",
  hash_bound = false,
  servers = {
    { "127.0.0.1:9001", name = "one" }, { "127.0.0.1:9002", name = "two" }, { "127.0.0.1:9003", name = "three" },
  },
  probe = health,
}

-- A server that comes back begins with a small share, which grows for a minute (30 s unless said).
pool "eu" { servers = { { "127.0.0.1:9004", name = "eu" } }, probe = health, slow_start = "1m" }
pool "us" { servers = { { "127.0.0.1:9005", name = "us" } }, probe = health, slow_start = "1m" }

route "status" { path = "/status", reply(200, "fine\n") }
route "feed" { path = "/feed/*", function(req)
  return forward("feed", { path = "/size/1", key = req:query("topic") or req.client })
end }
route "rest" { forward { "eu", "us" } }       -- the first of them with a live server
