"""The CPU that VMs of a cluster see, so that they can run on each of its hosts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

HOST: Final = "host"
"""All that its host has; such a VM moves live between equal hosts only."""
AUTO: Final = "auto"
"""The best model that all hosts of the cluster have."""

_RANKS: Final = (  # libvirt's models (cpu_map), of each maker by age: later ones have more
    *("qemu64", "kvm64", "Opteron_G1", "Opteron_G2", "Conroe", "Penryn", "Opteron_G3"),
    *("Nehalem", "Nehalem-IBRS", "Westmere", "Westmere-IBRS", "Opteron_G4", "Opteron_G5"),
    *("SandyBridge", "SandyBridge-IBRS", "IvyBridge", "IvyBridge-IBRS"),
    *("Haswell-noTSX", "Haswell-noTSX-IBRS", "Haswell", "Haswell-IBRS"),
    *("Broadwell-noTSX", "Broadwell-noTSX-IBRS", "Broadwell", "Broadwell-IBRS"),
    *("Dhyana", "EPYC", "EPYC-IBPB", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"),
    *("Skylake-Client-noTSX-IBRS", "Skylake-Client", "Skylake-Client-IBRS"),
    *("Skylake-Server-noTSX-IBRS", "Skylake-Server", "Skylake-Server-IBRS"),
    *("Cascadelake-Server-noTSX", "Cascadelake-Server", "Cooperlake"),
    *("Icelake-Server-noTSX", "Icelake-Server", "SapphireRapids", "GraniteRapids"),
)


def baseline(models: Iterable[Sequence[str]]) -> str | None:
    """The best known model among those that every host offers; None: there is none.

    :param models: what each host offers; one that offers nothing runs no VMs, and does not count.
    """
    offered = [frozenset(each) for each in models if each]
    if not offered:
        return None
    common = frozenset.intersection(*offered)
    return max((one for one in common if one in _RANKS), key=_RANKS.index, default=None)


def resolved(wanted: str, models: Iterable[Sequence[str]]) -> str | None:
    """The model that a VM of a cluster that says ``wanted`` sees; None: its host's own CPU."""
    if wanted == HOST:
        return None
    return baseline(models) if wanted == AUTO else wanted
