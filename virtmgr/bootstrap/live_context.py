"""TLS contexts that follow the files that they are made of."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from socket import SO_ACCEPTCONN, SOL_SOCKET, socket
from typing import Any


class LiveContext(ssl.SSLContext):
    """Makes each connection with the latest of the contexts that ``make`` gives.

    A context can be given another certificate, but it never trusts less than it did: where a CA is
    retired there has to be another one. Connections that are open go on as they are.
    """

    _make: Callable[[], ssl.SSLContext]
    _latest: ssl.SSLContext

    def __new__(cls, make: Callable[[], ssl.SSLContext]) -> LiveContext:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._make = make
        made._latest = make()
        return made

    def take_up(self) -> None:
        """Make further connections with what there is now; what fails leaves it as it was.

        :raises OSError: a file is missing, or does not go with the others.
        """
        self._latest = self._make()

    def wrap_socket(self, sock: socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        if sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):  # each that it accepts comes here again
            return super().wrap_socket(sock, *arguments, **options)
        return self._latest.wrap_socket(sock, *arguments, **options)

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self._latest.wrap_bio(*arguments, **options)
