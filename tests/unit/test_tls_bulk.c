/* SPDX-License-Identifier: MIT */
/*
 * Several records in one system call: how many calls there are, and what becomes of the rest when the socket does not take
 * all. send() and recv() of this program count the calls on one socket, and say how much it takes.
 */
#include <sys/syscall.h>

#include "tls_ends.h"

static int watched = -1;
static unsigned sends, recvs;
static size_t room; /* what the watched socket takes until it is full */

ssize_t send(int fd, const void *data, size_t size, int flags) {
    if (fd == watched) {
        sends++;
        if (room == 0) {
            errno = EAGAIN;
            return -1;
        }
        size = size < room ? size : room;
        room -= size;
    }
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
    if (fd == watched)
        recvs++;
    return syscall(SYS_recvfrom, fd, data, size, flags, NULL, NULL);
}

static void watch(const struct duo *duo, size_t takes) {
    watched = duo->conn->fd;
    sends = recvs = 0;
    room = takes;
}

static void unwatch(struct duo *duo) {
    watched = -1;
    duo_close(duo);
}

enum { BULK = 60000 };
static char bulk[65536], got[3 * 65536];

static void bulk_fill(void) {
    for (size_t i = 0; i < sizeof bulk; i++)
        bulk[i] = (char)(i * 2654435761u >> 11);
}

static size_t peer_read_all(struct peer *peer) {
    size_t total = 0, n;

    while (total < sizeof got && (n = peer_read(peer, got + total, sizeof got - total)) > 0)
        total += n;
    return total;
}

/* --- out --- */

START_TEST(records_leave_in_one_send) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    const struct iovec pieces[] = {{bulk, 0}, {bulk, 100}, {bulk + 100, 50000}, {bulk + 50100, 2}, {bulk, 0}};
    size_t n;

    watch(&duo, SIZE_MAX);
    ck_assert_int_eq(conn_write(duo.conn, bulk, BULK, &n), IO_OK);
    ck_assert_uint_eq(n, BULK);
    ck_assert_uint_eq(sends, 1);
    ck_assert_uint_eq(peer_read_all(&duo.peer), BULK);
    ck_assert_mem_eq(got, bulk, BULK);
    ck_assert_int_eq(conn_writev(duo.conn, pieces, 5, &n), IO_OK);
    ck_assert_uint_eq(n, 50102);
    ck_assert_uint_eq(sends, 2);
    ck_assert_uint_eq(peer_read_all(&duo.peer), 50102);
    ck_assert_mem_eq(got, bulk, 50102);
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

/* The socket is full at each of many places: inside a record, at its end, in the first, in the last. */
START_TEST(what_the_socket_does_not_take_is_kept_once) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);

    for (size_t takes = 0; takes < 70000; takes += takes < 16500 ? 5499 : 8133) {
        size_t n, unsent;

        watch(&duo, takes);
        loop_turn(loop, 5);
        duo.conn->writable = true;
        if (takes >= BULK + 4 * 40) {
            ck_assert_int_eq(conn_write(duo.conn, bulk, BULK, &n), IO_OK);
            ck_assert_uint_eq(n, BULK);
            ck_assert_uint_eq(peer_read_all(&duo.peer), BULK);
            continue;
        }
        ck_assert_int_eq(conn_write(duo.conn, bulk, BULK, &n), IO_OK);
        ck_assert_uint_eq(n, BULK - 1); /* what is left is sealed; the last byte stands for it */
        unsent = conn_unsent(duo.conn);
        ck_assert_uint_gt(unsent, BULK - takes);
        ck_assert_uint_lt(unsent, BULK - takes + 4 * 40);
        ck_assert(!duo.conn->writable);
        ck_assert_int_eq(conn_write(duo.conn, bulk + n, 2, &n), IO_AGAIN);
        room = 300; /* a little, which shows, but is no end */
        duo.conn->writable = true;
        if (unsent > 300) {
            ck_assert_int_eq(conn_write(duo.conn, bulk + BULK - 1, 2, &n), IO_AGAIN);
            ck_assert_uint_eq(conn_unsent(duo.conn), unsent - 300);
        }
        room = SIZE_MAX;
        duo.conn->writable = true;
        ck_assert_int_eq(conn_write(duo.conn, bulk + BULK - 1, 3, &n), IO_OK);
        ck_assert_uint_eq(n, 3);
        ck_assert_uint_eq(conn_unsent(duo.conn), 0);
        ck_assert_uint_eq(peer_read_all(&duo.peer), BULK + 2);
        ck_assert_mem_eq(got, bulk, BULK + 2);
    }
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

/* More than the thread's buffer holds: sealing stops where the socket does. */
START_TEST(no_more_is_sealed_than_a_buffer_holds) {
    static char large[400000];
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    size_t n, sent = 0, received = 0;

    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 2654435761u >> 9);
    watch(&duo, 0);
    for (int i = 0; i < 1000 && received < sizeof large; i++) {
        room = 20011;
        duo.conn->writable = true;
        if (sent < sizeof large) {
            enum io result = conn_write(duo.conn, large + sent, sizeof large - sent, &n);

            ck_assert_int_ne(result, IO_ERROR);
            sent += result == IO_OK ? n : 0;
        }
        ck_assert_uint_lt(conn_unsent(duo.conn), 68 * 1024);
        n = peer_read_all(&duo.peer);
        ck_assert_mem_eq(got, large + received, n);
        received += n;
    }
    ck_assert_uint_eq(received, sizeof large);
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

/* An alert between two halves of a record would be garbage; the peer sees a stream that is cut. */
START_TEST(nothing_is_sent_past_what_is_unsent) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    size_t n;

    watch(&duo, 30000);
    ck_assert_int_eq(conn_write(duo.conn, bulk, BULK, &n), IO_OK);
    room = 100;
    duo.conn->writable = true;
    conn_shutdown(duo.conn);
    n = peer_read_all(&duo.peer);
    ck_assert_uint_eq(n, 16384);
    ck_assert_mem_eq(got, bulk, n);
    ck_assert_int_eq(SSL_get_error(duo.peer.ssl, 0), SSL_ERROR_WANT_READ); /* neither an error nor an end */
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(close_notify_follows_what_was_unsent) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    size_t n;

    watch(&duo, 30000);
    ck_assert_int_eq(conn_write(duo.conn, bulk, BULK, &n), IO_OK);
    room = SIZE_MAX;
    duo.conn->writable = true;
    conn_shutdown(duo.conn);
    ck_assert_uint_eq(peer_read_all(&duo.peer), BULK);
    ck_assert_mem_eq(got, bulk, BULK);
    ck_assert_int_eq(SSL_get_error(duo.peer.ssl, 0), SSL_ERROR_ZERO_RETURN);
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(a_socket_that_breaks_under_a_shutdown_is_told_by_the_next_read) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    size_t n;

    watch(&duo, 30000);
    ck_assert_int_eq(conn_write(duo.conn, bulk, BULK, &n), IO_OK);
    ck_assert(!duo.conn->readable);
    close(duo.peer.fd);
    duo.peer.fd = -1;
    room = SIZE_MAX;
    duo.conn->writable = true; /* and no event has told of the rest */
    conn_shutdown(duo.conn);
    ck_assert(conn_may_read(duo.conn));
    ck_assert_int_eq(conn_read(duo.conn, got, sizeof got, &n), IO_ERROR);
    ck_assert_int_eq(duo.conn->error, EPIPE);
    ck_assert(duo.conn->failed);
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(key_updates_keep_their_place) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", TLS1_3_VERSION, NULL);
    size_t n;

    watch(&duo, 30000);
    ck_assert_int_eq(conn_write(duo.conn, bulk, BULK, &n), IO_OK);
    ck_assert_int_eq(SSL_key_update(duo.peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    peer_write(&duo.peer, "new keys", 8);
    peer_send(&duo.peer, SIZE_MAX);
    loop_turn(loop, 5);
    duo.conn->writable = false;
    ck_assert(conn_may_read(duo.conn));
    if (conn_read(duo.conn, got, sizeof got, &n) == IO_AGAIN) { /* the answer comes first, and there is no room for it */
        ck_assert(!conn_may_read(duo.conn));
        room = SIZE_MAX;
        duo.conn->writable = true;
        ck_assert(conn_may_read(duo.conn)); /* without a byte that came */
        ck_assert_int_eq(conn_read(duo.conn, got, sizeof got, &n), IO_OK);
    }
    ck_assert_uint_eq(n, 8);
    ck_assert_mem_eq(got, "new keys", 8);
    room = SIZE_MAX;
    duo.conn->writable = true;
    ck_assert_int_eq(conn_write(duo.conn, bulk + BULK - 1, 50000 - BULK + 1 + 15000, &n), IO_OK);
    ck_assert_uint_eq(peer_read_all(&duo.peer), BULK - 1 + n);
    ck_assert_mem_eq(got, bulk, BULK - 1 + n);
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

/* --- in --- */

START_TEST(records_come_with_one_recv) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    size_t n;

    peer_write(&duo.peer, bulk, BULK);
    peer_send(&duo.peer, SIZE_MAX);
    loop_turn(loop, 5);
    watch(&duo, SIZE_MAX);
    ck_assert_int_eq(conn_read(duo.conn, got, 65536, &n), IO_OK);
    ck_assert_uint_eq(n, BULK);
    ck_assert_mem_eq(got, bulk, BULK);
    ck_assert_uint_eq(recvs, 1);
    ck_assert(!conn_may_read(duo.conn));
    unwatch(&duo);
    tls_server_free(&server);
}
END_TEST

/* Records of many sizes, cut anywhere, read into places of many sizes: each byte comes once and in order. */
START_TEST(reads_of_any_size_lose_nothing) {
    static const size_t records[] = {16384, 1, 16384, 16384, 9000, 16384, 16384, 16384, 333, 16383}; /* bytes of text */
    static const size_t places[] = {65536, 32768, 65536, 40000, 17000, 65536, 1, 33000};
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    size_t written = 0, received = 0, n;
    unsigned round = 0;

    for (unsigned i = 0; i < 200; i++) {
        size_t size = records[i % 10];
        char text[16384];

        for (size_t j = 0; j < size; j++)
            text[j] = (char)((written + j) * 2654435761u >> 7);
        peer_write(&duo.peer, text, size);
        written += size;
    }
    while (received < written && round < 100000) {
        peer_send(&duo.peer, 1 + round * 7919u % 90000);
        loop_turn(loop, 5);
        while (conn_may_read(duo.conn)) {
            size_t place = places[round++ % 8];
            enum io result = conn_read(duo.conn, got, place, &n);

            ck_assert_int_ne(result, IO_ERROR);
            ck_assert_int_ne(result, IO_EOF);
            for (size_t j = 0; result == IO_OK && j < n; j++)
                ck_assert_int_eq(got[j], (char)((received + j) * 2654435761u >> 7));
            received += result == IO_OK ? n : 0;
        }
        round++;
    }
    ck_assert_uint_eq(received, written);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

/* What a read found behind its last byte, it tells when it is asked again; nothing more comes from outside. */
START_TEST(an_end_behind_data_is_told_by_the_next_read) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    size_t n;

    peer_write(&duo.peer, bulk, 20000);
    SSL_shutdown(duo.peer.ssl);
    peer_send(&duo.peer, SIZE_MAX);
    loop_turn(loop, 5);
    ck_assert_int_eq(conn_read(duo.conn, got, 65536, &n), IO_OK);
    ck_assert_uint_eq(n, 20000);
    ck_assert(!duo.conn->readable);
    ck_assert(conn_may_read(duo.conn));
    ck_assert_int_eq(conn_read(duo.conn, got, 65536, &n), IO_EOF);
    ck_assert(!duo.conn->truncated);
    ck_assert_int_eq(conn_read(duo.conn, got, 65536, &n), IO_EOF);
    ck_assert(!conn_may_read(duo.conn));
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(garbage_behind_data_is_told_by_the_next_read) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    size_t n;

    peer_write(&duo.peer, bulk, 20000);
    peer_send(&duo.peer, SIZE_MAX);
    ck_assert_int_eq(write(duo.peer.fd, "\x17\x03\x03\x00\x20 thirty-two bytes of no meaning ", 37), 37);
    loop_turn(loop, 5);
    ck_assert_int_eq(conn_read(duo.conn, got, 65536, &n), IO_OK);
    ck_assert_uint_eq(n, 20000);
    ck_assert(conn_may_read(duo.conn));
    ck_assert_int_eq(conn_read(duo.conn, got, 65536, &n), IO_ERROR);
    ck_assert_str_eq(tls_error_text(), "decryption failed or bad record mac");
    ck_assert(!conn_may_read(duo.conn));
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("tls_bulk");
    TCase *c = tcase_create("tls_bulk");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_unchecked_fixture(c, bulk_fill, NULL);
    tcase_set_timeout(c, 180);
    tcase_add_loop_test(c, records_leave_in_one_send, 0, 2);
    tcase_add_loop_test(c, what_the_socket_does_not_take_is_kept_once, 0, 2);
    tcase_add_test(c, no_more_is_sealed_than_a_buffer_holds);
    tcase_add_loop_test(c, nothing_is_sent_past_what_is_unsent, 0, 2);
    tcase_add_loop_test(c, close_notify_follows_what_was_unsent, 0, 2);
    tcase_add_test(c, a_socket_that_breaks_under_a_shutdown_is_told_by_the_next_read);
    tcase_add_test(c, key_updates_keep_their_place);
    tcase_add_loop_test(c, records_come_with_one_recv, 0, 2);
    tcase_add_loop_test(c, reads_of_any_size_lose_nothing, 0, 2);
    tcase_add_loop_test(c, an_end_behind_data_is_told_by_the_next_read, 0, 2);
    tcase_add_test(c, garbage_behind_data_is_told_by_the_next_read);
    suite_add_tcase(s, c);
    return s;
}

int main(void) {
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
