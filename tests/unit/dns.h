/* SPDX-License-Identifier: MIT */
/*
 * dns: a name server for the tests, on a loopback port and a thread of its own. What it knows is set by the test at any
 * time; it can also say SERVFAIL or nothing.
 */
#ifndef MOONGATE_TESTS_DNS_H
#define MOONGATE_TESTS_DNS_H

#include <check.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define DNS_RECORDS_MAX 64
enum { DNS_A = 1, DNS_AAAA = 28, DNS_SRV = 33 };
enum dns_mood { DNS_ANSWERS, DNS_FAILS, DNS_SILENT };

struct dns_record {
    const char *name;
    unsigned type;
    const char *text; /* address; SRV: target */
    unsigned priority, weight, port;
};

struct dns {
    pthread_t thread;
    pthread_mutex_t lock;
    int fd;
    char nameservers[32];
    struct dns_record records[DNS_RECORDS_MAX];
    unsigned count, queries;
    enum dns_mood mood;   /* towards all questions */
    unsigned silent_type; /* this kind is never answered */
    bool stopping;
};

static inline size_t dns_put_name(unsigned char *out, const char *name) {
    size_t used = 0;
    while (*name) {
        size_t n = strcspn(name, ".");
        out[used++] = (unsigned char)n;
        memcpy(out + used, name, n);
        used += n;
        name += n + (name[n] == '.');
    }
    out[used++] = 0;
    return used;
}

static inline size_t dns_put_u16(unsigned char *out, unsigned value) {
    out[0] = (unsigned char)(value >> 8);
    out[1] = (unsigned char)value;
    return 2;
}

static inline size_t dns_put_record(unsigned char *out, const struct dns_record *record) {
    unsigned char data[300];
    size_t n = 0, used = dns_put_u16(out, 0xc00c); /* the question's name */
    if (record->type == DNS_A) {
        ck_assert_int_eq(inet_pton(AF_INET, record->text, data), 1);
        n = 4;
    } else if (record->type == DNS_AAAA) {
        ck_assert_int_eq(inet_pton(AF_INET6, record->text, data), 1);
        n = 16;
    } else {
        n += dns_put_u16(data, record->priority);
        n += dns_put_u16(data + n, record->weight);
        n += dns_put_u16(data + n, record->port);
        n += dns_put_name(data + n, record->text);
    }
    used += dns_put_u16(out + used, record->type);
    used += dns_put_u16(out + used, 1);
    used += dns_put_u16(out + used, 0);
    used += dns_put_u16(out + used, 1); /* lives for a second */
    used += dns_put_u16(out + used, (unsigned)n);
    memcpy(out + used, data, n);
    return used + n;
}

/* Turns the query in bytes into its answer; returns the size, 0 for none. */
static inline size_t dns_answer(struct dns *dns, unsigned char *bytes, size_t n) {
    char name[256] = "";
    size_t at = 12, used = 0;
    while (at < n && bytes[at] != 0) {
        if (used)
            name[used++] = '.';
        memcpy(name + used, bytes + at + 1, bytes[at]);
        used += bytes[at];
        at += 1u + bytes[at];
    }
    unsigned type = (unsigned)bytes[at + 1] << 8 | bytes[at + 2];
    dns->queries++;
    if (dns->mood == DNS_SILENT || dns->silent_type == type)
        return 0;
    size_t end = at + 5;
    unsigned found = 0, known = 0;
    for (unsigned i = 0; i < dns->count && dns->mood == DNS_ANSWERS; i++) {
        known += strcasecmp(dns->records[i].name, name) == 0;
        if (strcasecmp(dns->records[i].name, name) != 0 || dns->records[i].type != type)
            continue;
        end += dns_put_record(bytes + end, &dns->records[i]);
        found++;
    }
    bytes[2] = 0x85;
    bytes[3] = (unsigned char)(0x80 | (dns->mood == DNS_FAILS ? 2 : known ? 0 : 3));
    memset(bytes + 4, 0, 8);
    bytes[5] = 1;
    bytes[7] = (unsigned char)found;
    return end;
}

static inline void *dns_run(void *argument) {
    struct dns *dns = argument;
    for (;;) {
        unsigned char bytes[8192];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(dns->fd, bytes, 512, 0, (struct sockaddr *)&from, &size);
        pthread_mutex_lock(&dns->lock);
        bool stopping = dns->stopping;
        size_t answer = n > 16 && !stopping ? dns_answer(dns, bytes, (size_t)n) : 0;
        pthread_mutex_unlock(&dns->lock);
        if (stopping)
            return NULL;
        if (answer)
            sendto(dns->fd, bytes, answer, 0, (struct sockaddr *)&from, size);
    }
}

static inline void dns_start(struct dns *dns) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof own;
    *dns = (struct dns){.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    pthread_mutex_init(&dns->lock, NULL);
    ck_assert_int_eq(bind(dns->fd, (struct sockaddr *)&own, sizeof own), 0);
    ck_assert_int_eq(getsockname(dns->fd, (struct sockaddr *)&own, &size), 0);
    snprintf(dns->nameservers, sizeof dns->nameservers, "127.0.0.1:%u", (unsigned)ntohs(own.sin_port));
    ck_assert_int_eq(pthread_create(&dns->thread, NULL, dns_run, dns), 0);
}

static inline void dns_stop(struct dns *dns) {
    struct sockaddr_in own;
    socklen_t size = sizeof own;
    ck_assert_int_eq(getsockname(dns->fd, (struct sockaddr *)&own, &size), 0);
    pthread_mutex_lock(&dns->lock);
    dns->stopping = true;
    pthread_mutex_unlock(&dns->lock);
    sendto(dns->fd, "", 1, 0, (struct sockaddr *)&own, size); /* wakes it */
    pthread_join(dns->thread, NULL);
    close(dns->fd);
    pthread_mutex_destroy(&dns->lock);
}

static inline void dns_set(struct dns *dns, const struct dns_record *records, unsigned count) {
    pthread_mutex_lock(&dns->lock);
    ck_assert_uint_le(count, DNS_RECORDS_MAX);
    if (count > 0)
        memcpy(dns->records, records, count * sizeof *records);
    dns->count = count;
    pthread_mutex_unlock(&dns->lock);
}

static inline void dns_set_mood(struct dns *dns, enum dns_mood mood, unsigned silent_type) {
    pthread_mutex_lock(&dns->lock);
    dns->mood = mood;
    dns->silent_type = silent_type;
    pthread_mutex_unlock(&dns->lock);
}

#endif
