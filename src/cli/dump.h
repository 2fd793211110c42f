/* SPDX-License-Identifier: MIT */
/* dump: a configuration as JSON values, by jansson. Each function returns a new reference. */
#ifndef MOONGATE_CLI_DUMP_H
#define MOONGATE_CLI_DUMP_H

#include <jansson.h>

#include "config/config.h"

json_t *dump_config(const struct config *config);

json_t *dump_place(struct config_place place); /* "file:line" */
/* A string in UTF-8 (other bytes as U+0080..U+00FF); null for .p NULL. */
json_t *dump_span(struct span text);
json_t *dump_text(const char *text);
/* 0 is null: none. */
json_t *dump_limit(uint64_t value);
/* UINT64_MAX is null: none. */
json_t *dump_body_limit(uint64_t value);
json_t *dump_cidrs(const struct cidr *list, unsigned count);
/* An object of names and values; false where the field is removed; credentials redacted. */
json_t *dump_headers(const struct action_header *list, unsigned count);
json_t *dump_action(const struct config *config, const struct action *action);
json_t *dump_match(const struct match *match);
json_t *dump_pool(const struct config_pool *pool);

#endif
