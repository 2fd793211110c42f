/* SPDX-License-Identifier: MIT */
/*
 * option_kinds: all tables of options in the order of the manual. The program reads by them, and a lint compares the
 * manual with them, so a key cannot be added in one place only.
 */
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
