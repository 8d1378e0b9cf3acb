"""Passwords: checked right, and without stopping the process's greenlets."""

from __future__ import annotations

import subprocess
import sys

from virtmgr.services.passwords import hash_password, verify_password

_UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent
from virtmgr.services.passwords import hash_password, verify_password

ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.001)

ticker = gevent.spawn(tick)
assert verify_password(hash_password("correct horse"), "correct horse")
ticker.kill()
print(ticks)
"""


def test_the_right_password_and_no_other() -> None:
    hash = hash_password("correct horse")
    assert hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(hash, "correct horse")
    assert not verify_password(hash, "wrong horse")
    assert not verify_password(None, "correct horse")
    assert not verify_password("no hash", "correct horse")


def test_greenlets_run_while_a_password_is_hashed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNDER_GEVENT],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) > 2  # 1 if hashing stopped the loop
