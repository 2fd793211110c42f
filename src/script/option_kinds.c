/* SPDX-License-Identifier: MIT */
/*
 * option_kinds: all tables of options in the order of the manual. The program reads by them, and a lint compares the
 * manual with them, so a key cannot be added in one place only.
 */
#include "script/load.h"
#include "script/options.h"

const struct option_kind option_kinds[] = {
    {"settings", option_settings, NULL},
    {"settings access_log", option_access_log, NULL},
    {"listener", option_listener, NULL},
    {"listener tls", option_listener_tls, NULL},
    {"pool", option_pool, NULL},
    {"pool server", option_server, NULL},
    {"pool tls", option_pool_tls, NULL},
    {"pool affinity", option_pool_affinity, NULL},
    {"probe", option_probe, NULL},
    {"route", option_route, option_match},
    {NULL, NULL, NULL},
};

bool script_option_known(const char *word, const char *key) {
    for (const struct option_kind *kind = option_kinds; kind->word; kind++)
        for (int table = 0; strcmp(kind->word, word) == 0 && table < 2; table++)
            for (const struct option *option = table ? kind->more : kind->options; option && option->key; option++)
                if (strcmp(option->key, key) == 0)
                    return option->type != OPTION_LATER;
    return false;
}
