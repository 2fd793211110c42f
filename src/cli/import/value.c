/* SPDX-License-Identifier: MIT */
/*
 * value: reads members of a template's objects without caring how they were written: `Id` or `id`, inside `properties` or beside it (as
 * the command-line tool of Azure shows them), a number or its text, a literal or an expression.
 *
 * The subtle thing is the end of an id: in published fragments it still carries the quote and brackets of the expression that it
 * was cut from (".../frontendPorts/port80'", ".../httpListeners/main')]"), so these are cut off before its last segment is taken.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/import/arm.h"

bool arm_same(const char *a, const char *b) { return a && b && str_equal_nocase(span_of(a), span_of(b)); }

json_t *arm_keep(struct arm *arm, json_t *value) {
    if (!value || json_array_append_new(arm->kept, value) != 0)
        mem_abort();
    return value;
}

const char *arm_format(struct arm *arm, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = NULL;
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !(text = arena_alloc(&arm->memory, (size_t)n + 1)))
        mem_abort();
    va_start(args, format);
    (void)vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

static json_t *value_member(json_t *object, const char *key) {
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        if (arm_same(name, key))
            return value;
    }
    return NULL;
}

json_t *arm_get(struct arm *arm, json_t *object, const char *key) {
    json_t *properties = value_member(object, "properties");
    json_t *value = properties ? value_member(properties, key) : NULL;
    if (!value)
        value = value_member(object, key);
    if (!value)
        return NULL;
    value = arm_evaluate(arm, value);
    return json_is_null(value) ? NULL : value;
}

const char *arm_text(struct arm *arm, json_t *object, const char *key) {
    json_t *value = arm_get(arm, object, key);
    if (json_is_integer(value))
        return arm_format(arm, "%lld", (long long)json_integer_value(value));
    return json_is_string(value) && json_string_length(value) > 0 ? json_string_value(value) : NULL;
}

bool arm_true(struct arm *arm, json_t *object, const char *key) {
    json_t *value = arm_get(arm, object, key);
    const char *text = json_string_value(value);
    return json_is_true(value) || arm_same(text, "true") || arm_same(text, "enabled");
}

unsigned arm_number(struct arm *arm, json_t *object, const char *key, unsigned low, unsigned high, unsigned fallback) {
    const char *text = arm_text(arm, object, key);
    uint64_t value = 0;
    return text && str_parse_u63(span_of(text), &value) && value >= low && value <= high ? (unsigned)value : fallback;
}

json_t *arm_list(struct arm *arm, json_t *object, const char *key) {
    json_t *value = arm_get(arm, object, key);
    if (json_is_array(value))
        return value;
    json_t *list = arm_keep(arm, json_array());
    if (value)
        json_array_append(list, value);
    return list;
}

/* Without the quotes and brackets of an expression at its end, and without the <> or {} of a placeholder. */
static const char *value_clean(struct arm *arm, struct span text) {
    text = str_trim(text);
    while (text.n > 0 && strchr("'\")]>} \t,;/", text.p[text.n - 1]))
        text.n--;
    while (text.n > 0 && strchr("'\"<{ ", text.p[0])) {
        text.p++;
        text.n--;
    }
    return arm_format(arm, "%.*s", SPAN_ARGS(text));
}

const char *arm_last_segment(struct arm *arm, const char *id) {
    json_t *value = arm_evaluate(arm, arm_keep(arm, json_string(id)));
    const char *text = value_clean(arm, span_of(json_is_string(value) ? json_string_value(value) : id));
    const char *slash = strrchr(text, '/');
    if (!slash && text[0] == '[')
        slash = strrchr(text, '\'');
    return value_clean(arm, span_of(slash ? slash + 1 : text));
}

const char *arm_name(struct arm *arm, json_t *object) {
    const char *text = arm_text(arm, object, "name");
    if (!text)
        text = arm_text(arm, object, "id");
    return text ? arm_last_segment(arm, text) : "unnamed";
}

const char *arm_reference(struct arm *arm, json_t *object, const char *key) {
    json_t *value = arm_get(arm, object, key);
    const char *id = json_is_string(value) ? json_string_value(value) : json_is_object(value) ? arm_text(arm, value, "id") : NULL;
    if (!id && json_is_object(value))
        id = arm_text(arm, value, "name");
    return id && *id ? arm_last_segment(arm, id) : NULL;
}

json_t *arm_find(struct arm *arm, enum arm_section section, const char *name) {
    size_t i;
    json_t *object;
    json_array_foreach(arm->sections[section], i, object) {
        if (name && arm_same(arm_name(arm, object), name))
            return object;
    }
    return NULL;
}
