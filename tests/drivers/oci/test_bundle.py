"""config.json: pinned by golden files, and valid by the OCI runtime-spec's own schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from virtmgr.domain.errors import DriverError
from virtmgr.domain.image import ContainerConfig, ImageManifest, ImageType
from virtmgr.domain.sync import DesiredImage, DesiredWorkload
from virtmgr.domain.workload import Init, Kind, PowerState, WorkloadSpec
from virtmgr.drivers.oci import bundle, seccomp
from virtmgr.drivers.oci.users import User

GOLDEN = Path(__file__).parent / "golden"
# Debian: golang-github-opencontainers-specs-dev
SCHEMA = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")


def desired(init: Init, config: ContainerConfig, **spec: Any) -> DesiredWorkload:
    manifest = ImageManifest(type=ImageType.CONTAINER, config=config)
    return DesiredWorkload(
        id="01980000-0000-7000-8000-000000000001",
        project="default",
        name="web1",
        kind=Kind.CONTAINER,
        init=init,
        generation=1,
        revision=1,
        spec=WorkloadSpec(name="web1", kind=Kind.CONTAINER, init=init, image="x", **spec),
        state=PowerState.RUNNING,
        image=DesiredImage(id="i", name="x", manifest=manifest),
    )


def facts(**more: Any) -> bundle.BundleFacts:
    run = Path("/run/virtmgr/oci/w")
    defaults: dict[str, Any] = {
        "rootfs": run / "rootfs",
        "etc": run / "etc",
        "id_base": 1_000_000,
        "cgroup_path": "/virtmgr/w",
    }
    return bundle.BundleFacts(**{**defaults, **more})


APP = bundle.build(
    desired(
        Init.APP,
        ContainerConfig(
            entrypoint=("/entry",), command=("-d",), env=("A=1", "B=2"), workdir="/srv"
        ),
        command=("serve", "--port", "80"),
        env={"B": "3"},
        resources={
            "vcpus": 0.5,
            "memory": "256MiB",
            "pids": 100,
            "io": {"read_bytes_per_second": "1MiB", "write_operations_per_second": 100},
        },
    ),
    facts(
        disks=(os.makedev(7, 1), os.makedev(7, 0)),
        user=User(1000, 1000, (1000, 200), "/home/web"),
        volumes=(
            bundle.VolumeBind(Path("/run/v/b"), "/data/sub", True),
            bundle.VolumeBind(Path("/run/v/a"), "/data", False),
        ),
    ),
)
SYSTEM = bundle.build(
    desired(Init.SYSTEM, ContainerConfig(init="system")),
    facts(
        limit_swap=False,
        controllers=frozenset({"memory"}),
        user=User(home="/root"),
        proc_files=(Path("/lxcfs/proc/uptime"), Path("/lxcfs/proc/meminfo"), Path("/lxcfs/proc/x")),
    ),
)


@pytest.mark.parametrize(("name", "config"), [("app", APP), ("system", SYSTEM)])
def test_golden(name: str, config: dict[str, Any]) -> None:
    path = GOLDEN / f"{name}.json"
    if "UPDATE_GOLDEN" in os.environ:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(config, indent=2) + "\n")
    assert config == json.loads(path.read_text()), "UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("config", [APP, SYSTEM], ids=["app", "system"])
def test_it_is_valid_by_the_runtime_spec(config: dict[str, Any]) -> None:
    if not SCHEMA.exists():
        pytest.skip("golang-github-opencontainers-specs-dev is not installed")

    def retrieve(uri: str) -> Resource[Any]:
        return Resource(json.loads((SCHEMA / Path(uri).name).read_text()), DRAFT4)

    schema = json.loads((SCHEMA / "config-schema.json").read_text())
    registry: Registry[Any] = Registry(retrieve=retrieve)
    jsonschema.Draft4Validator(schema, registry=registry).validate(config)


def test_the_command_replaces_the_images_command_and_keeps_its_entrypoint() -> None:
    config = ContainerConfig(entrypoint=("/entry",), command=("-d",))
    assert bundle.command_line(desired(Init.APP, config)) == ("/entry", "-d")
    assert bundle.command_line(desired(Init.APP, config, command=("x",))) == ("/entry", "x")
    assert bundle.command_line(desired(Init.SYSTEM, ContainerConfig())) == ("/sbin/init",)
    with pytest.raises(DriverError, match="command"):
        bundle.command_line(desired(Init.APP, ContainerConfig()))


def test_who_is_not_root_holds_no_capabilities() -> None:
    held = APP["process"]["capabilities"]
    assert held["effective"] == held["permitted"] == []
    assert "CAP_SYS_ADMIN" not in held["bounding"]
    assert "CAP_SYS_MODULE" not in SYSTEM["process"]["capabilities"]["bounding"]


def test_every_rule_of_the_filter_names_a_call_once() -> None:
    for init in Init:
        rules = seccomp.profile(init, "x86_64")["syscalls"]
        plain = [name for rule in rules if "args" not in rule for name in rule["names"]]
        assert len(plain) == len(set(plain))
        allowed = {
            name
            for rule in rules
            if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
            for name in rule["names"]
        }
        forbidden = {"init_module", "kexec_load", "bpf", "open_by_handle_at", "swapon"}
        assert not allowed & forbidden
        assert ("mount" in allowed) == (init is Init.SYSTEM)
