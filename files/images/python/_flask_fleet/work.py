"""What the application is at work on, for the health check: a server whose threads are all busy does not hang."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path


class Work:
    """The requests under way, each with the time at which it is late."""

    def __init__(self, request_seconds: float, pause_seconds: float, file: Path) -> None:
        """Start with no requests.

        Args:
            request_seconds: After how long without a word from the application a request is late.
            pause_seconds: How long the server may be silent while no request is under way.
            file: Gets the port where this process answers; beside it is that of `drain`.
        """
        self.request_seconds = request_seconds
        self.pause_seconds = pause_seconds
        self.file = file
        self.late_at: dict[object, float] = {}
        self.moved_at = time.monotonic()
        self.lock = threading.Lock()
        self.answering = 0

    def enter(self, request: object, seconds: float) -> None:
        """Note that the application has begun with a request, or goes on with it, and how many seconds it may take."""
        self.late_at[request] = time.monotonic() + seconds

    def leave(self, request: object) -> None:
        """Note that the application has given a part of the answer: it is the client's turn."""
        self.late_at[request] = math.inf
        self.moved_at = time.monotonic()

    def end(self, request: object) -> None:
        """Forget a request."""
        self.late_at.pop(request, None)
        self.moved_at = time.monotonic()

    def stands_still(self) -> bool:
        """Tell whether nothing moves: all requests are late, or there are none although the server does not answer."""
        now = time.monotonic()
        late = all(late_at <= now for late_at in tuple(self.late_at.values()))
        return late and now - self.moved_at > self.pause_seconds

    def answer(self) -> None:
        """Have a thread of this process answer the health check from now on.

        A thread of the server's might be busy for long, and another process would answer although this one is stopped.
        It begins with the first request: a server may import the application in one process and call it in another.
        """
        with self.lock:
            if self.answering == os.getpid():
                return
            self.answering = os.getpid()
            listener = socket.create_server(("127.0.0.1", 0))
            self.file.write_text(f"{listener.getsockname()[1]}\n", encoding="utf-8")
            threading.Thread(target=self._answer_all, args=(listener,), name="health check", daemon=True).start()

    def _answer_all(self, listener: socket.socket) -> None:
        while True:
            # Whoever asked may be gone again.
            with suppress(OSError), listener.accept()[0] as connection:
                connection.sendall(b"stands still\n" if self.stands_still() else b"works\n")
