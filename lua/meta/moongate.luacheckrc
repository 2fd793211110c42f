-- SPDX-License-Identifier: MIT
-- luacheck --config THIS moongate.lua. Made by: moongate dump --luacheck
stds.moongate = {
  read_globals = {
    "drop",
    "env",
    "forward",
    "include",
    ip = { fields = { "prefix", "within" } },
    "listener",
    log = { fields = { "debug", "error", "info", "warn" } },
    "on_close",
    "on_open",
    "on_response",
    "pool",
    "probe",
    "readfile",
    "redirect",
    "reply",
    "route",
    "settings",
    "strict",
  },
}
std = "lua54+moongate"
-- Not there: the safe part of Lua only.
not_globals = { "collectgarbage", "coroutine", "debug", "dofile", "io", "loadfile", "package", "rawset", "warn" }
