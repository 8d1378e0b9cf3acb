"""Brings virtmgr's two nftables tables into force, and knows which ones are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time

from virtmgr.drivers.network import nft
from virtmgr.drivers.network.ruleset import FAMILIES, removal
from virtmgr.drivers.network.tools import find_tool, run_tool

_TRUST = 30.0  # seconds after which the kernel is asked again whether the tables are there


class Firewall:
    """Applies rulesets of one table name; an empty chain in each names what is in force.

    So an agent that restarts, or another program that flushed the tables, is noticed.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._applied = ""
        self._looked_at = 0.0

    def apply(self, ruleset: nft.Json) -> bool:
        """Let ``ruleset`` be in force, in one transaction; whether anything was done.

        :raises NetworkError: nft or the kernel refuses it; then the former one stays.
        """
        digest = hashlib.sha256(json.dumps(ruleset, sort_keys=True).encode()).hexdigest()[:32]
        if self._is_in_force(digest):
            return False
        chain = f"digest_{digest}"
        places = [{"family": family, "table": self._table, "name": chain} for family in FAMILIES]
        document = {"nftables": [*ruleset["nftables"], *({"add": {"chain": p}} for p in places)]}
        self._run(document, f"applying the firewall tables {self._table}")
        self._applied, self._looked_at = digest, time.monotonic()
        return True

    def remove(self) -> None:
        """Leave nothing of the tables."""
        self._run(removal(self._table), f"removing the firewall tables {self._table}")
        self._applied = ""

    def forget(self) -> None:
        """Ask the kernel at the next ``apply``."""
        self._applied = ""

    def _is_in_force(self, digest: str) -> bool:
        if digest == self._applied and time.monotonic() - self._looked_at < _TRUST:
            return True
        self._looked_at = time.monotonic()
        self._applied = digest if self._kernel_has(digest) else ""
        return bool(self._applied)

    def _kernel_has(self, digest: str) -> bool:
        """nft fails where the chain is missing, which is an answer and no error.

        One question a call: nft 1.0 finds only one family's chains in a transaction that lists.
        """
        nft = find_tool("nft")
        return all(
            subprocess.run(
                [nft, "list", "chain", family, self._table, f"digest_{digest}"],
                capture_output=True,
                timeout=_TRUST,
                check=False,
            ).returncode
            == 0
            for family in FAMILIES
        )

    def _run(self, document: nft.Json, attempt: str) -> None:
        run_tool([find_tool("nft"), "-j", "-f", "-"], attempt, text=json.dumps(document))
