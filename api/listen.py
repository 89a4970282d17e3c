"""The socket that the server listens on."""

from __future__ import annotations

import socket

from api.errors import SettingsError


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one.

    The protocol is named, because asyncio switches off Nagle's algorithm only on sockets that say
    they are TCP; otherwise each small answer would wait some 40 ms for an acknowledgement.

    Raises:
        SettingsError: if the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}); choose another --port."
        ) from error
    return listener
