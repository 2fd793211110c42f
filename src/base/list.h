/* SPDX-License-Identifier: MIT */
/* list: intrusive doubly linked ring; a node outside any list points at itself. Header only. */
#ifndef MOONGATE_BASE_LIST_H
#define MOONGATE_BASE_LIST_H

#include <stdbool.h>

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_append(struct list *head, struct list *node) {
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}
static inline void list_prepend(struct list *head, struct list *node) { list_append(head->next, node); }
/* Takes node out of whatever list it is in, if any; it is a list of its own afterwards. */
static inline void list_remove(struct list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}
/* Moves all nodes of from, in order, to the end of to. */
static inline void list_splice(struct list *to, struct list *from) {
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define LIST_EACH(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
/* The loop body may remove it. */
#define LIST_EACH_SAFE(it, head) \
    for (struct list *it = (head)->next, *it##_next = it->next; it != (head); it = it##_next, it##_next = it->next)

#endif
