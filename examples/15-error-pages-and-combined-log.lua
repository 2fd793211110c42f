-- What visitors see when something fails, and a log that the tools of other web servers read.
--
--   moongate origin 9001 --name app &
--   moongate run examples/15-error-pages-and-combined-log.lua
--
--   curl -si http://127.0.0.1:8080/nowhere                                   (404, our page)
--   curl -si http://127.0.0.1:8080/app/status/404                            (404, the server's own)
--   curl -si http://127.0.0.1:8080/app/slow/9000                             (504 after a second)
--   curl -si http://127.0.0.1:8080/app/echo --data-binary @/bin/sh           (413, as JSON)
--   moongate route examples/15-error-pages-and-combined-log.lua http://127.0.0.1:8080/app/x
--   curl -X POST http://127.0.0.1:9001/healthz/fail                          (and within seconds /app/ is 503)
--
-- LOG_FORMAT=json has more to tell: route, pool, server, times, and the cause of each end.

local function page(title, text)
  return ('<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>%s</title>\n<h1>%s</h1><p>%s</p></html>\n'):format(title, title, text)
end

local sorry = page("Back soon", "We know about it. Please try again in a minute.")

settings {
  -- A line a request, as Apache and nginx write it. Queries are left out, in the Referer as well.
  access_log = { to = "stdout", format = env("LOG_FORMAT", "combined") },
  -- By status. A text with blanks is the page itself, anything else the path of a file: [404] = "pages/404.html".
  -- Only the gateway's own answers change; those of servers, and what a route says by reply(), stay as they are.
  error_pages = {
    [404] = page("Not here", "There is no such page."),
    [413] = '{ "error": "too large", "most": "16k" }\n',
    [502] = sorry, [503] = sorry, [504] = sorry,
  },
}

listener "http" { bind = "127.0.0.1:8080", max_body = "16k" }

pool "app" {
  servers = { "127.0.0.1:9001" },
  probe = { path = "/healthz", every = "1s", fall = 2 },
  response_timeout = "1s",
}

route "status" { path = "/status", reply(200, "fine\n") }
route "app" { path = "/app/*", forward("app", { path = "/*" }) }
