/* SPDX-License-Identifier: MIT */
/*
 * Faults on demand, for tests only: linked around the program (ld --wrap) as tests/faults/moongate-faults. The file named by
 * MOONGATE_FAULTS is mapped and shared with the test, which writes there what the Nth call of one kind shall give (struct faults);
 * so one running gateway serves a whole sweep.
 *
 * The subtle one is readiness. The loop is edge-triggered, and a short read or EAGAIN that the kernel did not mean brings no further
 * edge. So after such a lie the descriptor is modified to what it was, which makes the kernel look at it again.
 * Small fixed objects (slabs, mem_alloc) are spared: for them the program ends by design.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <lua.h>

#include "base/slab.h"

enum fault_kind {
    FAULT_NONE,
    FAULT_ACCEPT,
    FAULT_SOCKET,
    FAULT_CONNECT,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_EPOLL_CTL,
    FAULT_EPOLL_WAIT,
    FAULT_PIPE,
    FAULT_SPLICE,
    FAULT_BUFFER,
    FAULT_LUA,
    FAULT_OPENSSL
};

/* What the test and we share; tests/e2e/test_faults.py knows the order. */
struct faults {
    _Atomic(uint32_t) kind;
    _Atomic(int32_t) after; /* counts down with each call of the kind; 1: this one fails */
    _Atomic(int32_t) times; /* that many in a row fail */
    _Atomic(uint32_t) error;
    _Atomic(uint32_t) chunk; /* reads and writes move at most so many bytes; 0: as many as they can */
    _Atomic(uint32_t) fired;
};

#define FAULT_DESCRIPTORS 65536

static struct faults faults_none, *faults = &faults_none;
static struct {
    int epoll;
    struct epoll_event event;
} faults_watched[FAULT_DESCRIPTORS];
static _Thread_local unsigned faults_spared;

static bool faults_hit(enum fault_kind kind) {
    if (atomic_load(&faults->kind) != (uint32_t)kind || faults_spared > 0)
        return false;
    int32_t left = atomic_fetch_sub(&faults->after, 1);
    if (left > 1 || left + atomic_load(&faults->times) <= 1)
        return false;
    atomic_fetch_add(&faults->fired, 1);
    errno = (int)atomic_load(&faults->error);
    return true;
}

int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
    if (op != EPOLL_CTL_DEL && faults_hit(FAULT_EPOLL_CTL))
        return -1;
    int result = __real_epoll_ctl(epoll, op, fd, event);
    if (result == 0 && fd >= 0 && fd < FAULT_DESCRIPTORS) {
        faults_watched[fd].epoll = op == EPOLL_CTL_DEL ? -1 : epoll;
        if (op != EPOLL_CTL_DEL)
            faults_watched[fd].event = *event;
    }
    return result;
}

/* We lied about fd: the kernel shall tell its state anew. */
static void faults_look_again(int fd) {
    int saved = errno;
    if (fd >= 0 && fd < FAULT_DESCRIPTORS && faults_watched[fd].epoll > 0)
        __real_epoll_ctl(faults_watched[fd].epoll, EPOLL_CTL_MOD, fd, &faults_watched[fd].event);
    errno = saved;
}

/* A call on fd that is to fail: true, and the kernel looks again where the program will wait for it. */
static bool faults_hit_fd(enum fault_kind kind, int fd) {
    if (!faults_hit(kind))
        return false;
    int saved = errno;
    if (saved == EAGAIN)
        faults_look_again(fd);
    /* A socket that says so is dead for every later call, too. */
    if (saved == EPIPE || saved == ECONNRESET)
        shutdown(fd, SHUT_RDWR);
    errno = saved;
    return true;
}

static size_t faults_shorten(size_t size) {
    size_t chunk = atomic_load(&faults->chunk);
    return chunk != 0 && size > chunk ? chunk : size;
}

int __real_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    /* The connection that an aborted accept was about is gone, too. */
    if (!faults_hit(FAULT_ACCEPT))
        return __real_accept4(fd, addr, len, flags);
    int saved = errno;
    if (saved == ECONNABORTED) {
        int gone = __real_accept4(fd, addr, len, flags);
        if (gone >= 0)
            close(gone);
    }
    errno = saved;
    return -1;
}

int __real_socket(int family, int type, int protocol);
int __wrap_socket(int family, int type, int protocol);
int __wrap_socket(int family, int type, int protocol) {
    return faults_hit(FAULT_SOCKET) ? -1 : __real_socket(family, type, protocol);
}

int __real_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len) {
    return faults_hit(FAULT_CONNECT) ? -1 : __real_connect(fd, addr, len);
}

ssize_t __real_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags) {
    if (faults_hit_fd(FAULT_READ, fd))
        return -1;
    size_t part = flags & MSG_PEEK ? size : faults_shorten(size);
    ssize_t got = __real_recv(fd, data, part, flags);
    if (got > 0 && part < size)
        faults_look_again(fd);
    return got;
}

ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags) {
    if (faults_hit_fd(FAULT_WRITE, fd))
        return -1;
    size_t part = faults_shorten(size);
    ssize_t sent = __real_send(fd, data, part, flags);
    if (sent > 0 && part < size)
        faults_look_again(fd);
    return sent;
}

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
    size_t first = 0;
    while (first + 1 < message->msg_iovlen && message->msg_iov[first].iov_len == 0)
        first++;
    /* Shortened, it is a send of part of its first piece. */
    if (atomic_load(&faults->chunk) != 0) {
        ssize_t sent = __wrap_send(fd, message->msg_iov[first].iov_base, message->msg_iov[first].iov_len, flags);
        if (sent > 0)
            faults_look_again(fd);
        return sent;
    }
    return faults_hit_fd(FAULT_WRITE, fd) ? -1 : __real_sendmsg(fd, message, flags);
}

int __real_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout) {
    return faults_hit(FAULT_EPOLL_WAIT) ? -1 : __real_epoll_wait(epoll, events, max, timeout);
}

int __real_pipe2(int ends[2], int flags);
int __wrap_pipe2(int ends[2], int flags);
int __wrap_pipe2(int ends[2], int flags) { return faults_hit(FAULT_PIPE) ? -1 : __real_pipe2(ends, flags); }

ssize_t __real_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags);
ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags);
ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    if (faults_hit(FAULT_SPLICE)) {
        faults_look_again(in);
        faults_look_again(out);
        return -1;
    }
    return __real_splice(in, in_at, out, out_at, faults_shorten(size), flags);
}

/* --- memory --- */

void *__real_mem_try_alloc(size_t size);
void *__wrap_mem_try_alloc(size_t size);
void *__wrap_mem_try_alloc(size_t size) { return faults_hit(FAULT_BUFFER) ? NULL : __real_mem_try_alloc(size); }

void *__real_mem_try_resize(void *p, size_t size);
void *__wrap_mem_try_resize(void *p, size_t size);
void *__wrap_mem_try_resize(void *p, size_t size) {
    return faults_hit(FAULT_BUFFER) ? NULL : __real_mem_try_resize(p, size);
}

void *__real_slab_get(struct slab *slab);
void *__wrap_slab_get(struct slab *slab);
void *__wrap_slab_get(struct slab *slab) {
    faults_spared++;
    void *object = __real_slab_get(slab);
    faults_spared--;
    return object;
}

void *__real_slab_try_get(struct slab *slab);
void *__wrap_slab_try_get(struct slab *slab);
void *__wrap_slab_try_get(struct slab *slab) {
    if (faults_hit(FAULT_BUFFER))
        return NULL;
    faults_spared++;
    void *object = __real_slab_try_get(slab);
    faults_spared--;
    return object;
}

static lua_Alloc faults_lua_alloc; /* the program has one */

static void *faults_lua_allocate(void *owner, void *p, size_t old_size, size_t new_size) {
    /* Lua counts on it that nothing fails to shrink. */
    if (new_size > 0 && (!p || new_size > old_size) && faults_hit(FAULT_LUA))
        return NULL;
    faults_spared++;
    void *fresh = faults_lua_alloc(owner, p, old_size, new_size);
    faults_spared--;
    return fresh;
}

lua_State *__real_lua_newstate(lua_Alloc allocate, void *owner);
lua_State *__wrap_lua_newstate(lua_Alloc allocate, void *owner);
lua_State *__wrap_lua_newstate(lua_Alloc allocate, void *owner) {
    faults_lua_alloc = allocate;
    return __real_lua_newstate(faults_lua_allocate, owner);
}

static void *faults_openssl_alloc(size_t size, const char *file, int line) {
    (void)file, (void)line;
    return faults_hit(FAULT_OPENSSL) ? NULL : malloc(size);
}

static void *faults_openssl_resize(void *p, size_t size, const char *file, int line) {
    (void)file, (void)line;
    return faults_hit(FAULT_OPENSSL) ? NULL : realloc(p, size);
}

static void faults_openssl_free(void *p, const char *file, int line) {
    (void)file, (void)line;
    free(p);
}

__attribute__((constructor)) static void faults_begin(void) {
    CRYPTO_set_mem_functions(faults_openssl_alloc, faults_openssl_resize, faults_openssl_free);
    const char *path = getenv("MOONGATE_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        faults = shared;
}
