/* SPDX-License-Identifier: MIT */
/*
 * tls_make: a self-signed certificate, so that the demo and the tests can speak TLS without any ceremony.
 *
 * P-256, because every client takes it and it is made in a millisecond. It is an end-entity certificate, not a CA: who
 * trusts it trusts this name and nothing else. Both files are made 0600 before a byte of the key is in them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/tls_private.h"

#define TLS_MAKE_DAYS 365

/* The private file of a PEM object; NULL with errno set. */
static FILE *tls_make_open(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    FILE *file;

    if (fd < 0)
        return NULL;
    file = fchmod(fd, 0600) == 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return file;
}

static bool tls_make_close(FILE *file, bool written) {
    bool closed = fclose(file) == 0;

    return written && closed;
}

static bool tls_make_add(X509 *x509, int nid, const char *value) {
    X509_EXTENSION *extension;
    X509V3_CTX context;
    bool ok;

    X509V3_set_ctx(&context, x509, x509, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    ok = extension && X509_add_ext(x509, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

static bool tls_make_push_name(GENERAL_NAMES *list, const char *name) {
    GENERAL_NAME *entry = GENERAL_NAME_new();
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);
    ASN1_IA5STRING *text = NULL;

    if (entry && address) {
        GENERAL_NAME_set0_value(entry, GEN_IPADD, address);
    } else if (entry && (text = ASN1_IA5STRING_new()) != NULL && ASN1_STRING_set(text, name, -1) == 1) {
        GENERAL_NAME_set0_value(entry, GEN_DNS, text);
    } else {
        ASN1_IA5STRING_free(text);
        ASN1_OCTET_STRING_free(address);
        GENERAL_NAME_free(entry);
        return false;
    }
    if (sk_GENERAL_NAME_push(list, entry) > 0)
        return true;
    GENERAL_NAME_free(entry);
    return false;
}

/* Built by hand, as the textual form would give commas in a name a meaning. */
static bool tls_make_add_names(X509 *x509, const char *const *names) {
    GENERAL_NAMES *list = sk_GENERAL_NAME_new_null();
    bool ok = list != NULL;

    for (; ok && *names; names++)
        ok = tls_make_push_name(list, *names);
    if (ok && sk_GENERAL_NAME_num(list) > 0)
        ok = X509_add1_ext_i2d(x509, NID_subject_alt_name, list, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(list);
    return ok;
}

static bool tls_make_set_serial(X509 *x509) {
    unsigned char bytes[8];
    uint64_t serial;

    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    memcpy(&serial, bytes, sizeof(serial));
    return ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), serial >> 1 | 1) == 1; /* positive and not 0 */
}

static bool tls_make_fill(X509 *x509, EVP_PKEY *key, const char *common_name, const char *const *names) {
    static const char *const none[] = {NULL};
    X509_NAME *subject = X509_get_subject_name(x509);
    unsigned char *name = (unsigned char *)(uintptr_t)common_name; /* OpenSSL 3.0 forgot a const */

    return X509_set_version(x509, 2) == 1 && tls_make_set_serial(x509) &&
           X509_gmtime_adj(X509_getm_notBefore(x509), -3600) && /* clocks differ a little */
           X509_gmtime_adj(X509_getm_notAfter(x509), 86400L * TLS_MAKE_DAYS) &&
           X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, name, -1, -1, 0) == 1 &&
           X509_set_issuer_name(x509, subject) == 1 && X509_set_pubkey(x509, key) == 1 &&
           tls_make_add(x509, NID_basic_constraints, "critical,CA:FALSE") &&
           tls_make_add(x509, NID_key_usage, "critical,digitalSignature") &&
           tls_make_add(x509, NID_ext_key_usage, "serverAuth") &&
           tls_make_add(x509, NID_subject_key_identifier, "hash") && tls_make_add_names(x509, names ? names : none) &&
           X509_sign(x509, key, EVP_sha256()) > 0;
}

static bool tls_make_write(X509 *x509, EVP_PKEY *key, const char *cert_path, const char *key_path) {
    FILE *file = tls_make_open(key_path);

    if (!file || !tls_make_close(file, PEM_write_PKCS8PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1))
        return false;
    file = tls_make_open(cert_path);
    return file && tls_make_close(file, PEM_write_X509(file, x509) == 1);
}

bool tls_make_certificate(const char *common_name, const char *const *names, const char *cert_path,
                          const char *key_path) {
    EVP_PKEY *key;
    X509 *x509;
    bool ok;

    errno = 0;
    ERR_clear_error();
    key = EVP_EC_gen("P-256");
    x509 = X509_new();
    ok = key && x509 && tls_make_fill(x509, key, common_name, names) &&
         tls_make_write(x509, key, cert_path, key_path);
    X509_free(x509);
    EVP_PKEY_free(key);
    return ok;
}
