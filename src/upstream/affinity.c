/* SPDX-License-Identifier: MIT */
/*
 * The affinity cookie's value: HMAC-SHA256 over the server's name, the first half of it in hex. The pool's name is not
 * in it, so that two pools with the same servers and the same cookie keep a client together.
 *
 * The key must survive a restart, be unknown to clients and need no file of ours: the machine's id is all that
 * (machine-id(5) asks to be used only like this, as the key of a hash of one's own). Several gateways for the same
 * clients need one key, which is what the pool's `affinity.key` is for.
 */
#include "upstream/affinity.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

#define AFFINITY_DIGEST 32
#define AFFINITY_ID_MIN 32 /* hex digits of a machine's id; "uninitialized" is shorter */

static pthread_once_t affinity_once = PTHREAD_ONCE_INIT;
static char affinity_machine[64];
static size_t affinity_machine_size;

static void affinity_read_machine(void) {
    int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n = fd >= 0 ? read(fd, affinity_machine, sizeof affinity_machine) : -1;
    if (fd >= 0)
        close(fd);
    affinity_machine_size = n > 0 ? (size_t)n : 0;
    while (affinity_machine_size > 0 && affinity_machine[affinity_machine_size - 1] == '\n')
        affinity_machine_size--;
    if (affinity_machine_size >= AFFINITY_ID_MIN)
        return;
    log_warn("affinity without a key, and no id in /etc/machine-id: each restart moves every client once (give the pool's "
             "affinity a key)");
    affinity_machine_size = sizeof affinity_machine;
    if (RAND_bytes((unsigned char *)affinity_machine, (int)affinity_machine_size) != 1)
        mem_abort();
}

void affinity_value(const struct config_affinity *affinity, const char *name, char out[AFFINITY_VALUE_SIZE]) {
    static const char digits[] = "0123456789abcdef", purpose[] = "moongate affinity ";
    struct span key = span_of(affinity->key);
    if (!key.p) {
        pthread_once(&affinity_once, affinity_read_machine);
        key = span_make(affinity_machine, affinity_machine_size);
    }
    unsigned char digest[EVP_MAX_MD_SIZE];
    char *text = mem_printf("%s%s", purpose, name);
    if (!HMAC(EVP_sha256(), key.p, (int)key.n, (const unsigned char *)text, strlen(text), digest, NULL))
        mem_abort(); /* it can only be short of memory */
    mem_free(text);
    for (size_t i = 0; i < AFFINITY_DIGEST / 2; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[AFFINITY_VALUE_SIZE - 1] = '\0';
}

static bool affinity_is_value(struct span text) {
    for (size_t i = 0; i < text.n; i++)
        if (!((text.p[i] >= '0' && text.p[i] <= '9') || (text.p[i] >= 'a' && text.p[i] <= 'f')))
            return false;
    return text.n == AFFINITY_VALUE_SIZE - 1;
}

bool affinity_next(struct span *rest, struct span *value) {
    while (rest->n > 0) {
        const char *dot = memchr(rest->p, '.', rest->n);
        size_t n = dot ? (size_t)(dot - rest->p) : rest->n;
        *value = span_make(rest->p, n);
        n += dot ? 1 : 0;
        *rest = span_make(rest->p + n, rest->n - n);
        if (affinity_is_value(*value))
            return true;
    }
    return false;
}
