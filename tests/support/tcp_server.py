"""TCP server on 127.0.0.1 with a thread per connection."""

from __future__ import annotations

import socket
import threading


class TcpServer:
    """Accepts connections from its creation on. A subclass sets its attributes first, then calls `__init__`."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Serve one connection and close it."""
        raise NotImplementedError
