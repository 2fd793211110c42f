/* SPDX-License-Identifier: MIT */
/*
 * One connection of the origin: reading, feeding the right reader, writing. Input is read into the origin's scratch
 * memory and used there; only what is left over (half a head, the next pipelined request) is kept. Output is
 * gathered in the origin's buffer and written at once; only what the socket refuses is kept. So an idle connection holds no
 * buffer at all.
 *
 * The subtle thing: nothing is read while anything is still to be written, which is all the back-pressure there is.
 */
#include "cli/origin/peer.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define PEER_IN_MAX (512u << 10)
#define PEER_OUT_MAX (8u << 20)
#define PEER_OUT_HIGH (256u << 10) /* no more input is looked at above this */
#define PEER_ROUNDS 16             /* a turn, so that one large answer starves nobody */
#define PEER_LINGER_MS 2000

enum peer_io { PEER_OK, PEER_AGAIN, PEER_END };

void origin_peer_open(struct origin *origin, int fd) {
    struct origin_peer *peer = mem_alloc(sizeof(*peer));
    peer->origin = origin;
    peer->fd = fd;
    peer->events = EPOLLIN;
    list_append(&origin->peers, &peer->link);
    buf_init(&peer->in, PEER_IN_MAX);
    buf_init(&peer->out, PEER_OUT_MAX);
    buf_init(&peer->collect, ORIGIN_ECHO_MAX + ORIGIN_HEAD_MAX);
    struct epoll_event event = {.events = peer->events, .data.ptr = peer};
    if (epoll_ctl(origin->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        origin_peer_close(peer);
        return;
    }
    if (!origin->tls)
        return;
    peer->ssl = SSL_new(origin->tls);
    if (!peer->ssl || SSL_set_fd(peer->ssl, fd) != 1) {
        origin_peer_close(peer);
        return;
    }
    SSL_set_accept_state(peer->ssl);
}

void origin_peer_close(struct origin_peer *peer) {
    list_remove(&peer->link);
    if (peer->timer.place)
        heap_remove(&peer->origin->timers, &peer->timer);
    if (peer->ssl) {
        ERR_clear_error();
        if (!peer->abrupt && SSL_is_init_finished(peer->ssl))
            SSL_shutdown(peer->ssl);
        SSL_free(peer->ssl);
    }
    close(peer->fd);
    buf_release(&peer->in);
    buf_release(&peer->out);
    buf_release(&peer->collect);
    mem_free(peer);
}

void origin_peer_set_timer(struct origin_peer *peer, uint64_t delay_ms) {
    if (peer->timer.place)
        heap_remove(&peer->origin->timers, &peer->timer);
    peer->timer.key = clock_ms() + delay_ms;
    heap_insert(&peer->origin->timers, &peer->timer);
}

/* --- output --- */

static struct buf *peer_out(struct origin_peer *peer) {
    return buf_empty(&peer->out) ? &peer->origin->out : &peer->out;
}

static void peer_fail(struct origin_peer *peer) {
    peer->closing = peer->abrupt = true;
}

char *origin_peer_put_reserve(struct origin_peer *peer, size_t n) {
    struct buf *out = peer_out(peer);
    if (buf_reserve(out, n))
        return buf_tail(out);
    peer_fail(peer);
    return NULL;
}

void origin_peer_put_commit(struct origin_peer *peer, size_t n) {
    buf_commit(peer_out(peer), n);
}

void origin_peer_put(struct origin_peer *peer, const void *p, size_t n) {
    if (!buf_append(peer_out(peer), p, n))
        peer_fail(peer);
}

void origin_peer_put_text(struct origin_peer *peer, const char *text) {
    if (!buf_append_text(peer_out(peer), text))
        peer_fail(peer);
}

void origin_peer_printf(struct origin_peer *peer, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(text))
        peer_fail(peer);
    else
        origin_peer_put(peer, text, (size_t)n);
}

static enum peer_io peer_ssl_result(struct origin_peer *peer, int result) {
    switch (SSL_get_error(peer->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return PEER_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        peer->write_wanted = true;
        return PEER_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return PEER_END;
    default:
        peer->abrupt = true;
        return PEER_END;
    }
}

/* Writes some of text and then of the pattern; *n counts both. */
static enum peer_io peer_write(struct origin_peer *peer, struct span text, size_t *n) {
    const struct origin *origin = peer->origin;
    *n = 0;
    if (peer->ssl) {
        size_t run = ORIGIN_PATTERN_SIZE - peer->pattern_at;
        struct span piece = text;
        if (piece.n == 0)
            piece = span_make(origin->pattern + peer->pattern_at, run < peer->pattern_left ? run : peer->pattern_left);
        ERR_clear_error();
        int result = SSL_write_ex(peer->ssl, piece.p, piece.n, n);
        return result == 1 ? PEER_OK : peer_ssl_result(peer, result);
    }
    struct iovec parts[9];
    unsigned count = 0;
    if (text.n)
        parts[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)text.p, .iov_len = text.n};
    size_t at = peer->pattern_at;
    for (uint64_t left = peer->pattern_left; left && count < ARRAY_LEN(parts); at = 0) {
        size_t run = ORIGIN_PATTERN_SIZE - at < left ? ORIGIN_PATTERN_SIZE - at : (size_t)left;
        parts[count++] = (struct iovec){.iov_base = origin->pattern + at, .iov_len = run};
        left -= run;
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t written = sendmsg(peer->fd, &message, MSG_NOSIGNAL);
    if (written < 0)
        return errno == EAGAIN || errno == EINTR ? PEER_AGAIN : PEER_END;
    *n = (size_t)written;
    return PEER_OK;
}

/* PEER_OK: all is written. PEER_AGAIN: the rest is kept. */
static enum peer_io peer_flush(struct origin_peer *peer) {
    struct buf *out = peer_out(peer);
    enum peer_io result = PEER_OK;
    for (unsigned round = 0; result == PEER_OK && (out->len || peer->pattern_left); round++) {
        size_t n;
        if (round == PEER_ROUNDS) {
            peer->write_wanted = true;
            result = PEER_AGAIN;
            break;
        }
        result = peer_write(peer, buf_span(out), &n);
        if (result != PEER_OK)
            break;
        size_t from_text = n < out->len ? n : out->len;
        buf_consume(out, from_text);
        n -= from_text;
        peer->pattern_left -= n;
        peer->pattern_at = (peer->pattern_at + n) % ORIGIN_PATTERN_SIZE;
    }
    if (result == PEER_END) {
        buf_consume(out, out->len);
        peer->abrupt = true;
        return PEER_END;
    }
    if (out == &peer->origin->out && out->len) {
        bool kept = buf_append_span(&peer->out, buf_span(out));
        buf_consume(out, out->len);
        if (!kept)
            return PEER_END;
    }
    if (buf_empty(&peer->out))
        buf_release(&peer->out);
    return result;
}

/* --- input --- */

static enum peer_io peer_read(struct origin_peer *peer, size_t *n) {
    char *scratch = peer->origin->scratch;
    if (peer->ssl) {
        ERR_clear_error();
        int result = SSL_read_ex(peer->ssl, scratch, ORIGIN_READ_SIZE, n);
        return result == 1 ? PEER_OK : peer_ssl_result(peer, result);
    }
    ssize_t got = recv(peer->fd, scratch, ORIGIN_READ_SIZE, 0);
    if (got > 0) {
        *n = (size_t)got;
        return PEER_OK;
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return PEER_AGAIN;
    if (got < 0)
        peer->abrupt = true;
    return PEER_END;
}

static size_t peer_use(struct origin_peer *peer, char *data, size_t n) {
    switch (peer->phase) {
    case ORIGIN_PHASE_HEAD:
        return origin_request_head(peer, data, n);
    case ORIGIN_PHASE_BODY:
        return origin_request_body(peer, data, n);
    case ORIGIN_PHASE_FRAMES:
        return origin_websocket_input(peer, data, n);
    case ORIGIN_PHASE_ANSWER:
        return 0;
    case ORIGIN_PHASE_LINGER:
        return n;
    }
    return 0;
}

/* Feeds the readers as long as they take something; returns how much they took. */
static size_t peer_feed(struct origin_peer *peer, char *data, size_t n) {
    size_t off = 0;
    while (off < n && !peer->closing && peer_out(peer)->len < PEER_OUT_HIGH) {
        size_t used = peer_use(peer, data + off, n - off);
        if (used == 0)
            break;
        off += used;
    }
    return off;
}

static bool peer_feed_kept(struct origin_peer *peer) {
    if (buf_empty(&peer->in))
        return false;
    size_t used = peer_feed(peer, peer->in.data + peer->in.off, peer->in.len);
    buf_consume(&peer->in, used);
    if (buf_empty(&peer->in))
        buf_release(&peer->in);
    return used > 0;
}

static void peer_take(struct origin_peer *peer, size_t n) {
    char *data = peer->origin->scratch;
    size_t used = 0;
    if (buf_empty(&peer->in))
        used = peer_feed(peer, data, n);
    if (used < n && !buf_append(&peer->in, data + used, n - used))
        peer_fail(peer);
    peer_feed_kept(peer);
}

/* False when there is nothing more to read in this turn. */
static bool peer_read_once(struct origin_peer *peer, bool *readable) {
    if (!*readable && !(peer->ssl && SSL_pending(peer->ssl) > 0))
        return false;
    *readable = false;
    size_t n = 0;
    switch (peer_read(peer, &n)) {
    case PEER_OK:
        peer_take(peer, n);
        return true;
    case PEER_AGAIN:
        return false;
    case PEER_END:
        break;
    }
    peer->eof = peer->closing = true;
    return true;
}

/* --- the turn --- */

static void peer_watch(struct origin_peer *peer, bool blocked) {
    uint32_t events = 0;
    if (blocked || peer->write_wanted)
        events |= EPOLLOUT;
    if (!blocked && !peer->eof && peer->phase != ORIGIN_PHASE_ANSWER)
        events |= EPOLLIN;
    if (events == peer->events)
        return;
    peer->events = events;
    struct epoll_event event = {.events = events, .data.ptr = peer};
    epoll_ctl(peer->origin->epoll_fd, EPOLL_CTL_MOD, peer->fd, &event);
}

/* Closes; with unread input expected it lingers, so that no RST overtakes the answer. True: the peer is gone. */
static bool peer_finish(struct origin_peer *peer) {
    if (!peer->linger || peer->eof || peer->abrupt) {
        origin_peer_close(peer);
        return true;
    }
    peer->linger = peer->closing = false;
    peer->phase = ORIGIN_PHASE_LINGER;
    buf_release(&peer->in);
    if (peer->ssl) {
        ERR_clear_error();
        SSL_shutdown(peer->ssl);
    }
    shutdown(peer->fd, SHUT_WR);
    origin_peer_set_timer(peer, PEER_LINGER_MS);
    return false;
}

static void peer_turn(struct origin_peer *peer, bool readable) {
    bool blocked = false;
    peer->write_wanted = false;
    for (unsigned round = 0;; round++) {
        enum peer_io flushed = peer_flush(peer);
        if (flushed == PEER_END) {
            origin_peer_close(peer);
            return;
        }
        blocked = flushed == PEER_AGAIN;
        if (blocked)
            break;
        if (peer->closing) {
            if (peer_finish(peer))
                return;
            break;
        }
        if (round == PEER_ROUNDS) {
            peer->write_wanted = true; /* a socket that can be written gives the next turn */
            break;
        }
        if (peer->phase == ORIGIN_PHASE_ANSWER) {
            if (!origin_answer_more(peer))
                break;
        } else if (!peer_feed_kept(peer) && !peer_read_once(peer, &readable)) {
            break;
        }
    }
    peer_watch(peer, blocked);
}

void origin_peer_ready(struct origin_peer *peer, uint32_t events) {
    /* HUP is told when both directions are shut; it is reported always, so it has to end the peer or it would spin. */
    if ((events & EPOLLERR) || ((events & EPOLLHUP) && !(events & EPOLLIN))) {
        peer->abrupt = true;
        origin_peer_close(peer);
        return;
    }
    peer_turn(peer, (events & EPOLLIN) != 0 || peer->ssl != NULL);
}

void origin_peer_expire(struct origin_peer *peer) {
    if (peer->phase == ORIGIN_PHASE_LINGER) {
        peer->abrupt = true;
        origin_peer_close(peer);
        return;
    }
    peer_turn(peer, false);
}
