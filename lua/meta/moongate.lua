-- SPDX-License-Identifier: MIT
---@meta
-- What lua-language-server knows of Moongate's files. Made by: moongate dump --meta
-- luacheck: ignore

---@class moongate.settings
---@field workers? integer|"auto" threads that carry traffic; auto: by affinity mask and cgroup quota ("auto")
---@field user? string become this user after the listeners are open (none)
---@field group? string and this group (the user's)
---@field access_log? moongate.settings.access_log|false to, format, query; false: none ({ to = "stdout" })
---@field log_level? "error"|"warn"|"info"|"debug" the least that is said on standard error ("info")
---@field trusted_proxies? string|string[]|false peers whose forwarding headers are believed: blocks of addresses (none)
---@field rule_cpu? string|number processor time that one call of a function may take ("20ms")
---@field rule_deadline? string|number time that one call may take with its waits ("5s")
---@field lua_memory? string|integer memory of Lua, a worker ("64m")
---@field drain_timeout? string|number how long requests and tunnels may go on after SIGTERM ("60s")
---@field max_connections? integer client connections at once (by descriptors)
---@field via? string|false name to add in Via (false)
---@field underscore_headers? "drop"|"reject"|"pass" header names with an underscore ("drop")
---@field nameservers? string|string[] who resolves names of servers: addresses, port 53 unless written (of resolv.conf)
---@field error_pages? table<integer, string> [503] = "503.html" or a text: what answers of our own hold (none)

---@class moongate.settings.access_log
---@field to? string where to: stdout, stderr or a file's path ("stdout")
---@field format? "json"|"combined" json: one object a line, two for a tunnel; combined: as other web servers write ("json")
---@field query? boolean log query strings too: they often hold secrets (false)

---@class moongate.listener
---@field bind? string|string[] one address or a list: "0.0.0.0:80", "[::]:80", "unix:/path" (-)
---@field tls? moongate.listener.tls|false cert, key, certs, min, alpn, client_ca, client_cert (none)
---@field proxy_protocol_from? string|string[]|false peers whose connections begin with a PROXY header: blocks of addresses (none)
---@field tls_timeout? string|number for the TLS handshake ("10s")
---@field header_timeout? string|number for a whole head, absolute ("10s")
---@field body_timeout? string|number|false without a byte of the request's body ("30s")
---@field min_rate? integer|false bytes a second over a window, while we wait on the client (500)
---@field send_timeout? string|number|false without the client taking a byte ("30s")
---@field idle_timeout? string|number|false between requests ("75s")
---@field max_connections? integer client connections at once (the settings')
---@field max_target? string|integer request target (414) ("8k")
---@field max_header? string|integer whole head (431) ("32k")
---@field max_fields? integer header fields (431) (100)
---@field max_body? string|integer|false request body (413) (none)
---@field encoded_slash? "reject"|"keep" %2F in a path ("reject")
---@field half_close? boolean a client may end its sending side and still wait for the answer (false)
---@field tcp_keepalive? string|number|false probes of idle connections, to find peers that vanished ("60s")
---@field trusted_proxies? string|string[]|false peers whose forwarding headers are believed (the settings')
---@field request_headers? table<string, string|false> set on what is forwarded; false removes (none)
---@field response_headers? table<string, string|false> set on what is answered; false removes (none)

---@class moongate.listener.tls
---@field cert? string certificate chain, PEM; relative to this file's folder (-)
---@field key? string its private key, PEM (-)
---@field certs? table<string|integer, { cert: string, key: string, name?: string }> more certificates: a list of {cert, key, name}, or a table by server name (SNI) (none)
---@field min? "1.2"|"1.3" lowest version of TLS ("1.2")
---@field alpn? string|string[] protocols offered ("http/1.1")
---@field client_ca? string who may sign clients' certificates, PEM (none)
---@field client_cert? "none"|"ask"|"require" a client's certificate: "none", "ask" (rules judge by req.tls.cert) or "require" (a valid one) (require with client_ca, else none)

---@class moongate.pool
---@field servers? string|(string|moongate.pool.server)[] addresses, or { address, name, weight, backup } (-)
---@field port? integer of servers whose address has none (none)
---@field balance? "roundrobin"|"leastconn"|"random"|"hash"|"first" how a server is picked: roundrobin, leastconn, random, hash or first ("roundrobin")
---@field probe? moongate.probe|"tcp"|false health check: a table, "tcp" or false (GET / below 500)
---@field connect_timeout? string|number to connect, TLS included ("5s")
---@field response_timeout? string|number|false without a byte of the answer; never cuts a tunnel ("60s")
---@field upgrade_timeout? string|number for the answer to a handshake ("10s")
---@field tunnel_idle_timeout? string|number|false without a byte either way ("1h")
---@field tunnel_max_age? string|number|false a tunnel's longest life (false)
---@field half_close_timeout? string|number|false after one side of a tunnel ended ("30s")
---@field retries? integer|false other tries where that is safe (2)
---@field tls? boolean|moongate.pool.tls true, or verify, sni, ca, cert, key (false)
---@field host? string Host to send: "client" (as it came), "server", or a name ("client")
---@field keepalive? integer|false idle connections kept, a worker and server (32)
---@field keepalive_timeout? string|number how long they are kept ("4s")
---@field resolve? string|number pace at which names of servers are resolved again ("30s")
---@field source? string address to connect from (any)
---@field hash_bound? integer|false percent of its share that a server may have before hash goes on to the next (200)
---@field slow_start? string|number|false how long the share of a server that came back grows ("30s")
---@field affinity? moongate.pool.affinity|false cookie that keeps a client with its server: cookie, same_site, ttl, key (none)
---@field queue? integer|false requests that may wait while all live servers are at max_connections (100)
---@field queue_timeout? string|number how long one waits in the queue ("5s")
---@field on_down? "keep" tunnels of a server that fails stay ("keep")
---@field proxy_protocol? "v1"|"v2"|false connections begin with a PROXY header that names the client: "v1" or "v2"; they are not kept (none)

---@class moongate.pool.server
---@field [1] string address
---@field name? string what logs and commands call it (its address)
---@field weight? integer share of new work; 0: none (1)
---@field backup? boolean only while no other server is up (false)
---@field max_connections? integer|false requests and tunnels at once, over all workers; more wait in the pool's queue (none)

---@class moongate.pool.tls
---@field verify? boolean check the server's chain and name (true)
---@field sni? string name to ask for and to check (the server's name)
---@field ca? string certificates to trust, PEM (the system's)
---@field cert? string our certificate chain for servers that ask, PEM (none)
---@field key? string its private key, PEM (none)

---@class moongate.pool.affinity
---@field cookie? string the cookie's name (-)
---@field same_site? "lax"|"strict"|"none" its SameSite attribute: lax, strict or none ("lax")
---@field ttl? string|number|false how long the browser keeps it, from when it was set (the browser's session)
---@field key? string secret of the cookie's value; the same in all gateways that share clients (from the machine's id)

---@class moongate.probe
---@field path? string what to ask for ("/")
---@field host? string Host to send (the server's)
---@field port? integer port to ask (the server's)
---@field method? string request method ("GET")
---@field headers? table<string, string> headers to send (none)
---@field expect? integer|string|(integer|string)[] statuses that are healthy: 200, "200-399", or a list ("200-399")
---@field body? string text that the answer's first 64 KiB must hold (any)
---@field every? string|number pace ("5s")
---@field fast? string|number pace while a change is in the air ("500ms")
---@field timeout? string|number for one whole probe ("2s")
---@field rise? integer good answers in a row until up (2)
---@field fall? integer failures in a row until down (3)
---@field tls? boolean probe over TLS (as the pool)
---@field websocket? boolean make a WebSocket handshake, then close it with code 1000 (false)
---@field subprotocol? string what a WebSocket probe offers, and the server must choose (none)
---@field ping? boolean a WebSocket probe sends a ping and waits for its pong (false)

---@class moongate.match
---@field listener? string|string[] listener's name (any)
---@field host? string|string[] without port; *.x at any depth (any)
---@field path? string|string[] exact, "/a/*", or ":name" segments (any)
---@field method? string|string[] GET matches HEAD too (any)
---@field scheme? string|string[] http (ws) or https (wss) (any)
---@field websocket? boolean true: a valid WebSocket handshake; false: anything else (any)
---@field subprotocol? string|false|(string|false)[] some offered one is in the list; false: none offered; implies websocket = true (any)
---@field header? table<string, string|boolean|string[]> name = a text, a list, true (present) or false (absent) (any)
---@field query? table<string, string|boolean|string[]> likewise (any)
---@field cookie? table<string, string|boolean|string[]> likewise (any)
---@field client? string|string[] blocks of addresses (any)
---@field origin? string|false|(string|false)[] Origin; false: none sent (any)
---@field sni? string|false|(string|false)[] server name in TLS; false: none sent (any)

---@class moongate.route: moongate.match
---@field [integer] moongate.step
---@field when? fun(req: moongate.req): boolean? function(req): true to match (none)
---@field except? moongate.match match keys that must not match (none)
---@field on_error? "next" "next": go on when a function fails (500)
---@field max_body? string|integer|false request body (413) (the listener's)
---@field access_log? boolean false: requests decided here are not logged (true)
---@field request_headers? table<string, string|false> set on what is forwarded; false removes (none)
---@field response_headers? table<string, string|false> set on what is answered; false removes (none)
---@field on_response? fun(req: moongate.req, resp: moongate.resp): moongate.action? function(req, resp) (none)

---@class moongate.action
---@alias moongate.step moongate.action|fun(req: moongate.req): moongate.action?

---@class moongate.headers fields of a message; names whatever their case
local headers = {}
---@param name string
---@return string? # all values, joined with ", "
function headers:header(name) end
---@param name string
---@return string[] # each value
function headers:headers(name) end
---@return fun(): string, string # names and values, in order
function headers:all_headers() end
---@param name string
---@param value string|number
function headers:set_header(name, value) end
---@param name string
---@param value string|number
function headers:add_header(name, value) end
---@param name string
function headers:del_header(name) end

---@class moongate.certificate of a client
---@field verified boolean without it all else is only what the client says
---@field subject string
---@field issuer string
---@field serial string
---@field fingerprint string SHA-256
---@field not_before integer
---@field not_after integer
---@field san string[]

---@class moongate.tls
---@field sni string?
---@field alpn string?
---@field version string
---@field cipher string
---@field cert moongate.certificate?

---@class moongate.websocket a valid handshake
---@field subprotocols string[] offered, over all header lines
---@field origin string?
local websocket = {}
---@param name string
---@return boolean
function websocket:offers(name) end
---@param list string[] what the server may see of the offer
function websocket:only(list) end
---@param name string is taken out of the offer, with the token behind it
---@return string?
function websocket:take(name) end

---@class moongate.req: moongate.headers
---@field method string
---@field path string as matched and forwarded
---@field raw_path string as it came
---@field query_string string?
---@field scheme "http"|"https"
---@field host string?
---@field port integer
---@field version string
---@field id string
---@field time number
---@field listener string
---@field params table<string, string> of :name segments
---@field client string behind trusted proxies
---@field peer string
---@field tls moongate.tls?
---@field ws moongate.websocket? nil unless it is a valid handshake
---@field vars table kept for the request
local req = {}
---@param name string
---@return string?
function req:query(name) end
---@param name string
---@param value string? nil removes it
function req:set_query(name, value) end
---@param name string
---@return string?
function req:cookie(name) end
---@return string?
function req:bearer() end
---@param path string
function req:set_path(path) end
---@param host string
function req:set_host(host) end
---@param key string
---@param value any
function req:log(key, value) end
---@param max integer?
---@return string?, string?
function req:body(max) end

---@class moongate.resp: moongate.headers
---@field status integer
---@field server string
---@field tunnel boolean true for the 101

---@class moongate.tunnel
---@field id string
---@field route string
---@field pool string
---@field server string
---@field client string
---@field subprotocol string?
---@field age number
---@field bytes_in integer
---@field bytes_out integer
---@field cause string?
---@field side string?

---Closes without an answer.
---@return moongate.action
function drop() end

---@type table<string, string>|fun(name: string, default: string?): string
env = {}

---@param pool string|string[] pools in order of preference
---@param options { server?: string, path?: string, host?: string, key?: any, response_timeout?: string|number|false }?
---@return moongate.action
function forward(pool, options) end

---@param pattern string
function include(pattern) end

ip = {}
---@param address string
---@param blocks string|string[]
---@return boolean
function ip.within(address, blocks) end
---@param address string
---@return string # /32, /64
function ip.prefix(address) end

---@param name string
---@return fun(t: moongate.listener)
function listener(name) end

log = {}
---@param format string
function log.debug(format, ...) end
---@param format string
function log.info(format, ...) end
---@param format string
function log.warn(format, ...) end
---@param format string
function log.error(format, ...) end

---@param hook fun(tunnel: moongate.tunnel)
function on_close(hook) end

---@param hook fun(tunnel: moongate.tunnel)
function on_open(hook) end

---@param hook fun(req: moongate.req, resp: moongate.resp): moongate.action?
function on_response(hook) end

---@param name string
---@return fun(t: moongate.pool)
function pool(name) end

---@param name string|moongate.probe
---@return any # the table, checked
function probe(name) end

---@param path string
---@return string
function readfile(path) end

---@param to string|{ scheme?: string, host?: string, port?: integer, path?: string, query?: string|false, status?: integer }
---@return moongate.action
function redirect(to) end

---@param status integer
---@param body string?
---@param headers table<string, string|number|string[]>?
---@return moongate.action
function reply(status, body, headers) end

---@param name string
---@return fun(t: moongate.route)
function route(name) end

---@param t moongate.settings
function settings(t) end

---@generic T: table
---@param t T
---@return T # whose unknown fields raise
function strict(t) end
