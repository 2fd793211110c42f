/* SPDX-License-Identifier: MIT */
/*
 * tls_tickets: the keys that seal session tickets, one ring for the whole process.
 *
 * Every context of every listener, worker and generation uses this ring, so that a session may be resumed by any of
 * them; the session-id context keeps listeners apart. Tickets are sealed with the current key and opened with any
 * of the three: "previous" for those from before the last rotation, "next" so that several processes that are given
 * one ring may rotate at slightly different times. A ticket opened by another key than the current is renewed.
 * The subtle thing: workers read while the control thread rotates, hence the lock; it is held for a copy of one key.
 */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tls_private.h"

struct tls_ticket_key {
    unsigned char name[16]; /* travels in clear in front of the ticket (RFC 5077 section 4) */
    unsigned char cipher[32];
    unsigned char mac[32];
};

enum { TLS_KEY_PREVIOUS, TLS_KEY_CURRENT, TLS_KEY_NEXT, TLS_KEY_COUNT };

static struct tls_ticket_key tls_ring[TLS_KEY_COUNT];
static pthread_rwlock_t tls_ring_lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_once_t tls_ring_once = PTHREAD_ONCE_INIT;

static void tls_ring_fill(struct tls_ticket_key *key) {
    if (RAND_bytes((unsigned char *)key, sizeof(*key)) != 1) {
        fputs("moongate: no randomness for ticket keys\n", stderr);
        abort(); /* guessable keys would be worse than no service */
    }
}

static void tls_ring_make(void) {
    for (int i = 0; i < TLS_KEY_COUNT; i++)
        tls_ring_fill(&tls_ring[i]);
}

void tls_tickets_init(void) { pthread_once(&tls_ring_once, tls_ring_make); }

void tls_tickets_rotate(void) {
    struct tls_ticket_key fresh;

    tls_tickets_init();
    tls_ring_fill(&fresh);
    pthread_rwlock_wrlock(&tls_ring_lock);
    tls_ring[TLS_KEY_PREVIOUS] = tls_ring[TLS_KEY_CURRENT];
    tls_ring[TLS_KEY_CURRENT] = tls_ring[TLS_KEY_NEXT];
    tls_ring[TLS_KEY_NEXT] = fresh;
    pthread_rwlock_unlock(&tls_ring_lock);
    OPENSSL_cleanse(&fresh, sizeof(fresh));
}

/* The index of the key called name, copied out; -1 if it is none of ours. */
static int tls_ring_find(const unsigned char *name, struct tls_ticket_key *key) {
    int found = -1;

    pthread_rwlock_rdlock(&tls_ring_lock);
    for (int i = 0; i < TLS_KEY_COUNT && found < 0; i++) {
        if (CRYPTO_memcmp(tls_ring[i].name, name, sizeof(key->name)) == 0) {
            *key = tls_ring[i];
            found = i;
        }
    }
    pthread_rwlock_unlock(&tls_ring_lock);
    return found;
}

static bool tls_ticket_start_mac(EVP_MAC_CTX *mac, struct tls_ticket_key *key) {
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof(key->mac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* -1: fail; 0: not ours, a full handshake; 1: resume; 2: resume and send a fresh ticket. */
static int tls_ticket_callback(SSL *ssl, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH],
                               EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal) {
    struct tls_ticket_key key;
    int result = -1;

    (void)ssl;
    if (seal) {
        pthread_rwlock_rdlock(&tls_ring_lock);
        key = tls_ring[TLS_KEY_CURRENT];
        pthread_rwlock_unlock(&tls_ring_lock);
        memcpy(name, key.name, sizeof(key.name));
        if (RAND_bytes(iv, 16) == 1 && EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.cipher, iv) == 1 &&
            tls_ticket_start_mac(mac, &key))
            result = 1;
    } else {
        int index = tls_ring_find(name, &key);
        if (index < 0)
            return 0;
        if (tls_ticket_start_mac(mac, &key) &&
            EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.cipher, iv) == 1)
            result = index == TLS_KEY_CURRENT ? 1 : 2;
    }
    OPENSSL_cleanse(&key, sizeof(key));
    return result;
}

void tls_tickets_use(SSL_CTX *context) {
    tls_tickets_init();
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, tls_ticket_callback);
}
