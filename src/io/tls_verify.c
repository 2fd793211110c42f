/* SPDX-License-Identifier: MIT */
/*
 * tls_verify: client certificates: who may sign them, what happens without one, and what is told of one.
 *
 * "ask" takes any certificate or none and leaves the judgement to whoever reads tls_peer_cert(); "require" fails the
 * handshake. The CAs are those of the file and no others; they stand in a store of their own, as OpenSSL would else
 * complete our own chain from them.
 * The subtle thing is resumption: a resumed session brings the certificate that was checked when it was new. So its
 * session-id context says which listener, which CAs (the file's bytes, not its name: a reload may have changed them)
 * and which of the two modes checked it, and a ticket whose certificate has expired since is refused.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/str.h"
#include "io/tls_private.h"

/* --- which sessions may be resumed --- */

static bool tls_verify_digest_file(EVP_MD_CTX *digest, const char *path, char *error) {
    FILE *file = fopen(path, "re");
    char bytes[4096];
    bool ok = true;
    size_t n;

    if (!file)
        return tls_context_fail(error, "cannot read CA file %s: %s", path, strerror(errno));
    while (ok && (n = fread(bytes, 1, sizeof(bytes), file)) > 0)
        ok = EVP_DigestUpdate(digest, bytes, n) == 1;
    if (ferror(file))
        ok = tls_context_fail(error, "cannot read CA file %s: %s", path, strerror(errno));
    fclose(file);
    return ok;
}

bool tls_verify_name_sessions(SSL_CTX *context, const struct tls_server_options *options, char *error) {
    struct span id = span_of(options->session_id ? options->session_id : "moongate");
    unsigned char mode = (unsigned char)options->client_cert, name[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool ok;

    snprintf(error, TLS_ERROR_MAX, "TLS: out of memory");
    ok = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
         EVP_DigestUpdate(digest, id.p, id.n + 1) == 1 && EVP_DigestUpdate(digest, &mode, 1) == 1;
    if (ok && options->client_cert != TLS_CLIENT_CERT_NONE)
        ok = tls_verify_digest_file(digest, options->client_ca, error);
    ok = ok && EVP_DigestFinal_ex(digest, name, &size) == 1 &&
         SSL_CTX_set_session_id_context(context, name, size) == 1;
    EVP_MD_CTX_free(digest);
    return ok;
}

static bool tls_verify_is_over(X509 *x509) { return X509_cmp_current_time(X509_get0_notAfter(x509)) <= 0; }

static SSL_TICKET_RETURN tls_verify_on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t n,
                                              SSL_TICKET_STATUS status, void *unused) {
    X509 *x509;

    (void)name, (void)n, (void)unused;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    x509 = SSL_SESSION_get0_peer(session);
    if (x509 ? tls_verify_is_over(x509) : (SSL_get_verify_mode(ssl) & SSL_VERIFY_FAIL_IF_NO_PEER_CERT) != 0)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* --- set-up --- */

/* Whatever was found stays as the session's verify result. */
static int tls_verify_on_ask(int ok, X509_STORE_CTX *store) {
    (void)ok, (void)store;
    return 1;
}

bool tls_verify_clients(SSL_CTX *context, const struct tls_server_options *options, char *error) {
    bool require = options->client_cert == TLS_CLIENT_CERT_REQUIRE;
    STACK_OF(X509_NAME) *names;
    X509_STORE *store;

    if (options->client_cert == TLS_CLIENT_CERT_NONE)
        return true;
    if (!options->client_ca)
        return tls_context_fail(error, "client certificates need client_ca");
    store = X509_STORE_new();
    if (!store || X509_STORE_load_file(store, options->client_ca) != 1) {
        X509_STORE_free(store);
        return tls_context_fail(error, "client_ca %s: no PEM certificate in it", options->client_ca);
    }
    SSL_CTX_set0_verify_cert_store(context, store);
    names = SSL_load_client_CA_file(options->client_ca);
    if (!names)
        return tls_context_fail(error, "client_ca %s: %s", options->client_ca, tls_queue_reason());
    SSL_CTX_set_client_CA_list(context, names);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (require ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       require ? NULL : tls_verify_on_ask);
    return SSL_CTX_set_session_ticket_cb(context, NULL, tls_verify_on_ticket, NULL) == 1;
}

/* --- what a certificate says --- */

static const char tls_verify_upper[] = "0123456789ABCDEF", tls_verify_lower[] = "0123456789abcdef";

static struct span tls_verify_hex(struct arena *arena, const unsigned char *bytes, size_t n, const char *digits) {
    char *text = arena_alloc(arena, 2 * n + 1);

    if (!text)
        return SPAN_NULL;
    for (size_t i = 0; i < n; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    return span_make(text, 2 * n);
}

/* RFC 2253, in ASCII: whatever is not stands as \XX, so that it may go into a header. */
static struct span tls_verify_name(struct arena *arena, const X509_NAME *name) {
    BIO *memory = BIO_new(BIO_s_mem());
    struct span text = SPAN_NULL;
    char *data;
    long n;

    if (memory && X509_NAME_print_ex(memory, name, 0, XN_FLAG_RFC2253) >= 0) {
        n = BIO_get_mem_data(memory, &data);
        text = n > 0 ? arena_dup(arena, span_make(data, (size_t)n)) : SPAN("");
    }
    BIO_free(memory);
    return text;
}

static struct span tls_verify_serial(struct arena *arena, const X509 *x509) {
    const ASN1_INTEGER *serial = X509_get0_serialNumber(x509);

    return tls_verify_hex(arena, ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial), tls_verify_upper);
}

static struct span tls_verify_fingerprint(struct arena *arena, const X509 *x509) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;

    if (X509_digest(x509, EVP_sha256(), digest, &size) != 1)
        return SPAN_NULL;
    return tls_verify_hex(arena, digest, size, tls_verify_lower);
}

static int64_t tls_verify_time(const ASN1_TIME *time) {
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* "DNS:a.example"; .p NULL for kinds that are not told, and for texts that are no visible ASCII. */
static struct span tls_verify_alternative(struct arena *arena, const GENERAL_NAME *name) {
    const char *kind = name->type == GEN_DNS ? "DNS" : name->type == GEN_EMAIL ? "email" : "URI";
    char ip[INET6_ADDRSTRLEN];
    struct span text;

    if (name->type == GEN_IPADD) {
        int n = ASN1_STRING_length(name->d.iPAddress);
        if ((n != 4 && n != 16) ||
            !inet_ntop(n == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(name->d.iPAddress), ip, sizeof(ip)))
            return SPAN_NULL;
        return arena_printf(arena, "IP:%s", ip);
    }
    if (name->type != GEN_DNS && name->type != GEN_EMAIL && name->type != GEN_URI)
        return SPAN_NULL;
    text = span_make((const char *)ASN1_STRING_get0_data(name->d.ia5), (size_t)ASN1_STRING_length(name->d.ia5));
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] <= ' ' || text.p[i] > '~')
            return SPAN_NULL;
    return arena_printf(arena, "%s:%.*s", kind, SPAN_ARGS(text));
}

static bool tls_verify_alternatives(struct arena *arena, const X509 *x509, struct tls_cert *cert) {
    GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
    int count = sk_GENERAL_NAME_num(names);

    if (count > 0)
        cert->san = arena_alloc(arena, (size_t)count * sizeof(*cert->san));
    for (int i = 0; cert->san && i < count; i++) {
        struct span text = tls_verify_alternative(arena, sk_GENERAL_NAME_value(names, i));
        if (text.p)
            cert->san[cert->san_count++] = text;
    }
    GENERAL_NAMES_free(names);
    return count <= 0 || cert->san;
}

const struct tls_cert *tls_peer_cert(const struct tls *tls, struct arena *arena) {
    const SSL *ssl = tls_session(tls);
    const X509 *x509 = SSL_get0_peer_certificate(ssl);
    struct tls_cert *cert;

    if (!x509 || (cert = arena_alloc(arena, sizeof(*cert))) == NULL)
        return NULL;
    *cert = (struct tls_cert){
        .subject = tls_verify_name(arena, X509_get_subject_name(x509)),
        .issuer = tls_verify_name(arena, X509_get_issuer_name(x509)),
        .serial = tls_verify_serial(arena, x509),
        .fingerprint = tls_verify_fingerprint(arena, x509),
        .not_before = tls_verify_time(X509_get0_notBefore(x509)),
        .not_after = tls_verify_time(X509_get0_notAfter(x509)),
        .verified = SSL_get_verify_result(ssl) == X509_V_OK,
    };
    bool whole = cert->subject.p && cert->issuer.p && cert->serial.p && cert->fingerprint.p;
    whole = tls_verify_alternatives(arena, x509, cert) && whole;
    ERR_clear_error();
    return whole ? cert : NULL;
}
