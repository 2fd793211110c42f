/* SPDX-License-Identifier: MIT */
/* test_import: damaged text made whole, expressions, references, and what a gateway becomes. */
#include <check.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/import/arm.h"

static const char *repaired(const char *text) {
    static char out[4096];
    struct buf buf;
    char error[256];
    buf_init(&buf, sizeof(out) - 1);
    unsigned open;
    if (!arm_text_repair(span_of(text), &buf, &open, error, sizeof(error)))
        (void)snprintf(out, sizeof(out), "%s", error);
    else
        (void)snprintf(out, sizeof(out), "%.*s", SPAN_ARGS(buf_span(&buf)));
    buf_release(&buf);
    return out;
}

START_TEST(text_is_made_whole)
{
    ck_assert_str_eq(repaired(""), "[]");
    ck_assert_str_eq(repaired("{\"a\": [1, 2.5e3, true, null,], \"b\": {},}"), "[{\"a\":[1,2.5e3,true,null],\"b\":{}}]");
    ck_assert_str_eq(repaired("\"a\": [1], \"b\": {\"c\": 2}"), "[{\"a\":[1]},{\"b\":{\"c\":2}}]"); /* no outer braces */
    ck_assert_str_eq(repaired("\"a\": [{\"x\": 1} {\"y\": 2}] \"a\": [3]"), "[{\"a\":[{\"x\":1},{\"y\":2}]},{\"a\":[3]}]"); /* no commas */
    ck_assert_str_eq(repaired("{\"a\": 1}\n{\"b\": 2},"), "[{\"a\":1}\n,{\"b\":2}]");
    ck_assert_str_eq(repaired("\"a\": {\"b\": [1"), "[{\"a\":{\"b\":[1]}}]"); /* never closed */
    ck_assert_str_eq(repaired("\"a\": 1 }]}"), "[{\"a\":1}]");               /* closes nothing */
    ck_assert_str_eq(repaired("{\"a\": [1}"), "[{\"a\":[1]}]");
    ck_assert_str_eq(repaired("{\"a\": , \"b\"}"), "[{\"a\":\"b\"}]");
    ck_assert_str_eq(repaired("{\"a\": }"), "[{\"a\":null}]");
    ck_assert_str_eq(repaired("```json\n\"a\": 1 // why\n/* x\n */ ```\n"), "[\n{\"a\":1}\n\n\n]");
    ck_assert_str_eq(repaired("\xef\xbb\xbf{\"a\": \"x\\\"y\ttab \\d\"}"), "[{\"a\":\"x\\\"y\\u0009tab \\\\d\"}]");
    ck_assert_str_eq(repaired("\"a, {\": \"}\""), "[{\"a, {\":\"}\"}]"); /* brackets in strings are text */
}
END_TEST

START_TEST(text_that_cannot_be_helped)
{
    ck_assert_str_eq(repaired("{\n\"a\": \"x"), "line 2: a string without its closing quote");
    ck_assert_str_eq(repaired("{\"a\": what}"), "line 1: \"what\" is no JSON");
    ck_assert_str_eq(repaired("{\"a\" \"b\": 1}"), "line 1: a value without a name");
    ck_assert_str_eq(repaired("{\n\n1}"), "line 3: a value without a name");
    ck_assert_str_eq(repaired("[\"name\": 1]"), "line 1: a name in a list: braces are missing");
    ck_assert_str_eq(repaired("{ \"a\": "), "line 1: the JSON ends too early: the value of \"a\" is missing");
    ck_assert_str_eq(repaired("\"a\":"), "line 1: the JSON ends too early: the value of \"a\" is missing");
    ck_assert_str_eq(repaired("{\"a\": [{},\n{\n\"b\n\n"), "line 3: a string without its closing quote");
    ck_assert_str_eq(repaired("{\"a\": [{},\n{\n\"b\"\n\n"), "line 3: the JSON ends too early: the value of \"b\" is missing");
    ck_assert_str_eq(repaired("{\"a\": [\"b\"\n"), "[{\"a\":[\"b\"\n]}]");
    ck_assert_str_eq(repaired("{\"a\": \"b\"\n"), "[{\"a\":\"b\"\n}]");
    ck_assert_str_eq(repaired(": 1"), "line 1: a ':' without a name before it");
    char deep[600];
    memset(deep, '[', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    ck_assert_str_eq(repaired(deep), "line 1: too many levels of brackets");
}
END_TEST

static struct arm arm;
static void begin(void) { arm_init(&arm, &(struct arm_options){.gateway = NULL}); }

static const char *evaluated(const char *text) {
    json_t *value = arm_evaluate(&arm, arm_keep(&arm, json_string(text)));
    return json_is_string(value) ? json_string_value(value) : "other";
}

START_TEST(expressions)
{
    begin();
    json_object_set_new(arm.parameters, "gw", json_pack("{s:s}", "defaultValue", "shop"));
    json_object_set_new(arm.parameters, "bare", json_pack("{s:s}", "type", "string"));
    json_object_set_new(arm.variables, "id", json_string("[resourceId('Microsoft.Network/applicationGateways', parameters('gw'))]"));
    json_object_set_new(arm.variables, "loop", json_string("[variables('loop')]"));
    json_object_set_new(arm.variables, "ports", json_pack("{s:[i,i]}", "list", 80, 443));
    ck_assert_str_eq(evaluated("plain"), "plain");
    ck_assert_str_eq(evaluated("[[plain]"), "[plain]");
    ck_assert_str_eq(evaluated("[concat(variables('ID'), '/probes/', toLower('A''B'))]"),
                     "/Microsoft.Network/applicationGateways/shop/probes/a'b");
    ck_assert_str_eq(evaluated("[ format( '{0}-{1}', parameters('gw') , 7 ) ]"), "shop-7");
    ck_assert_str_eq(evaluated("[parameters('bare')]"), "bare");
    ck_assert_str_eq(evaluated("[parameters('nowhere').x.y]"), "y");
    ck_assert_str_eq(evaluated("[uniqueString(resourceGroup().id)]"), "uniqueString");
    ck_assert_str_eq(evaluated("[concat('open"), "[concat('open"); /* no expression: as it is */
    ck_assert_str_eq(evaluated("[concat('open)]"), "[concat('open)]");
    json_t *port = arm_evaluate(&arm, arm_keep(&arm, json_string("[variables('ports').list[1]]")));
    ck_assert_int_eq(json_integer_value(port), 443);
    (void)evaluated("[variables('loop')]"); /* ends */
    arm_fini(&arm);
}
END_TEST

START_TEST(references_are_last_segments)
{
    static const char *const ids[] = {
        "/subscriptions/{id/x/frontendPorts/port80",        "/subscriptions/{id}/x/frontendPorts/port80'",
        "/subscriptions/<id>/frontendPorts/port80')]",      "[concat(variables('x'), '/frontendPorts/port80')]",
        "[concat(variables('x'), '/frontendPorts/port80')", "[resourceId('a/b/frontendPorts', parameters('gw'), 'port80')]",
        "[resourceId('a/b', 'port80')]",                    "  frontendPorts/port80/ ",
        "/x/frontendPorts/<port80>",                        "/x/{port80}",
        "port80",
    };
    begin();
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        ck_assert_str_eq(arm_last_segment(&arm, ids[i]), "port80");
    json_t *object = arm_keep(&arm, json_pack("{s:{s:{s:s}}}", "Properties", "FrontendPort", "Id", "/a/b'"));
    ck_assert_str_eq(arm_reference(&arm, object, "frontendPort"), "b");
    ck_assert_ptr_null(arm_reference(&arm, object, "httpListener"));
    arm_fini(&arm);
}
END_TEST

START_TEST(texts_cannot_become_code)
{
    begin();
    ck_assert_str_eq(arm_quote(&arm, "a\"b\\c\n"), "\"a\\\"b\\\\c\\010\"");
    ck_assert_str_eq(arm_quote_name(&arm, "a \"b\""), "\"a--b-\"");
    ck_assert_str_eq(arm_quote_pattern(&arm, "Shop-*.x?", true), "\"^shop%-.*%.x.$\"");
    char name[101];
    memset(name, 'n', 100);
    name[100] = '\0';
    ck_assert_uint_le(strlen(arm_quote_name(&arm, name)), 66);
    arm_note(&arm, "one\nos.exit() %s", "two\x1b");
    ck_assert_str_eq(arm_format(&arm, "%.*s", SPAN_ARGS(buf_span(&arm.out))), "-- NOTE: one os.exit() two?\n");
    arm_fini(&arm);
}
END_TEST

/* The output of these fragments; "" after a failure. */
static const char *converted(const char *text, const struct arm_options *options) {
    static char out[16384];
    struct arm made;
    arm_init(&made, options);
    bool ok = arm_read(&made, span_of(text)) && arm_convert(&made);
    (void)snprintf(out, sizeof(out), "%.*s", ok ? (int)made.out.len : 0, ok ? buf_span(&made.out).p : "");
    if (!ok)
        (void)snprintf(out, sizeof(out), "error: %s", made.error);
    arm_fini(&made);
    return out;
}

static void holds(const char *text, const char *part) { ck_assert_msg(strstr(text, part), "no '%s' in:\n%s", part, text); }
static void lacks(const char *text, const char *part) { ck_assert_msg(!strstr(text, part), "'%s' in:\n%s", part, text); }

#define LISTENER(name, port, more) "{\"name\": \"" name "\", \"frontendPort\": {\"id\": \"/p" port "'\"}" more "},"
#define RULE(name, listener, priority, more)                                                                                    \
    "{\"name\": \"" name "\", \"priority\": " priority ", \"httpListener\": {\"id\": \"/" listener "\"}, " more "},"
#define TO(pool, settings) "\"backendAddressPool\": {\"id\": \"/" pool "\"}, \"backendHttpSettings\": {\"id\": \"/" settings "\"}"

START_TEST(pairs_of_addresses_and_settings)
{
    const char *out = converted(
        "\"httpListeners\": [" LISTENER("a", "80", "") "], \"backendAddressPools\": [{\"name\": \"web\", \"backendAddresses\": [{\"ipAddress\": \"::1\"},"
        "{\"ipAddress\": \"10.0.0.1\"}, {\"fqdn\": \"10.0.0.1\"}, {\"fqdn\": \"a b\"}]}],"
        "\"backendHttpSettingsCollection\": [{\"name\": \"s\", \"port\": \"81\", \"requestTimeout\": 5, \"cookieBasedAffinity\": \"Enabled\"},"
        "{\"name\": \"t\", \"port\": 444, \"protocol\": \"Https\", \"pickHostNameFromBackendAddress\": true}],"
        "\"requestRoutingRules\": [" RULE("late", "a", "9", TO("web", "s")) RULE("soon", "A", "1", TO("Web", "t"))
            RULE("same", "a", "10", TO("web", "S")) "]", &(struct arm_options){.gateway = NULL});
    holds(out, "pool \"web/t\" {\n  servers = { \"[::1]:444\", \"10.0.0.1\" }, port = 444,\n  tls = true,\n  host = \"server\",\n");
    holds(out, "pool \"web/s\" {\n  servers = { \"[::1]:81\", \"10.0.0.1\" }, port = 81,\n  response_timeout = \"5s\", upgrade_timeout = \"5s\",\n"
               "  affinity = { cookie = \"ApplicationGatewayAffinity\" },\n");
    holds(out, "path = \"/\", host = \"127.0.0.1\", expect = \"200-399\",\n    every = \"30s\", timeout = \"30s\", fall = 3, rise = 1,");
    ck_assert(strstr(out, "route \"soon\"") < strstr(out, "route \"late\""));
    holds(out, "route \"same\" { listener = \"a\", forward \"web/");
    holds(out, "an address that is none was left out: a b");
}
END_TEST

START_TEST(sites_share_a_port)
{
    const char *out = converted(
        "\"frontendPorts\": [{\"name\": \"p8443\", \"port\": 443}], \"httpListeners\": ["
        LISTENER("a", "8443", ", \"protocol\": \"Https\", \"hostName\": \"a.x\", \"sslCertificate\": {\"id\": \"/c1\"}")
        LISTENER("b", "8443", ", \"protocol\": \"Https\", \"hostNames\": [\"b.x\", \"*.b.x\"], \"sslCertificate\": {\"id\": \"/../c2\"}")
        LISTENER("c", "8443", ", \"protocol\": \"Https\", \"hostName\": \"c.*.x\", \"sslCertificate\": {\"id\": \"/c1\"}")
        "], \"requestRoutingRules\": [" RULE("1", "a", "1", TO("p", "s")) RULE("2", "b", "2", TO("p", "s")) RULE("3", "c", "3", TO("p", "s")) "]",
        &(struct arm_options){.gateway = NULL});
    holds(out, "listener \"p8443\" {\n  bind = \"0.0.0.0:443\",\n  tls = {\n    cert = \"c1.pem\", key = \"c1.key\",\n    certs = {\n"
               "      [\"b.x\"] = { cert = \"c2.pem\", key = \"c2.key\" },\n      [\"*.b.x\"]");
    holds(out, "route \"2\" { listener = \"p8443\", host = { \"b.x\", \"*.b.x\" }, forward \"p\" }");
    holds(out, "when = function(req) return ((req.host or \"\"):find(\"^c%..*%.x$\")) ~= nil end");
    holds(out, "servers = { \"p.invalid\" }, port = 80,");
}
END_TEST

START_TEST(private_frontends_stay_private)
{
    static const char text[] =
        "\"frontendIPConfigurations\": [{\"name\": \"out\", \"publicIPAddress\": {\"id\": \"x\"}}, {\"name\": \"in\", \"privateIPAddress\": \"10.1.1.1\"}],"
        "\"httpListeners\": [" LISTENER("a", "80", ", \"frontendIPConfiguration\": {\"id\": \"/out\"}")
        LISTENER("b", "80", ", \"frontendIPConfiguration\": {\"id\": \"/in\"}") LISTENER("c", "81", ", \"frontendIPConfiguration\": {\"id\": \"/in\"}") "]";
    const char *out = converted(text, &(struct arm_options){.gateway = NULL});
    holds(out, "listener \"a\" {\n  bind = \"0.0.0.0:80\"");
    holds(out, "listener \"b\" {\n  bind = \"unix:/run/moongate/b.sock\"");
    holds(out, "listener \"c\" {\n  bind = \"10.1.1.1:81\"");
    out = converted(text, &(struct arm_options){.binds = {"127.0.0.1", "IN=::1"}, .bind_count = 2});
    holds(out, "listener \"a\" {\n  bind = \"127.0.0.1:80\"");
    holds(out, "listener \"b\" {\n  bind = \"[::1]:80\"");
    out = converted(text, &(struct arm_options){.binds = {"127.0.0.1", "inn=::1"}, .bind_count = 2});
    ck_assert_str_eq(out, "error: --bind: no frontendIPConfiguration inn: there is out, in");
    /* Where their list was not pasted, those that httpListeners name. */
    out = converted(strstr(text, "\"httpListeners\""), &(struct arm_options){.binds = {"in=127.0.0.2"}, .bind_count = 1});
    holds(out, "listener \"b\" {\n  bind = \"127.0.0.2:80\"");
    out = converted("\"httpListeners\": [{\"name\": \"l\"}]", &(struct arm_options){.binds = {"x=127.0.0.2"}, .bind_count = 1});
    ck_assert_str_eq(out, "error: --bind: no frontendIPConfiguration x: there is none");
}
END_TEST

#define PATHS(name, paths) "{\"name\": \"" name "\", \"paths\": [" paths "], " TO("p", "s") "},"

START_TEST(paths_in_front)
{
    static const char text[] =
        "\"httpListeners\": [" LISTENER("a", "80", "") "], \"backendHttpSettingsCollection\": [{\"name\": \"s\", \"port\": 81, \"requestTimeout\": 30,"
        "\"path\": \"/over/\"}], \"urlPathMaps\": [{\"name\": \"m\", " /* the default's keys are a Basic rule's below */
        "\"pathRules\": [" PATHS("star", "\"/v/*\"") PATHS("exact", "\"/x\"") PATHS("both", "\"/y\", \"/y/*\"")
        PATHS("loose", "\"/images*\", \"/w/*\"") PATHS("middle", "\"/z/*.jpg\"") "]}], \"rewriteRuleSets\": [{\"name\": \"w\","
        "\"rewriteRules\": [{\"name\": \"r\", \"actionSet\": {\"urlConfiguration\": {\"modifiedPath\": \"/new\"}}}]}],"
        "\"requestRoutingRules\": [" RULE("maps", "a", "1", "\"urlPathMap\": {\"id\": \"/m\"}") RULE("basic", "a", "2", TO("p", "s"))
        RULE("twice", "a", "3", TO("p", "s") ", \"rewriteRuleSet\": {\"id\": \"/w\"}") "]";
    const char *out = converted(text, &(struct arm_options){.gateway = NULL});
    holds(out, "route \"maps/star\" { listener = \"a\", path = \"/v/*\", forward(\"p\", { path = \"/over/*\" }) }");
    holds(out, "path = \"/x\", forward(\"p\", { path = \"/over/\" }) }");
    holds(out, "path = { \"/y\", \"/y/*\" },\n"
               "  function(req) req:set_path(\"/over/\" .. (req.path:find(\"^/y$\") and \"\" or req.path:sub(4))) end,\n  forward \"p\",\n}");
    holds(out, "  function(req) req:set_path(\"/over/\" .. (req.path:find(\"^/images.*$\") and req.path:sub(8) or req.path:sub(4))) end,\n");
    holds(out, "NOTE: backendHttpSettings s: the path /over/ takes the place of what /z/*.jpg has before its star");
    holds(out, "route \"basic\" { listener = \"a\", forward(\"p\", { path = \"/over/*\" }) }");
    holds(out, "NOTE: backendHttpSettings s: the path /over/ that it puts in front is left out: a rewriteRuleSet sets the path");
    holds(out, "  function(req) req:set_path(\"/new\") end,\n  forward \"p\",\n}");
    out = converted(text, &(struct arm_options){.ignore_case = true});
    holds(out, "  function(req) req:set_path(\"/over/\" .. req.path:sub(4)) end,\n");
    holds(out, "(req.path:lower():find(\"^/images.*$\") and req.path:sub(8) or req.path:sub(4))");
}
END_TEST

#define REDIRECT(name, more) "{\"name\": \"" name "\", \"redirectType\": \"Permanent\", " more "},"

START_TEST(redirects)
{
    const char *out = converted(
        "\"httpListeners\": [" LISTENER("h", "80", "") LISTENER("s", "443", ", \"protocol\": \"https\", \"hostName\": \"s.x\"")
        LISTENER("t", "8443", ", \"protocol\": \"https\"") "], \"redirectConfigurations\": ["
        REDIRECT("1", "\"targetListener\": {\"id\": \"/s\"}, \"includePath\": true, \"includeQueryString\": true")
        REDIRECT("2", "\"targetListener\": {\"id\": \"/t\"}") REDIRECT("3", "\"targetUrl\": \"https://u.x/b/\", \"includePath\": true")
        REDIRECT("4", "\"targetUrl\": \"http://u.x?a=b\"") REDIRECT("5", "\"targetUrl\": \"javascript:x\"") "], \"requestRoutingRules\": ["
        RULE("r1", "h", "1", "\"redirectConfiguration\": {\"id\": \"/1\"}") RULE("r2", "h", "2", "\"redirectConfiguration\": {\"id\": \"/2\"}")
        RULE("r3", "h", "3", "\"redirectConfiguration\": {\"id\": \"/3\"}") RULE("r4", "h", "4", "\"redirectConfiguration\": {\"id\": \"/4\"}")
        RULE("r5", "h", "5", "\"redirectConfiguration\": {\"id\": \"/5\"}") "]", &(struct arm_options){.gateway = NULL});
    holds(out, "route \"r1\" { listener = \"h\", redirect { scheme = \"https\", host = \"s.x\", status = 301 } }");
    holds(out, "redirect { scheme = \"https\", port = 8443, path = \"/\", query = false, status = 301 }");
    holds(out, "redirect { scheme = \"https\", host = \"u.x\", path = \"/b/*\", query = false, status = 301 }");
    holds(out, "redirect { scheme = \"http\", host = \"u.x\", port = 80, path = \"/\", query = \"a=b\", status = 301 }");
    holds(out, "reply(502,");
}
END_TEST

START_TEST(gateways_of_a_template)
{
    static const char two[] =
        "{\"resources\": [{\"type\": \"Microsoft.Network/loadBalancers\", \"properties\": {\"httpListeners\": [{\"name\": \"no\"}]}},"
        "{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": \"a\", \"properties\": {\"httpListeners\": [{\"name\": \"la\"}]}},"
        "{\"type\": \"Microsoft.Network/ApplicationGateways\", \"name\": \"x\"},"
        "{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": \"b\", \"properties\": {\"httpListeners\": [{\"name\": \"lb\"}]}}]}";
    holds(converted(two, &(struct arm_options){.gateway = NULL}), "several application gateways (a, b)");
    const char *out = converted(two, &(struct arm_options){.gateway = "B"});
    holds(out, "listener \"lb\"");
    lacks(out, "\"la\"");
    lacks(out, "\"no\"");
    holds(converted(two, &(struct arm_options){.gateway = "c"}), "no application gateway c: there is a, b");
    out = converted("\"httpListeners\": [{\"name\": \"l\"}]\n\"HttpListeners\": [{\"name\": \"L\"}, {\"name\": \"m\"}]",
                    &(struct arm_options){.gateway = NULL});
    holds(out, "1 elements have the name");
    lacks(out, "\"L\"");
    holds(converted("{\"a\": 1}", &(struct arm_options){.gateway = NULL}), "error: no httpListeners");
    holds(converted("{\"a\": [1", &(struct arm_options){.gateway = NULL}), "ends too early");
    out = converted("{\"httpListeners\": [{\"name\": \"l\"}, {\"name\": \"m\"", &(struct arm_options){.gateway = NULL});
    holds(out, "NOTE: the input ends with 3 brackets open");
    holds(out, "httpListener m: ");
}
END_TEST

START_TEST(what_has_no_counterpart_is_said)
{
    const char *out = converted(
        "{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": \"g\", \"properties\": {\"firewallPolicy\": {\"id\": \"w\"}, \"enableHttp2\": true,"
        "\"sslPolicy\": {\"minProtocolVersion\": \"TLSv1_0\"}, \"trustedClientCertificates\": [{\"name\": \"clients\", \"data\": \"AAAA\"}],"
        "\"sslProfiles\": [{\"name\": \"mtls\", \"trustedClientCertificates\": [{\"id\": \"/clients\"}]}], \"httpListeners\": ["
        LISTENER("a", "443", ", \"protocol\": \"Https\", \"sslProfile\": {\"id\": \"/mtls\"}, \"sslCertificate\": {\"id\": \"/c\"}") "],"
        "\"rewriteRuleSets\": [{\"name\": \"w\", \"rewriteRules\": [{\"name\": \"if\", \"conditions\": [{\"variable\": \"x\"}]},"
        "{\"name\": \"do\", \"actionSet\": {\"requestHeaderConfigurations\": [{\"headerName\": \"X-A\", \"headerValue\": \"1\"},"
        "{\"headerName\": \"X-B\"}, {\"headerName\": \"X-C\", \"headerValue\": \"{var_client_ip}:{http_req_via}\"},"
        "{\"headerName\": \"Content-Length\", \"headerValue\": \"0\"}], \"responseHeaderConfigurations\": [{\"headerName\": \"Server\"}],"
        "\"urlConfiguration\": {\"modifiedPath\": \"/x\"}}}]}],"
        "\"requestRoutingRules\": [" RULE("r", "a", "1", TO("p", "s") ", \"rewriteRuleSet\": {\"id\": \"/w\"}") "]}}",
        &(struct arm_options){.gateway = NULL});
    holds(out, "NOTE: firewallPolicy");
    holds(out, "NOTE: enableHttp2");
    holds(out, "NOTE: sslPolicy allows TLS 1.0");
    holds(out, "client_ca = \"clients.ca.pem\", client_cert = \"require\"");
    holds(out, "rule if has conditions");
    holds(out, "the edit of Content-Length was left out");
    holds(out, "  request_headers = { [\"X-A\"] = \"1\", [\"X-B\"] = false },\n  response_headers = { [\"Server\"] = false },\n"
               "  function(req) req:set_header(\"X-C\", (req.client or \"\") .. \":\" .. (req:header(\"via\") or \"\")) end,\n"
               "  function(req) req:set_path(\"/x\") end,\n  forward \"p\",");
}
END_TEST

/* A PFX of a fresh self-signed certificate, in base64. */
static char *pfx_data(const char *password) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_set_pubkey(cert, key);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_sign(cert, key, EVP_sha256());
    PKCS12 *pfx = PKCS12_create(password, "x", key, cert, NULL, 0, 0, 0, 0, 0);
    unsigned char *der = NULL;
    int n = i2d_PKCS12(pfx, &der);
    char *out = malloc((size_t)n * 2 + 4);
    EVP_EncodeBlock((unsigned char *)out, der, n);
    OPENSSL_free(der);
    PKCS12_free(pfx);
    X509_free(cert);
    EVP_PKEY_free(key);
    return out;
}

START_TEST(certificates_become_pem)
{
    char folder[] = "/tmp/moongate-import-XXXXXX", path[128], text[8192];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    char *data = pfx_data("secret");
    (void)snprintf(text, sizeof(text), "\"httpListeners\": [" LISTENER("a", "443", ", \"protocol\": \"Https\", \"sslCertificate\": {\"id\": \"/my cert\"}")
                   "], \"sslCertificates\": [{\"name\": \"my cert\", \"data\": \"%s\"}]", data);
    free(data);
    const char *out = converted(text, &(struct arm_options){.pfx_out = folder});
    holds(out, "no password opens it");
    out = converted(text, &(struct arm_options){.pfx_out = folder, .passwords = {"wrong", "secret"}, .password_count = 2});
    lacks(out, "NOTE: sslCertificate");
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/my-cert.key", folder);
    holds(out, path);
    ck_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    FILE *file = fopen(path, "r");
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    ck_assert_ptr_nonnull(key);
    EVP_PKEY_free(key);
    fclose(file);
    holds(converted(text, &(struct arm_options){.pfx_out = folder, .passwords = {"secret"}, .password_count = 1}), "error: cannot write");
    unlink(path);
    (void)snprintf(path, sizeof(path), "%s/my-cert.pem", folder);
    ck_assert(unlink(path) == 0 && rmdir(folder) == 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("import");
    TCase *tests = tcase_create("import");
    tcase_add_test(tests, text_is_made_whole);
    tcase_add_test(tests, text_that_cannot_be_helped);
    tcase_add_test(tests, expressions);
    tcase_add_test(tests, references_are_last_segments);
    tcase_add_test(tests, texts_cannot_become_code);
    tcase_add_test(tests, pairs_of_addresses_and_settings);
    tcase_add_test(tests, sites_share_a_port);
    tcase_add_test(tests, private_frontends_stay_private);
    tcase_add_test(tests, paths_in_front);
    tcase_add_test(tests, redirects);
    tcase_add_test(tests, gateways_of_a_template);
    tcase_add_test(tests, what_has_no_counterpart_is_said);
    tcase_add_test(tests, certificates_become_pem);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
