"""A slow, lossy wire: ``wire.py NEAR FAR DELAY LOSS`` carries frames between two new TAP devices.

Seconds, and the share of the frames that is lost; both hold each way. It does what the kernel's
netem does, which many kernels lack. It says "ready" when the devices are there, which go with it.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_LONGEST_FRAME = 65536
_MOST_IN_FLIGHT = 10_000


def _tap(name: str) -> int:
    # Without offloads, which are not asked for, the kernel hands over whole frames, checksums set.
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


def carry(near: int, far: int, delay: float, loss: float) -> None:
    """For ever."""
    other = {near: far, far: near}
    # Frames keep their order: the number decides between those of the same moment.
    in_flight: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        now = time.monotonic()
        while in_flight and in_flight[0][0] <= now:
            _, _, end, frame = heapq.heappop(in_flight)
            try:
                os.write(end, frame)
            except OSError:  # the device is down: the frame is lost
                continue
        patience = max(0.0, in_flight[0][0] - now) if in_flight else None
        for end in select.select([near, far], [], [], patience)[0]:
            try:
                frame = os.read(end, _LONGEST_FRAME)
            except OSError:
                continue
            if len(in_flight) < _MOST_IN_FLIGHT and random.random() >= loss:
                number += 1
                due = time.monotonic() + delay
                heapq.heappush(in_flight, (due, number, other[end], frame))


def main(near: str, far: str, delay: str, loss: str) -> None:
    ends = _tap(near), _tap(far)
    print("ready", flush=True)
    carry(*ends, float(delay), float(loss))


if __name__ == "__main__":
    main(*sys.argv[1:])
