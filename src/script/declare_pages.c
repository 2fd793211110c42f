/* SPDX-License-Identifier: MIT */
/*
 * declare_pages: settings error_pages: what answers of our own hold, by status. A page is given as its text, or as a file's path, read now and
 * once: a page that is missing is a mistake here and not a surprise on the day of the failure.
 *
 * The subtle thing is to tell a path from a text: a text has a blank or begins with '<' or '{', which paths of pages never do.
 */
#include "base/str.h"
#include "script/declare.h"

#define PAGES_SIZE_MAX (256u << 10)

static bool pages_is_path(struct span text) {
    if (text.p[0] == '<' || text.p[0] == '{')
        return false;
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] <= ' ')
            return false;
    return true;
}

static const char *pages_type(struct span name, struct span body) {
    if (str_ends(name, SPAN(".json")) || (body.n > 0 && body.p[0] == '{'))
        return "application/json";
    if (str_ends(name, SPAN(".html")) || str_ends(name, SPAN(".htm")) || (body.n > 0 && body.p[0] == '<'))
        return "text/html; charset=utf-8";
    return "text/plain; charset=utf-8";
}

static void pages_read_file(struct option_reader *reader, const char *name, struct config_error_page *page) {
    const struct load_source *file = load_source_get(reader->declare->writable, LOAD_SOURCE_FILE, declare_path(reader, name));
    if (!file || !file->data) {
        option_mistake(reader, "cannot read \"%.200s\": %s (a page's own text has a blank, or begins with '<' or '{')", name,
                       strerrordesc_np(file ? file->error : 0));
        return;
    }
    page->body = span_make(option_copy(reader, span_make(file->data, file->n)), file->n);
    page->type = pages_type(span_of(name), SPAN_NULL);
}

static void pages_read(struct option_reader *reader, int index, struct config_error_page *page) {
    struct span text = option_text(reader, index, "a page's path, or its text");
    if (!text.p)
        return;
    if (pages_is_path(text)) {
        pages_read_file(reader, text.p, page);
    } else {
        page->body = span_make(option_copy(reader, text), text.n);
        page->type = pages_type(SPAN_NULL, text);
    }
    if (page->body.n > PAGES_SIZE_MAX)
        option_mistake(reader, "a page of %zu bytes: at most 256k", page->body.n);
}

void declare_read_pages(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_settings *settings = field;
    lua_State *L = reader->L;
    (void)option;
    if (!option_is_table(reader, index, "a table like { [503] = \"503.html\" }"))
        return;
    script_push_sorted_keys(L, index);
    int keys = lua_gettop(L);
    size_t count = lua_rawlen(L, keys);
    settings->error_pages = option_alloc(reader, count, sizeof(*settings->error_pages));
    settings->error_page_count = 0;
    for (size_t i = 1; i <= count; i++, lua_settop(L, keys)) {
        lua_rawgeti(L, keys, (lua_Integer)i);
        lua_Integer status = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
        if (status < 400 || status > 599) {
            option_wrong(reader, lua_gettop(L), "statuses from 400 to 599 as keys: [503] = \"503.html\"");
            continue;
        }
        lua_pushvalue(L, -1);
        lua_rawget(L, index);
        size_t length = option_enter_index(reader, status);
        struct config_error_page *page = &settings->error_pages[settings->error_page_count];
        page->status = (uint16_t)status;
        pages_read(reader, lua_gettop(L), page);
        settings->error_page_count += page->type != NULL;
        option_leave(reader, length);
    }
    lua_settop(L, keys - 1);
}
