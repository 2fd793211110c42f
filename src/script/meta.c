/* SPDX-License-Identifier: MIT */
/*
 * meta: what editors can know of the language: annotations for lua-language-server and a configuration for luacheck. Keys, defaults and
 * help come from the tables of options that the program itself reads by; the words, actions and members stand in tables here, and a test
 * compares their names with those of a real state.
 *
 * The subtle thing: a key with a reader of its own has no type in its table. Its type stands in meta_types, and a key
 * without one is a failed test, not a silent "any".
 */
#include "script/meta.h"

#include "script/options.h"

struct meta_type {
    const char *word, *key, *type;
};

static const struct meta_type meta_types[] = {
    {"settings", "workers", "integer|\"auto\""},
    {"settings", "access_log", "moongate.settings.access_log|false"},
    {"settings", "trusted_proxies", "string|string[]|false"},
    {"settings", "error_pages", "table<integer, string>"},
    {"settings", "via", "string|false"},
    {"settings", "nameservers", "string|string[]"},
    {"listener", "bind", "string|string[]"},
    {"listener", "tls", "moongate.listener.tls|false"},
    {"listener", "encoded_slash", "\"reject\"|\"keep\""},
    {"listener", "trusted_proxies", "string|string[]|false"},
    {"listener", "proxy_protocol_from", "string|string[]|false"},
    {"listener", "request_headers", "table<string, string|false>"},
    {"listener", "response_headers", "table<string, string|false>"},
    {"listener tls", "certs", "table<string|integer, { cert: string, key: string, name?: string }>"},
    {"listener tls", "alpn", "string|string[]"},
    {"listener tls", "client_cert", "\"none\"|\"ask\"|\"require\""},
    {"pool", "servers", "string|(string|moongate.pool.server)[]"},
    {"pool", "probe", "moongate.probe|\"tcp\"|false"},
    {"pool", "tls", "boolean|moongate.pool.tls"},
    {"pool", "host", "string"},
    {"pool", "source", "string"},
    {"pool", "affinity", "moongate.pool.affinity|false"},
    {"pool", "on_down", "\"keep\""},
    {"pool", "proxy_protocol", "\"v1\"|\"v2\"|false"},
    {"pool affinity", "cookie", "string"},
    {"pool affinity", "key", "string"},
    {"probe", "path", "string"},
    {"probe", "host", "string"},
    {"probe", "method", "string"},
    {"probe", "headers", "table<string, string>"},
    {"probe", "expect", "integer|string|(integer|string)[]"},
    {"probe", "tls", "boolean"},
    {"probe", "subprotocol", "string"},
    {"route", "when", "fun(req: moongate.req): boolean?"},
    {"route", "except", "moongate.match"},
    {"route", "on_error", "\"next\""},
    {"route", "max_body", "string|integer|false"},
    {"route", "request_headers", "table<string, string|false>"},
    {"route", "response_headers", "table<string, string|false>"},
    {"route", "on_response", "fun(req: moongate.req, resp: moongate.resp): moongate.action?"},
    {"match", "listener", "string|string[]"},
    {"match", "host", "string|string[]"},
    {"match", "path", "string|string[]"},
    {"match", "method", "string|string[]"},
    {"match", "scheme", "string|string[]"},
    {"match", "websocket", "boolean"},
    {"match", "subprotocol", "string|false|(string|false)[]"},
    {"match", "header", "table<string, string|boolean|string[]>"},
    {"match", "query", "table<string, string|boolean|string[]>"},
    {"match", "cookie", "table<string, string|boolean|string[]>"},
    {"match", "client", "string|string[]"},
    {"match", "origin", "string|false|(string|false)[]"},
    {"match", "sni", "string|false|(string|false)[]"},
};

/* What is no option: functions, objects. */
static const char meta_objects[] =
    "---@class moongate.action\n"
    "---@alias moongate.step moongate.action|fun(req: moongate.req): moongate.action?\n"
    "\n"
    "---@class moongate.headers fields of a message; names whatever their case\n"
    "local headers = {}\n"
    "---@param name string\n---@return string? # all values, joined with \", \"\nfunction headers:header(name) end\n"
    "---@param name string\n---@return string[] # each value\nfunction headers:headers(name) end\n"
    "---@return fun(): string, string # names and values, in order\nfunction headers:all_headers() end\n"
    "---@param name string\n---@param value string|number\nfunction headers:set_header(name, value) end\n"
    "---@param name string\n---@param value string|number\nfunction headers:add_header(name, value) end\n"
    "---@param name string\nfunction headers:del_header(name) end\n"
    "\n"
    "---@class moongate.certificate of a client\n"
    "---@field verified boolean without it all else is only what the client says\n"
    "---@field subject string\n---@field issuer string\n---@field serial string\n---@field fingerprint string SHA-256\n"
    "---@field not_before integer\n---@field not_after integer\n---@field san string[]\n"
    "\n"
    "---@class moongate.tls\n"
    "---@field sni string?\n---@field alpn string?\n---@field version string\n---@field cipher string\n---@field cert moongate.certificate?\n"
    "\n"
    "---@class moongate.websocket a valid handshake\n"
    "---@field subprotocols string[] offered, over all header lines\n---@field origin string?\n"
    "local websocket = {}\n"
    "---@param name string\n---@return boolean\nfunction websocket:offers(name) end\n"
    "---@param list string[] what the server may see of the offer\nfunction websocket:only(list) end\n"
    "---@param name string is taken out of the offer, with the token behind it\n---@return string?\nfunction websocket:take(name) end\n"
    "\n"
    "---@class moongate.req: moongate.headers\n"
    "---@field method string\n---@field path string as matched and forwarded\n---@field raw_path string as it came\n"
    "---@field query_string string?\n---@field scheme \"http\"|\"https\"\n---@field host string?\n---@field port integer\n"
    "---@field version string\n---@field id string\n---@field time number\n---@field listener string\n"
    "---@field params table<string, string> of :name segments\n---@field client string behind trusted proxies\n---@field peer string\n"
    "---@field tls moongate.tls?\n---@field ws moongate.websocket? nil unless it is a valid handshake\n---@field vars table kept for the request\n"
    "local req = {}\n"
    "---@param name string\n---@return string?\nfunction req:query(name) end\n"
    "---@param name string\n---@param value string? nil removes it\nfunction req:set_query(name, value) end\n"
    "---@param name string\n---@return string?\nfunction req:cookie(name) end\n"
    "---@return string?\nfunction req:bearer() end\n"
    "---@param path string\nfunction req:set_path(path) end\n"
    "---@param host string\nfunction req:set_host(host) end\n"
    "---@param key string\n---@param value any\nfunction req:log(key, value) end\n"
    "---@param max integer?\n---@return string?, string?\nfunction req:body(max) end\n"
    "\n"
    "---@class moongate.resp: moongate.headers\n"
    "---@field status integer\n---@field server string\n---@field tunnel boolean true for the 101\n"
    "\n"
    "---@class moongate.tunnel\n"
    "---@field id string\n---@field route string\n---@field pool string\n---@field server string\n---@field client string\n"
    "---@field subprotocol string?\n---@field age number\n---@field bytes_in integer\n---@field bytes_out integer\n"
    "---@field cause string?\n---@field side string?\n"
    "\n";

struct meta_global {
    const char *name, *fields; /* of a table: its members */
    const char *text;
};

static const struct meta_global meta_globals[] = {
    {"drop", NULL, "---Closes without an answer.\n---@return moongate.action\nfunction drop() end\n"},
    {"env", NULL, "---@type table<string, string>|fun(name: string, default: string?): string\nenv = {}\n"},
    {"forward", NULL,
     "---@param pool string|string[] pools in order of preference\n"
     "---@param options { server?: string, path?: string, host?: string, key?: any, response_timeout?: string|number|false }?\n"
     "---@return moongate.action\nfunction forward(pool, options) end\n"},
    {"include", NULL, "---@param pattern string\nfunction include(pattern) end\n"},
    {"ip", "prefix within",
     "ip = {}\n---@param address string\n---@param blocks string|string[]\n---@return boolean\nfunction ip.within(address, blocks) end\n"
     "---@param address string\n---@return string # /32, /64\nfunction ip.prefix(address) end\n"},
    {"listener", NULL, "---@param name string\n---@return fun(t: moongate.listener)\nfunction listener(name) end\n"},
    {"log", "debug error info warn",
     "log = {}\n---@param format string\nfunction log.debug(format, ...) end\n---@param format string\nfunction log.info(format, ...) end\n"
     "---@param format string\nfunction log.warn(format, ...) end\n---@param format string\nfunction log.error(format, ...) end\n"},
    {"on_close", NULL, "---@param hook fun(tunnel: moongate.tunnel)\nfunction on_close(hook) end\n"},
    {"on_open", NULL, "---@param hook fun(tunnel: moongate.tunnel)\nfunction on_open(hook) end\n"},
    {"on_response", NULL,
     "---@param hook fun(req: moongate.req, resp: moongate.resp): moongate.action?\nfunction on_response(hook) end\n"},
    {"pool", NULL, "---@param name string\n---@return fun(t: moongate.pool)\nfunction pool(name) end\n"},
    {"probe", NULL, "---@param name string|moongate.probe\n---@return any # the table, checked\nfunction probe(name) end\n"},
    {"readfile", NULL, "---@param path string\n---@return string\nfunction readfile(path) end\n"},
    {"redirect", NULL,
     "---@param to string|{ scheme?: string, host?: string, port?: integer, path?: string, query?: string|false, status?: integer }\n"
     "---@return moongate.action\nfunction redirect(to) end\n"},
    {"reply", NULL,
     "---@param status integer\n---@param body string?\n---@param headers table<string, string|number|string[]>?\n"
     "---@return moongate.action\nfunction reply(status, body, headers) end\n"},
    {"route", NULL, "---@param name string\n---@return fun(t: moongate.route)\nfunction route(name) end\n"},
    {"settings", NULL, "---@param t moongate.settings\nfunction settings(t) end\n"},
    {"strict", NULL, "---@generic T: table\n---@param t T\n---@return T # whose unknown fields raise\nfunction strict(t) end\n"},
};

static const char *meta_find_type(const char *word, const char *key) {
    for (size_t i = 0; i < sizeof(meta_types) / sizeof(meta_types[0]); i++)
        if (strcmp(meta_types[i].word, word) == 0 && strcmp(meta_types[i].key, key) == 0)
            return meta_types[i].type;
    return "any";
}

static void meta_write_words(struct buf *out, const char *words) {
    const char *joint = "";
    while (*words && *words != '|') {
        size_t n = strcspn(words, " |");
        buf_printf(out, "%s\"%.*s\"", joint, (int)n, words);
        joint = "|";
        words += n + strspn(words + n, " ");
    }
}

static void meta_write_type(struct buf *out, const char *word, const struct option *option) {
    switch (option->type) {
    case OPTION_BOOL: buf_append_text(out, "boolean"); break;
    case OPTION_DURATION: buf_append_text(out, "string|number"); break;
    case OPTION_COUNT:
    case OPTION_COUNT16:
    case OPTION_COUNT32: buf_append_text(out, "integer"); break;
    case OPTION_SIZE:
    case OPTION_SIZE32:
    case OPTION_SIZE64: buf_append_text(out, "string|integer"); break;
    case OPTION_TEXT:
    case OPTION_PATH: buf_append_text(out, "string"); break;
    case OPTION_WORD: meta_write_words(out, option->words); break;
    case OPTION_READ:
    case OPTION_LATER: buf_append_text(out, meta_find_type(word, option->key)); return;
    }
    if (option->none)
        buf_append_text(out, "|false");
}

static void meta_write_fields(struct buf *out, const char *word, const struct option *options) {
    for (const struct option *option = options; option->key; option++) {
        if (option->type == OPTION_LATER)
            continue;
        buf_printf(out, "---@field %s? ", option->key);
        meta_write_type(out, word, option);
        buf_printf(out, " %s", option->help ? option->help : "");
        if (option->fallback)
            buf_printf(out, " (%s)", option->fallback);
        buf_append_text(out, "\n");
    }
    buf_append_text(out, "\n");
}

/* "moongate.listener.tls" */
static void meta_write_class(struct buf *out, const char *word) {
    buf_append_text(out, "---@class moongate.");
    for (; *word; word++)
        buf_append(out, *word == ' ' ? "." : word, 1);
}

void script_write_meta(struct buf *out) {
    buf_append_text(out, "-- SPDX-License-Identifier: MIT\n---@meta\n"
                         "-- What lua-language-server knows of Moongate's files. Made by: moongate dump --meta\n-- luacheck: ignore\n\n");
    for (const struct option_kind *kind = option_kinds; kind->word; kind++) {
        if (kind->more) {
            meta_write_class(out, "match");
            buf_append_text(out, "\n");
            meta_write_fields(out, "match", kind->more);
        }
        meta_write_class(out, kind->word);
        buf_append_text(out, kind->more ? ": moongate.match\n---@field [integer] moongate.step\n" : "\n");
        if (strcmp(kind->word, "pool server") == 0)
            buf_append_text(out, "---@field [1] string address\n");
        meta_write_fields(out, kind->word, kind->options);
    }
    buf_append_text(out, meta_objects);
    for (size_t i = 0; i < sizeof(meta_globals) / sizeof(meta_globals[0]); i++)
        buf_printf(out, "%s%s", meta_globals[i].text, i + 1 < sizeof(meta_globals) / sizeof(meta_globals[0]) ? "\n" : "");
}

void script_write_luacheck(struct buf *out) {
    buf_append_text(out, "-- SPDX-License-Identifier: MIT\n"
                         "-- luacheck --config THIS moongate.lua. Made by: moongate dump --luacheck\nstds.moongate = {\n  read_globals = {\n");
    for (size_t i = 0; i < sizeof(meta_globals) / sizeof(meta_globals[0]); i++) {
        const struct meta_global *global = &meta_globals[i];
        if (!global->fields) {
            buf_printf(out, "    \"%s\",\n", global->name);
            continue;
        }
        buf_printf(out, "    %s = { fields = { ", global->name);
        for (const char *field = global->fields; *field;) {
            size_t n = strcspn(field, " ");
            buf_printf(out, "\"%.*s\"%s", (int)n, field, field[n] ? ", " : "");
            field += n + strspn(field + n, " ");
        }
        buf_append_text(out, " } },\n");
    }
    buf_append_text(out, "  },\n}\nstd = \"lua54+moongate\"\n"
                         "-- Not there: the safe part of Lua only.\n"
                         "not_globals = { \"collectgarbage\", \"coroutine\", \"debug\", \"dofile\", \"io\", \"loadfile\", \"package\", "
                         "\"rawset\", \"warn\" }\n");
}
