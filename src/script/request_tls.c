/* SPDX-License-Identifier: MIT */
/*
 * req.tls: what the client's TLS session says, and req.tls.cert: the certificate it showed. A plain table, made when it is first asked for and
 * kept with the `req`: a certificate is taken apart once a request, whatever the rules do with it. The subtle one: under client_cert = "ask" any
 * certificate comes through, so `verified` is what a rule must look at; the other fields of an unverified one are what the client claims.
 */
#include "io/tls.h"

#include "script/object.h"

static void request_tls_text(lua_State *L, const char *name, struct span text) {
    lua_pushlstring(L, text.p ? text.p : "", text.n);
    lua_setfield(L, -2, name);
}

static void request_tls_push_cert(lua_State *L, const struct tls_cert *cert) {
    lua_createtable(L, 0, 8);
    request_tls_text(L, "subject", cert->subject);
    request_tls_text(L, "issuer", cert->issuer);
    request_tls_text(L, "serial", cert->serial);
    request_tls_text(L, "fingerprint", cert->fingerprint);
    lua_pushinteger(L, cert->not_before);
    lua_setfield(L, -2, "not_before");
    lua_pushinteger(L, cert->not_after);
    lua_setfield(L, -2, "not_after");
    lua_pushboolean(L, cert->verified);
    lua_setfield(L, -2, "verified");
    lua_createtable(L, (int)cert->san_count, 0);
    for (unsigned i = 0; i < cert->san_count; i++) {
        lua_pushlstring(L, cert->san[i].p, cert->san[i].n);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "san");
}

void script_push_tls(lua_State *L, struct subject *subject) {
    if (!subject->tls) {
        lua_pushnil(L);
        return;
    }
    lua_createtable(L, 0, 5);
    if (subject->sni.n)
        request_tls_text(L, "sni", subject->sni);
    struct span alpn = tls_alpn(subject->tls);
    if (alpn.n)
        request_tls_text(L, "alpn", alpn);
    lua_pushstring(L, tls_version(subject->tls));
    lua_setfield(L, -2, "version");
    lua_pushstring(L, tls_cipher(subject->tls));
    lua_setfield(L, -2, "cipher");
    const struct tls_cert *cert = tls_peer_cert(subject->tls, &subject->arena);
    if (cert) {
        request_tls_push_cert(L, cert);
        lua_setfield(L, -2, "cert");
    }
}
