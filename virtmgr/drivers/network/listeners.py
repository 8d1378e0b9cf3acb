"""Which process of the host's uses a port, for people to read."""

from __future__ import annotations

from pathlib import Path

_TCP_LISTEN = "0A"


def listener(protocol: str, port: int) -> str | None:
    """``nginx (process 812)``; None when it cannot be found out."""
    inodes = {inode for table in (protocol, protocol + "6") for inode in _inodes(table, port)}
    return _holder({f"socket:[{inode}]" for inode in inodes}) if inodes else None


def _inodes(table: str, port: int) -> list[str]:
    """Sockets bound to the port, from /proc/net (proc(5))."""
    try:
        lines = Path("/proc/thread-self/net", table).read_text().splitlines()[1:]
    except FileNotFoundError:
        return []
    rows = [line.split() for line in lines]
    return [
        row[9]
        for row in rows
        if int(row[1].rsplit(":", 1)[1], 16) == port
        and (row[3] == _TCP_LISTEN or table.startswith("udp"))
    ]


def _holder(sockets: set[str]) -> str | None:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, sockets):
            return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return None


def _holds(process: Path, sockets: set[str]) -> bool:
    """Processes come and go while one looks: one that went holds nothing."""
    try:
        return any(str(handle.readlink()) in sockets for handle in (process / "fd").iterdir())
    except OSError:
        return False
