/* SPDX-License-Identifier: MIT */
/*
 * What a request prefers: of several pools the first with a live server, in it the server that its affinity cookie stands
 * for, else the balancer's. And the cookie that an answer carries when the client's is missing or stands for another
 * server.
 *
 * The subtle one: a pool is passed over when all its live servers failed this very request, so that a retry leaves a
 * region whose probes have not noticed yet; and it is waited for while its first probe is out, as a single pool is.
 */
#include <stdio.h>

#include "base/str.h"
#include "traffic/request_steps.h"

/* Some server may take the request: the one that the action names, or any that is live; not tried ones unless again. */
static bool request_may_use(const struct request *request, const struct pool *pool, bool again) {
    struct span name = request->decide.action->forward.server;
    const struct server *named = name.p ? pool_find_server(pool, name) : NULL;
    if (name.p)
        return named && server_state(named) == SERVER_UP && (again || !pool_was_tried(&request->tried, named));
    for (unsigned i = 0; i < pool->server_count; i++)
        if (server_is_live(pool->servers[i]) && (again || !pool_was_tried(&request->tried, pool->servers[i])))
            return true;
    return false;
}

static bool request_may_wait(const struct request *request, const struct pool *pool) {
    struct span name = request->decide.action->forward.server;
    bool in_time = request->wait_until_ms == 0 || loop_now_ms(request->worker->loop) < request->wait_until_ms;
    return in_time && pool_is_pending(pool) && (!name.p || pool_find_server(pool, name));
}

static void request_set_pool(struct request *request, unsigned index) {
    if (request->pool_index == index)
        return;
    request_stop_waiting(request); /* in the other one's queue */
    request->pool_index = index;
    request->pool = request->local->generation->pools[index];
}

void request_choose_pool(struct request *request) {
    const struct action *action = request->decide.action;
    unsigned count = action->forward.other_count;
    for (unsigned again = 0; again < 2 && count > 0; again++) {
        for (unsigned i = 0; i <= count; i++) {
            unsigned index = i == 0 ? action->forward.pool : action->forward.others[i - 1];
            const struct pool *pool = request->local->generation->pools[index];
            if (request_may_use(request, pool, again) || (!again && request_may_wait(request, pool))) {
                request_set_pool(request, index);
                return;
            }
        }
    }
}

static struct span request_cookie(const struct request *request) {
    return subject_cookie(&request->subject, span_of(request->pool->config->affinity.cookie));
}

static bool request_has_affinity(const struct request *request) {
    return request->pool && request->pool->config->affinity.cookie && !request->decide.action->forward.server.p;
}

static struct server *request_follow_cookie(const struct request *request) {
    const struct pool *pool = request->pool;
    struct span cookie = request_cookie(request);
    unsigned i = cookie.n > 0 ? pool_find_affinity(pool, cookie) : pool->server_count;
    if (i == pool->server_count)
        return NULL;
    struct server *server = pool->servers[i];
    return server_is_live(server) && server_has_room(server) && !pool_was_tried(&request->tried, server) ? server : NULL;
}

static uint64_t request_key(const struct request *request) {
    const struct subject *subject = &request->subject;
    struct span key = request->decide.action->forward.key;
    if (key.p)
        return str_hash(key);
    const struct addr_small *client = subject->client.family ? &subject->client : &subject->peer;
    return str_hash(span_make((const char *)client->ip, sizeof client->ip));
}

struct server *request_choose_server(struct request *request) {
    struct server *server = request_has_affinity(request) ? request_follow_cookie(request) : NULL;
    if (server)
        return server;
    bool keyed = request->pool->config->balance == CONFIG_BALANCE_HASH;
    return balance_pick(request->local->balances[request->pool_index], request->tried.count > 0 ? &request->tried : NULL,
                        keyed ? request_key(request) : 0);
}

/* Ours, then what other pools have put into the same cookie; nothing that a client made up is sent back. */
static struct span request_make_value(struct request *request, const char *ours) {
    char text[AFFINITY_VALUES_MAX * AFFINITY_VALUE_SIZE];
    struct span rest = request_cookie(request), other;
    size_t n = AFFINITY_VALUE_SIZE - 1;
    memcpy(text, ours, n);
    while (n + AFFINITY_VALUE_SIZE <= sizeof text && affinity_next(&rest, &other)) {
        if (pool_find_affinity(request->pool, other) < request->pool->server_count)
            continue;
        text[n] = '.';
        memcpy(text + n + 1, other.p, other.n);
        n += AFFINITY_VALUE_SIZE;
    }
    return arena_dup(&request->subject.arena, span_make(text, n));
}

/* Path=/; SameSite; HttpOnly; Secure; Max-Age. Browsers refuse SameSite=None without Secure: there it is left out. */
static struct span request_make_cookie(struct request *request, struct span value) {
    static const char *const sites[] = {
        [CONFIG_SAME_SITE_LAX] = "Lax", [CONFIG_SAME_SITE_STRICT] = "Strict", [CONFIG_SAME_SITE_NONE] = "None"};
    const struct config_affinity *affinity = &request->pool->config->affinity;
    bool secure = span_equal(span_of(request->subject.scheme), SPAN("https"));
    bool site = secure || affinity->same_site != CONFIG_SAME_SITE_NONE;
    char age[40] = "";
    if (affinity->ttl_ms > 0)
        snprintf(age, sizeof age, "; Max-Age=%u", (unsigned)((affinity->ttl_ms + 999ull) / 1000));
    return arena_printf(&request->subject.arena, "%s=%.*s; Path=/%s; HttpOnly%s%s%s", affinity->cookie,
                        SPAN_ARGS(value), age, secure ? "; Secure" : "", site ? "; SameSite=" : "",
                        site ? sites[affinity->same_site] : "");
}

bool request_add_affinity(struct request *request, struct http_message *head) {
    const struct pool *pool = request->pool;
    if (!request_has_affinity(request) || !request->server)
        return true;
    unsigned said = pool_find_affinity(pool, request_cookie(request));
    if (said < pool->server_count && pool->servers[said] == request->server)
        return true;
    struct span value = request_make_value(request, request->server->affinity);
    struct span cookie = value.p ? request_make_cookie(request, value) : value;
    return cookie.p && http_add(head, SPAN("Set-Cookie"), cookie);
}

const char *request_affinity(const struct request *request) {
    if (!request_has_affinity(request) || !request->last_server)
        return NULL;
    unsigned i = pool_find_affinity(request->pool, request_cookie(request));
    if (i == request->pool->server_count)
        return "new";
    return request->pool->servers[i] == request->last_server ? "kept" : "moved";
}
