/* SPDX-License-Identifier: MIT */
/*
 * option_types: readers of values that several kinds of declaration have: CIDR lists, header edits, body limits. Header edits are checked here,
 * once: CR, LF and NUL never reach a head, and what frames a message cannot be edited (rules.md part 5).
 */
#include "base/str.h"
#include "script/options.h"
#include "wire/http.h"

static void option_read_cidr(struct option_reader *reader, int index, unsigned i, void *owner) {
    struct config_cidrs *cidrs = owner;
    struct span text = option_text(reader, index, "a block of addresses like \"10.0.0.0/8\"");
    if (text.p && !cidr_parse(text, &cidrs->list[i]))
        option_mistake(reader, "\"%.60s\" is no address or block like \"10.0.0.0/8\" (no bits behind the prefix)", text.p);
}

void option_read_cidrs(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_cidrs *cidrs = field;
    (void)option;
    cidrs->set = true;
    if (lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index))
        return;
    cidrs->count = option_list_length(reader, index);
    if (lua_type(reader->L, index) == LUA_TTABLE && cidrs->count == 0) {
        lua_pushnil(reader->L);
        if (lua_next(reader->L, index)) {
            lua_pop(reader->L, 2);
            option_mistake(reader, "expected a list of blocks like \"10.0.0.0/8\"");
        }
        return; /* {}: trusts nobody, on purpose */
    }
    cidrs->list = option_alloc(reader, cidrs->count, sizeof(*cidrs->list));
    option_read_list(reader, index, option_read_cidr, cidrs);
}

static bool option_header_name(struct option_reader *reader, struct span name) {
    static const struct { const char *name; unsigned flags; } fixed[] = {
#define OPTION_FIXED(id, text, bits) {text, bits},
        HTTP_FIELDS(OPTION_FIXED)
#undef OPTION_FIXED
    };
    if (!str_is_token(name)) {
        option_mistake(reader, "\"%.60s\" is no header name", name.p);
        return false;
    }
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        if (str_equal_nocase(span_of(fixed[i].name), name) && (fixed[i].flags & (HTTP_HOP | HTTP_FRAMING))) {
            option_mistake(reader, "\"%s\" frames the message and cannot be edited", fixed[i].name);
            return false;
        }
    return true;
}

static bool option_header_value(struct span value) {
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static void option_read_header(struct option_reader *reader, int value, struct action_header *header) {
    lua_State *L = reader->L;
    if (lua_isboolean(L, value) && !lua_toboolean(L, value))
        return; /* remove it */
    struct span text = {NULL, 0};
    if (lua_type(L, value) == LUA_TSTRING)
        text.p = lua_tolstring(L, value, &text.n);
    if (!text.p)
        option_wrong(reader, value, "a text, or false to remove it");
    else if (!option_header_value(text))
        option_mistake(reader, "control characters in a header's value");
    else
        header->value = span_make(option_copy(reader, str_trim(text)), str_trim(text).n);
}

void option_read_headers(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_headers *headers = field;
    lua_State *L = reader->L;
    bool request = strcmp(option->key, "request_headers") == 0;
    if (!option_is_table(reader, index, "a table of header names and values"))
        return;
    script_push_sorted_keys(L, index);
    int keys = lua_gettop(L);
    size_t count = lua_rawlen(L, keys);
    headers->list = option_alloc(reader, count, sizeof(*headers->list));
    for (size_t i = 1; i <= count; i++, lua_settop(L, keys)) {
        lua_rawgeti(L, keys, (lua_Integer)i);
        if (lua_type(L, -1) != LUA_TSTRING) {
            option_mistake(reader, "expected header names as keys: [\"x-name\"] = \"value\"");
            continue;
        }
        struct span name;
        name.p = lua_tolstring(L, -1, &name.n);
        lua_pushvalue(L, -1);
        lua_rawget(L, index);
        size_t length = option_enter(reader, name.p);
        if (request && str_equal_nocase(name, SPAN("host"))) {
            option_mistake(reader, "the host is changed by req:set_host(), forward's host or the pool's");
        } else if (option_header_name(reader, name)) {
            struct action_header *header = &headers->list[headers->count++];
            char *lower = option_copy(reader, name);
            for (size_t at = 0; at < name.n; at++)
                lower[at] = str_lower(lower[at]);
            header->name = span_make(lower, name.n);
            option_read_header(reader, lua_gettop(L), header);
        }
        option_leave(reader, length);
    }
    lua_settop(L, keys - 1);
}

bool option_is_host(struct span text) {
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] <= 0x20 || (unsigned char)text.p[i] >= 0x7f || strchr("/@,?#\\", text.p[i]))
            return false;
    return text.n > 0;
}

void option_read_host(struct option_reader *reader, const struct option *option, int index, void *field) {
    char **host = field;
    if (option->none && lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index)) {
        *host = NULL;
        return;
    }
    const char *expected = option->none ? "a name like \"a.example\", or false" : "a name like \"a.example\"";
    struct span text = option_text(reader, index, expected);
    if (!text.p)
        return;
    if (option_is_host(text))
        *host = option_copy(reader, text);
    else
        option_wrong(reader, index, expected);
}

/* A route's own: false lifts the listener's limit, which has to differ from "as the listener says". */
void option_read_max_body(struct option_reader *reader, const struct option *option, int index, void *field) {
    static const struct option size = {.key = "max_body", .type = OPTION_SIZE64, .none = true};
    uint64_t *bytes = field;
    (void)option;
    if (lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index))
        *bytes = UINT64_MAX - 1;
    else
        option_read_one(reader, &size, index, bytes);
}
