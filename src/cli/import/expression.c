/* SPDX-License-Identifier: MIT */
/*
 * expression: the part of the Resource Manager's expression language that names things: strings, numbers, parameters(), variables(),
 * concat(), format(), resourceId() and its like, toLower(), toUpper(), string(), int(), .member and [index]. Parameters give their default.
 *
 * What is unknown (a parameter without default, any other function) stands as its own name, the same in every place: so a name and the
 * references to it still agree. Text that does not parse gives NULL, and the caller takes what it can from the text.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/import/arm.h"

#define EXPRESSION_DEPTH_MAX 24
#define EXPRESSION_ARGUMENTS_MAX 32

struct expression {
    struct arm *arm;
    const char *p;
    bool failed;
};

static json_t *expression_read(struct expression *e);

static void expression_blank(struct expression *e) {
    while (*e->p == ' ' || *e->p == '\t' || *e->p == '\n' || *e->p == '\r')
        e->p++;
}

static bool expression_take(struct expression *e, char c) {
    expression_blank(e);
    if (*e->p != c)
        return false;
    e->p++;
    return true;
}

static json_t *expression_fail(struct expression *e) {
    e->failed = true;
    return arm_keep(e->arm, json_null());
}

static json_t *expression_make(struct expression *e, struct span text) {
    json_t *made = json_stringn(text.p ? text.p : "", text.n);
    return arm_keep(e->arm, made ? made : json_string(""));
}

/* A value as text: "" for what has none. */
static const char *expression_text(struct expression *e, json_t *value) {
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_integer(value))
        return arm_format(e->arm, "%lld", (long long)json_integer_value(value));
    if (json_is_boolean(value))
        return json_is_true(value) ? "true" : "false";
    return "";
}

/* 'text', a doubled quote standing for one. */
static json_t *expression_string(struct expression *e) {
    struct buf text;
    buf_init(&text, 1 << 20);
    for (e->p++; *e->p; e->p++) {
        if (*e->p == '\'' && *++e->p != '\'')
            break;
        buf_append(&text, e->p, 1);
    }
    if (e->p[-1] != '\'')
        e->failed = true;
    json_t *made = expression_make(e, buf_span(&text));
    buf_release(&text);
    return made;
}

static json_t *expression_look_up(json_t *table, const char *name) {
    const char *key;
    json_t *value;
    json_object_foreach(table, key, value) {
        if (arm_same(key, name))
            return value;
    }
    return NULL;
}

static json_t *expression_named(struct expression *e, bool parameter, const char *name) {
    struct arm *arm = e->arm;
    json_t *found = expression_look_up(parameter ? arm->parameters : arm->variables, name);
    if (found && parameter && json_is_object(found)) {
        json_t *value = json_object_get(found, "value");
        found = value ? value : json_object_get(found, "defaultValue");
    }
    if (!found || json_is_null(found) || (json_is_string(found) && *json_string_value(found) == '\0'))
        return arm_keep(arm, json_string(name));
    return arm_evaluate(arm, found);
}

static json_t *expression_join(struct expression *e, json_t **arguments, unsigned count, const char *joint) {
    struct buf text;
    buf_init(&text, 1 << 20);
    for (unsigned i = 0; i < count; i++) {
        buf_append_text(&text, joint);
        buf_append_text(&text, expression_text(e, arguments[i]));
    }
    json_t *made = expression_make(e, buf_span(&text));
    buf_release(&text);
    return made;
}

/* concat() of arrays. */
static json_t *expression_append(struct expression *e, json_t **arguments, unsigned count) {
    json_t *made = arm_keep(e->arm, json_array());
    for (unsigned i = 0; i < count; i++) {
        size_t at;
        json_t *value;
        json_array_foreach(arguments[i], at, value) {
            json_array_append(made, value);
        }
    }
    return made;
}

static json_t *expression_format(struct expression *e, json_t **arguments, unsigned count) {
    struct buf text;
    buf_init(&text, 1 << 20);
    for (const char *p = expression_text(e, arguments[0]); *p; p++) {
        unsigned index = (unsigned)(unsigned char)p[0] == '{' ? (unsigned)(unsigned char)p[1] - '0' : 10;
        const char *end = index < 10 ? strchr(p, '}') : NULL;
        if (!end) {
            buf_append(&text, p, 1);
            continue;
        }
        buf_append_text(&text, index + 1 < count ? expression_text(e, arguments[index + 1]) : "");
        p = end;
    }
    json_t *made = expression_make(e, buf_span(&text));
    buf_release(&text);
    return made;
}

static json_t *expression_case(struct expression *e, const char *text, bool lower) {
    struct buf out;
    buf_init(&out, 1 << 20);
    for (; *text; text++) {
        char c = lower ? str_lower(*text) : *text >= 'a' && *text <= 'z' ? (char)(*text - 'a' + 'A') : *text;
        buf_append(&out, &c, 1);
    }
    json_t *made = expression_make(e, buf_span(&out));
    buf_release(&out);
    return made;
}

static json_t *expression_call(struct expression *e, const char *name, json_t **arguments, unsigned count) {
    const char *first = count > 0 ? expression_text(e, arguments[0]) : "";
    uint64_t number = 0;
    if (count > 0 && (arm_same(name, "parameters") || arm_same(name, "variables")))
        return expression_named(e, arm_same(name, "parameters"), first);
    if (count > 0 && arm_same(name, "concat"))
        return json_is_array(arguments[0]) ? expression_append(e, arguments, count) : expression_join(e, arguments, count, "");
    if (str_ends(span_of(name), SPAN("esourceId"))) /* resourceId, subscriptionResourceId, extensionResourceId */
        return expression_join(e, arguments, count, "/");
    if (count > 0 && arm_same(name, "format"))
        return expression_format(e, arguments, count);
    if (count > 0 && (arm_same(name, "toLower") || arm_same(name, "toUpper")))
        return expression_case(e, first, arm_same(name, "toLower"));
    if (count > 0 && arm_same(name, "int") && str_parse_u63(span_of(first), &number))
        return arm_keep(e->arm, json_integer((json_int_t)number));
    if (count == 1 && (arm_same(name, "string") || arm_same(name, "int") || arm_same(name, "createArray") || arm_same(name, "trim")))
        return arguments[0];
    return arm_keep(e->arm, json_string(name));
}

/* name(arguments), name.name(...) of user-defined functions too. */
static json_t *expression_function(struct expression *e) {
    json_t *arguments[EXPRESSION_ARGUMENTS_MAX];
    unsigned count = 0;
    const char *start = e->p;
    while (str_is_tchar((unsigned char)*e->p) && *e->p != '\'' && *e->p != '-')
        e->p++;
    if (e->p == start)
        return expression_fail(e);
    const char *name = arm_format(e->arm, "%.*s", (int)(e->p - start), start);
    if (!expression_take(e, '('))
        return arm_same(name, "true") || arm_same(name, "false") ? arm_keep(e->arm, json_boolean(arm_same(name, "true")))
                                                                  : expression_fail(e);
    if (expression_take(e, ')'))
        return expression_call(e, name, arguments, 0);
    do {
        if (count == EXPRESSION_ARGUMENTS_MAX)
            return expression_fail(e);
        arguments[count++] = expression_read(e);
    } while (!e->failed && expression_take(e, ','));
    if (e->failed || !expression_take(e, ')'))
        return expression_fail(e);
    return expression_call(e, name, arguments, count);
}

static json_t *expression_number(struct expression *e) {
    uint64_t value = 0;
    bool minus = *e->p == '-';
    const char *start = e->p += minus;
    while (*e->p >= '0' && *e->p <= '9')
        e->p++;
    if (!str_parse_u63(span_make(start, (size_t)(e->p - start)), &value))
        return expression_fail(e);
    return arm_keep(e->arm, json_integer(minus ? -(json_int_t)value : (json_int_t)value));
}

/* What stands behind a value: .member and [index]; of unknown things the member's name is left. */
static json_t *expression_behind(struct expression *e, json_t *value) {
    while (!e->failed) {
        if (expression_take(e, '.')) {
            const char *start = e->p;
            while (str_is_tchar((unsigned char)*e->p) && *e->p != '\'' && *e->p != '.' && *e->p != '-')
                e->p++;
            const char *name = arm_format(e->arm, "%.*s", (int)(e->p - start), start);
            json_t *member = json_is_object(value) ? expression_look_up(value, name) : NULL;
            value = member ? arm_evaluate(e->arm, member) : arm_keep(e->arm, json_string(name));
        } else if (expression_take(e, '[')) {
            json_t *index = expression_read(e);
            if (!expression_take(e, ']'))
                return expression_fail(e);
            json_t *member = json_is_array(value) && json_is_integer(index) && json_integer_value(index) >= 0
                ? json_array_get(value, (size_t)json_integer_value(index))
                : json_is_object(value) ? expression_look_up(value, expression_text(e, index)) : NULL;
            value = member ? arm_evaluate(e->arm, member) : index;
        } else {
            break;
        }
    }
    return value;
}

static json_t *expression_read(struct expression *e) {
    expression_blank(e);
    if (++e->arm->depth > EXPRESSION_DEPTH_MAX) {
        e->arm->depth--;
        return expression_fail(e);
    }
    json_t *value = *e->p == '\'' ? expression_string(e)
        : *e->p == '-' || (*e->p >= '0' && *e->p <= '9') ? expression_number(e) : expression_function(e);
    value = expression_behind(e, value);
    e->arm->depth--;
    return value;
}

json_t *arm_evaluate(struct arm *arm, json_t *value) {
    if (!json_is_string(value))
        return value;
    const char *text = json_string_value(value);
    size_t n = strlen(text);
    if (n < 2 || text[0] != '[' || text[n - 1] != ']')
        return value;
    if (text[1] == '[') /* "[[": a text that begins with a bracket */
        return arm_keep(arm, json_string(text + 1));
    struct expression e = {.arm = arm, .p = text + 1};
    if (++arm->depth > EXPRESSION_DEPTH_MAX) {
        arm->depth--;
        return value;
    }
    json_t *result = expression_read(&e);
    arm->depth--;
    expression_blank(&e);
    return e.failed || e.p != text + n - 1 ? value : result;
}
