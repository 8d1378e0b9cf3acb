"""The local terminal: raw mode, its size, and input that can be woken."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_CHUNK = 32 * 1024


def size() -> tuple[int, int]:
    """Rows and columns of the terminal."""
    found = shutil.get_terminal_size()
    return found.lines, found.columns


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Raw mode while the block runs: every key goes to the other side."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Input:
    """Reads standard input in a thread of its own, and hears of changes of the window.

    ``on_data`` gets what is typed (``b""`` once at its end), ``on_resize`` the new rows and
    columns. Both run in the thread.
    """

    def __init__(
        self,
        on_data: Callable[[bytes], bool | None],
        on_resize: Callable[[int, int], None] | None = None,
    ) -> None:
        self._on_data = on_data
        self._on_resize = on_resize
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._run, name="stdin", daemon=True)
        self._stopping = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read while the block runs."""
        before = signal.getsignal(signal.SIGWINCH)
        if self._on_resize is not None:
            signal.signal(signal.SIGWINCH, self._window_changed)
        self._thread.start()
        try:
            yield
        finally:
            if self._on_resize is not None:
                signal.signal(signal.SIGWINCH, before)
            self._stopping = True
            self._wake()
            self._thread.join(timeout=5)
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _window_changed(self, _signal: int, _frame: FrameType | None) -> None:
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # a wake-up waits there already
            os.write(self._wake_write, b"w")

    def _run(self) -> None:
        stdin = sys.stdin.fileno()
        with _Readable(self._wake_read, stdin) as readable:
            while True:
                ready = readable.wait()
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                    if self._stopping:
                        return
                    if self._on_resize is not None:
                        self._on_resize(*size())
                elif stdin in ready:
                    data = os.read(stdin, _CHUNK)
                    keep_on = self._on_data(data)
                    if not data or keep_on is False:
                        readable.forget(stdin)


class _Readable:
    """Waits for descriptors to be readable; plain files always are."""

    def __init__(self, *descriptors: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._always: set[int] = set()
        for descriptor in descriptors:
            try:
                self._selector.register(descriptor, selectors.EVENT_READ)
            except PermissionError:  # epoll takes no plain files
                self._always.add(descriptor)

    def __enter__(self) -> _Readable:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._selector.close()

    def wait(self) -> set[int]:
        found = self._selector.select(0 if self._always else None)
        return {key.fd for key, _events in found} | self._always

    def forget(self, descriptor: int) -> None:
        if descriptor in self._always:
            self._always.discard(descriptor)
        else:
            self._selector.unregister(descriptor)
