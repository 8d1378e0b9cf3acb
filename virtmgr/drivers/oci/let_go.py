"""A program of its own: take the terminal that is standard input from its session, and let it go.

Runs as the leader of a new session (tty_ioctl(4), TIOCSCTTY and TIOCNOTTY).
"""

from __future__ import annotations

import fcntl
import signal
import termios

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # sent to whoever loses a terminal
    fcntl.ioctl(0, termios.TIOCSCTTY, 1)
    fcntl.ioctl(0, termios.TIOCNOTTY)
