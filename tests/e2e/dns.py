# SPDX-License-Identifier: MIT
"""A name server for the tests, UDP and TCP on 127.0.0.1: what it knows is set by the test at any time."""

import ipaddress
import socket
import struct
import threading

A, AAAA, SRV = 1, 28, 33
UDP_MAX = 512  # longer answers come by TCP only


def labels(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part) + b"\0"


class NameServer:
    def __init__(self):
        for _ in range(50):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 0))
            try:
                self.listener = socket.create_server(self.socket.getsockname())
                break
            except OSError:
                self.socket.close()
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.by_tcp = 0
        self.names = {}     # name -> addresses, or (priority, weight, port, target) of SRV records
        self.mood = "answer"  # "fail": SERVFAIL; "silent": nothing
        self.silent_types = set()
        self.asked = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while True:
                size = stream.read(2)
                if len(size) < 2:
                    return
                answer = self._answer(stream.read(int.from_bytes(size, "big")))
                if answer:
                    self.by_tcp += 1
                    for piece in (len(answer).to_bytes(2, "big"), answer[:100], answer[100:]):
                        connection.sendall(piece)

    def _run(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            if not query:
                return
            answer = self._answer(query)
            if answer and len(answer) > UDP_MAX:  # truncated: ask by TCP
                end = query.index(b"\0", 12) + 5
                answer = answer[:2] + bytes([answer[2] | 2, answer[3]]) + struct.pack(">HHHH", 1, 0, 0, 0) + query[12:end]
            if answer:
                self.socket.sendto(answer, peer)

    def _answer(self, query):
        at, parts = 12, []
        while query[at]:
            parts.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(parts).lower(), struct.unpack(">H", query[at + 1:at + 3])[0]
        self.asked.append((name, kind))
        if self.mood == "silent" or kind in self.silent_types:
            return None
        known = self.names.get(name)
        records = [data for type_, data in map(self._record, known or []) if type_ == kind]
        code = 2 if self.mood == "fail" else 0 if known is not None else 3
        body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 1, len(data)) + data for data in records)
        return query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, 0 if code else len(records), 0, 0) + query[12:at + 5] + \
            (b"" if code else body)

    @staticmethod
    def _record(record):
        if isinstance(record, tuple):
            return SRV, struct.pack(">HHH", *record[:3]) + labels(record[3])
        address = ipaddress.ip_address(record)
        return (A if address.version == 4 else AAAA), address.packed

    def close(self):
        port = self.socket.getsockname()
        self.socket.sendto(b"", port)
        self.thread.join(5)
        self.socket.close()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
