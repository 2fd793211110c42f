/* SPDX-License-Identifier: MIT */
/*
 * proxyproto: reading and writing of PROXY headers, versions 1 and 2.
 *
 * Reading is strict, since an address that is believed comes of it: one space between words, no leading zeros, only
 * the families that the specification lists. What it calls to be ignored is ignored: the rest of an UNKNOWN line, the
 * block of LOCAL, the TLVs.
 * The subtle thing: whether bytes can still become a header is judged by the bytes that are there, so that a client
 * that sends something else is told at once and not by a timeout; the two signatures differ in their first byte.
 */
#include "wire/proxyproto.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

#define PROXYPROTO_V1_LINE_MAX 107 /* bytes, with CR LF (section 2.1) */
#define PROXYPROTO_V2_HEAD 16
#define PROXYPROTO_UNIX_PATH 108

static const char proxyproto_v1_start[] = "PROXY ";
static const char proxyproto_v2_start[] = "\r\n\r\n\0\r\nQUIT\n";

enum { PROXYPROTO_V1_START = sizeof proxyproto_v1_start - 1, PROXYPROTO_V2_START = sizeof proxyproto_v2_start - 1 };

static enum proxyproto_result proxyproto_bad(const char **reason, const char *text) {
    *reason = text;
    return PROXYPROTO_BAD;
}

/* --- version 1 --- */

/* The word before the next space, which must be there unless it is the last one. */
static bool proxyproto_word(struct span *rest, bool last, struct span *word) {
    const char *space = rest->n > 0 ? memchr(rest->p, ' ', rest->n) : NULL;
    if ((space == NULL) != last)
        return false;
    *word = span_make(rest->p, space ? (size_t)(space - rest->p) : rest->n);
    size_t step = word->n + (space ? 1 : 0);
    *rest = span_make(rest->p + step, rest->n - step);
    return word->n > 0;
}

static bool proxyproto_port(struct span text, uint16_t *port) {
    uint64_t number;
    if (text.n > 5 || (text.n > 1 && text.p[0] == '0') || !str_parse_u63(text, &number) || number > 65535)
        return false;
    *port = (uint16_t)number;
    return true;
}

/* addr_parse_ip() takes brackets, too; here they are no address. */
static bool proxyproto_ip(struct span text, bool v6, struct addr_small *out) {
    bool colon = memchr(text.p, ':', text.n) != NULL;
    return colon == v6 && text.p[0] != '[' && addr_parse_ip(text, out);
}

/* line: without "PROXY " and CR LF. */
static bool proxyproto_read_line(struct span line, struct proxyproto *out) {
    struct span family = line, word[4];
    const char *space = line.n > 0 ? memchr(line.p, ' ', line.n) : NULL;
    if (space)
        family.n = (size_t)(space - line.p);
    if (span_equal(family, SPAN("UNKNOWN"))) {
        out->local = true;
        return true;
    }
    bool v6 = span_equal(family, SPAN("TCP6"));
    if (!space || (!v6 && !span_equal(family, SPAN("TCP4"))))
        return false;
    struct span rest = span_make(space + 1, line.n - family.n - 1);
    for (unsigned i = 0; i < 4; i++)
        if (!proxyproto_word(&rest, i == 3, &word[i]))
            return false;
    struct addr_small source, destination;
    if (!proxyproto_ip(word[0], v6, &source) || !proxyproto_ip(word[1], v6, &destination) ||
        !proxyproto_port(word[2], &source.port) || !proxyproto_port(word[3], &destination.port))
        return false;
    out->source = addr_expand(&source);
    out->destination = addr_expand(&destination);
    return true;
}

static enum proxyproto_result proxyproto_parse_v1(const char *data, size_t n, struct proxyproto *out, size_t *used,
                                                  const char **reason) {
    size_t look = n < PROXYPROTO_V1_LINE_MAX ? n : PROXYPROTO_V1_LINE_MAX;
    for (size_t i = PROXYPROTO_V1_START; i < look; i++) {
        if (data[i] == '\n' || data[i] == '\0')
            return proxyproto_bad(reason, "malformed PROXY line");
        if (data[i] != '\r')
            continue;
        if (i + 1 == look)
            break;
        struct span line = span_make(data + PROXYPROTO_V1_START, i - PROXYPROTO_V1_START);
        if (data[i + 1] != '\n' || !proxyproto_read_line(line, out))
            return proxyproto_bad(reason, "malformed PROXY line");
        *used = i + 2;
        return PROXYPROTO_OK;
    }
    return look < PROXYPROTO_V1_LINE_MAX ? PROXYPROTO_MORE : proxyproto_bad(reason, "PROXY line too long");
}

/* --- version 2 --- */

static void proxyproto_read_inet(const char *block, struct proxyproto *out) {
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    memcpy(&from.sin_addr, block, 4);
    memcpy(&to.sin_addr, block + 4, 4);
    memcpy(&from.sin_port, block + 8, 2);
    memcpy(&to.sin_port, block + 10, 2);
    out->source = (struct addr){.len = sizeof from, .sa.in = from};
    out->destination = (struct addr){.len = sizeof to, .sa.in = to};
}

static void proxyproto_read_inet6(const char *block, struct proxyproto *out) {
    struct sockaddr_in6 from = {.sin6_family = AF_INET6}, to = {.sin6_family = AF_INET6};
    memcpy(&from.sin6_addr, block, 16);
    memcpy(&to.sin6_addr, block + 16, 16);
    memcpy(&from.sin6_port, block + 32, 2);
    memcpy(&to.sin6_port, block + 34, 2);
    out->source = (struct addr){.len = sizeof from, .sa.in6 = from};
    out->destination = (struct addr){.len = sizeof to, .sa.in6 = to};
}

/* A path need not end in NUL there; here it does, so its last byte is given up where all 108 are used. */
static void proxyproto_read_unix(const char *path, struct addr *out) {
    memset(out, 0, sizeof *out);
    out->sa.un.sun_family = AF_UNIX;
    memcpy(out->sa.un.sun_path, path, sizeof out->sa.un.sun_path - 1);
    out->len = sizeof out->sa.un;
}

/* The address block of a PROXY command; false for a family that the specification does not list, or a short block. */
static bool proxyproto_read_block(unsigned char family, const char *block, size_t n, struct proxyproto *out) {
    switch (family) {
    case 0x00: /* unspecified */
        out->local = true;
        return true;
    case 0x11: /* TCP, UDP over IPv4 */
    case 0x12:
        if (n < 12)
            return false;
        proxyproto_read_inet(block, out);
        return true;
    case 0x21: /* over IPv6 */
    case 0x22:
        if (n < 36)
            return false;
        proxyproto_read_inet6(block, out);
        return true;
    case 0x31: /* unix */
    case 0x32:
        if (n < 2 * PROXYPROTO_UNIX_PATH)
            return false;
        proxyproto_read_unix(block, &out->source);
        proxyproto_read_unix(block + PROXYPROTO_UNIX_PATH, &out->destination);
        return true;
    default:
        return false;
    }
}

static enum proxyproto_result proxyproto_parse_v2(const char *data, size_t n, struct proxyproto *out, size_t *used,
                                                  const char **reason) {
    const unsigned char *head = (const unsigned char *)data;
    if (n > 12 && head[12] != 0x20 && head[12] != 0x21)
        return proxyproto_bad(reason, "version or command of the PROXY header");
    if (n < PROXYPROTO_V2_HEAD)
        return PROXYPROTO_MORE;
    size_t length = (size_t)head[14] << 8 | head[15];
    if (length > PROXYPROTO_MAX - PROXYPROTO_V2_HEAD)
        return proxyproto_bad(reason, "PROXY header too long");
    if (n < PROXYPROTO_V2_HEAD + length)
        return PROXYPROTO_MORE;
    if (head[12] == 0x20)
        out->local = true;
    else if (!proxyproto_read_block(head[13], data + PROXYPROTO_V2_HEAD, length, out))
        return proxyproto_bad(reason, "addresses of the PROXY header");
    *used = PROXYPROTO_V2_HEAD + length;
    return PROXYPROTO_OK;
}

/* --- both --- */

static bool proxyproto_begins(const char *data, size_t n, const char *start, size_t size) {
    return memcmp(data, start, n < size ? n : size) == 0;
}

enum proxyproto_result proxyproto_parse(const char *data, size_t n, struct proxyproto *out, size_t *used,
                                        const char **reason) {
    assert(out && used && reason && (data || n == 0));
    memset(out, 0, sizeof *out);
    *used = 0;
    *reason = NULL;
    if (n == 0)
        return PROXYPROTO_MORE;
    if (proxyproto_begins(data, n, proxyproto_v1_start, PROXYPROTO_V1_START)) {
        out->version = PROXYPROTO_V1;
        return n < PROXYPROTO_V1_START ? PROXYPROTO_MORE : proxyproto_parse_v1(data, n, out, used, reason);
    }
    if (proxyproto_begins(data, n, proxyproto_v2_start, PROXYPROTO_V2_START)) {
        out->version = PROXYPROTO_V2;
        return n < PROXYPROTO_V2_START ? PROXYPROTO_MORE : proxyproto_parse_v2(data, n, out, used, reason);
    }
    return proxyproto_bad(reason, "no PROXY header");
}

static bool proxyproto_is_ip(const struct addr_small *addr) {
    return addr->family == AF_INET || addr->family == AF_INET6;
}

/* Through inet_ntop() for the mapped form, which addr.h prints as IPv4. */
static void proxyproto_text(const struct addr_small *addr, bool v6, char *out) {
    const void *bytes = v6 ? addr->ip : addr->ip + 12;
    if (!inet_ntop(v6 ? AF_INET6 : AF_INET, bytes, out, INET6_ADDRSTRLEN))
        out[0] = '\0';
}

static size_t proxyproto_write_v1(char *out, const struct addr_small *source, const struct addr_small *destination,
                                  bool v6) {
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
    proxyproto_text(source, v6, from);
    proxyproto_text(destination, v6, to);
    int n = snprintf(out, PROXYPROTO_WRITE_MAX, "PROXY TCP%c %s %s %u %u\r\n", v6 ? '6' : '4', from, to,
                     (unsigned)source->port, (unsigned)destination->port);
    assert(n > 0 && n <= PROXYPROTO_V1_LINE_MAX);
    return (size_t)n;
}

static size_t proxyproto_write_v2(char *out, const struct addr_small *source, const struct addr_small *destination,
                                  bool v6) {
    size_t skip = v6 ? 0 : 12, size = 16 - skip;
    char *at = out + PROXYPROTO_V2_HEAD;
    uint16_t ports[2] = {htons(source->port), htons(destination->port)};
    memcpy(at, source->ip + skip, size);
    memcpy(at + size, destination->ip + skip, size);
    memcpy(at + 2 * size, ports, sizeof ports);
    out[12] = 0x21;
    out[13] = v6 ? 0x21 : 0x11;
    out[15] = (char)(2 * size + sizeof ports);
    return PROXYPROTO_V2_HEAD + 2 * size + sizeof ports;
}

size_t proxyproto_write(char *out, enum proxyproto_version version, const struct addr_small *source,
                        const struct addr_small *destination) {
    static const char unknown[] = "PROXY UNKNOWN\r\n";
    struct addr_small nowhere = {.family = source->family};
    if (nowhere.family == AF_INET)
        memset(nowhere.ip + 10, 0xff, 2);
    const struct addr_small *to = destination->family ? destination : &nowhere;
    bool known = proxyproto_is_ip(source) && proxyproto_is_ip(to);
    bool v6 = source->family == AF_INET6 || to->family == AF_INET6;
    assert(version == PROXYPROTO_V1 || version == PROXYPROTO_V2);
    if (version == PROXYPROTO_V1) {
        if (known)
            return proxyproto_write_v1(out, source, to, v6);
        memcpy(out, unknown, sizeof unknown - 1);
        return sizeof unknown - 1;
    }
    memcpy(out, proxyproto_v2_start, PROXYPROTO_V2_START);
    memset(out + PROXYPROTO_V2_START, 0, PROXYPROTO_V2_HEAD - PROXYPROTO_V2_START);
    if (known)
        return proxyproto_write_v2(out, source, to, v6);
    out[12] = source->family ? 0x21 : 0x20;
    return PROXYPROTO_V2_HEAD;
}
