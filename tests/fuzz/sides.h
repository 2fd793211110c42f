/* SPDX-License-Identifier: MIT */
/*
 * sides: honest-but-odd HTTP peers for fuzz_sides: clients and servers that know which request each byte belongs to, and abort when the
 * gateway between them loses, doubles, mixes up or makes up one. Bodies and tunnels carry bytes that follow from the request's
 * number, the direction and the offset.
 */
#ifndef MOONGATE_TESTS_FUZZ_SIDES_H
#define MOONGATE_TESTS_FUZZ_SIDES_H

#include "../memory/kernel.h"

#define SIDE_CLIENTS 4
#define SIDE_SERVERS 24
#define SIDE_REQUESTS 64
#define SIDE_OUTSTANDING 8
#define SIDE_HEAD 16384
#define SIDE_NONE UINT32_MAX

enum side_kind { SIDE_GET, SIDE_HEAD_ONLY, SIDE_POST, SIDE_PUT, SIDE_UPGRADE, SIDE_KINDS };
enum side_answer {
    SIDE_LENGTH, SIDE_CHUNKED, SIDE_UNTIL_CLOSE, SIDE_EMPTY, SIDE_INTERIM, SIDE_SWITCH, SIDE_WRONG_SWITCH, SIDE_LAST, SIDE_ANSWERS
};

struct side_request {
    enum side_kind kind;
    uint64_t body_size;
    unsigned heads;         /* whole heads that servers saw */
    bool wild;              /* a server wrote nonsense for it: the answer is not judged */
    bool spoiled;           /* its client wrote nonsense around it: what servers get is not judged */
    uint64_t answer_size;   /* UINT64_MAX: must not seem whole */
};

enum side_state { SIDE_IN_HEAD, SIDE_IN_LENGTH, SIDE_IN_LINE, SIDE_IN_CHUNK, SIDE_IN_CHUNK_END, SIDE_IN_TRAILER, SIDE_IN_REST, SIDE_IN_TUNNEL };

/* A reader of messages, byte by byte. */
struct side_reader {
    enum side_state state;
    char head[SIDE_HEAD];
    size_t head_size;
    uint64_t left, got;
    uint32_t id;            /* of the message being read */
};

struct side_client {
    struct kernel_link *link;
    struct kernel_queue out; /* not given yet */
    struct side_reader reader;
    uint32_t ids[SIDE_OUTSTANDING];
    unsigned count;
    bool wild, fin, upgrading;
    uint64_t tunnel_sent;
};

struct side_server {
    struct kernel_link *link;
    struct kernel_queue out;
    struct side_reader reader;
    uint32_t current;       /* a request that waits for its answer */
    bool body_seen, answering, until_close, fin;
    uint64_t tunnel_sent;
};

struct sides {
    struct side_request requests[SIDE_REQUESTS];
    unsigned request_count;
    struct side_client clients[SIDE_CLIENTS];
    struct side_server servers[SIDE_SERVERS];
    bool wild;              /* a server spoke unasked: answers are not judged any more */
};
extern struct sides sides;

void sides_fail(const char *what) __attribute__((noreturn));
unsigned char side_byte(uint32_t id, unsigned direction, uint64_t offset);
void side_append(struct kernel_queue *queue, const void *data, size_t n);
void side_append_bytes(struct kernel_queue *queue, uint32_t id, unsigned direction, uint64_t offset, size_t n);

/* Each gives, reads or ends what it can; the return value says whether anything happened. */
void side_client_ask(struct side_client *client, enum side_kind kind, size_t size, unsigned flavour);
bool side_client_send(struct side_client *client, size_t n);
bool side_client_read(struct side_client *client, size_t n);
void side_client_end(struct side_client *client);
void side_server_answer(struct side_server *server, enum side_answer answer, size_t size);
bool side_server_send(struct side_server *server, size_t n);
bool side_server_read(struct side_server *server, size_t n);
void side_server_shut(struct side_server *server);
void side_server_reset(struct side_server *server);
void side_server_end(struct side_server *server);

#endif
