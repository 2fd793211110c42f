/* SPDX-License-Identifier: MIT */
/*
 * Name lookup by c-ares. Two channels: one knows files only, so that a name in /etc/hosts never waits for a name server
 * that answers nothing; the other asks the servers, A and AAAA apart, because a server that drops one kind of question
 * must not take the answers of the other with it.
 *
 * c-ares wants level-triggered readiness that it may change at will, which the loop does not give; so its sockets are in
 * an epoll of their own, and that one stands in the loop. The subtle thing is the life of a job: a question under way
 * cannot be taken back, so a job that is over stays until c-ares has answered (or given up) all of its questions.
 */
#include "upstream/resolve.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define RESOLVE_TARGETS_MAX 32  /* SRV records of one name */
#define RESOLVE_EVENTS 16
#define RESOLVE_TRY_MS 1500     /* until c-ares asks again, twice as long each time */
#define RESOLVE_TRIES 3
#define RESOLVE_SECOND_MS 1000  /* how long the second kind of address may come after the first */

struct resolver {
    struct loop *loop;
    char *nameservers;
    ares_channel files, dns;
    int epoll;
    struct loop_source source;
    struct timer timer;
    unsigned jobs;      /* with questions under way or not yet over */
    struct timespec read_at; /* of resolv.conf */
};

struct resolve_target {
    char *host;
    uint16_t port, priority, weight;
};

/* One question to c-ares. */
struct resolve_query {
    struct resolve *job;
    unsigned target;
    unsigned family; /* 0: files, or SRV records */
};

struct resolve {
    struct resolver *resolver;
    resolve_done_fn *on_done;
    void *owner;
    bool over;
    unsigned pending, waiting_v4, waiting_v6; /* questions under way; of what kind */
    struct timer timer;
    struct resolve_target targets[RESOLVE_TARGETS_MAX];
    unsigned target_count;
    struct resolve_address list[RESOLVE_ANSWERS_MAX];
    unsigned count, failed;
    int status; /* the worst of c-ares; what says most */
};

/* --- the sockets of c-ares --- */

static void resolver_arm(struct resolver *resolver) {
    struct timeval room, *left = ares_timeout(resolver->dns, NULL, &room);
    if (left)
        timer_set(resolver->loop, &resolver->timer, (uint64_t)left->tv_sec * 1000 + (uint64_t)left->tv_usec / 1000 + 1);
    else
        timer_stop(resolver->loop, &resolver->timer);
}

static void resolver_on_timer(struct timer *timer) {
    struct resolver *resolver = container_of(timer, struct resolver, timer);
    ares_process_fd(resolver->dns, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    resolver_arm(resolver);
}

static void resolver_on_ready(struct loop_source *source, uint32_t loop_events) {
    struct resolver *resolver = container_of(source, struct resolver, source);
    struct epoll_event events[RESOLVE_EVENTS];
    (void)loop_events;
    int count = epoll_wait(resolver->epoll, events, RESOLVE_EVENTS, 0);
    for (int i = 0; i < count; i++) {
        bool broken = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;
        int fd = events[i].data.fd;
        ares_process_fd(resolver->dns, broken || events[i].events & EPOLLIN ? fd : ARES_SOCKET_BAD,
                        broken || events[i].events & EPOLLOUT ? fd : ARES_SOCKET_BAD);
    }
    resolver_arm(resolver);
}

static void resolver_on_socket(void *data, ares_socket_t fd, int readable, int writable) {
    struct resolver *resolver = data;
    struct epoll_event event = {.events = (readable ? (uint32_t)EPOLLIN : 0u) | (writable ? (uint32_t)EPOLLOUT : 0u), .data.fd = fd};
    if (!readable && !writable)
        epoll_ctl(resolver->epoll, EPOLL_CTL_DEL, fd, NULL);
    else if (epoll_ctl(resolver->epoll, EPOLL_CTL_MOD, fd, &event) != 0 && errno == ENOENT)
        epoll_ctl(resolver->epoll, EPOLL_CTL_ADD, fd, &event); /* a failure shows as a timeout */
}

static struct timespec resolver_conf_time(void) {
    struct stat info;
    return stat("/etc/resolv.conf", &info) == 0 ? info.st_mtim : (struct timespec){0};
}

static void resolver_open_channel(struct resolver *resolver, ares_channel *channel, const char *lookups) {
    struct ares_options options = {.timeout = RESOLVE_TRY_MS,
                                   .tries = RESOLVE_TRIES,
                                   .lookups = (char *)(uintptr_t)lookups,
                                   .sock_state_cb = resolver_on_socket,
                                   .sock_state_cb_data = resolver};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    if (ares_init_options(channel, &options, mask) != ARES_SUCCESS)
        mem_abort();
}

static void resolver_open(struct resolver *resolver) {
    resolver->read_at = resolver_conf_time();
    resolver_open_channel(resolver, &resolver->files, "f");
    resolver_open_channel(resolver, &resolver->dns, "b");
    if (resolver->nameservers && ares_set_servers_ports_csv(resolver->dns, resolver->nameservers) != ARES_SUCCESS)
        mem_abort(); /* the configuration has checked the text */
}

static void resolver_close(struct resolver *resolver) {
    ares_destroy(resolver->dns);
    ares_destroy(resolver->files);
}

static void resolver_refresh(struct resolver *resolver) {
    struct timespec now = resolver_conf_time();
    if (resolver->jobs == 0 && (now.tv_sec != resolver->read_at.tv_sec || now.tv_nsec != resolver->read_at.tv_nsec)) {
        resolver_close(resolver);
        resolver_open(resolver);
    }
}

static void resolver_init_library(void) {
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        mem_abort();
}

struct resolver *resolver_new(struct loop *loop, const char *nameservers) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, resolver_init_library);
    struct resolver *resolver = mem_alloc(sizeof *resolver);
    resolver->loop = loop;
    resolver->nameservers = mem_strdup(nameservers);
    resolver->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop_source_init(&resolver->source, resolver_on_ready);
    timer_init(&resolver->timer, resolver_on_timer);
    if (resolver->epoll < 0 || !loop_add_level(loop, resolver->epoll, &resolver->source))
        mem_abort();
    resolver_open(resolver);
    return resolver;
}

void resolver_free(struct resolver **slot) {
    struct resolver *resolver = *slot;
    *slot = NULL;
    if (!resolver)
        return;
    resolver_close(resolver); /* answers what is under way */
    assert(resolver->jobs == 0);
    timer_stop(resolver->loop, &resolver->timer);
    loop_source_detach(&resolver->source);
    loop_remove(resolver->loop, resolver->epoll);
    close(resolver->epoll);
    mem_free(resolver->nameservers);
    mem_free(resolver);
}

/* --- jobs --- */

static void resolve_release(struct resolve *job) {
    if (!job->over || job->pending > 0)
        return;
    job->resolver->jobs--;
    for (unsigned i = 0; i < job->target_count; i++)
        mem_free(job->targets[i].host);
    mem_free(job);
}

/* All answers go through the timer, so that none comes from inside resolve_start(). */
static void resolve_deliver(struct resolve *job, uint64_t delay_ms) {
    if (!job->over)
        timer_set(job->resolver->loop, &job->timer, delay_ms);
}

static bool resolve_has_route(const struct addr *addr) {
    int fd = socket(addr->sa.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno != EAFNOSUPPORT;
    int rc = connect(fd, &addr->sa.any, addr->len); /* sends nothing */
    bool no_route = rc != 0 && (errno == ENETUNREACH || errno == EADDRNOTAVAIL || errno == EHOSTUNREACH);
    close(fd);
    return !no_route;
}

/* Leaves out addresses of a family that this machine has no route to, unless there are no others. */
static void resolve_drop_unreachable(struct resolve *job) {
    unsigned kept = 0, families = 0;
    struct resolve_address *list = mem_alloc_array(RESOLVE_ANSWERS_MAX, sizeof *list);
    for (unsigned i = 0; i < job->count; i++) {
        if (resolve_has_route(&job->list[i].addr))
            list[kept++] = job->list[i];
        else
            families |= job->list[i].addr.sa.any.sa_family == AF_INET ? RESOLVE_V4 : RESOLVE_V6;
    }
    if (kept > 0 && kept < job->count) {
        memcpy(job->list, list, kept * sizeof *list);
        job->count = kept;
        job->failed |= families;
    }
    mem_free(list);
}

static void resolve_on_timer(struct timer *timer) {
    struct resolve *job = container_of(timer, struct resolve, timer);
    bool late = job->pending > 0;
    if (job->waiting_v4 > 0 || (late && job->target_count == 0))
        job->failed |= RESOLVE_V4;
    if (job->waiting_v6 > 0 || (late && job->target_count == 0))
        job->failed |= RESOLVE_V6;
    if (late && job->failed && job->status == ARES_SUCCESS)
        job->status = ARES_ETIMEOUT;
    resolve_drop_unreachable(job);
    struct resolve_answer answer = {.list = job->list, .count = job->count, .failed = job->failed};
    if (job->count == 0) {
        int status = job->status == ARES_SUCCESS ? ARES_ENODATA : job->status;
        bool unknown = status == ARES_ENOTFOUND || status == ARES_ENODATA;
        answer.error = status == ARES_ENOTFOUND ? "no such name" : status == ARES_ENODATA ? "the name has no address" : ares_strerror(status);
        answer.hint = unknown ? "check the name" : "check /etc/resolv.conf, or name servers in settings { nameservers = { ... } }";
    }
    job->over = true;
    job->on_done(job->owner, &answer);
    resolve_release(job);
}

static struct resolve_query *resolve_query_new(struct resolve *job, unsigned target, unsigned family) {
    struct resolve_query *query = mem_alloc(sizeof *query);
    *query = (struct resolve_query){.job = job, .target = target, .family = family};
    job->pending++;
    job->waiting_v4 += family == RESOLVE_V4;
    job->waiting_v6 += family == RESOLVE_V6;
    return query;
}

/* The question is answered; what it found is noted already. */
static void resolve_query_end(struct resolve_query *query, int status) {
    struct resolve *job = query->job;
    job->pending--;
    job->waiting_v4 -= query->family == RESOLVE_V4;
    job->waiting_v6 -= query->family == RESOLVE_V6;
    bool no_answer = status != ARES_SUCCESS && status != ARES_ENOTFOUND && status != ARES_ENODATA;
    if (no_answer)
        job->failed |= query->family ? query->family : RESOLVE_V4 | RESOLVE_V6;
    bool worse = no_answer || job->status == ARES_SUCCESS || job->status == ARES_ENODATA;
    if (status != ARES_SUCCESS && worse)
        job->status = status;
    mem_free(query);
    if (job->over)
        resolve_release(job);
    else if (job->pending == 0)
        resolve_deliver(job, 0);
    else if (job->count > 0 && job->timer.deadline_ms > loop_now_ms(job->resolver->loop) + RESOLVE_SECOND_MS)
        resolve_deliver(job, RESOLVE_SECOND_MS);
}

static void resolve_add(struct resolve *job, const struct resolve_target *target, const struct sockaddr *from, socklen_t size) {
    struct resolve_address found = {.host = target->host, .priority = target->priority, .weight = target->weight};
    if (from->sa_family == AF_INET && size == sizeof found.addr.sa.in) {
        memcpy(&found.addr.sa.in, from, size);
        found.addr.sa.in.sin_port = htons(target->port);
    } else if (from->sa_family == AF_INET6 && size == sizeof found.addr.sa.in6) {
        memcpy(&found.addr.sa.in6, from, size);
        found.addr.sa.in6.sin6_port = htons(target->port);
    } else {
        return;
    }
    found.addr.len = size;
    for (unsigned i = 0; i < job->count; i++)
        if (addr_equal(&job->list[i].addr, &found.addr))
            return;
    if (job->count < RESOLVE_ANSWERS_MAX)
        job->list[job->count++] = found;
}

static void resolve_on_host(void *data, int status, int timeouts, struct ares_addrinfo *info) {
    struct resolve_query *query = data;
    struct resolve *job = query->job;
    (void)timeouts;
    for (struct ares_addrinfo_node *node = info ? info->nodes : NULL; node && !job->over; node = node->ai_next)
        resolve_add(job, &job->targets[query->target], node->ai_addr, node->ai_addrlen);
    if (info)
        ares_freeaddrinfo(info);
    resolve_query_end(query, status);
}

static void resolve_ask_dns(struct resolve *job, unsigned target, unsigned family) {
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT,
                                        .ai_family = family == RESOLVE_V4 ? AF_INET : AF_INET6,
                                        .ai_socktype = SOCK_STREAM};
    ares_getaddrinfo(job->resolver->dns, job->targets[target].host, NULL, &hints, resolve_on_host,
                     resolve_query_new(job, target, family));
}

/* What /etc/hosts knows is all there is; else the name servers are asked. */
static void resolve_on_file(void *data, int status, int timeouts, struct ares_addrinfo *info) {
    struct resolve_query *query = data;
    struct resolve *job = query->job;
    if (status != ARES_SUCCESS && status != ARES_EDESTRUCTION && !job->over) {
        resolve_ask_dns(job, query->target, RESOLVE_V4);
        resolve_ask_dns(job, query->target, RESOLVE_V6);
        status = ARES_SUCCESS; /* what counts is what they say */
    }
    resolve_on_host(query, status, timeouts, info);
}

static void resolve_ask_host(struct resolve *job, unsigned target) {
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    ares_getaddrinfo(job->resolver->files, job->targets[target].host, NULL, &hints, resolve_on_file,
                     resolve_query_new(job, target, 0));
}

static void resolve_on_srv(void *data, int status, int timeouts, unsigned char *bytes, int size) {
    struct resolve_query *query = data;
    struct resolve *job = query->job;
    struct ares_srv_reply *records = NULL;
    (void)timeouts;
    if (status == ARES_SUCCESS)
        status = ares_parse_srv_reply(bytes, size, &records);
    for (struct ares_srv_reply *it = records; it && !job->over && job->target_count < RESOLVE_TARGETS_MAX; it = it->next) {
        if (it->port == 0 || it->host[0] == '\0') /* target ".": decidedly none (RFC 2782) */
            continue;
        job->targets[job->target_count++] = (struct resolve_target){
            .host = mem_strdup(it->host), .port = it->port, .priority = it->priority, .weight = it->weight};
    }
    for (unsigned i = 0; i < job->target_count && !job->over; i++)
        resolve_ask_host(job, i);
    ares_free_data(records);
    resolve_query_end(query, status);
}

struct resolve *resolve_start(struct resolver *resolver, const char *name, uint16_t port, bool srv, uint32_t timeout_ms,
                              resolve_done_fn *on_done, void *owner) {
    assert(resolver && name && on_done);
    resolver_refresh(resolver);
    struct resolve *job = mem_alloc(sizeof *job);
    resolver->jobs++;
    job->resolver = resolver;
    job->on_done = on_done;
    job->owner = owner;
    timer_init(&job->timer, resolve_on_timer);
    timer_set(resolver->loop, &job->timer, timeout_ms);
    if (srv) {
        ares_search(resolver->dns, name, C_IN, T_SRV, resolve_on_srv, resolve_query_new(job, 0, 0));
    } else {
        job->targets[job->target_count++] = (struct resolve_target){.host = mem_strdup(name), .port = port, .weight = 1};
        resolve_ask_host(job, 0);
    }
    resolver_arm(resolver);
    return job;
}

void resolve_cancel(struct resolve **slot) {
    struct resolve *job = *slot;
    *slot = NULL;
    if (!job)
        return;
    timer_stop(job->resolver->loop, &job->timer);
    job->over = true;
    resolve_release(job);
}
