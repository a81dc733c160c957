"""A client of the PostgreSQL protocol that sends what it is told to, byte by byte."""

from __future__ import annotations

import hashlib
import io
import socket
import struct

from mlbatch.devstack.redshift.wire_messages import message, read_message

SYNC = message(b"S")


class Client:
    """Sends what it is told to and collects the replies."""

    def __init__(self, face, **parameters):
        self.socket = socket.create_connection(("127.0.0.1", face.port), timeout=20)
        self.stream = self.socket.makefile("rb")
        named = {"user": "awsuser", "unheard_of": "x", **parameters}
        words = "".join(f"{name}\0{value}\0" for name, value in named.items())
        self.start(words.encode() + b"\0")
        kind, challenge = read_message(self.stream)
        assert (kind, challenge[:4]) == (b"R", struct.pack("!i", 5))
        inner = hashlib.md5(b"sesameawsuser").hexdigest().encode()
        proof = hashlib.md5(inner + challenge[4:]).hexdigest().encode()
        self.socket.sendall(message(b"p", b"md5" + proof + b"\0"))
        self.greeting = self.replies()

    def start(self, words, version=3 << 16):
        self.socket.sendall(struct.pack("!ii", 8 + len(words), version) + words)

    def replies(self):
        """All up to ReadyForQuery."""
        found = []
        while not found or found[-1][0] != b"Z":
            found.append(read_message(self.stream))
        return found

    def ask(self, *messages):
        self.socket.sendall(b"".join(messages))
        return self.replies()

    def close(self):
        self.stream.close()
        self.socket.close()


def parse(sql, *oids, name=b""):
    types = struct.pack(f"!h{len(oids)}i", len(oids), *oids)
    return message(b"P", name + b"\0" + sql.encode() + b"\0" + types)


def bind(*values, formats=(), results=(), name=b""):
    body = b"\0" + name + b"\0" + struct.pack(f"!h{len(formats)}h", len(formats), *formats)
    body += struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message(b"B", body + struct.pack(f"!h{len(results)}h", len(results), *results))


def execute(limit=0):
    return message(b"E", b"\0" + struct.pack("!i", limit))


def query(sql):
    return message(b"Q", sql.encode() + b"\0")


def kinds(replies):
    return b"".join(kind for kind, _ in replies).decode()


def code(replies):
    (error,) = [body for kind, body in replies if kind == b"E"]
    return {part[:1]: part[1:] for part in error.split(b"\0") if part}[b"C"].decode()


def cells(replies):
    """The rows, of values or None."""
    found = []
    for kind, body in replies:
        if kind == b"D":
            stream, row = io.BytesIO(body), []
            (count,) = struct.unpack("!h", stream.read(2))
            for _ in range(count):
                (size,) = struct.unpack("!i", stream.read(4))
                row.append(None if size < 0 else stream.read(size))
            found.append(row)
    return found


def statuses(client):
    pairs = [body[:-1].split(b"\0") for kind, body in client.greeting if kind == b"S"]
    return {name.decode(): value.decode() for name, value in pairs}
