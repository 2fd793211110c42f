/* SPDX-License-Identifier: MIT */
/*
 * load: reads one configuration file (and what it includes) into a struct config. State 1, the loader's, alone defines the config; every
 * other state runs the same bytes, read once, and only binds its functions by kind, name and step index.
 */
#ifndef MOONGATE_SCRIPT_LOAD_H
#define MOONGATE_SCRIPT_LOAD_H

#include "config/config.h"
#include "traffic/script_ops.h"

/* The outcome of a load: config, and the bytes, environment and readfile results that other states replay. */
struct script_load;

/* One mistake or warning. text is complete ("gateway.lua:12: pool \"chat\": unknown key ..."). */
typedef void script_report_fn(void *owner, bool is_error, const char *text);

/*
 * Loads file, reporting every mistake; NULL when there was an error. Warnings alone do not fail. Validates too (config_validate()).
 */
struct script_load *script_load_file(const char *file, script_report_fn *report, void *owner);
/* Looks at what was declared and adds its own mistakes and warnings by add(adder, ...). A declaration with mistakes may lack any of its texts. */
typedef void script_add_fn(void *adder, struct config_place place, bool is_error, const char *text);
typedef void script_look_fn(void *owner, const struct config *config, script_add_fn *add, void *adder);
/* The same with a look before the mistakes are told, so that all come together in the order of lines. */
struct script_load *script_load_look(const char *file, script_report_fn *report, script_look_fn *look, void *owner);
struct config *script_load_config(struct script_load *load); /* borrowed */
void script_load_free(struct script_load **load);

/* Whether this version reads key in the declaration word ("pool", "listener tls", ...). */
bool script_option_known(const char *word, const char *key);

/* The one implementation of script_ops; its open() takes a struct script_load. */
extern const struct script_ops script_lua_ops;

/*
 * Starts the monitor thread that ends overrunning functions (requirements E30); call before any worker opens a state.
 * Stop after all are closed.
 */
void script_monitor_start(void);
void script_monitor_stop(void);

#endif
