/* SPDX-License-Identifier: MIT */
/*
 * addr: parsing and printing of numeric addresses and CIDR blocks. IPv4 has one form here: a mapped IPv6
 * address becomes IPv4 when parsed, printed, compared or shrunk. The subtle thing: inside addr_small and cidr
 * both families are 16 bytes with IPv4 mapped, but an IPv6 block never holds an IPv4 address unless it lies
 * wholly in the mapped range: "::/0" means all of IPv6.
 */
#include "base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/digits.h"
#include "base/str.h"

static const uint8_t addr_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool addr_split(struct span text, struct span *host, uint16_t *port) {
    struct span name = text, rest = SPAN_NULL;
    if (text.n && text.p[0] == '[') {
        const char *end = memchr(text.p, ']', text.n);
        if (!end)
            return false;
        name = span_make(text.p + 1, (size_t)(end - text.p) - 1);
        rest = span_make(end + 1, text.n - name.n - 2);
    } else {
        const char *colon = memchr(text.p ? text.p : "", ':', text.n);
        if (colon) {
            name.n = (size_t)(colon - text.p);
            rest = span_make(colon, text.n - name.n);
        }
    }
    if (name.n == 0)
        return false;
    *host = name;
    *port = 0;
    if (rest.n == 0)
        return true;
    uint64_t number;
    if (rest.p[0] != ':' || rest.n > 6 || !str_parse_u63(span_make(rest.p + 1, rest.n - 1), &number))
        return false;
    if (number < 1 || number > 65535)
        return false;
    *port = (uint16_t)number;
    return true;
}

static bool addr_parse_unix(struct span path, struct addr *out) {
    if (path.n < 2 || path.n >= sizeof(out->sa.un.sun_path) || path.p[0] != '/' || memchr(path.p, 0, path.n))
        return false;
    memset(out, 0, sizeof(*out));
    out->sa.un.sun_family = AF_UNIX;
    memcpy(out->sa.un.sun_path, path.p, path.n);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
    return true;
}

/* text without brackets, v6 says which family it must be. */
static bool addr_parse_number(struct span text, bool v6, struct addr_small *out) {
    char copy[INET6_ADDRSTRLEN];
    if (text.n == 0 || memchr(text.p, 0, text.n) || !str_copy(copy, sizeof(copy), text))
        return false;
    memset(out, 0, sizeof(*out));
    if (v6) {
        if (inet_pton(AF_INET6, copy, out->ip) != 1)
            return false;
    } else {
        memcpy(out->ip, addr_mapped, sizeof(addr_mapped));
        if (inet_pton(AF_INET, copy, out->ip + 12) != 1)
            return false;
    }
    out->family = memcmp(out->ip, addr_mapped, sizeof(addr_mapped)) == 0 ? AF_INET : AF_INET6;
    return true;
}

bool addr_parse(struct span text, uint16_t default_port, struct addr *out) {
    if (str_starts(text, SPAN("unix:")))
        return addr_parse_unix(span_make(text.p + 5, text.n - 5), out);
    struct span host;
    uint16_t port;
    if (!addr_split(text, &host, &port))
        return false;
    if (port == 0)
        port = default_port;
    struct addr_small small;
    if (port == 0 || !addr_parse_number(host, text.p[0] == '[', &small))
        return false;
    small.port = port;
    *out = addr_expand(&small);
    return true;
}

bool addr_parse_ip(struct span text, struct addr_small *out) {
    if (text.n > 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
        return addr_parse_number(span_make(text.p + 1, text.n - 2), true, out);
    return addr_parse_number(text, text.n && memchr(text.p, ':', text.n), out);
}

struct addr addr_expand(const struct addr_small *small) {
    struct addr out;
    memset(&out, 0, sizeof(out));
    if (small->family == AF_INET) {
        out.len = sizeof(out.sa.in);
        out.sa.in.sin_family = AF_INET;
        out.sa.in.sin_port = htons(small->port);
        memcpy(&out.sa.in.sin_addr, small->ip + 12, 4);
    } else if (small->family == AF_INET6) {
        out.len = sizeof(out.sa.in6);
        out.sa.in6.sin6_family = AF_INET6;
        out.sa.in6.sin6_port = htons(small->port);
        memcpy(&out.sa.in6.sin6_addr, small->ip, 16);
    }
    return out;
}

struct addr_small addr_shrink(const struct addr *addr) {
    struct addr_small small;
    memset(&small, 0, sizeof(small));
    if (addr->len == 0)
        return small;
    sa_family_t family = addr->sa.any.sa_family;
    if (family == AF_INET) {
        memcpy(small.ip, addr_mapped, sizeof(addr_mapped));
        memcpy(small.ip + 12, &addr->sa.in.sin_addr, 4);
        small.port = ntohs(addr->sa.in.sin_port);
    } else if (family == AF_INET6) {
        memcpy(small.ip, &addr->sa.in6.sin6_addr, 16);
        small.port = ntohs(addr->sa.in6.sin6_port);
        if (memcmp(small.ip, addr_mapped, sizeof(addr_mapped)) == 0)
            family = AF_INET;
    } else if (family != AF_UNIX) {
        return small;
    }
    small.family = (uint8_t)family;
    return small;
}

/* The path of a unix address: empty for a peer that was never bound, "@name" cut to "@" for an abstract one. */
static struct span addr_unix_path(const struct addr *addr) {
    size_t head = offsetof(struct sockaddr_un, sun_path);
    if (addr->len <= head)
        return SPAN("");
    if (addr->sa.un.sun_path[0] == '\0')
        return SPAN("@");
    size_t room = addr->len - head;
    if (room > sizeof(addr->sa.un.sun_path))
        room = sizeof(addr->sa.un.sun_path);
    return span_make(addr->sa.un.sun_path, strnlen(addr->sa.un.sun_path, room));
}

/* On the path of every request, so without printf, which inet_ntop() uses. */
static const char *addr_format_ip4(const uint8_t *ip, char *out) {
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        n += digits_format(out + n, ip[i]);
        out[n++] = i < 3 ? '.' : '\0';
    }
    return out;
}

const char *addr_small_format_ip(const struct addr_small *addr, char *out) {
    const char *text = "-";
    if (addr->family == AF_INET)
        text = addr_format_ip4(addr->ip + 12, out);
    else if (addr->family == AF_INET6)
        text = inet_ntop(AF_INET6, addr->ip, out, ADDR_TEXT_MAX);
    else if (addr->family == AF_UNIX)
        text = "unix:";
    if (text != out)
        (void)str_copy(out, ADDR_TEXT_MAX, span_of(text ? text : "-"));
    return out;
}

const char *addr_format_ip(const struct addr *addr, char *out) {
    struct addr_small small = addr_shrink(addr);
    return addr_small_format_ip(&small, out);
}

const char *addr_format(const struct addr *addr, char *out) {
    struct addr_small small = addr_shrink(addr);
    char ip[ADDR_TEXT_MAX];
    if (small.family == AF_UNIX) {
        struct span path = addr_unix_path(addr);
        snprintf(out, ADDR_TEXT_MAX, "unix:%.*s", SPAN_ARGS(path));
    } else if (small.family == AF_INET) {
        snprintf(out, ADDR_TEXT_MAX, "%.64s:%u", addr_small_format_ip(&small, ip), (unsigned)small.port);
    } else if (small.family == AF_INET6) {
        snprintf(out, ADDR_TEXT_MAX, "[%.64s]:%u", addr_small_format_ip(&small, ip), (unsigned)small.port);
    } else {
        addr_small_format_ip(&small, out);
    }
    return out;
}

uint16_t addr_port(const struct addr *addr) { return addr_shrink(addr).port; }

bool addr_equal(const struct addr *a, const struct addr *b) {
    struct addr_small x = addr_shrink(a), y = addr_shrink(b);
    if (x.family != y.family || x.port != y.port || memcmp(x.ip, y.ip, sizeof(x.ip)) != 0)
        return false;
    return x.family != AF_UNIX || span_equal(addr_unix_path(a), addr_unix_path(b));
}

bool addr_is_wildcard(const struct addr *addr) {
    static const uint8_t none[16];
    struct addr_small small = addr_shrink(addr);
    if (small.family == AF_INET)
        return memcmp(small.ip + 12, none, 4) == 0;
    return small.family == AF_INET6 && memcmp(small.ip, none, 16) == 0;
}

bool addr_is_loopback(const struct addr *addr) {
    switch (addr->sa.any.sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(addr->sa.in.sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&addr->sa.in6.sin6_addr);
    default:
        return false;
    }
}

/* Whether the first `bits` bits of a and b are the same. */
static bool cidr_same_bits(const uint8_t *a, const uint8_t *b, unsigned bits) {
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

bool cidr_parse(struct span text, struct cidr *out) {
    struct span ip = text;
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    if (slash)
        ip.n = (size_t)(slash - text.p);
    struct addr_small small;
    if (!addr_parse_ip(ip, &small))
        return false;
    bool v4_text = memchr(ip.p, ':', ip.n) == NULL;
    uint64_t bits = v4_text ? 32 : 128;
    if (slash) {
        struct span number = span_make(slash + 1, text.n - ip.n - 1);
        uint64_t max = bits;
        if (number.n > 3 || !str_parse_u63(number, &bits) || bits > max)
            return false;
    }
    if (v4_text)
        bits += 96;
    uint8_t masked[16] = {0};
    memcpy(masked, small.ip, bits / 8);
    if (bits % 8)
        masked[bits / 8] = (uint8_t)(small.ip[bits / 8] & (0xff00u >> (bits % 8)));
    if (memcmp(masked, small.ip, sizeof(masked)) != 0)
        return false;
    memcpy(out->ip, masked, sizeof(masked));
    out->bits = (uint8_t)bits;
    return true;
}

bool cidr_match(const struct cidr *cidr, const struct addr_small *addr) {
    if (addr->family != AF_INET && addr->family != AF_INET6)
        return false;
    if (addr->family == AF_INET && cidr->bits < 96)
        return false;
    return cidr_same_bits(cidr->ip, addr->ip, cidr->bits);
}

bool cidr_match_any(const struct cidr *list, unsigned count, const struct addr_small *addr) {
    for (unsigned i = 0; i < count; i++)
        if (cidr_match(&list[i], addr))
            return true;
    return false;
}
