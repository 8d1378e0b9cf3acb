"""Changes to a container that runs: which take effect now, and which at the next start. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from virtmgr.domain.sync import DesiredNic, DesiredVolume, DesiredWorkload

_AT_START = ("image", "init", "command", "env", "workdir", "user", "user_data")


@dataclass(frozen=True)
class Changes:
    """What differs between the run as it is and the workload as it should be."""

    resources: bool
    attach_nics: tuple[DesiredNic, ...]
    detach_nics: tuple[DesiredNic, ...]
    attach_volumes: tuple[DesiredVolume, ...]
    detach_volumes: tuple[DesiredVolume, ...]
    needs_restart: tuple[str, ...]


def changes(applied: DesiredWorkload, desired: DesiredWorkload) -> Changes:
    """Compare what runs with what is asked for."""
    waiting = [n for n in _AT_START if getattr(applied.spec, n) != getattr(desired.spec, n)]
    if applied.name != desired.name:
        waiting.append("name")
    nics_now, nics_then = ({nic.id: nic for nic in w.nics} for w in (applied, desired))
    volumes_now, volumes_then = ({v.id: v for v in w.volumes} for w in (applied, desired))
    return Changes(
        resources=applied.spec.resources != desired.spec.resources,
        attach_nics=tuple(n for i, n in nics_then.items() if nics_now.get(i) != n),
        detach_nics=tuple(n for i, n in nics_now.items() if nics_then.get(i) != n),
        attach_volumes=tuple(
            v for i, v in volumes_then.items() if not _same_mount(volumes_now.get(i), v)
        ),
        detach_volumes=tuple(
            v for i, v in volumes_now.items() if not _same_mount(volumes_then.get(i), v)
        ),
        needs_restart=tuple(waiting),
    )


def _same_mount(one: DesiredVolume | None, other: DesiredVolume) -> bool:
    if one is None:
        return False
    return (one.path, one.read_only) == (other.path, other.read_only)


def in_effect(
    applied: DesiredWorkload, desired: DesiredWorkload, waiting: tuple[str, ...]
) -> DesiredWorkload:
    """The run as it is once the live changes are made; what waits for a restart stays old."""
    resources = desired.spec.resources
    if "resources.memory" in waiting:
        resources = resources.model_copy(update={"memory": applied.spec.resources.memory})
    spec = applied.spec.model_copy(
        update={
            "resources": resources,
            "root_disk": desired.spec.root_disk,
            "nics": desired.spec.nics,
            "volumes": desired.spec.volumes,
        }
    )
    live = {"spec": spec, "nics": desired.nics, "volumes": desired.volumes}
    return applied.model_copy(update=live)
