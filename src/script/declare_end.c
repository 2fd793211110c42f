/* SPDX-License-Identifier: MIT */
/*
 * declare_end: what can be judged only when all files have run: words without their table, names of listeners and pools (any order is
 * fine until here), unknown globals. Then the lists move into the configuration. After a file that ended early, names may be missing
 * through no fault of their users, so nothing is said of them.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

static void declare_check_pending(struct script_declare *declare) {
    for (unsigned i = 0; i < declare->pending_count; i++) {
        const struct declare_pending *pending = declare->pending[i];
        char text[200];
        if (pending->done)
            continue;
        snprintf(text, sizeof(text), "%s \"%s\": its table is missing: %s \"%s\" { ... }", pending->word, pending->name, pending->word,
                 pending->name);
        declare_report(declare, pending->place, true, text);
    }
}

/* The names of the array's elements, ended by NULL, in the arena; name stands at offset. */
static const char **declare_names(struct option_reader *reader, const void *list, unsigned count, size_t size, size_t offset) {
    const char **names = option_alloc(reader, (size_t)count + 1, sizeof(*names));
    for (unsigned i = 0; i < count; i++)
        memcpy(&names[i], (const char *)list + i * size + offset, sizeof(names[i]));
    return names;
}

static void declare_check_listeners(struct option_reader *reader, const struct config *config, const struct match *match, const char *key) {
    for (unsigned i = 0; i < match->listeners.count; i++) {
        const char *name = match->listeners.list[i].p;
        if (config_find_listener(config, name))
            continue;
        const char **names = declare_names(reader, config->listeners, config->listener_count, sizeof(*config->listeners),
                                           offsetof(struct config_listener, name));
        const char *nearest = str_nearest(name, names);
        if (nearest)
            option_mistake(reader, "%s: unknown listener \"%.64s\" (did you mean \"%s\"?)", key, name, nearest);
        else
            option_mistake(reader, "%s: unknown listener \"%.64s\"", key, name);
    }
}

static void declare_check_actions(struct option_reader *reader, struct config *config, struct declare_route *entry) {
    for (unsigned i = 0; i < entry->route.step_count; i++) {
        if (entry->actions[i] == LUA_NOREF)
            continue;
        char error[256] = "";
        lua_rawgeti(reader->L, LUA_REGISTRYINDEX, entry->actions[i]);
        const struct action *action = script_read_action(reader->L, -1, &config->memory, config, error, sizeof(error));
        lua_pop(reader->L, 1);
        if (action)
            entry->route.steps[i].action = *action;
        else if (!reader->declare->aborted)
            option_mistake(reader, "step %u: %s", i + 1, error);
    }
}

/* File names are the report's until here; the configuration gets its own copy of each, once. */
static void declare_keep_place(struct option_reader *reader, const char **kept, struct config_place *place) {
    unsigned file = load_report_file(&reader->declare->report, place->file);
    if (!kept[file])
        kept[file] = option_copy(reader, span_of(place->file));
    place->file = kept[file];
}

static void declare_keep_places(struct option_reader *reader, struct config *config) {
    const char **kept = option_alloc(reader, reader->declare->report.file_count, sizeof(*kept));
    for (unsigned i = 0; i < config->listener_count; i++)
        declare_keep_place(reader, kept, &config->listeners[i].place);
    for (unsigned i = 0; i < config->pool_count; i++)
        declare_keep_place(reader, kept, &config->pools[i].place);
    for (unsigned i = 0; i < config->route_count; i++)
        declare_keep_place(reader, kept, &config->routes[i].place);
}

static void *declare_copy_list(struct option_reader *reader, const void *list, unsigned count, size_t size) {
    void *copy = option_alloc(reader, count, size);
    if (count)
        memcpy(copy, list, count * size);
    return copy;
}

static void declare_fill(struct option_reader *reader, struct script_declare *declare, struct config *config) {
    config->listener_count = declare->listener_count;
    config->listeners = declare_copy_list(reader, declare->listeners, declare->listener_count, sizeof(*config->listeners));
    config->pool_count = declare->pool_count;
    config->pools = declare_copy_list(reader, declare->pools, declare->pool_count, sizeof(*config->pools));
    config->function_count = declare->script->function_count;
    unsigned **lists[DECLARE_HOOKS] = {&config->on_response, &config->on_open, &config->on_close};
    unsigned *counts[DECLARE_HOOKS] = {&config->on_response_count, &config->on_open_count, &config->on_close_count};
    for (unsigned i = 0; i < DECLARE_HOOKS; i++) {
        *lists[i] = declare_copy_list(reader, declare->hooks[i].list, declare->hooks[i].count, sizeof(unsigned));
        *counts[i] = declare->hooks[i].count;
    }
}

static void declare_fill_routes(struct option_reader *reader, struct script_declare *declare, struct config *config) {
    char subject[96];
    reader->subject = subject;
    config->routes = option_alloc(reader, declare->route_count, sizeof(*config->routes));
    for (unsigned i = 0; i < declare->route_count; i++) {
        struct declare_route *entry = &declare->routes[i];
        snprintf(subject, sizeof(subject), "route \"%s\"", entry->route.name);
        reader->place = entry->route.place;
        if (!declare->aborted) {
            declare_check_listeners(reader, config, &entry->route.match, "listener");
            declare_check_listeners(reader, config, &entry->route.except, "except.listener");
        }
        declare_check_actions(reader, config, entry);
        config->routes[config->route_count++] = entry->route;
    }
}

static void declare_on_mistake(void *owner, struct config_place place, const char *text) {
    declare_report(owner, place, true, text);
}

void declare_finish(lua_State *L) {
    struct script_declare *declare = declare_of(L);
    struct config *config = declare->config;
    struct option_reader reader;
    declare_start_reader(&reader, L, "", (struct config_place){.file = config->file});
    declare_check_pending(declare);
    declare_fill(&reader, declare, config);
    declare_fill_routes(&reader, declare, config);
    words_check_globals(declare);
    declare_keep_places(&reader, config);
    config_validate(config, !declare->aborted, declare_on_mistake, declare);
    declare->finished = true;
}
