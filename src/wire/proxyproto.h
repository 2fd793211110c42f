/* SPDX-License-Identifier: MIT */
/*
 * proxyproto: the PROXY protocol (haproxy.org, proxy-protocol.txt, revision 2020/03/05): a header in front of all
 * other bytes of a connection that tells which addresses it had before a proxy. Version 1 is one line of text,
 * version 2 is binary.
 */
#ifndef MOONGATE_WIRE_PROXYPROTO_H
#define MOONGATE_WIRE_PROXYPROTO_H

#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"

#define PROXYPROTO_MAX 4096      /* bytes of a header that is read, TLVs included */
#define PROXYPROTO_WRITE_MAX 128 /* bytes of a header that is written */

enum proxyproto_version { PROXYPROTO_NONE, PROXYPROTO_V1, PROXYPROTO_V2 };

struct proxyproto {
    enum proxyproto_version version;
    bool local;                      /* UNKNOWN, LOCAL, or no address in it: the connection's own addresses hold */
    struct addr source, destination; /* .len 0 when local; a unix one may have no path */
};

enum proxyproto_result {
    PROXYPROTO_MORE, /* all bytes so far may begin a header */
    PROXYPROTO_OK,
    PROXYPROTO_BAD   /* no header, a malformed one, or one above PROXYPROTO_MAX */
};

/*
 * Reads the header at the front of data. PROXYPROTO_OK: *used of the n bytes are the header, *out is filled.
 * PROXYPROTO_BAD: *reason says why (static). Bytes that do not begin like a header are BAD from the first one on, and it
 * never says MORE for PROXYPROTO_MAX bytes. TLVs are skipped, unread.
 */
enum proxyproto_result proxyproto_parse(const char *data, size_t n, struct proxyproto *out, size_t *used,
                                        const char **reason);
/*
 * Writes a header into out[PROXYPROTO_WRITE_MAX]; returns its size. version is V1 or V2. Family 0 of source: our own
 * connection, UNKNOWN or LOCAL. A destination that is not known is written as zeros; IPv4 beside IPv6 as mapped; what
 * is neither as a proxied connection of no known family.
 */
size_t proxyproto_write(char *out, enum proxyproto_version version, const struct addr_small *source,
                        const struct addr_small *destination);

#endif
