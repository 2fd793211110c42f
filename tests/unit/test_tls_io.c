/* SPDX-License-Identifier: MIT */
/* An established session: how it ends, when it may be read, retried writes, and what it costs when idle. */
#include "tls_ends.h"

/* --- the end of a session --- */

START_TEST(close_notify_is_a_clean_end) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    char data[64];
    size_t n;

    peer_write(&duo.peer, "last", 4);
    SSL_shutdown(duo.peer.ssl);
    peer_send(&duo.peer, SIZE_MAX);
    shutdown(duo.peer.fd, SHUT_WR);
    assert_reads(duo.conn, "last");
    ck_assert_int_eq(read_wait(duo.conn, data, sizeof data, &n), IO_EOF);
    ck_assert(!duo.conn->truncated);
    /* the other direction is still open */
    assert_writes(duo.conn, "answer");
    ck_assert_uint_eq(peer_read(&duo.peer, data, sizeof data), 6);
    conn_shutdown(duo.conn);
    ck_assert_uint_eq(peer_read(&duo.peer, data, sizeof data), 0);
    ck_assert_int_eq(SSL_get_error(duo.peer.ssl, 0), SSL_ERROR_ZERO_RETURN);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(fin_without_close_notify_is_truncation) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    char data[64];
    size_t n;

    peer_write(&duo.peer, "cut", 3);
    peer_send(&duo.peer, SIZE_MAX);
    shutdown(duo.peer.fd, SHUT_WR);
    assert_reads(duo.conn, "cut");
    ck_assert(!duo.conn->truncated);
    ck_assert_int_eq(read_wait(duo.conn, data, sizeof data, &n), IO_EOF);
    ck_assert(duo.conn->truncated);
    ck_assert_str_eq(tls_error_text(), "connection closed without close_notify");
    ck_assert_int_eq(read_wait(duo.conn, data, sizeof data, &n), IO_EOF);
    assert_writes(duo.conn, "answer");
    ck_assert_uint_eq(peer_read(&duo.peer, data, sizeof data), 6);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(fin_inside_a_record_is_truncation) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    char data[64];
    size_t n;

    peer_write(&duo.peer, "half a record", 13);
    peer_send(&duo.peer, 9);
    shutdown(duo.peer.fd, SHUT_WR);
    ck_assert_int_eq(read_wait(duo.conn, data, sizeof data, &n), IO_EOF);
    ck_assert(duo.conn->truncated);
    ck_assert(!conn_may_read(duo.conn));
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(reset_is_an_error_with_its_errno) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    char data[64];
    size_t n = 0;

    assert_writes(duo.conn, "never read");
    close(duo.peer.fd); /* a unix socket closed with unread data resets its peer */
    duo.peer.fd = -1;
    ck_assert_int_eq(read_wait(duo.conn, data, sizeof data, &n), IO_ERROR);
    ck_assert_int_eq(duo.conn->error, ECONNRESET);
    ck_assert_str_eq(tls_error_text(), strerror(ECONNRESET));
    ck_assert(!duo.conn->truncated);
    ck_assert_int_eq(conn_write(duo.conn, "x", 1, &n), IO_ERROR); /* and no SIGPIPE */
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(write_to_a_closed_peer_is_an_error) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    size_t n = 0;

    peer_receive(&duo.peer);
    close(duo.peer.fd);
    duo.peer.fd = -1;
    ck_assert_int_eq(conn_write(duo.conn, "x", 1, &n), IO_ERROR);
    ck_assert_int_eq(duo.conn->error, EPIPE);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(late_ticket_after_our_close_notify_hides_nothing) {
    struct tls_server *server = server_plain();
    struct tls_client *client = client_with(true, cert_a);
    struct ends ends = ends_open(server, client, "a.example");
    enum io result = IO_AGAIN;

    for (int i = 0; i < TURNS && result == IO_AGAIN; i++) {
        loop_turn(loop, 5);
        result = conn_handshake(ends.client);
        if (result == IO_AGAIN)
            conn_handshake(ends.server);
    }
    ck_assert_int_eq(result, IO_OK);
    conn_shutdown(ends.client); /* before the server has sent its ticket */
    for (int i = 0; i < TURNS && conn_handshake(ends.server) == IO_AGAIN; i++)
        loop_turn(loop, 5);
    assert_writes(ends.server, "behind the ticket");
    assert_reads(ends.client, "behind the ticket");
    ends_close(&ends);
    tls_server_free(&server);
    tls_client_free(&client);
}
END_TEST

START_TEST(garbage_in_a_session_is_an_error) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    char data[64];
    size_t n;

    ck_assert_int_eq(write(duo.peer.fd, "\x17\x03\x03\x00\x20 thirty-two bytes of no meaning ", 37), 37);
    ck_assert_int_eq(read_wait(duo.conn, data, sizeof data, &n), IO_ERROR);
    ck_assert_int_eq(duo.conn->error, 0);
    ck_assert_str_eq(tls_error_text(), "decryption failed or bad record mac");
    ck_assert_int_eq(conn_read(duo.conn, data, sizeof data, &n), IO_ERROR);
    ck_assert_int_eq(conn_write(duo.conn, data, sizeof data, &n), IO_ERROR);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

/* --- readiness --- */

START_TEST(pending_data_is_served_without_an_event) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    char data[10000], got[10000 + 777];
    size_t n, total = 0;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 7);
    peer_write(&duo.peer, data, sizeof data);
    peer_write(&duo.peer, "second record", 13);
    peer_send(&duo.peer, SIZE_MAX);
    loop_turn(loop, 5);
    ck_assert(conn_may_read(duo.conn));
    while (total < sizeof data + 13) { /* the second record came with the first recv() */
        ck_assert(conn_may_read(duo.conn));
        ck_assert_int_eq(conn_read(duo.conn, got + total, total == 0 ? 1 : 777, &n), IO_OK);
        total += n;
    }
    ck_assert_uint_eq(total, sizeof data + 13);
    ck_assert_mem_eq(got, data, sizeof data);
    ck_assert_mem_eq(got + sizeof data, "second record", 13);
    ck_assert(!duo.conn->readable); /* by the short read: nobody asked the kernel again */
    ck_assert(!conn_may_read(duo.conn));
    ck_assert_int_eq(conn_read(duo.conn, got, sizeof got, &n), IO_AGAIN);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(records_cut_at_every_byte_do_not_spin) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    char data[64];
    size_t n = 0;

    for (int round = 0; round < 3; round++) {
        peer_write(&duo.peer, "forty-two", 9);
        while (peer_send(&duo.peer, 1) == 1) {
            n = 0;
            loop_turn(loop, 5);
            ck_assert(conn_may_read(duo.conn));
            if (conn_read(duo.conn, data, sizeof data, &n) == IO_OK)
                break;
            ck_assert_uint_eq(n, 0);
            ck_assert(!conn_may_read(duo.conn)); /* part of a record inside is no reason to try again */
        }
        ck_assert_uint_eq(n, 9);
        ck_assert_mem_eq(data, "forty-two", 9);
        ck_assert_uint_eq(peer_send(&duo.peer, 1), 0);
    }
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(request_glued_to_the_handshake_is_pending) {
    struct tls_server *server = server_plain();
    struct conn *conn;
    struct peer peer;
    enum io result = IO_AGAIN;
    char data[64];
    size_t n;
    int fds[2];

    pair_open(fds);
    conn = server_conn(fds[0], server);
    peer = peer_open(fds[1], "a.example", TLS1_3_VERSION, NULL);
    for (int i = 0; i < TURNS && SSL_do_handshake(peer.ssl) != 1; i++) {
        peer_send(&peer, SIZE_MAX);
        loop_turn(loop, 5);
        conn_handshake(conn);
        peer_receive(&peer);
    }
    peer_write(&peer, "GET /", 5);
    peer_send(&peer, SIZE_MAX); /* Finished and the request: one recv() takes both */
    for (int i = 0; i < TURNS && result == IO_AGAIN; i++) {
        loop_turn(loop, 5);
        result = conn_handshake(conn);
    }
    ck_assert_int_eq(result, IO_OK);
    ck_assert(!conn->readable);
    ck_assert(conn_may_read(conn));
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_OK);
    ck_assert_uint_eq(n, 5);
    conn_close(&conn);
    peer_close(&peer);
    tls_server_free(&server);
}
END_TEST

START_TEST(a_write_that_waits_hides_no_record) {
    enum { SIZE = 4 << 20 };
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    char *bulk = calloc(1, SIZE), data[64];
    size_t n;

    for (int i = 0; i < 3; i++)
        peer_write(&duo.peer, "record", 6);
    peer_send(&duo.peer, SIZE_MAX);
    ck_assert_int_eq(read_wait(duo.conn, data, 6, &n), IO_OK); /* one recv() took all three */
    ck_assert(!duo.conn->readable);
    while (conn_write(duo.conn, bulk, SIZE, &n) == IO_OK) /* the peer reads nothing */
        ;
    ck_assert(!duo.conn->writable);
    for (int left = 2; left > 0; left--) { /* and no event comes until it does */
        ck_assert(conn_may_read(duo.conn));
        ck_assert_int_eq(conn_read(duo.conn, data, 6, &n), IO_OK);
        ck_assert_uint_eq(n, 6);
    }
    ck_assert(!conn_may_read(duo.conn));
    free(bulk);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

/* An error that somebody else has left in the thread's queue. */
static void leave_error(void) { ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH); }

START_TEST(errors_left_by_others_are_not_ours) { /* C18: the queue is cleared before each call, not only behind a failed one */
    struct tls_server *server = server_plain();
    enum io result = IO_AGAIN;
    char data[4096] = {0};
    size_t n;
    int fds[2];

    pair_open(fds);
    struct conn *conn = server_conn(fds[0], server);
    struct peer peer = peer_open(fds[1], "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    SSL_set_app_data(peer.ssl, &peer);
    for (int i = 0; i < TURNS && (result == IO_AGAIN || !SSL_is_init_finished(peer.ssl)); i++) {
        ERR_clear_error();
        (void)SSL_do_handshake(peer.ssl);
        peer_send(&peer, SIZE_MAX);
        loop_turn(loop, 5);
        leave_error();
        if (result == IO_AGAIN)
            result = conn_handshake(conn);
        ERR_clear_error();
        peer_receive(&peer);
    }
    ck_assert_int_eq(result, IO_OK);
    conn->readable = true; /* nothing is there, and it is asked all the same */
    leave_error();
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_AGAIN);
    do {
        leave_error();
        result = conn_write(conn, data, sizeof data, &n);
    } while (result == IO_OK);
    ck_assert_int_eq(result, IO_AGAIN);
    ck_assert(!conn->failed);
    ERR_clear_error();
    peer_write(&peer, "still here", 10);
    peer_send(&peer, SIZE_MAX);
    assert_reads(conn, "still here");
    conn_close(&conn);
    peer_close(&peer);
    tls_server_free(&server);
}
END_TEST

START_TEST(no_system_call_while_a_flag_is_clear) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", 0, NULL);
    char data[64];
    size_t n;

    peer_write(&duo.peer, "here", 4);
    peer_send(&duo.peer, SIZE_MAX);
    duo.conn->readable = false;
    ck_assert_int_eq(conn_read(duo.conn, data, sizeof data, &n), IO_AGAIN);
    duo.conn->readable = true;
    ck_assert_int_eq(conn_read(duo.conn, data, sizeof data, &n), IO_OK);
    peer_read(&duo.peer, data, sizeof data);
    duo.conn->writable = false;
    ck_assert_int_eq(conn_write(duo.conn, "there", 5, &n), IO_AGAIN);
    ck_assert_uint_eq(peer_read(&duo.peer, data, sizeof data), 0);
    duo.conn->writable = true;
    ck_assert_int_eq(conn_write(duo.conn, "there", 5, &n), IO_OK);
    ck_assert_uint_eq(peer_read(&duo.peer, data, sizeof data), 5);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(writes_are_retried_from_a_moved_buffer) {
    enum { SIZE = 3 << 20 };
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
    char *data = malloc(SIZE), *got = malloc(SIZE + 1);
    size_t sent = 0, received = 0, refused = 0, n;

    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    for (int i = 0; i < 100000 && received < SIZE; i++) {
        if (sent < SIZE) {
            size_t left = SIZE - sent < 70000 ? SIZE - sent : 70000;
            char *moved = malloc(left); /* a new place each time, and gone after the call */
            enum io result;
            memcpy(moved, data + sent, left);
            result = conn_write(duo.conn, moved, left, &n);
            memset(moved, '!', left);
            free(moved);
            ck_assert_int_ne(result, IO_ERROR);
            if (result == IO_OK) {
                sent += n;
                continue;
            }
            refused++;
            ck_assert(!duo.conn->writable);
        }
        while ((n = peer_read(&duo.peer, got + received, SIZE + 1 - received)) > 0)
            received += n;
        loop_turn(loop, 0);
    }
    ck_assert_uint_eq(received, SIZE);
    ck_assert_mem_eq(got, data, SIZE);
    ck_assert_uint_gt(refused, 0);
    free(data);
    free(got);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

START_TEST(bulk_both_ways_between_our_conns) {
    enum { SIZE = 1 << 20 };
    struct tls_server *server = server_plain();
    struct tls_client *client = client_with(true, cert_a);
    struct ends ends = ends_open(server, client, "a.example");
    struct conn *conns[2] = {ends.server, ends.client};
    char *data = malloc(SIZE), *got[2] = {malloc(SIZE), malloc(SIZE)};
    size_t sent[2] = {0, 0}, received[2] = {0, 0}, n;

    ck_assert_int_eq(ends_handshake(&ends).server, IO_OK);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 40503u >> 5);
    for (int turn = 0; turn < 100000 && (received[0] < SIZE || received[1] < SIZE); turn++) {
        for (int i = 0; i < 2; i++) {
            if (sent[i] < SIZE && conn_write(conns[i], data + sent[i], SIZE - sent[i], &n) == IO_OK)
                sent[i] += n;
            if (received[i] < SIZE && conn_read(conns[i], got[i] + received[i], SIZE - received[i], &n) == IO_OK)
                received[i] += n;
        }
        loop_turn(loop, 0);
    }
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(received[i], SIZE);
        ck_assert_mem_eq(got[i], data, SIZE);
        free(got[i]);
    }
    free(data);
    ends_close(&ends);
    tls_server_free(&server);
    tls_client_free(&client);
}
END_TEST

/* --- what an idle session costs --- */

START_TEST(idle_sessions_hold_no_buffers) {
    enum { COUNT = 64 };
    struct tls_server *server = server_plain();
    struct duo duos[COUNT], warm = duo_open(server, "a.example", 0, NULL);
    char data[4096];
    size_t n, before, with, after;

    /* The difference made by freeing our ends, so that the peers' memory does not count. */
    memset(data, 'x', sizeof data);
    for (int i = 0; i < COUNT; i++) {
        duos[i] = duo_open(server, "a.example", 0, NULL);
        peer_write(&duos[i].peer, data, 600);
        peer_send(&duos[i].peer, SIZE_MAX);
        ck_assert_int_eq(read_wait(duos[i].conn, data, sizeof data, &n), IO_OK);
        ck_assert_int_eq(conn_write(duos[i].conn, data, 300, &n), IO_OK);
        ck_assert_uint_eq(peer_read(&duos[i].peer, data, sizeof data), 300);
        ck_assert_int_eq(conn_read(duos[i].conn, data, sizeof data, &n), IO_AGAIN);
    }
    before = mallinfo2().uordblks;
    for (int i = 0; i < COUNT; i++)
        tls_free(&duos[i].conn->tls);
    after = mallinfo2().uordblks;
    with = (before - after) / COUNT;
    printf("idle TLS 1.3 server session: %zu bytes of heap\n", with);
    if (before != after) /* a checking allocator says nothing */
        ck_assert_uint_lt(with, 15000);
    for (int i = 0; i < COUNT; i++)
        duo_close(&duos[i]);
    duo_close(&warm);
    tls_server_free(&server);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("tls_io");
    TCase *c = tcase_create("tls_io");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, close_notify_is_a_clean_end, 0, 2);
    tcase_add_loop_test(c, fin_without_close_notify_is_truncation, 0, 2);
    tcase_add_test(c, fin_inside_a_record_is_truncation);
    tcase_add_test(c, reset_is_an_error_with_its_errno);
    tcase_add_test(c, write_to_a_closed_peer_is_an_error);
    tcase_add_test(c, late_ticket_after_our_close_notify_hides_nothing);
    tcase_add_test(c, garbage_in_a_session_is_an_error);
    tcase_add_test(c, pending_data_is_served_without_an_event);
    tcase_add_test(c, records_cut_at_every_byte_do_not_spin);
    tcase_add_test(c, request_glued_to_the_handshake_is_pending);
    tcase_add_test(c, a_write_that_waits_hides_no_record);
    tcase_add_loop_test(c, errors_left_by_others_are_not_ours, 0, 2);
    tcase_add_test(c, no_system_call_while_a_flag_is_clear);
    tcase_add_loop_test(c, writes_are_retried_from_a_moved_buffer, 0, 2);
    tcase_add_test(c, bulk_both_ways_between_our_conns);
    tcase_add_test(c, idle_sessions_hold_no_buffers);
    suite_add_tcase(s, c);
    return s;
}

int main(void) {
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
