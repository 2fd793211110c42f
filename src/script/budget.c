/* SPDX-License-Identifier: MIT */
/*
 * The CPU budget of Lua functions (requirements E30). A call costs one exchange and two stores: the thread's slot
 * gets an odd epoch. A monitor thread looks at the slots every few milliseconds, reads the CPU clock of a thread
 * whose epoch has not moved, and signals it; the handler, on the thread itself, arms lua_sethook() if that epoch
 * still runs. The hook then raises at every instruction, so a pcall that catches the error raises again at once; and at
 * every call, so that C functions that C calls (comparators, metamethods) end too. Loops in C of our own look for themselves.
 * Quiet threads cost nothing: the monitor parks.
 *
 * The subtle things: park and call cross without a lock, so both sides use sequentially consistent operations (epoch
 * then state here, state then epoch there). Where no monitor runs (check, route, loading before privileges are
 * dropped) a timer of the thread's own CPU clock takes its place: two system calls a call, but no thread. SIGURG is
 * used because its default is to be ignored.
 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "script/load_private.h"

#define BUDGET_SIGNAL SIGURG
#define BUDGET_QUIET_SCANS 25 /* scans without any call before the monitor parks */

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* One a thread that ever called Lua. */
struct budget_slot {
    struct list link; /* in budget_slots, under budget_lock */
    pthread_t thread;
    clockid_t clock;
    _Atomic(uint32_t) epoch; /* odd while a call runs; written by its own thread */
    _Atomic(uint32_t) told;  /* the epoch that has to end */
    _Atomic(uint32_t) limit_ms;
    struct script *_Atomic script; /* of the running call, for the handler */
    bool has_timer, timer_armed;
    timer_t timer;
    uint32_t seen; /* the monitor's: epoch of the last scan, and the CPU time when it was first seen */
    uint64_t seen_us;
};

enum { BUDGET_NONE, BUDGET_RUNNING, BUDGET_PARKED };

static pthread_mutex_t budget_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t budget_wake;
static pthread_once_t budget_once = PTHREAD_ONCE_INIT;
static pthread_key_t budget_key; /* only for its destructor */
static struct list budget_slots;
static _Atomic(int) budget_state = BUDGET_NONE;
static bool budget_stopping; /* under budget_lock */
static pthread_t budget_monitor;
static _Thread_local struct budget_slot *budget_here;

static bool budget_over(const struct script *script) {
    return atomic_load_explicit(&script->budget.overrun, memory_order_relaxed) != 0;
}

/* Raises at the line of the script: of the function that runs, or of the one that called it when that is C. */
static void budget_raise(lua_State *L, const struct script *script) {
    luaL_where(L, 0);
    if (lua_rawlen(L, -1) == 0)
        luaL_where(L, 1);
    lua_pushfstring(L, "%sended: it used more than its %d ms of CPU time (rule_cpu)", lua_tostring(L, -1), (int)script->budget.limit_ms);
    lua_error(L);
}

static void budget_hook(lua_State *L, lua_Debug *event) {
    (void)event;
    const struct script *script = script_of(L);
    if (budget_over(script))
        budget_raise(L, script);
}

void script_budget_check(lua_State *L) {
    const struct script *script = script_of(L);
    if (budget_over(script))
        budget_raise(L, script);
    if (script->loading && script->declare)
        load_check_clock(L);
}

/* Runs on the thread that calls Lua; lua_sethook() is made to be called from a signal. */
static void budget_handler(int number) {
    (void)number;
    struct budget_slot *slot = budget_here;
    if (!slot)
        return;
    uint32_t epoch = atomic_load_explicit(&slot->epoch, memory_order_relaxed);
    if (!(epoch & 1) || atomic_load_explicit(&slot->told, memory_order_relaxed) != epoch)
        return;
    struct script *script = atomic_load_explicit(&slot->script, memory_order_relaxed);
    atomic_store_explicit(&script->budget.overrun, epoch, memory_order_relaxed);
    lua_sethook(atomic_load_explicit(&script->budget.running, memory_order_relaxed), budget_hook,
                LUA_MASKCOUNT | LUA_MASKCALL, 1);
}

static void budget_slot_free(void *value) {
    struct budget_slot *slot = value;
    budget_here = NULL;
    pthread_mutex_lock(&budget_lock);
    list_remove(&slot->link);
    pthread_mutex_unlock(&budget_lock);
    if (slot->has_timer)
        (void)timer_delete(slot->timer);
    mem_free(slot);
}

static void budget_init(void) {
    list_init(&budget_slots);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&budget_wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_key_create(&budget_key, budget_slot_free) != 0)
        log_error("no thread key is left: Lua functions run without a CPU budget in threads that end");
    struct sigaction action = {.sa_handler = budget_handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    (void)sigaction(BUDGET_SIGNAL, &action, NULL);
}

static struct budget_slot *budget_register(void) {
    (void)pthread_once(&budget_once, budget_init);
    struct budget_slot *slot = mem_alloc(sizeof *slot);
    slot->thread = pthread_self();
    (void)pthread_getcpuclockid(slot->thread, &slot->clock);
    list_init(&slot->link);
    (void)pthread_setspecific(budget_key, slot);
    budget_here = slot;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, BUDGET_SIGNAL);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_mutex_lock(&budget_lock);
    list_append(&budget_slots, &slot->link);
    pthread_mutex_unlock(&budget_lock);
    return slot;
}

static void budget_arm_timer(struct budget_slot *slot, uint32_t limit_ms) {
    if (!slot->has_timer) {
        struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = BUDGET_SIGNAL};
        event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
        if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &slot->timer) != 0)
            return;
        slot->has_timer = true;
    }
    struct itimerspec spec = {
        .it_value = {.tv_sec = limit_ms / 1000, .tv_nsec = (long)(limit_ms % 1000) * 1000000},
        .it_interval = {.tv_nsec = 10 * 1000000}, /* again, should one arming be lost */
    };
    slot->timer_armed = timer_settime(slot->timer, 0, &spec, NULL) == 0;
}

static void budget_unpark(void) {
    pthread_mutex_lock(&budget_lock);
    if (atomic_load(&budget_state) == BUDGET_PARKED) {
        atomic_store(&budget_state, BUDGET_RUNNING);
        pthread_cond_signal(&budget_wake);
    }
    pthread_mutex_unlock(&budget_lock);
}

void script_budget_enter(struct script *script, lua_State *running) {
    struct budget_slot *slot = budget_here;
    if (!slot)
        slot = budget_register();
    struct script_budget *budget = &script->budget;
    uint32_t epoch = atomic_load_explicit(&slot->epoch, memory_order_relaxed) + 1;
    assert(epoch & 1); /* calls do not nest */
    atomic_store_explicit(&budget->running, running, memory_order_relaxed);
    atomic_store_explicit(&slot->script, script, memory_order_relaxed);
    atomic_store_explicit(&slot->limit_ms, budget->limit_ms, memory_order_relaxed);
    (void)atomic_exchange(&slot->epoch, epoch);
    int state = atomic_load(&budget_state);
    if (state == BUDGET_RUNNING || budget->limit_ms == 0)
        return;
    if (state == BUDGET_PARKED) {
        budget_unpark();
        return;
    }
    atomic_store_explicit(&slot->told, epoch, memory_order_relaxed);
    budget_arm_timer(slot, budget->limit_ms);
}

bool script_budget_leave(struct script *script) {
    struct budget_slot *slot = budget_here;
    uint32_t epoch = atomic_load_explicit(&slot->epoch, memory_order_relaxed);
    atomic_store_explicit(&slot->epoch, epoch + 1, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* from here on the handler does nothing */
    if (slot->timer_armed) {
        struct itimerspec none = {0};
        (void)timer_settime(slot->timer, 0, &none, NULL);
        slot->timer_armed = false;
    }
    if (!budget_over(script))
        return false;
    lua_sethook(atomic_load_explicit(&script->budget.running, memory_order_relaxed), NULL, 0, 0);
    atomic_store_explicit(&script->budget.overrun, 0, memory_order_relaxed);
    return true;
}

/* The handler of script_budget_xpcall(); its upvalue is the script's own. */
static int budget_on_error(lua_State *L) {
    if (lua_gethookcount(L) == 1) /* budget_hook is armed, or the loader's, which ends a file in the same way */
        return 1;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

int script_budget_xpcall(lua_State *L) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    int nargs = lua_gettop(L) - 2;
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, budget_on_error, 1);
    lua_replace(L, 2);
    lua_pushvalue(L, 1); /* function, handler, arguments..., function */
    lua_insert(L, 3);
    bool ok = lua_pcall(L, nargs, LUA_MULTRET, 2) == LUA_OK;
    lua_pushboolean(L, ok);
    lua_replace(L, 2);
    return lua_gettop(L) - 1;
}

/* --- the monitor --- */

static uint64_t budget_cpu_us(const struct budget_slot *slot) {
    struct timespec now;
    if (clock_gettime(slot->clock, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* One look at every slot. True when some call ran since the last; *period_ms gets how soon to look again. */
static bool budget_scan(uint32_t *period_ms) {
    bool active = false, running = false;
    uint32_t shortest = 100;
    LIST_EACH(at, &budget_slots) {
        struct budget_slot *slot = container_of(at, struct budget_slot, link);
        uint32_t epoch = atomic_load(&slot->epoch);
        uint32_t limit_ms = atomic_load_explicit(&slot->limit_ms, memory_order_relaxed);
        if (limit_ms && limit_ms < shortest)
            shortest = limit_ms;
        running |= epoch & 1;
        if (epoch != slot->seen) {
            active = true;
            slot->seen = epoch;
            slot->seen_us = epoch & 1 ? budget_cpu_us(slot) : 0;
        } else if (epoch & 1) {
            active = true;
            if (limit_ms && budget_cpu_us(slot) - slot->seen_us >= (uint64_t)limit_ms * 1000) {
                atomic_store_explicit(&slot->told, epoch, memory_order_relaxed);
                (void)pthread_kill(slot->thread, BUDGET_SIGNAL);
            }
        }
    }
    /* Most looks find nobody at it: then half a limit may pass unseen, and it counts from the next look on. */
    uint32_t period = shortest / (running ? 5 : 2);
    *period_ms = period > 0 ? period : 1;
    return active;
}

/* Sleeps until a call wakes us, unless one has begun meanwhile. */
static void budget_park(void) {
    uint32_t period_ms;
    atomic_store(&budget_state, BUDGET_PARKED);
    if (budget_scan(&period_ms))
        atomic_store(&budget_state, BUDGET_RUNNING);
    while (atomic_load(&budget_state) == BUDGET_PARKED && !budget_stopping)
        pthread_cond_wait(&budget_wake, &budget_lock);
    atomic_store(&budget_state, BUDGET_RUNNING);
}

static void budget_sleep(uint32_t ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_cond_timedwait(&budget_wake, &budget_lock, &until);
}

static void *budget_watch(void *unused) {
    (void)unused;
    unsigned quiet = 0;
    uint32_t period_ms;
    pthread_mutex_lock(&budget_lock);
    while (!budget_stopping) {
        quiet = budget_scan(&period_ms) ? 0 : quiet + 1;
        if (quiet >= BUDGET_QUIET_SCANS) {
            budget_park();
            quiet = 0;
        } else {
            budget_sleep(period_ms);
        }
    }
    pthread_mutex_unlock(&budget_lock);
    return NULL;
}

void script_monitor_start(void) {
    (void)pthread_once(&budget_once, budget_init);
    if (atomic_load(&budget_state) != BUDGET_NONE)
        return;
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    budget_stopping = false;
    atomic_store(&budget_state, BUDGET_RUNNING);
    int failed = pthread_create(&budget_monitor, NULL, budget_watch, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        atomic_store(&budget_state, BUDGET_NONE);
        log_warn("the monitor of Lua functions cannot start (%s): every call pays for a timer instead",
                 strerror(failed));
        return;
    }
    (void)pthread_setname_np(budget_monitor, "lua-monitor");
}

void script_monitor_stop(void) {
    if (atomic_load(&budget_state) == BUDGET_NONE)
        return;
    pthread_mutex_lock(&budget_lock);
    budget_stopping = true;
    pthread_cond_signal(&budget_wake);
    pthread_mutex_unlock(&budget_lock);
    (void)pthread_join(budget_monitor, NULL);
    atomic_store(&budget_state, BUDGET_NONE);
}
