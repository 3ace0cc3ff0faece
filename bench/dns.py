"""A name server whose answers change, as those for a headless Service do when pods come and go.

Replicas on one machine are told apart as pods are: by address, on one port. Linux answers on all
of 127.0.0.0/8, so 127.0.0.1, 127.0.0.2 and so on stand for as many machines.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socketserver
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# RFC 1035, 4.1.1: a response, authoritative; and the code for a name that does not exist.
_AUTHORITATIVE: Final = 0x8400
_NO_SUCH_NAME: Final = 3
_HEADER: Final = struct.Struct("!6H")
# The question's type and class; a record's name, type, class, time to live and length.
_KIND: Final = struct.Struct("!2H")
_RECORD: Final = struct.Struct("!3HIH")
_TYPE_A: Final = 1
_CLASS_IN: Final = 1
# Nothing is to remember an answer that changes at any moment.
_TTL_S: Final = 0
# A pointer to the name in the question, which stands right behind the header.
_NAME_OF_QUESTION: Final = 0xC000 | _HEADER.size

Zone = Mapping[str, Sequence[str]]


def answer(query: bytes, zone: Zone) -> bytes:
    """The response to one DNS query (RFC 1035) over UDP.

    zone: name, in lower case, → its IPv4 addresses, in the order in which they are told.
        Other types than A have no records.
    Raises ValueError for a message that does not hold exactly one question.
    """
    if len(query) < _HEADER.size:
        raise ValueError("shorter than a header")
    identity, _, questions, *_ = _HEADER.unpack_from(query)
    if questions != 1:
        raise ValueError("not one question")
    name, end = _name(query, _HEADER.size)
    if end + _KIND.size > len(query):
        raise ValueError("a question cut short")
    kind = _KIND.unpack_from(query, end)
    addresses = zone.get(name, ()) if kind == (_TYPE_A, _CLASS_IN) else ()
    flags = _AUTHORITATIVE if name in zone else _AUTHORITATIVE | _NO_SUCH_NAME
    records = (
        _RECORD.pack(_NAME_OF_QUESTION, _TYPE_A, _CLASS_IN, _TTL_S, len(packed)) + packed
        for packed in (ipaddress.IPv4Address(address).packed for address in addresses)
    )
    header = _HEADER.pack(identity, flags, 1, len(addresses), 0, 0)
    return header + query[_HEADER.size : end + _KIND.size] + b"".join(records)


def _name(query: bytes, at: int) -> tuple[str, int]:
    """The name of labels that begins there, and where it ends."""
    labels: list[str] = []
    while at < len(query):
        length = query[at]
        at += 1
        if length == 0:
            return ".".join(labels).lower(), at
        labels.append(query[at : at + length].decode("ascii", "replace"))
        at += length
    raise ValueError("a name without an end")


@dataclass(frozen=True, slots=True)
class NameServer:
    """A name server that runs; whoever holds it changes its `zone`."""

    port: int
    zone: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def target(self, name: str, port: int) -> str:
        """A gRPC target: every address that this server has for the name."""
        return f"dns://127.0.0.1:{self.port}/{name}:{port}"


@contextlib.contextmanager
def serving() -> Iterator[NameServer]:
    """Serves on a free UDP port of loopback, in a thread of its own."""
    with socketserver.UDPServer(("127.0.0.1", 0), _Handler) as server:
        names = NameServer(server.server_address[1])
        server.zone = names.zone  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield names
        finally:
            server.shutdown()
            thread.join()


class _Handler(socketserver.BaseRequestHandler):
    server: Any

    def handle(self) -> None:
        query, reply_from = self.request
        reply_from.sendto(answer(query, self.server.zone), self.client_address)
