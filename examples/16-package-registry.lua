-- A package registry: names with a slash in one segment (/@acme%2Ftea), small requests but large uploads, many gateways.
--
--   moongate origin 9001 --name one & moongate origin 9002 --name two & moongate origin 9003 --name three &
--   moongate run examples/16-package-registry.lua
--
--   curl -si http://127.0.0.1:8080/@acme%2Ftea                                            (and the log names the package)
--   moongate route examples/16-package-registry.lua http://127.0.0.1:8080/@acme%2Ftea     (it is forwarded as it came)
--   head -c 100000 /dev/zero | curl -si -T - http://127.0.0.1:8080/@acme%2Ftea            (an upload may be large)
--   head -c 100000 /dev/zero | curl -si --data-binary @- http://127.0.0.1:8080/search     (413: nothing else may)

listener "http" {
  bind = "127.0.0.1:8080",
  max_body = "8k",                                           -- decoded bytes; a route may say otherwise
  -- By default %2F in a path is refused, for servers do not agree whether it separates. These do: it never does.
  encoded_slash = "keep",
}

-- "random": of two servers drawn by weight the less loaded one. Where several gateways share the servers, each of them
-- sees only its own load, and by "leastconn" all of them may go for the same server at the same time.
pool "registry" {
  balance = "random",
  servers = {
    { "127.0.0.1:9001", name = "one" }, { "127.0.0.1:9002", name = "two" }, { "127.0.0.1:9003", name = "three" },
  },
  probe = { path = "/healthz", every = "2s" },
}

route "status" { path = "/status", reply(200, "fine\n") }

route "publish" { method = "PUT", path = "/:package", max_body = "50m", forward "registry" }

-- One segment, whatever %2F is in it; in req.params it is decoded.
route "package" { path = "/:package", function(req)
  if req.params.package:find("^@[%w._-]+/[%w._-]+$") then req:log("package", req.params.package) end
end }

route "rest" { forward "registry" }
