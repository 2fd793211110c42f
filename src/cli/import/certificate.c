/* SPDX-License-Identifier: MIT */
/*
 * certificate: PEM files from the PFX (PKCS #12) that a template carries or the command line names, for listeners; and from the
 * certificates that backends or clients are trusted by. Without a folder to write to, or without a PFX (a Key Vault keeps it), the path is a
 * placeholder that does not exist, which `moongate check` names.
 *
 * The subtle things: keys are created readable for their owner alone and never over a file that exists; a PFX made by older
 * Windows needs OpenSSL's legacy provider, which is loaded only when the first try fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/provider.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/import/arm.h"

#define CERTIFICATE_FILE_MAX (1 << 20)

struct certificate {
    EVP_PKEY *key;
    X509 *leaf;
    STACK_OF(X509) *others;
};

static void certificate_fini(struct certificate *certificate) {
    EVP_PKEY_free(certificate->key);
    X509_free(certificate->leaf);
    sk_X509_pop_free(certificate->others, X509_free);
    *certificate = (struct certificate){0};
}

/* The bytes of base64 text; false when it is none. */
static bool certificate_decode(const char *text, struct buf *out) {
    size_t n = strlen(text);
    EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
    int first = 0, last = 0;
    bool ok = context && n > 0 && n < INT_MAX && buf_reserve(out, n + 4);
    if (ok) {
        EVP_DecodeInit(context);
        ok = EVP_DecodeUpdate(context, (unsigned char *)buf_tail(out), &first, (const unsigned char *)text, (int)n) >= 0 &&
            EVP_DecodeFinal(context, (unsigned char *)buf_tail(out) + first, &last) == 1;
    }
    if (ok)
        buf_commit(out, (size_t)(first + last));
    EVP_ENCODE_CTX_free(context);
    return ok && out->len > 0;
}

static bool certificate_read_file(struct arm *arm, const char *path, struct buf *out) {
    FILE *file = fopen(path, "rbe");
    if (!file || !buf_reserve(out, CERTIFICATE_FILE_MAX)) {
        (void)snprintf(arm->error, sizeof(arm->error), "%s: %s", path, file ? "too large" : strerror(errno));
        if (file)
            (void)fclose(file);
        return false;
    }
    size_t n = fread(buf_tail(out), 1, CERTIFICATE_FILE_MAX, file);
    (void)fclose(file);
    buf_commit(out, n);
    if (n == 0 || n == CERTIFICATE_FILE_MAX)
        (void)snprintf(arm->error, sizeof(arm->error), "%s: %s", path, n ? "too large" : "empty or not a file");
    return n > 0 && n < CERTIFICATE_FILE_MAX;
}

static bool certificate_try(PKCS12 *pfx, const char *password, struct certificate *out) {
    bool ok = PKCS12_parse(pfx, password, &out->key, &out->leaf, &out->others) == 1 && out->key && out->leaf;
    if (!ok)
        certificate_fini(out);
    ERR_clear_error();
    return ok;
}

/* With the template's own password, those of the command line, none. NULL, or why not. */
static const char *certificate_open(struct arm *arm, struct span bytes, const char *own, struct certificate *out) {
    const unsigned char *p = (const unsigned char *)bytes.p;
    PKCS12 *pfx = d2i_PKCS12(NULL, &p, (long)bytes.n);
    ERR_clear_error();
    if (!pfx)
        return "it is no PFX";
    OSSL_PROVIDER *legacy = NULL, *standard = NULL;
    bool ok = false;
    for (int round = 0; round < 2 && !ok; round++) {
        if (round == 1) {
            legacy = OSSL_PROVIDER_load(NULL, "legacy");
            standard = OSSL_PROVIDER_load(NULL, "default");
            if (!legacy)
                break;
        }
        ok = own && certificate_try(pfx, own, out);
        for (unsigned i = 0; !ok && i < arm->options.password_count; i++)
            ok = certificate_try(pfx, arm->options.passwords[i], out);
        ok = ok || certificate_try(pfx, "", out) || certificate_try(pfx, NULL, out);
    }
    ERR_clear_error();
    PKCS12_free(pfx);
    if (!ok) {
        OSSL_PROVIDER_unload(legacy);
        OSSL_PROVIDER_unload(standard);
    }
    return ok ? NULL : "no password opens it (--pfx-password), or it holds no key with its certificate";
}

/* A new file that must not be there yet. */
static FILE *certificate_create(struct arm *arm, const char *path, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        (void)snprintf(arm->error, sizeof(arm->error), "cannot write %s: %s%s", path, strerror(errno),
                       errno == EEXIST ? " (remove it, or name another folder)" : "");
        if (fd >= 0)
            close(fd);
    }
    return file;
}

/* The leaf, then each issuer that is there; the root, which clients have, is left out. */
static bool certificate_write_chain(FILE *file, const struct certificate *from) {
    X509 *current = from->leaf;
    bool ok = PEM_write_X509(file, current) == 1;
    for (int steps = 0; ok && steps < sk_X509_num(from->others); steps++) {
        X509 *next = NULL;
        for (int i = 0; i < sk_X509_num(from->others) && !next; i++) {
            X509 *other = sk_X509_value(from->others, i);
            if (X509_NAME_cmp(X509_get_subject_name(other), X509_get_issuer_name(current)) == 0 && X509_cmp(other, current) != 0 &&
                X509_NAME_cmp(X509_get_subject_name(other), X509_get_issuer_name(other)) != 0)
                next = other;
        }
        if (!next)
            break;
        ok = PEM_write_X509(file, next) == 1;
        current = next;
    }
    return ok;
}

static const char *certificate_path(struct arm *arm, const char *name, const char *end) {
    struct buf clean;
    buf_init(&clean, 4096);
    for (const char *p = name; *p; p++) /* a name is never a path */
        buf_append(&clean, str_is_tchar((unsigned char)*p) && *p != '*' && *p != '\'' && !(p == name && *p == '.') ? p : "-", 1);
    const char *path = arm_format(arm, "%.*s%s", SPAN_ARGS(buf_span(&clean)), end);
    buf_release(&clean);
    if (!arm->options.pfx_out)
        return path;
    char folder[PATH_MAX]; /* absolute: nobody knows yet where the Moongate file will stand */
    return arm_format(arm, "%s/%s", realpath(arm->options.pfx_out, folder) ? folder : arm->options.pfx_out, path);
}

static bool certificate_close(struct arm *arm, FILE *file, const char *path, bool ok) {
    ok = fclose(file) == 0 && ok;
    if (!ok)
        (void)snprintf(arm->error, sizeof(arm->error), "cannot write %s", path);
    return ok;
}

static bool certificate_write(struct arm *arm, const struct certificate *from, const char *cert, const char *key) {
    FILE *file = certificate_create(arm, key, 0600);
    if (!file || !certificate_close(arm, file, key, PEM_write_PrivateKey(file, from->key, NULL, NULL, 0, NULL, NULL) == 1))
        return false;
    file = certificate_create(arm, cert, 0644);
    return file && certificate_close(arm, file, cert, certificate_write_chain(file, from));
}

/* The file that --pfx names for this certificate; one without a name is for all. */
static const char *certificate_file(struct arm *arm, const char *name) {
    const char *any = NULL;
    for (unsigned i = 0; i < arm->options.pfx_count; i++) {
        const char *text = arm->options.pfx[i], *equals = strchr(text, '=');
        if (!equals)
            any = text;
        else if (str_equal_nocase(span_make(text, (size_t)(equals - text)), span_of(name)))
            return equals + 1;
    }
    return any;
}

/* Writes the PEM files of a PFX; false: no files; arm->error set when that must stop the import. */
static bool certificate_convert(struct arm *arm, const char *name, json_t *object, const char *cert, const char *key) {
    const char *file = certificate_file(arm, name), *data = object ? arm_text(arm, object, "data") : NULL;
    struct certificate certificate = {0};
    struct buf bytes;
    buf_init(&bytes, CERTIFICATE_FILE_MAX + 16);
    bool ok = false;
    if (file ? certificate_read_file(arm, file, &bytes) : certificate_decode(data, &bytes)) {
        const char *why = certificate_open(arm, buf_span(&bytes), object ? arm_text(arm, object, "password") : NULL, &certificate);
        if (!why)
            ok = certificate_write(arm, &certificate, cert, key);
        else if (file)
            (void)snprintf(arm->error, sizeof(arm->error), "%s: %s", file, why);
        else
            arm_note(arm, "sslCertificate %s: its PFX in the template cannot be used: %s. The paths below are placeholders", name, why);
    } else if (!file) {
        arm_note(arm, "sslCertificate %s: its data in the template is no base64. The paths below are placeholders", name);
    }
    certificate_fini(&certificate);
    buf_release(&bytes);
    return ok;
}

bool arm_certificate(struct arm *arm, const char *name, const char **cert, const char **key) {
    json_t *known = json_object_get(arm->certificates, name);
    if (!known) {
        json_t *object = arm_find(arm, ARM_SSL_CERTIFICATES, name);
        const char *data = object ? arm_text(arm, object, "data") : NULL, *vault = object ? arm_text(arm, object, "keyVaultSecretId") : NULL;
        const char *chain = certificate_path(arm, name, ".pem"), *secret = certificate_path(arm, name, ".key");
        if (arm->options.pfx_out && (data || certificate_file(arm, name))) {
            if (!certificate_convert(arm, name, object, chain, secret) && arm->error[0])
                return false;
        } else if (vault) {
            arm_note(arm, "sslCertificate %s is in a Key Vault (%s): export it as PEM to the paths below", name, vault);
        } else {
            arm_note(arm, "sslCertificate %s: the paths below are placeholders%s", name,
                     data ? "; its PFX is in the template: import with --pfx-out FOLDER to have it written as PEM" : "");
        }
        known = json_pack("[s, s]", chain, secret);
        json_object_set_new(arm->certificates, name, known);
    }
    *cert = json_string_value(json_array_get(known, 0));
    *key = json_string_value(json_array_get(known, 1));
    return true;
}

/* Base64 of DER, as Azure keeps it, or of PEM. */
static X509 *certificate_parse(const char *data) {
    struct buf bytes;
    buf_init(&bytes, CERTIFICATE_FILE_MAX + 16);
    X509 *found = NULL;
    if (certificate_decode(data, &bytes)) {
        const unsigned char *p = (const unsigned char *)buf_span(&bytes).p;
        found = d2i_X509(NULL, &p, (long)bytes.len);
        BIO *bio = found ? NULL : BIO_new_mem_buf(buf_span(&bytes).p, (int)bytes.len);
        if (bio)
            found = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        BIO_free(bio);
    }
    ERR_clear_error();
    buf_release(&bytes);
    return found;
}

bool arm_trusted(struct arm *arm, enum arm_section section, const char *name, const char **path) {
    json_t *object = arm_find(arm, section, name);
    const char *data = object ? arm_text(arm, object, "data") : NULL;
    char known_as[160];
    (void)snprintf(known_as, sizeof(known_as), "%d/%s", (int)section, name);
    *path = certificate_path(arm, name, ".ca.pem");
    if (json_object_get(arm->certificates, known_as))
        return true;
    json_object_set_new(arm->certificates, known_as, json_true());
    X509 *certificate = data ? certificate_parse(data) : NULL;
    if (!arm->options.pfx_out || !certificate) {
        arm_note(arm, "the certificate %s to trust: the path below is a placeholder%s", name,
                 certificate ? "; import with --pfx-out FOLDER to have it written" : "");
        X509_free(certificate);
        return true;
    }
    FILE *file = certificate_create(arm, *path, 0644);
    bool ok = file && certificate_close(arm, file, *path, PEM_write_X509(file, certificate) == 1);
    X509_free(certificate);
    return ok;
}
