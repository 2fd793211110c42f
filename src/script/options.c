/* SPDX-License-Identifier: MIT */
/*
 * options: reads a Lua table into a C struct by a table of options. Nothing here stops at a mistake: each is reported with the key path and the
 * next key is read, so that one load shows all. Keys are taken in sorted order, raw: the outcome is the same in every state, and
 * a table with a metatable (strict{}) is read as it is written.
 */
#include "script/options.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

#define OPTION_KEYS_MAX 64 /* of one kind, for "did you mean" */

static void option_add(struct option_reader *reader, bool is_error, const char *format, va_list args) {
    char text[512], line[768];
    vsnprintf(text, sizeof(text), format, args);
    snprintf(line, sizeof(line), "%s%s%s%s%s", reader->subject, *reader->subject ? ": " : "", reader->path,
             *reader->path ? ": " : "", text);
    reader->mistakes += is_error;
    if (!reader->muted)
        declare_report(reader->declare, reader->place, is_error, line);
}

void option_mistake(struct option_reader *reader, const char *format, ...) {
    va_list args;
    va_start(args, format);
    option_add(reader, true, format, args);
    va_end(args);
}

void option_warning(struct option_reader *reader, const char *format, ...) {
    va_list args;
    va_start(args, format);
    option_add(reader, false, format, args);
    va_end(args);
}

void option_wrong(struct option_reader *reader, int index, const char *expected) {
    lua_State *L = reader->L;
    char got[80];
    if (script_is_mistake(L, index)) {
        reader->mistakes++;
        return;
    }
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        snprintf(got, sizeof(got), "\"%.60s\"", lua_tostring(L, index));
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            snprintf(got, sizeof(got), "%lld", (long long)lua_tointeger(L, index));
        else
            snprintf(got, sizeof(got), "%.14g", lua_tonumber(L, index));
        break;
    case LUA_TBOOLEAN:
        snprintf(got, sizeof(got), "%s", lua_toboolean(L, index) ? "true" : "false");
        break;
    default:
        snprintf(got, sizeof(got), "a %s", luaL_typename(L, index));
    }
    option_mistake(reader, "expected %s, got %s", expected, got);
}

void option_later(struct option_reader *reader, const char *name) { option_mistake(reader, "\"%s\" is not in this version", name); }

size_t option_enter(struct option_reader *reader, const char *key) {
    size_t length = strlen(reader->path);
    bool plain = *key != '\0';
    for (const char *p = key; *p; p++)
        plain = plain && (str_is_tchar((unsigned char)*p) && *p != '-' && *p != '.');
    snprintf(reader->path + length, sizeof(reader->path) - length, plain ? "%s%s" : "%s[\"%s\"]", length && plain ? "." : "", key);
    return length;
}

size_t option_enter_index(struct option_reader *reader, lua_Integer index) {
    size_t length = strlen(reader->path);
    snprintf(reader->path + length, sizeof(reader->path) - length, "[%lld]", (long long)index);
    return length;
}

void option_leave(struct option_reader *reader, size_t length) { reader->path[length] = '\0'; }

struct span option_text(struct option_reader *reader, int index, const char *expected) {
    if (lua_type(reader->L, index) == LUA_TSTRING) {
        struct span text;
        text.p = lua_tolstring(reader->L, index, &text.n);
        if (text.n > 0 && !memchr(text.p, '\0', text.n))
            return text;
    }
    option_wrong(reader, index, expected);
    return SPAN_NULL;
}

char *option_copy(struct option_reader *reader, struct span text) {
    char *copy = option_alloc(reader, text.n + 1, 1);
    memcpy(copy, text.p, text.n);
    return copy;
}

void *option_alloc(struct option_reader *reader, size_t count, size_t size) {
    void *p = arena_alloc(reader->arena, count ? count * size : 1);
    if (!p)
        luaL_error(reader->L, "the configuration is too large for its memory");
    memset(p, 0, count ? count * size : 1);
    return p;
}

bool option_read_count(struct option_reader *reader, int index, uint64_t min, uint64_t max, uint64_t *value) {
    int whole = 0;
    lua_Integer n = lua_type(reader->L, index) == LUA_TNUMBER ? lua_tointegerx(reader->L, index, &whole) : 0;
    if (whole && n >= 0 && (uint64_t)n >= min && (uint64_t)n <= max) {
        *value = (uint64_t)n;
        return true;
    }
    char expected[80];
    snprintf(expected, sizeof(expected), "a whole number from %llu to %llu", (unsigned long long)min, (unsigned long long)max);
    option_wrong(reader, index, expected);
    return false;
}

char *option_seconds_text(double seconds, char text[OPTION_SECONDS_MAX]) {
    if (seconds == floor(seconds))
        snprintf(text, OPTION_SECONDS_MAX, "%.0f means seconds; write \"%.0fs\", or \"%.0fms\" for milliseconds", seconds, seconds, seconds);
    else
        snprintf(text, OPTION_SECONDS_MAX, "%.14g means seconds; write \"%.0fms\"", seconds, seconds * 1000);
    return text;
}

bool option_read_duration(struct option_reader *reader, int index, uint64_t min_ms, bool none, uint32_t *ms) {
    lua_State *L = reader->L;
    uint64_t value = 0;
    char text[OPTION_SECONDS_MAX];
    if (none && lua_isboolean(L, index) && !lua_toboolean(L, index)) {
        *ms = 0;
        return true;
    }
    if (lua_type(L, index) == LUA_TNUMBER) {
        lua_Number seconds = lua_tonumber(L, index);
        if (!(seconds >= 0) || seconds > 4000000000.0) {
            option_wrong(reader, index, "a duration like \"5s\"");
            return false;
        }
        value = (uint64_t)(seconds * 1000 + 0.5);
        if (seconds > 1000)
            option_warning(reader, "%s", option_seconds_text(seconds, text));
    } else if (lua_type(L, index) != LUA_TSTRING || !str_parse_duration(span_of(lua_tostring(L, index)), &value)) {
        option_wrong(reader, index, none ? "a duration like \"5s\", or false" : "a duration like \"5s\"");
        return false;
    }
    if (value == 0 || value < min_ms) {
        if (value == 0)
            option_mistake(reader, none ? "a zero duration; false means none" : "a zero duration");
        else
            option_mistake(reader, "at least %llums", (unsigned long long)min_ms);
        return false;
    }
    if (value > UINT32_MAX) {
        option_mistake(reader, "at most \"49d\"");
        return false;
    }
    *ms = (uint32_t)value;
    return true;
}

/* A size in bytes, or none. */
static bool option_read_size(struct option_reader *reader, const struct option *option, int index, uint64_t top, uint64_t *value) {
    lua_State *L = reader->L;
    uint64_t min = option->min, max = option->max && option->max < top ? option->max : top;
    if (option->none && lua_isboolean(L, index) && !lua_toboolean(L, index)) {
        *value = UINT64_MAX;
        return true;
    }
    int whole = 0;
    lua_Integer n = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &whole) : -1;
    bool read = whole && n >= 0;
    if (read)
        *value = (uint64_t)n;
    else if (lua_type(L, index) == LUA_TSTRING)
        read = str_parse_size(span_of(lua_tostring(L, index)), value);
    if (!read) {
        option_wrong(reader, index, option->none ? "a size like \"16m\" or bytes, or false" : "a size like \"16m\" or bytes");
        return false;
    }
    if (*value < min || *value > max) {
        option_mistake(reader, "expected %llu to %llu bytes, got %llu", (unsigned long long)min, (unsigned long long)max,
                       (unsigned long long)*value);
        return false;
    }
    return true;
}

/* "a, b or c" of the words in this version. */
static void option_list_words(const char *words, char *out, size_t size) {
    size_t n = 0;
    out[0] = '\0';
    while (*words && *words != '|' && n + 1 < size) {
        size_t length = strcspn(words, " |");
        const char *after = words + length + strspn(words + length, " ");
        bool last = *after == '\0' || *after == '|';
        const char *joint = n == 0 ? "" : last ? " or " : ", ";
        int wrote = snprintf(out + n, size - n, "%s\"%.*s\"", joint, (int)length, words);
        n += wrote > 0 ? (size_t)wrote : 0;
        words = after;
    }
}

static void option_read_word(struct option_reader *reader, const struct option *option, int index, unsigned *field) {
    unsigned place = 0;
    bool later = false;
    struct span text = SPAN_NULL;
    if (lua_type(reader->L, index) == LUA_TSTRING)
        text.p = lua_tolstring(reader->L, index, &text.n);
    for (const char *word = option->words; text.p && *word;) {
        size_t length = strcspn(word, " |");
        if (length > 0 && span_equal(span_make(word, length), text)) {
            if (later)
                option_later(reader, text.p);
            else
                *field = place;
            return;
        }
        word += length;
        later = later || *word == '|';
        word += *word ? 1 : 0;
        place += length > 0;
    }
    char expected[160];
    option_list_words(option->words, expected, sizeof(expected));
    option_wrong(reader, index, expected);
}

static void option_read_number(struct option_reader *reader, const struct option *option, int index, void *field) {
    uint64_t top = option->type == OPTION_COUNT16 ? UINT16_MAX : UINT32_MAX - 1, value = 0;
    if (option->none && lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index))
        value = 0;
    else if (!option_read_count(reader, index, option->min, option->max ? option->max : top, &value))
        return;
    if (option->type == OPTION_COUNT)
        *(unsigned *)field = (unsigned)value;
    else if (option->type == OPTION_COUNT16)
        *(uint16_t *)field = (uint16_t)value;
    else
        *(uint32_t *)field = (uint32_t)value;
}

static void option_read_string(struct option_reader *reader, const struct option *option, int index, char **field) {
    if (option->none && lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index)) {
        *field = NULL;
        return;
    }
    struct span text = option_text(reader, index, option->none ? "a text, or false" : "a text");
    if (!text.p)
        return;
    if (option->type == OPTION_PATH)
        *field = declare_path(reader, text.p);
    else
        *field = option_copy(reader, text);
}

void option_read_one(struct option_reader *reader, const struct option *option, int index, void *target) {
    void *field = (char *)target + option->offset;
    uint64_t size = 0;
    switch (option->type) {
    case OPTION_BOOL:
        if (lua_isboolean(reader->L, index))
            *(bool *)field = lua_toboolean(reader->L, index);
        else
            option_wrong(reader, index, "true or false");
        break;
    case OPTION_DURATION:
        option_read_duration(reader, index, option->min, option->none, field);
        break;
    case OPTION_COUNT: case OPTION_COUNT16: case OPTION_COUNT32:
        option_read_number(reader, option, index, field);
        break;
    case OPTION_SIZE:
        if (option_read_size(reader, option, index, SIZE_MAX / 2, &size))
            *(size_t *)field = (size_t)size;
        break;
    case OPTION_SIZE32:
        if (option_read_size(reader, option, index, UINT32_MAX / 2, &size))
            *(uint32_t *)field = (uint32_t)size;
        break;
    case OPTION_SIZE64:
        if (option_read_size(reader, option, index, (uint64_t)1 << 53, &size))
            *(uint64_t *)field = size;
        break;
    case OPTION_TEXT: case OPTION_PATH:
        option_read_string(reader, option, index, field);
        break;
    case OPTION_WORD:
        option_read_word(reader, option, index, field);
        break;
    case OPTION_READ:
        option->read(reader, option, index, field);
        break;
    case OPTION_LATER:
        break; /* said by the caller, without the key in the path */
    }
}

static const struct option *option_find(const struct option *options, const char *key) {
    for (; options && options->key; options++)
        if (strcmp(options->key, key) == 0)
            return options;
    return NULL;
}

static void option_unknown(struct option_reader *reader, const char *key, const struct option *options, const struct option *more) {
    const char *names[OPTION_KEYS_MAX + 1];
    size_t count = 0;
    for (const struct option *o = options; o && o->key && count < OPTION_KEYS_MAX; o++)
        names[count++] = o->key;
    for (const struct option *o = more; o && o->key && count < OPTION_KEYS_MAX; o++)
        names[count++] = o->key;
    names[count] = NULL;
    const char *nearest = str_nearest(key, names);
    if (nearest)
        option_mistake(reader, "unknown key \"%.60s\" (did you mean \"%s\"?)", key, nearest);
    else
        option_mistake(reader, "unknown key \"%.60s\"", key);
}

static void option_read_key(struct option_reader *reader, int value, const char *key, const struct option *options, void *target,
                            const struct option *more, void *more_target) {
    const struct option *option = option_find(options, key);
    if (!option) {
        option = option_find(more, key);
        target = more_target;
    }
    if (!option) {
        option_unknown(reader, key, options, more);
        return;
    }
    if (option->type == OPTION_LATER) {
        option_later(reader, key);
        return;
    }
    size_t length = option_enter(reader, key);
    option_read_one(reader, option, value, target);
    option_leave(reader, length);
}

void option_read_table(struct option_reader *reader, int index, const struct option *options, void *target, const struct option *more,
                       void *more_target, lua_Integer positions) {
    lua_State *L = reader->L;
    luaL_checkstack(L, 10, "too deep");
    script_push_sorted_keys(L, index);
    int keys = lua_gettop(L);
    for (lua_Integer i = 1; lua_rawgeti(L, keys, i) != LUA_TNIL; i++) {
        lua_pushvalue(L, -1);
        lua_rawget(L, index);
        int value = lua_gettop(L);
        if (lua_type(L, keys + 1) == LUA_TSTRING)
            option_read_key(reader, value, lua_tostring(L, keys + 1), options, target, more, more_target);
        else if (!lua_isinteger(L, keys + 1) || lua_tointeger(L, keys + 1) < 1 || lua_tointeger(L, keys + 1) > positions) {
            if (lua_isinteger(L, keys + 1))
                option_mistake(reader, "a value without a key at position %lld", (long long)lua_tointeger(L, keys + 1));
            else
                option_mistake(reader, "a key that is a %s", luaL_typename(L, keys + 1));
        }
        lua_settop(L, keys);
    }
    lua_settop(L, keys - 1);
}

bool option_is_table(struct option_reader *reader, int index, const char *expected) {
    if (lua_type(reader->L, index) == LUA_TTABLE)
        return true;
    option_wrong(reader, index, expected);
    return false;
}

unsigned option_list_length(struct option_reader *reader, int index) {
    if (lua_type(reader->L, index) != LUA_TTABLE)
        return 1;
    size_t length = lua_rawlen(reader->L, index);
    return length > 100000 ? 100000 : (unsigned)length;
}

void option_read_list(struct option_reader *reader, int index, option_each_fn *each, void *owner) {
    lua_State *L = reader->L;
    luaL_checkstack(L, 6, "too deep");
    if (lua_type(L, index) != LUA_TTABLE) {
        each(reader, index, 0, owner);
        return;
    }
    unsigned count = option_list_length(reader, index), keys = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
        keys++;
    if (keys != count)
        option_mistake(reader, "expected a list: values without keys and without holes");
    else if (count == 0)
        option_mistake(reader, "an empty list");
    for (unsigned i = 0; i < count; i++) {
        size_t length = option_enter_index(reader, (lua_Integer)i + 1);
        lua_rawgeti(L, index, (lua_Integer)i + 1);
        if (!lua_isnil(L, -1))
            each(reader, lua_gettop(L), i, owner);
        lua_pop(L, 1);
        option_leave(reader, length);
    }
}
