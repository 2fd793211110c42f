/* SPDX-License-Identifier: MIT */
/*
 * parser: the second reading of a head, by http-parser. It has a header of its own because http_parser.h and http.h
 * both name an enum http_method; it knows spans only. Private to src/wire.
 */
#ifndef MOONGATE_WIRE_PARSER_H
#define MOONGATE_WIRE_PARSER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

struct parser_head {
    bool is_response;
    /* Called for each field in order, value without leading white space; false ends the reading as a difference. */
    bool (*on_field)(void *owner, struct span name, struct span value);
    void *owner;
    /* What http-parser saw: */
    struct span method; /* its own name for it */
    struct span target;
    struct span reason;
    uint16_t major, minor, status;
    uint64_t content_length; /* when has_content_length */
    bool has_content_length, chunked;
    bool close, keep_alive, connection_upgrade; /* tokens of Connection, and of Proxy-Connection */
    bool upgrade;                               /* an Upgrade field that is not empty */
};

/* Runs http-parser over data[0..n), exactly one head. False when it refuses, stops elsewhere, or on_field says so. */
bool parser_read(struct parser_head *head, const char *data, size_t n);
/* True for the methods http-parser knows, in upper case; any other cannot be read a second time. */
bool parser_knows_method(struct span name);

#endif
