/* SPDX-License-Identifier: MIT */
/*
 * Smooth weighted round-robin: each server's running weight grows by its weight a pick, the highest is picked and
 * pays the sum of all. Weights 5:1:1 give a a b a c a a, never five in a row at once. Each worker starts some
 * picks further on, so that workers do not all begin with the first server.
 *
 * All servers of one weight grow alike. So they share one number, what each of them has gained, and a heap by what
 * each has paid: who paid least is their highest, and a pick compares the groups' highest instead of all servers. The
 * order is exactly that of the long way (test_balance goes it, too). Servers that start slowly have weights of their
 * own, and those that were found full or down do not grow meanwhile: they stand alone, outside the heaps.
 *
 * The subtle thing: a full server is noticed when its turn comes. Until then it grows like the others, so with room
 * again it has that one turn to take and no more.
 */
#include "base/heap.h"
#include "base/mem.h"
#include "upstream/balance.h"

/* One slot's; current is good only while it is in no heap. */
struct balance_turn {
    struct heap_node node; /* key: what it has paid, and its slot, so that ties are in the order of the pool */
    unsigned group;
    int64_t current; /* gained less paid */
};

struct balance_group {
    uint64_t weight;
    int64_t gained;
    bool backup;
    struct heap heap;
};

struct balance_turns {
    struct balance_turn *turns; /* by slot */
    struct balance_group *groups;
    unsigned *alone; /* slots: live when the sides were listed, but in no heap now */
    unsigned count, group_count, group_cap, alone_count;
    unsigned slot_bits; /* of a key */
};

void balance_init_roundrobin(struct balance *balance, unsigned steps) {
    const struct pool *pool = balance->pool;
    const unsigned count = pool->server_count + 1; /* an allocation is never empty */
    struct balance_turns *turns = mem_alloc(sizeof *turns);
    balance->turns = turns;
    turns->count = pool->server_count;
    turns->turns = mem_alloc_array(count, sizeof *turns->turns);
    turns->alone = mem_alloc_array(count, sizeof *turns->alone);
    while (count >> turns->slot_bits)
        turns->slot_bits++;
    for (unsigned step = 0; step < steps && turns->count > 0; step++) {
        int64_t total = 0;
        struct balance_turn *best = NULL;
        for (unsigned slot = 0; slot < turns->count; slot++) {
            const struct server *server = pool->servers[slot];
            int64_t weight = server->backup ? 0 : (int64_t)server->weight * SERVER_RAMP_FULL;
            turns->turns[slot].current += weight;
            total += weight;
            if (weight != 0 && (!best || turns->turns[slot].current > best->current))
                best = &turns->turns[slot];
        }
        if (best)
            best->current -= total;
    }
}

static unsigned balance_slot(const struct balance_turns *turns, const struct balance_turn *turn) {
    return (unsigned)(turn - turns->turns);
}

/* Half of what a key can hold: where payments begin. */
static int64_t balance_zero(const struct balance_turns *turns) { return INT64_C(1) << (62 - turns->slot_bits); }

static int64_t balance_paid(const struct balance_turns *turns, const struct balance_turn *turn) {
    return (int64_t)(turn->node.key >> turns->slot_bits) - balance_zero(turns);
}

static void balance_enter(struct balance_turns *turns, struct balance_turn *turn) {
    struct balance_group *group = &turns->groups[turn->group];
    const uint64_t paid = (uint64_t)(group->gained - turn->current + balance_zero(turns));
    turn->node.key = paid << turns->slot_bits | balance_slot(turns, turn);
    heap_insert(&group->heap, &turn->node);
}

static void balance_leave(struct balance_turns *turns, struct balance_turn *turn) {
    struct balance_group *group = &turns->groups[turn->group];
    turn->current = group->gained - balance_paid(turns, turn);
    heap_remove(&group->heap, &turn->node);
}

static void balance_leave_all(struct balance_turns *turns) {
    for (unsigned i = 0; i < turns->group_count; i++) {
        struct heap_node *node;
        while ((node = heap_top(&turns->groups[i].heap)) != NULL)
            balance_leave(turns, container_of(node, struct balance_turn, node));
        heap_fini(&turns->groups[i].heap);
    }
    turns->group_count = turns->alone_count = 0;
}

static unsigned balance_find_group(struct balance_turns *turns, uint64_t weight, bool backup) {
    unsigned i = 0;
    while (i < turns->group_count && (turns->groups[i].weight != weight || turns->groups[i].backup != backup))
        i++;
    if (i < turns->group_count)
        return i;
    if (turns->group_count == turns->group_cap) {
        turns->group_cap = turns->group_cap ? turns->group_cap * 2 : 2;
        turns->groups = mem_resize(turns->groups, turns->group_cap * sizeof *turns->groups);
    }
    turns->groups[turns->group_count++] = (struct balance_group){.weight = weight, .backup = backup};
    heap_init(&turns->groups[i].heap);
    return i;
}

static void balance_renew_turns(struct balance *balance) {
    struct balance_turns *turns = balance->turns;
    balance_leave_all(turns);
    for (unsigned backup = 0; backup < 2; backup++) {
        const struct balance_side *side = &balance->sides[backup];
        for (unsigned i = 0; i < side->count; i++) {
            struct balance_turn *turn = &turns->turns[side->members[i].slot];
            turn->group = balance_find_group(turns, side->members[i].weight, backup);
            if (balance_ramp(balance, side->members[i].slot) == SERVER_RAMP_FULL)
                balance_enter(turns, turn);
            else
                turns->alone[turns->alone_count++] = side->members[i].slot;
        }
    }
}

/* Of those that stand alone, who may be picked and has its whole weight goes to the others of that weight. */
static void balance_join(struct balance *balance, bool backup) {
    struct balance_turns *turns = balance->turns;
    unsigned kept = 0;
    for (unsigned i = 0; i < turns->alone_count; i++) {
        const unsigned slot = turns->alone[i];
        if (balance_may_pick(balance, slot, NULL, backup) && balance_ramp(balance, slot) == SERVER_RAMP_FULL)
            balance_enter(turns, &turns->turns[slot]);
        else
            turns->alone[kept++] = slot;
    }
    turns->alone_count = kept;
}

/* Out of its heap: it does not grow until balance_join() finds that it may be picked. */
static void balance_set_aside(struct balance_turns *turns, struct balance_turn *turn) {
    balance_leave(turns, turn);
    turns->alone[turns->alone_count++] = balance_slot(turns, turn);
}

/* What was tried does not grow for a retry: else its next turn would come the sooner, the more often it fails. */
static void balance_set_tried_aside(struct balance *balance, const struct pool_tried *tried) {
    struct balance_turns *turns = balance->turns;
    for (unsigned slot = 0; slot < turns->count; slot++) {
        const struct server *server = balance->pool->servers[slot];
        for (unsigned k = 0; k < tried->count; k++)
            if (tried->list[k] == server && turns->turns[slot].node.place != 0)
                balance_set_aside(turns, &turns->turns[slot]);
    }
}

/* The highest of a group that may be picked, or NULL; those above it that may not are set aside. */
static struct balance_turn *balance_highest(struct balance *balance, struct balance_group *group) {
    struct balance_turns *turns = balance->turns;
    struct heap_node *node;
    while ((node = heap_top(&group->heap)) != NULL) {
        struct balance_turn *turn = container_of(node, struct balance_turn, node);
        if (balance_may_pick(balance, balance_slot(turns, turn), NULL, group->backup))
            return turn;
        balance_set_aside(turns, turn);
    }
    return NULL;
}

/* The highest so far, what it has, and the sum of all that has grown for this pick. */
struct balance_best {
    struct balance_turn *turn;
    int64_t current, total;
};

static void balance_compare(struct balance_best *best, struct balance_turn *turn, int64_t current) {
    if (best->turn && (current < best->current || (current == best->current && turn > best->turn)))
        return;
    best->turn = turn;
    best->current = current;
}

static struct server *balance_pick_roundrobin(struct balance *balance, const struct pool_tried *tried, bool backup) {
    struct balance_turns *turns = balance->turns;
    struct balance_best best = {0};
    if (turns->alone_count > 0)
        balance_join(balance, backup);
    if (tried)
        balance_set_tried_aside(balance, tried);
    for (unsigned i = 0; i < turns->group_count; i++) {
        struct balance_group *group = &turns->groups[i];
        struct balance_turn *turn = group->backup == backup ? balance_highest(balance, group) : NULL;
        if (!turn)
            continue;
        group->gained += (int64_t)group->weight;
        best.total += (int64_t)(group->weight * group->heap.count);
        balance_compare(&best, turn, group->gained - balance_paid(turns, turn));
    }
    for (unsigned i = 0; i < turns->alone_count; i++) {
        struct balance_turn *turn = &turns->turns[turns->alone[i]];
        if (!balance_may_pick(balance, turns->alone[i], tried, backup))
            continue;
        const int64_t weight = (int64_t)balance_weight(balance, turns->alone[i]);
        turn->current += weight;
        best.total += weight;
        balance_compare(&best, turn, turn->current);
    }
    if (!best.turn)
        return NULL;
    const bool heaped = best.turn->node.place != 0;
    if (heaped)
        balance_leave(turns, best.turn);
    best.turn->current -= best.total;
    if (heaped) {
        balance_enter(turns, best.turn);
        if (balance_paid(turns, best.turn) > balance_zero(turns) / 2)
            balance_make_stale(balance); /* payments begin anew */
    }
    return balance->pool->servers[balance_slot(turns, best.turn)];
}

static void balance_free_turns(struct balance *balance) {
    balance_leave_all(balance->turns);
    mem_free(balance->turns->turns);
    mem_free(balance->turns->groups);
    mem_free(balance->turns->alone);
    mem_free(balance->turns);
}

const struct balance_algorithm balance_roundrobin = {
    .pick = balance_pick_roundrobin, .renew = balance_renew_turns, .free = balance_free_turns};
