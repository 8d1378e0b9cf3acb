"""Holds the host's ports that are published, so that no process of the host's can take them.

A published port is rewritten before any socket of the host's sees it. Publishing one that a
program listens on would silently cut that program off; so the port is bound here first, and
whoever comes second is told.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping

from virtmgr.drivers.network.listeners import listener
from virtmgr.drivers.network.publications import Publication

_Key = tuple[str, str, int]


class Reservations:
    """The sockets that hold published ports. Not safe in threads; its owner has a lock."""

    def __init__(self) -> None:
        self._held: dict[_Key, tuple[Publication, socket.socket]] = {}

    def hold(self, wanted: Iterable[Publication]) -> Mapping[Publication, str]:
        """Take every port that is free. Those that are not, each with the reason."""
        refused = {}
        for publication in wanted:
            held = self._held.get(publication.key)
            if held is None:
                why = self._bind(publication)
            elif held[0].workload_id == publication.workload_id:
                why = None
            else:
                why = f"workload {held[0].workload!r} has published it"
            if why is not None:
                refused[publication] = why
        return refused

    def keep_only(self, wanted: Iterable[Publication]) -> None:
        """Give back every port that none of these asks for."""
        owners = {(each.key, each.workload_id) for each in wanted}
        for key, (publication, held) in list(self._held.items()):
            if (key, publication.workload_id) not in owners:
                held.close()
                del self._held[key]

    def close(self) -> None:
        self.keep_only(())

    def _bind(self, publication: Publication) -> str | None:
        try:
            self._held[publication.key] = publication, _bound(publication)
        except OSError as error:
            return self._why(publication, error)
        return None

    def _why(self, publication: Publication, error: OSError) -> str:
        if error.errno == errno.EADDRNOTAVAIL:
            return f"this host does not have the address {publication.address}"
        if error.errno != errno.EADDRINUSE:
            return str(error)
        for other, _ in self._held.values():
            if (other.protocol, other.port) == (publication.protocol, publication.port):
                return f"workload {other.workload!r} has published {other}"
        holder = listener(publication.protocol, publication.port)
        return f"{holder} on this host uses it" if holder else "another program uses it"


def _bound(publication: Publication) -> socket.socket:
    """A socket that has the port. Listening is what keeps others off with SO_REUSEADDR (ip(7))."""
    family = socket.AF_INET6 if ":" in publication.address else socket.AF_INET
    tcp = publication.protocol == "tcp"
    bound = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if tcp:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past TIME_WAIT
        bound.bind((publication.address, publication.port))
        if tcp:
            bound.listen(1)
    except OSError:
        bound.close()
        raise
    return bound
