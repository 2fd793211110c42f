-- Maintenance: everyone sees a page with 503, except the office and whoever knows the word; sockets are told too.
--
--   moongate origin 9001 --name web &
--   MAINTENANCE=on moongate run examples/07-maintenance-page.lua
--
--   curl -i http://127.0.0.1:8080/                          (503 and the page)
--   curl -i http://127.0.0.1:8080/ -b preview=let-me-in     (the site)
--   curl -i http://127.0.0.1:8080/status                    (still answered, for monitoring)

listener "http" { bind = "127.0.0.1:8080" }

pool "web" { servers = { "127.0.0.1:9001" } }

local maintenance = env("MAINTENANCE", "off") == "on"

local page = [[
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Back soon</title>
<h1>Back soon</h1><p>We are working on it. Please try again in a few minutes.</p></html>
]]

route "monitoring" { path = "/status", reply(200, maintenance and "maintenance\n" or "up\n") }

-- Actions are values: made once here, used by the route below.
local closed = reply(503, page, {
  ["content-type"] = "text/html; charset=utf-8",
  ["retry-after"] = "300",
  ["cache-control"] = "no-store",
})

if maintenance then
  route "closed" {
    -- The office sees the site: a list inside a key is "one of these".
    except = { client = { "192.0.2.0/24", "2001:db8::/32" } },
    function(req)
      if req:cookie("preview") ~= "let-me-in" then return closed end
    end,
  }
end

route "web" { forward "web" }
