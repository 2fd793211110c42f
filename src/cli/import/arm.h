/* SPDX-License-Identifier: MIT */
/*
 * arm: an Azure Application Gateway, read from a Resource Manager template or fragments of one, written as a Moongate file.
 * One struct arm lives through an import; texts and values that its functions return stay valid until arm_fini().
 */
#ifndef MOONGATE_CLI_IMPORT_ARM_H
#define MOONGATE_CLI_IMPORT_ARM_H

#include <jansson.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"

#define ARM_LIST_MAX 16 /* of one option on the command line */

/* The lists of a gateway that are read. */
enum arm_section {
    ARM_AUTHENTICATION_CERTIFICATES, ARM_BACKEND_POOLS, ARM_BACKEND_SETTINGS, ARM_FRONTEND_IPS, ARM_FRONTEND_PORTS, ARM_LISTENERS,
    ARM_PROBES, ARM_REDIRECTS, ARM_REWRITES, ARM_RULES, ARM_SSL_CERTIFICATES, ARM_SSL_PROFILES, ARM_TRUSTED_CLIENTS, ARM_TRUSTED_ROOTS,
    ARM_URL_PATH_MAPS, ARM_SECTIONS
};

struct arm_options {
    const char *gateway;                 /* its name, where a template has several; NULL */
    const char *pfx_out;                 /* folder for PEM files; NULL: write none */
    const char *pfx[ARM_LIST_MAX];       /* "NAME=FILE" or "FILE" */
    const char *passwords[ARM_LIST_MAX]; /* each is tried */
    const char *binds[ARM_LIST_MAX];     /* "FRONTEND=ADDRESS" or "ADDRESS" */
    unsigned pfx_count, password_count, bind_count;
    bool ignore_case; /* of paths, as Azure does: by functions */
};

struct arm_group; /* httpListeners of one address and port: one listener here */
struct arm_pair;  /* a backendAddressPool with its settings: one pool here */

struct arm {
    struct arm_options options;
    struct arena memory;
    json_t *kept; /* values that were made, to be freed at the end */
    json_t *parameters, *variables; /* of all files, merged */
    json_t *gateways;               /* resources of that type */
    json_t *loose;                  /* values of files without such a resource */
    json_t *gateway;                /* the chosen one; NULL: fragments */
    json_t *sections[ARM_SECTIONS]; /* arrays, never NULL */
    struct arm_group *groups;
    struct arm_pair *pairs;
    json_t *certificates;           /* name: [cert, key] that have been given */
    unsigned group_count, pair_count;
    unsigned notes; /* comments about what has no counterpart or was assumed */
    unsigned duplicates;
    unsigned open_brackets; /* where inputs ended */
    bool misused;           /* the error is one of the options */
    unsigned depth; /* of expressions under way */
    struct buf out;
    char error[512];
};

void arm_init(struct arm *arm, const struct arm_options *options);
void arm_fini(struct arm *arm);
/* Reads one file's text. False: arm->error says why ("line 3: ..."). */
bool arm_read(struct arm *arm, struct span text);
/* Writes the Moongate file of all that was read into arm->out. False: arm->error. */
bool arm_convert(struct arm *arm);

/* text.c: what people paste, as JSON: an array of the values; *open brackets were open at the end. False: error (of size bytes) says what
   and in which line. */
bool arm_text_repair(struct span text, struct buf *out, unsigned *open, char *error, size_t size);

/* expression.c: "[concat(...)]" evaluated; unknown parts stand as their names. A string that is none: itself. */
json_t *arm_evaluate(struct arm *arm, json_t *value);

/* value.c. Keys are found in `properties` first, whatever their case; expressions are evaluated. NULL: absent or null. */
json_t *arm_get(struct arm *arm, json_t *object, const char *key);
/* As text (numbers too); NULL: absent or empty. */
const char *arm_text(struct arm *arm, json_t *object, const char *key);
bool arm_true(struct arm *arm, json_t *object, const char *key);
/* A whole number from low to high, as number or text; fallback when it is absent or none. */
unsigned arm_number(struct arm *arm, json_t *object, const char *key, unsigned low, unsigned high, unsigned fallback);
/* An array; a single value gives itself as an array of one; never NULL. */
json_t *arm_list(struct arm *arm, json_t *object, const char *key);
/* Name of what object[key] refers to by id; NULL: absent. */
const char *arm_reference(struct arm *arm, json_t *object, const char *key);
/* The last segment of an id, however damaged it is at its end. */
const char *arm_last_segment(struct arm *arm, const char *id);
const char *arm_name(struct arm *arm, json_t *object);
/* The element of that name; NULL: none. */
json_t *arm_find(struct arm *arm, enum arm_section section, const char *name);
json_t *arm_keep(struct arm *arm, json_t *value);
/* printf into the import's memory. */
const char *arm_format(struct arm *arm, const char *format, ...) __attribute__((format(printf, 2, 3), returns_nonnull));
bool arm_same(const char *a, const char *b); /* whatever their case */

/* write.c */
void arm_write(struct arm *arm, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A comment line about what has no counterpart or was assumed; counted. Long texts are folded. */
void arm_note(struct arm *arm, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A comment line. */
void arm_comment(struct arm *arm, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A Lua string. */
const char *arm_quote(struct arm *arm, const char *text);
/* A Moongate name: quoted, without spaces and quotes. */
const char *arm_quote_name(struct arm *arm, const char *name);
/* A Lua pattern, anchored, for a text with '*' and '?', quoted. */
const char *arm_quote_pattern(struct arm *arm, const char *text, bool lower);

/* listener.c */
/* Whether each frontend that a bind is for is there. False: arm->error. */
bool arm_check_binds(struct arm *arm);
void arm_collect_listeners(struct arm *arm);
bool arm_write_listeners(struct arm *arm);
/* Quoted name of the listener here that an httpListener became part of. */
const char *arm_listener_name(struct arm *arm, json_t *listener);
/* Scheme, port and, for a site of one name, its host. */
void arm_listener_target(struct arm *arm, json_t *listener, bool *tls, unsigned *port, const char **host);
/* Host names of an httpListener (texts). */
json_t *arm_hosts(struct arm *arm, json_t *listener);
/* Whether `host` can say it: a name, or "*.name". */
bool arm_host_plain(const char *host);

/* certificate.c: paths (unquoted) of a certificate's PEM files: written from a PFX, or placeholders after a note. False: arm->error. */
bool arm_certificate(struct arm *arm, const char *name, const char **cert, const char **key);
/* The same for certificates to trust. */
bool arm_trusted(struct arm *arm, enum arm_section section, const char *name, const char **path);

/* pool.c */
void arm_collect_pools(struct arm *arm);
void arm_add_pair(struct arm *arm, const char *pool, const char *settings);
bool arm_write_pools(struct arm *arm);
/* Quoted name of the pool that the pair became. */
const char *arm_pool_name(struct arm *arm, const char *pool, const char *settings);
void arm_write_probe(struct arm *arm, json_t *settings);

/* route.c */
void arm_write_routes(struct arm *arm);
/* Calls each for all that may name a pool and settings: Basic rules, path maps (by their default keys) and their path rules, in order. */
typedef void arm_target_fn(struct arm *arm, json_t *object, const char *pool_key, const char *settings_key);
void arm_each_target(struct arm *arm, arm_target_fn *each);
/*
 * redirect.c: the action, as Lua. path: the one pattern of the route's path key, or NULL. source_tls: how the request came.
 * Whether the target needs to know the pattern: arm_redirect_splits().
 */
const char *arm_redirect(struct arm *arm, const char *name, const char *path, bool source_tls);
bool arm_redirect_splits(struct arm *arm, const char *name);

/* rewrite.c: a rewriteRuleSet, as far as it can be said: ",\n  request_headers = {...}" and steps before the action; notes on the rest. */
void arm_rewrite(struct arm *arm, const char *name, const char **keys, const char **steps);

#endif
