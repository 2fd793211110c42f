/* SPDX-License-Identifier: MIT */
/*
 * How long a client may keep us waiting: an idle limit and a minimum rate. The clock of the rate runs only while we wait on
 * the client, so that a slow server, a quiet event stream or a paused upload never counts against an honest client.
 */
#include "traffic/client.h"

#define CLIENT_PACE_WINDOW_MS 5000

void client_pace_wait(struct client_pace *pace, uint64_t now_ms) {
    if (pace->since_ms == 0)
        pace->since_ms = pace->last_ms = now_ms;
}

static void client_pace_settle(struct client_pace *pace, uint64_t now_ms) {
    if (pace->since_ms == 0)
        return;
    pace->waited_ms += now_ms - pace->since_ms;
    pace->since_ms = now_ms;
}

void client_pace_progress(struct client_pace *pace, uint64_t now_ms, uint64_t bytes) {
    client_pace_settle(pace, now_ms);
    pace->bytes += bytes;
    pace->last_ms = now_ms;
}

void client_pace_stop(struct client_pace *pace, uint64_t now_ms) {
    client_pace_settle(pace, now_ms);
    pace->since_ms = 0;
}

enum cause client_pace_check(struct client_pace *pace, uint64_t now_ms, uint32_t idle_ms, uint32_t min_rate,
                             enum cause idle_cause, uint64_t *next_ms) {
    *next_ms = UINT64_MAX;
    if (pace->since_ms == 0)
        return CAUSE_NONE;
    client_pace_settle(pace, now_ms);
    if (idle_ms > 0) {
        if (now_ms - pace->last_ms >= idle_ms)
            return idle_cause;
        *next_ms = idle_ms - (now_ms - pace->last_ms);
    }
    if (min_rate == 0)
        return CAUSE_NONE;
    if (pace->waited_ms >= CLIENT_PACE_WINDOW_MS) {
        if (pace->bytes * 1000 < (uint64_t)min_rate * pace->waited_ms)
            return CAUSE_CLIENT_SLOW;
        pace->waited_ms = 0;
        pace->bytes = 0;
    }
    uint64_t left = CLIENT_PACE_WINDOW_MS - pace->waited_ms;
    if (left < *next_ms)
        *next_ms = left;
    return CAUSE_NONE;
}
