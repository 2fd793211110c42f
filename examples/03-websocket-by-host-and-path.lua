-- WebSocket by host and path: which pool depends on where the handshake goes, and on a segment of its path.
--
--   for port in 9001 9002 9003; do moongate origin $port --name pool-$port & done
--   moongate run examples/03-websocket-by-host-and-path.lua
--
--   curl -i http://127.0.0.1:8080/feed -H 'Host: live.example.com'        (no handshake: 426)
--   moongate route examples/03-websocket-by-host-and-path.lua --trace ws://live.example.com/feed/news
--   moongate route examples/03-websocket-by-host-and-path.lua ws://example.com/rooms/vip-lounge

listener "http" { bind = "127.0.0.1:8080" }

pool "feed" { servers = { "127.0.0.1:9001" } }
pool "rooms" { servers = { "127.0.0.1:9002" }, balance = "leastconn" }
pool "vip" { servers = { "127.0.0.1:9003" }, balance = "leastconn" }

-- "*.x" is any depth below x. "/feed/*" is /feed, /feed/ and all below.
local live, main = "live.example.com", { "example.com", "www.example.com" }

route "feed" { host = live, path = "/feed/*", websocket = true, forward "feed" }

-- A path of the feed that was asked for without a handshake.
route "feed-is-a-socket" { host = live, path = "/feed/*", reply(426, "this is a WebSocket\n") }

-- ":name" is one segment; a function reads it. The server behind sees /ws/NAME instead of /rooms/NAME.
route "rooms" { host = main, path = "/rooms/:room", websocket = true, function(req)
  local room = req.params.room
  req:set_path("/ws/" .. room)
  req:set_header("x-room", room)
  if room:find("^vip%-") then return forward "vip" end
  return forward "rooms"
end }

route "other-hosts" { except = { host = { live, "example.com", "*.example.com" } }, reply(421, "not served here\n") }
route "nothing" { reply(404, "nothing here\n") }
