/* SPDX-License-Identifier: MIT */
/*
 * Name lookup. getaddrinfo() can take many seconds and cannot be interrupted, so it never runs on a thread that
 * has a loop: each late lookup gets a short-lived detached thread. The subtle thing is who frees the job: the
 * thread may outlive the one who asked, so both ends look at `loop` under a lock: cancelled before the answer, the
 * thread frees; posted, the letter frees.
 */
#include "upstream/resolve.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/mem.h"

struct resolve {
    struct message message;
    pthread_mutex_t lock;
    struct loop *loop; /* NULL: cancelled; under lock */
    void (*on_done)(void *owner, const struct addr *addr, const char *error); /* NULL: cancelled; the loop's thread */
    void *owner;
    char *host;
    uint16_t port;
    struct addr addr;
    const char *error;
};

const char *resolve_now(const char *host, uint16_t port, struct addr *out) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &list);
    if (rc != 0)
        return rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc);
    const char *error = "no IPv4 or IPv6 address";
    for (const struct addrinfo *it = list; it && error; it = it->ai_next) {
        *out = (struct addr){0};
        if (it->ai_family == AF_INET && it->ai_addrlen == sizeof out->sa.in) {
            memcpy(&out->sa.in, it->ai_addr, sizeof out->sa.in);
            out->sa.in.sin_port = htons(port);
        } else if (it->ai_family == AF_INET6 && it->ai_addrlen == sizeof out->sa.in6) {
            memcpy(&out->sa.in6, it->ai_addr, sizeof out->sa.in6);
            out->sa.in6.sin6_port = htons(port);
        } else {
            continue;
        }
        out->len = it->ai_addrlen;
        error = NULL;
    }
    freeaddrinfo(list);
    return error;
}

static void resolve_destroy(struct resolve *job) {
    pthread_mutex_destroy(&job->lock);
    mem_free(job->host);
    mem_free(job);
}

static void resolve_deliver(struct message *message) {
    struct resolve *job = container_of(message, struct resolve, message);
    /* The poster may still be inside its unlock. */
    pthread_mutex_lock(&job->lock);
    pthread_mutex_unlock(&job->lock);
    if (job->on_done)
        job->on_done(job->owner, &job->addr, job->error);
    resolve_destroy(job);
}

static void *resolve_run(void *argument) {
    struct resolve *job = argument;
    struct addr addr = {0};
    job->error = resolve_now(job->host, job->port, &addr);
    job->addr = addr;
    pthread_mutex_lock(&job->lock);
    bool wanted = job->loop != NULL;
    if (wanted)
        loop_post(job->loop, &job->message, resolve_deliver);
    pthread_mutex_unlock(&job->lock);
    if (!wanted)
        resolve_destroy(job);
    return NULL;
}

struct resolve *resolve_start(struct loop *loop, const char *host, uint16_t port,
                              void (*on_done)(void *owner, const struct addr *addr, const char *error), void *owner) {
    assert(loop && host && on_done);
    struct resolve *job = mem_alloc(sizeof *job);
    pthread_mutex_init(&job->lock, NULL);
    job->loop = loop;
    job->on_done = on_done;
    job->owner = owner;
    job->host = mem_strdup(host);
    job->port = port;
    /* Signals belong to the control thread's signal descriptor. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    int rc = pthread_create(&thread, &attr, resolve_run, job);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        resolve_destroy(job);
        return NULL;
    }
    return job;
}

void resolve_cancel(struct resolve **job) {
    struct resolve *j = *job;
    *job = NULL;
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->on_done = NULL;
    j->loop = NULL;
    pthread_mutex_unlock(&j->lock);
}
