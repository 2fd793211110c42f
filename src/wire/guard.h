/* SPDX-License-Identifier: MIT */
/*
 * guard: checks every byte of a whole HTTP/1 head by the rules of requirements A1-A7 and fills the message.
 * Stricter than http-parser, on purpose: what two readers could take in two ways is refused.
 */
#ifndef MOONGATE_WIRE_GUARD_H
#define MOONGATE_WIRE_GUARD_H

#include "wire/http1.h"

/* data[0..n) ends with the empty line. HTTP1_OK fills message (fields, framing, keep_alive); HTTP1_BAD fills error. */
enum http1_result guard_request(const char *data, size_t n, const struct http1_limits *limits,
                                struct http_message *message, struct http1_error *error);
enum http1_result guard_response(const char *data, size_t n, const struct http1_limits *limits,
                                 enum http_method request_method, struct http_message *message,
                                 struct http1_error *error);

#endif
