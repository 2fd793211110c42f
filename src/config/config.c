/* SPDX-License-Identifier: MIT */
/*
 * config: making and freeing of a configuration, and the defaults of every kind of declaration: the one place
 * where the numbers of the manual's tables stand in code. Everything a config points at lives in its arena, so
 * that freeing knows no members. Default texts are static and never written to.
 */
#include "config/config.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

#define CONFIG_MEMORY_MAX ((size_t)256 << 20) /* a file that declares more than this is a mistake */

#define CONFIG_SECOND_MS 1000u
#define CONFIG_HOUR_MS 3600000u

static char config_text_stdout[] = "stdout", config_text_tls_min[] = "1.2";
static char config_text_root[] = "/", config_text_get[] = "GET";

static void config_settings_defaults(struct config_settings *settings) {
    *settings = (struct config_settings){
        .access_to = config_text_stdout,
        .log_level = LOG_LEVEL_INFO,
        .rule_cpu_ms = 20,
        .rule_deadline_ms = 5 * CONFIG_SECOND_MS,
        .lua_memory = (size_t)64 << 20,
        .drain_timeout_ms = 60 * CONFIG_SECOND_MS,
        .underscores = CONFIG_UNDERSCORES_DROP,
    };
}

struct config *config_new(const char *file) {
    struct config *config = mem_alloc(sizeof(*config));
    arena_init(&config->memory, NULL, CONFIG_MEMORY_MAX);
    config->file = mem_strdup(file);
    config_settings_defaults(&config->settings);
    return config;
}

void config_free(struct config **config) {
    struct config *old = *config;
    if (!old)
        return;
    *config = NULL;
    arena_fini(&old->memory);
    mem_free(old->file);
    mem_free(old);
}

void config_listener_defaults(struct config_listener *listener) {
    *listener = (struct config_listener){
        .tls_min = config_text_tls_min,
        .tls_timeout_ms = 10 * CONFIG_SECOND_MS,
        .header_timeout_ms = 10 * CONFIG_SECOND_MS,
        .body_timeout_ms = 30 * CONFIG_SECOND_MS,
        .send_timeout_ms = 30 * CONFIG_SECOND_MS,
        .idle_timeout_ms = 75 * CONFIG_SECOND_MS,
        .min_rate = 500,
        .max_target = 8 * 1024,
        .max_header = 32 * 1024,
        .max_fields = 100,
        .max_body = UINT64_MAX,
        .tcp_keepalive_ms = 60 * CONFIG_SECOND_MS,
    };
}

void config_pool_defaults(struct config_pool *pool) {
    *pool = (struct config_pool){
        .balance = CONFIG_BALANCE_ROUNDROBIN,
        .hash_bound = 200,
        .slow_start_ms = 30 * CONFIG_SECOND_MS,
        .connect_timeout_ms = 5 * CONFIG_SECOND_MS,
        .response_timeout_ms = 60 * CONFIG_SECOND_MS,
        .upgrade_timeout_ms = 10 * CONFIG_SECOND_MS,
        .tunnel_idle_timeout_ms = CONFIG_HOUR_MS,
        .half_close_timeout_ms = 30 * CONFIG_SECOND_MS,
        .queue = 100,
        .queue_timeout_ms = 5000,
        .retries = 2,
        .tls_verify = true,
        .host = CONFIG_HOST_CLIENT,
        .keepalive = 32,
        .keepalive_timeout_ms = 4 * CONFIG_SECOND_MS,
        .resolve_ms = 30 * CONFIG_SECOND_MS,
    };
    config_probe_defaults(&pool->probe);
}

static void config_probe_expect(struct config_probe *probe, uint16_t low, uint16_t high) {
    probe->expect[0] = (struct config_status_range){low, high};
    probe->expect_count = 1;
}

void config_probe_defaults(struct config_probe *probe) {
    *probe = (struct config_probe){
        .kind = CONFIG_PROBE_HTTP,
        .path = config_text_root,
        .method = config_text_get,
        .tls = -1,
        .every_ms = 5 * CONFIG_SECOND_MS,
        .fast_ms = 500,
        .timeout_ms = 2 * CONFIG_SECOND_MS,
        .rise = 2,
        .fall = 3,
    };
    config_probe_expect(probe, 100, 499);
}

void config_probe_written(struct config_probe *probe) {
    assert(probe->expect_count > 0);
    config_probe_expect(probe, 200, 399);
    probe->written = true;
}

const struct config_pool *config_find_pool(const struct config *config, const char *name) {
    for (unsigned i = 0; i < config->pool_count; i++)
        if (strcmp(config->pools[i].name, name) == 0)
            return &config->pools[i];
    return NULL;
}

const struct config_listener *config_find_listener(const struct config *config, const char *name) {
    for (unsigned i = 0; i < config->listener_count; i++)
        if (strcmp(config->listeners[i].name, name) == 0)
            return &config->listeners[i];
    return NULL;
}

const struct config_error_page *config_find_page(const struct config_settings *settings, unsigned status) {
    for (unsigned i = 0; i < settings->error_page_count; i++)
        if (settings->error_pages[i].status == status)
            return &settings->error_pages[i];
    return NULL;
}
