/* SPDX-License-Identifier: MIT */
/*
 * tls_context: what a TLS session is made from: certificates with their names, trusted CAs, protocol limits.
 *
 * One SSL_CTX a certificate; sessions start under the first and move to another when the SNI says so. Names are
 * sorted once, so that a handshake costs two binary searches however many certificates there are. Everything is
 * read while a configuration loads, and every failure names its file: nothing here can fail later.
 * The subtle thing: OpenSSL's callbacks point at the tls_server, so each session holds a reference to it; a reload
 * may drop the configuration's own while handshakes are still under way.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "io/tls_private.h"

/* RFC 7540 appendix A and RFC 9325 section 4.2 leave these of TLS 1.2: forward secret and AEAD. */
static const char TLS_12_CIPHERS[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

bool tls_context_fail(char *error, const char *format, ...) {
    va_list args;

    va_start(args, format);
    vsnprintf(error, TLS_ERROR_MAX, format, args);
    va_end(args);
    ERR_clear_error();
    return false;
}

const char *tls_queue_reason(void) {
    unsigned long code = ERR_peek_error();
    const char *reason;

    if (code == 0)
        return "unknown error";
    if (ERR_SYSTEM_ERROR(code))
        return strerror(ERR_GET_REASON(code));
    reason = ERR_reason_error_string(code);
    return reason ? reason : "unknown error";
}

/* Settings that servers and clients have in common. NULL when OpenSSL is out of memory. */
static SSL_CTX *tls_context_new(const SSL_METHOD *method) {
    SSL_CTX *context = SSL_CTX_new(method);

    if (!context)
        return NULL;
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    /* Released buffers: an idle session then holds no record. Read-ahead: one recv() a record instead of two,
     * and it lets the BIO see short reads; its buffer is released as well. */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_early_data(context, 0);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, TLS_12_CIPHERS) != 1) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

/* --- certificates --- */

static int tls_context_no_password(char *out, int size, int writing, void *unused) {
    (void)out, (void)size, (void)writing, (void)unused;
    return -1; /* the default would ask on the terminal */
}

static bool tls_context_can_read(const char *what, const char *path, char *error) {
    FILE *file = fopen(path, "re");

    if (!file)
        return tls_context_fail(error, "cannot read %s %s: %s", what, path, strerror(errno));
    fclose(file);
    return true;
}

static bool tls_context_load_key(SSL_CTX *context, const struct tls_certificate *certificate, char *error) {
    FILE *file = fopen(certificate->key, "re");
    EVP_PKEY *key;
    bool ok = false;

    if (!file)
        return tls_context_fail(error, "cannot read key %s: %s", certificate->key, strerror(errno));
    key = PEM_read_PrivateKey(file, NULL, tls_context_no_password, NULL);
    fclose(file);
    if (!key) {
        int reason = ERR_GET_REASON(ERR_peek_last_error());
        if (reason == PEM_R_BAD_PASSWORD_READ || reason == PEM_R_PROBLEMS_GETTING_PASSWORD)
            return tls_context_fail(error, "key %s is encrypted: passwords are not supported", certificate->key);
        return tls_context_fail(error, "key %s: no PEM private key in it", certificate->key);
    }
    if (X509_check_private_key(SSL_CTX_get0_certificate(context), key) != 1)
        tls_context_fail(error, "key %s does not belong to certificate %s", certificate->key, certificate->cert);
    else if (SSL_CTX_use_PrivateKey(context, key) != 1)
        tls_context_fail(error, "key %s: %s", certificate->key, tls_queue_reason());
    else
        ok = true;
    EVP_PKEY_free(key);
    return ok;
}

/* An outdated certificate still serves: clients will complain, and so do we. */
static void tls_context_check_dates(X509 *x509, const char *path, const struct tls_warn *warn) {
    const ASN1_TIME *first = X509_get0_notBefore(x509), *last = X509_get0_notAfter(x509);
    bool expired = X509_cmp_current_time(last) < 0;
    struct tm tm;
    char date[32] = "?", text[TLS_ERROR_MAX];

    if (!expired && X509_cmp_current_time(first) <= 0)
        return;
    if (ASN1_TIME_to_tm(expired ? last : first, &tm) == 1)
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%SZ", &tm);
    snprintf(text, sizeof(text), expired ? "certificate %s has expired (%s)" : "certificate %s is not valid yet (from %s)", path, date);
    if (warn->say)
        warn->say(warn->owner, text);
    else
        log_warn("%s", text);
}

static bool tls_context_load(SSL_CTX *context, const struct tls_certificate *certificate, const struct tls_warn *warn, char *error) {
    if (!tls_context_can_read("certificate", certificate->cert, error))
        return false;
    if (SSL_CTX_use_certificate_chain_file(context, certificate->cert) != 1) {
        if (ERR_GET_REASON(ERR_peek_error()) == PEM_R_NO_START_LINE)
            return tls_context_fail(error, "certificate %s: no PEM certificate in it", certificate->cert);
        return tls_context_fail(error, "certificate %s: %s", certificate->cert, tls_queue_reason());
    }
    if (!tls_context_load_key(context, certificate, error))
        return false;
    tls_context_check_dates(SSL_CTX_get0_certificate(context), certificate->cert, warn);
    return true;
}

/* --- names --- */

/* Lower case and without the trailing dot, into out[TLS_NAME_MAX + 1]; 0 if it can't be a DNS name. */
static size_t tls_name_normalize(struct span name, char *out) {
    if (name.n > 0 && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n == 0 || name.n > TLS_NAME_MAX || memchr(name.p, 0, name.n))
        return 0;
    for (size_t i = 0; i < name.n; i++)
        out[i] = str_lower(name.p[i]);
    out[name.n] = 0;
    return name.n;
}

static void tls_server_add_name(struct tls_server *server, struct span name, unsigned index) {
    char text[TLS_NAME_MAX + 1];

    if (tls_name_normalize(name, text) == 0)
        return;
    server->names = mem_resize(server->names, (server->name_count + 1) * sizeof(*server->names));
    server->names[server->name_count++] = (struct tls_name){mem_strdup(text), index};
}

/* RFC 6125 section 6.4.4: the common name counts only where no DNS name is given. */
static void tls_server_add_common_name(struct tls_server *server, X509 *x509, unsigned index) {
    X509_NAME *subject = X509_get_subject_name(x509);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *text = NULL;
    int n;

    if (at < 0)
        return;
    n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (n > 0)
        tls_server_add_name(server, span_make((char *)text, (size_t)n), index);
    OPENSSL_free(text);
}

static void tls_server_add_names(struct tls_server *server, X509 *x509, unsigned index) {
    GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
    bool any = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS)
            continue;
        any = true;
        tls_server_add_name(server,
                            span_make((const char *)ASN1_STRING_get0_data(name->d.dNSName),
                                      (size_t)ASN1_STRING_length(name->d.dNSName)),
                            index);
    }
    GENERAL_NAMES_free(names);
    if (!any)
        tls_server_add_common_name(server, x509, index);
}

static int tls_name_compare(const void *a, const void *b) {
    const struct tls_name *left = a, *right = b;
    int order = strcmp(left->text, right->text);

    return order ? order : (left->index > right->index) - (left->index < right->index);
}

/* Sorts; where certificates share a name the first keeps it. */
static void tls_server_sort_names(struct tls_server *server) {
    size_t kept = 0;

    if (server->name_count == 0)
        return;
    qsort(server->names, server->name_count, sizeof(*server->names), tls_name_compare);
    for (size_t i = 0; i < server->name_count; i++) {
        if (kept > 0 && strcmp(server->names[kept - 1].text, server->names[i].text) == 0)
            mem_free(server->names[i].text);
        else
            server->names[kept++] = server->names[i];
    }
    server->name_count = kept;
}

static int tls_server_find(const struct tls_server *server, const char *text) {
    size_t low = 0, high = server->name_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(text, server->names[middle].text);
        if (order == 0)
            return (int)server->names[middle].index;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

unsigned tls_server_select(const struct tls_server *server, struct span sni) {
    char text[TLS_NAME_MAX + 1];
    char *dot;
    int index;

    if (tls_name_normalize(sni, text) == 0)
        return 0;
    index = tls_server_find(server, text);
    if (index < 0 && (dot = strchr(text, '.')) != NULL && dot > text) {
        *--dot = '*'; /* "a.b.c" becomes "*.b.c" from here on */
        index = tls_server_find(server, dot);
    }
    return index < 0 ? 0 : (unsigned)index;
}

/* --- callbacks of the handshake --- */

static int tls_server_on_sni(SSL *ssl, int *alert, void *arg) {
    const struct tls_server *server = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    SSL_CTX *context;

    if (!name)
        return SSL_TLSEXT_ERR_NOACK;
    context = server->contexts[tls_server_select(server, span_of(name))];
    if (context != SSL_get_SSL_CTX(ssl) && !SSL_set_SSL_CTX(ssl, context)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* RFC 7301 section 3.2: without a common protocol, no_application_protocol. */
static int tls_server_on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                              const unsigned char *offered, unsigned offered_size, void *arg) {
    const struct tls_server *server = arg;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_size, server->alpn, server->alpn_size, offered, offered_size) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* --- servers --- */

static bool tls_server_set_alpn(struct tls_server *server, const char *const *protocols, char *error) {
    static const char *const standard[] = {"http/1.1", NULL};

    for (const char *const *p = protocols ? protocols : standard; *p; p++) {
        size_t n = strlen(*p);
        if (n == 0 || n > 255 || server->alpn_size + 1 + n > sizeof(server->alpn))
            return tls_context_fail(error, "alpn: \"%.40s\" is empty, or the list is too long", *p);
        server->alpn[server->alpn_size++] = (unsigned char)n;
        memcpy(server->alpn + server->alpn_size, *p, n);
        server->alpn_size += (unsigned)n;
    }
    return true;
}

static bool tls_server_add_context(struct tls_server *server, const struct tls_server_options *options, unsigned index,
                                   int min_version, char *error) {
    const struct tls_certificate *certificate = &options->certificates[index];
    SSL_CTX *context = tls_context_new(TLS_server_method());

    if (!context)
        return tls_context_fail(error, "TLS: %s", tls_queue_reason());
    server->contexts[server->context_count++] = context;
    if (SSL_CTX_set_min_proto_version(context, min_version) != 1 || SSL_CTX_set_num_tickets(context, 1) != 1)
        return tls_context_fail(error, "TLS: %s", tls_queue_reason());
    if (!tls_verify_clients(context, options, error) || !tls_verify_name_sessions(context, options, error))
        return false;
    tls_tickets_use(context);
    SSL_CTX_set_tlsext_servername_callback(context, tls_server_on_sni);
    SSL_CTX_set_tlsext_servername_arg(context, server);
    if (server->alpn_size > 0)
        SSL_CTX_set_alpn_select_cb(context, tls_server_on_alpn, server);
    if (!tls_context_load(context, certificate, &options->warn, error))
        return false;
    if (certificate->name)
        tls_server_add_name(server, span_of(certificate->name), index);
    else
        tls_server_add_names(server, SSL_CTX_get0_certificate(context), index);
    return true;
}

struct tls_server *tls_server_new(const struct tls_server_options *options, char *error) {
    struct tls_server *server = mem_alloc(sizeof(*server));
    const char *min = options->min_version ? options->min_version : "1.2";
    int min_version = strcmp(min, "1.3") == 0 ? TLS1_3_VERSION : TLS1_2_VERSION;
    bool ok;

    atomic_init(&server->references, 1);
    ERR_clear_error();
    server->contexts = mem_alloc_array(options->certificate_count + 1, sizeof(*server->contexts));
    if (options->certificate_count == 0)
        ok = tls_context_fail(error, "TLS needs a certificate");
    else if (min_version == TLS1_2_VERSION && strcmp(min, "1.2") != 0)
        ok = tls_context_fail(error, "TLS version \"%.20s\" is not known: use \"1.2\" or \"1.3\"", min);
    else
        ok = tls_server_set_alpn(server, options->alpn, error);
    for (unsigned i = 0; ok && i < options->certificate_count; i++)
        ok = tls_server_add_context(server, options, i, min_version, error);
    ERR_clear_error();
    if (!ok) {
        tls_server_free(&server);
        return NULL;
    }
    tls_server_sort_names(server);
    return server;
}

struct tls_server *tls_server_ref(const struct tls_server *server) {
    struct tls_server *counted = (struct tls_server *)server; /* all but the count is immutable */

    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void tls_server_free(struct tls_server **server) {
    struct tls_server *old = *server;

    *server = NULL;
    if (!old || atomic_fetch_sub_explicit(&old->references, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < old->context_count; i++)
        SSL_CTX_free(old->contexts[i]);
    for (size_t i = 0; i < old->name_count; i++)
        mem_free(old->names[i].text);
    mem_free(old->contexts);
    mem_free(old->names);
    mem_free(old);
}

/* --- clients --- */

static bool tls_client_load(struct tls_client *client, const struct tls_client_options *options, char *error) {
    static const unsigned char alpn[] = "\x08http/1.1";

    client->context = tls_context_new(TLS_client_method());
    if (!client->context || SSL_CTX_set_alpn_protos(client->context, alpn, sizeof(alpn) - 1) != 0)
        return tls_context_fail(error, "TLS: %s", tls_queue_reason());
    if (options->cert) {
        const struct tls_certificate own = {.cert = options->cert, .key = options->key};
        if (!tls_context_load(client->context, &own, &options->warn, error))
            return false;
    }
    SSL_CTX_set_verify(client->context, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (!options->verify)
        return true;
    if (!options->ca) {
        if (SSL_CTX_set_default_verify_paths(client->context) != 1)
            return tls_context_fail(error, "the system's trusted certificates: %s", tls_queue_reason());
        return true;
    }
    if (!tls_context_can_read("CA file", options->ca, error))
        return false;
    if (SSL_CTX_load_verify_file(client->context, options->ca) != 1)
        return tls_context_fail(error, "CA file %s: no PEM certificate in it", options->ca);
    return true;
}

struct tls_client *tls_client_new(const struct tls_client_options *options, char *error) {
    struct tls_client *client = mem_alloc(sizeof(*client));

    atomic_init(&client->references, 1);
    client->verify = options->verify;
    ERR_clear_error();
    if (!tls_client_load(client, options, error))
        tls_client_free(&client);
    ERR_clear_error();
    return client;
}

struct tls_client *tls_client_ref(const struct tls_client *client) {
    struct tls_client *counted = (struct tls_client *)client; /* all but the count is immutable */

    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return counted;
}

void tls_client_free(struct tls_client **client) {
    struct tls_client *old = *client;

    *client = NULL;
    if (!old || atomic_fetch_sub_explicit(&old->references, 1, memory_order_acq_rel) != 1)
        return;
    SSL_CTX_free(old->context);
    mem_free(old);
}
