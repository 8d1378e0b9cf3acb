"""No process outlives its parent, whenever that is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

_WAITS = """
import os, time
from virtmgr.bootstrap.processes import apart

def work() -> None:
    print(os.getpid(), flush=True)
    time.sleep(1000)

apart(work)
"""


def test_work_that_is_done_apart_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _WAITS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, os.fdopen(os.pidfd_open(int(parent.stdout.readline()))) as child:
        parent.kill()
        try:
            assert select.select([child], [], [], 60)[0] == [child]  # readable: it has ended
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.fileno(), signal.SIGKILL)
