/* SPDX-License-Identifier: MIT */
/*
 * addr: socket addresses (IPv4, IPv6, unix) and CIDR blocks. An IPv4-mapped IPv6 address is treated
 * and printed as IPv4, so that rules need one form only.
 */
#ifndef MOONGATE_BASE_ADDR_H
#define MOONGATE_BASE_ADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>

#include "base/span.h"

struct addr {
    socklen_t len; /* 0: none */
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } sa;
};

#define ADDR_TEXT_MAX 128

/* A client address without the unix path: 20 bytes for where thousands are kept (ten thousand tunnels). */
struct addr_small {
    uint8_t ip[16]; /* IPv4 as mapped */
    uint16_t port;  /* host order */
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX or 0 */
};

/*
 * "1.2.3.4:80", "[::1]:80", "unix:/path", with default_port for those without one (0: a port is
 * required). Numeric only: false for a host name or anything malformed.
 */
bool addr_parse(struct span text, uint16_t default_port, struct addr *out);
/*
 * Splits "host[:port]" / "[v6]:port" for names and numbers alike: host without brackets, *port 0 when
 * there is none. False if malformed. Not for unix:.
 */
bool addr_split(struct span text, struct span *host, uint16_t *port);
/* "1.2.3.4:80", "[::1]:80", "unix:/path" into out[ADDR_TEXT_MAX]; returns out. */
const char *addr_format(const struct addr *addr, char *out);
/* The IP alone ("1.2.3.4", "::1", "unix:"), into out[ADDR_TEXT_MAX]; returns out. */
const char *addr_format_ip(const struct addr *addr, char *out);
const char *addr_small_format_ip(const struct addr_small *addr, char *out);
uint16_t addr_port(const struct addr *addr);
bool addr_equal(const struct addr *a, const struct addr *b);
struct addr_small addr_shrink(const struct addr *addr);
/* The reverse, IPv4 as such; .len 0 unless the family is AF_INET or AF_INET6 (a unix path is not kept). */
struct addr addr_expand(const struct addr_small *addr);
/* 0.0.0.0 or [::]. */
bool addr_is_wildcard(const struct addr *addr);
/* 127.0.0.0/8, [::1] or a unix path: certainly on this host. */
bool addr_is_loopback(const struct addr *addr);
/* Parses an IP without port ("1.2.3.4", "::1", "[::1]"). */
bool addr_parse_ip(struct span text, struct addr_small *out);

struct cidr {
    uint8_t ip[16]; /* IPv4 as mapped */
    uint8_t bits;   /* 0..128, of the mapped form */
};

/* "10.0.0.0/8", "::1/128", "1.2.3.4". Bits set behind the prefix are an error. */
bool cidr_parse(struct span text, struct cidr *out);
bool cidr_match(const struct cidr *cidr, const struct addr_small *addr);
bool cidr_match_any(const struct cidr *list, unsigned count, const struct addr_small *addr);

#endif
