"""Messages of any length over a socket, each after its length, with a deadline.

send(connection, b"...", deadline=time.monotonic() + 5)
receive(connection, deadline=None)
"""

from __future__ import annotations

import socket
import struct
import time

_LENGTH = struct.Struct("<Q")


def send(connection: socket.socket, message: bytes, deadline: float | None) -> None:
    """TimeoutError at the deadline; OSError where nobody listens."""
    connection.settimeout(_left(deadline))
    connection.sendall(_LENGTH.pack(len(message)))
    connection.sendall(message)


def receive(connection: socket.socket, deadline: float | None) -> bytearray:
    """The next message. TimeoutError at the deadline, EOFError where the other side has gone."""
    return _read(connection, _LENGTH.unpack(_read(connection, _LENGTH.size, deadline))[0], deadline)


def _read(connection: socket.socket, num: int, deadline: float | None) -> bytearray:
    message = bytearray(num)
    view = memoryview(message)
    while len(view):
        connection.settimeout(_left(deadline))
        received = connection.recv_into(view)
        if not received:
            raise EOFError
        view = view[received:]
    return message


def _left(deadline: float | None) -> float | None:
    """Seconds that are left; a socket would take 0 for "do not wait at all"."""
    return None if deadline is None else max(deadline - time.monotonic(), 1e-3)
