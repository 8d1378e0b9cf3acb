#!/usr/bin/python
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Look whether a machine can be a host of virtmgr
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Looks at CPU, memory, kernel, control groups, disks, names, clock, ports and the way to the
    control plane, and returns everything that it found, at once.
  - Changes nothing and never fails because of what it finds.
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
options:
  server:
    description: Where the control plane listens for agents, as V(https://ADDRESS:PORT).
    type: str
    required: true
  ca:
    description: The control plane's CA certificate, in PEM.
    type: str
    required: true
  distribution:
    description: The fact C(ansible_facts.distribution).
    type: str
    required: true
  distribution_version:
    description: The fact C(ansible_facts.distribution_version).
    type: str
    required: true
  stream_address:
    description: Where the agent will listen for streams. By default the address that the machine
      uses towards the control plane.
    type: str
  stream_port:
    description: The port that the agent will listen on for streams.
    type: int
    default: 7446
  vms:
    description: Whether VMs shall run here.
    type: bool
    default: true
  min_cpus:
    description: How many CPUs it must have.
    type: int
    default: 1
  min_memory:
    description: How much memory it must have, in MiB.
    type: int
    default: 1024
  directories:
    description: Directories, and how much must be free for each, in MiB.
    type: dict
    default: {}
  max_clock_skew:
    description: How many seconds its clock may be off the control plane's.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Look at the machine
  virtmgr.core.preflight:
    server: https://10.0.0.1:7444
    ca: "{{ lookup('ansible.builtin.file', 'ca.crt') }}"
    distribution: "{{ ansible_facts.distribution }}"
    distribution_version: "{{ ansible_facts.distribution_version }}"
  register: found
"""

RETURN = r"""
errors:
  description: What must be put right first, each with what to do.
  returned: always
  type: list
  elements: dict
warnings_found:
  description: What should be put right, each with what to do.
  returned: always
  type: list
  elements: dict
address:
  description: The address that this machine uses towards the control plane.
  returned: always
  type: str
server_addresses:
  description: The control plane's addresses, as this machine resolves them.
  returned: always
  type: list
  elements: str
machine_id:
  description: Which machine it is, by machine-id(5); empty where it has no id.
  returned: always
  type: str
hostname:
  description: What it calls itself.
  returned: always
  type: str
"""

import email.utils
import errno
import http.client
import os
import platform
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtmgr.core.plugins.module_utils.preflight import (
    CONTROLLERS,
    ERROR,
    KERNEL_FEATURES,
    findings,
)

_TIMEOUT = 5
_WRONG_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, …_HAS_EXPIRED
_AGENT = Path("/opt/virtmgr/current/bin/virtmgr")
_TIME_KEEPERS = ("chronyd", "ntpd", "ntpsec", "systemd-timesyncd", "systemd-timesyn", "openntpd")
_FIREWALLS = {"firewalld": "firewall-cmd --state", "ufw": "ufw status"}


def observe(wanted):
    """Everything that the checks want to know of this machine."""
    server = urlsplit(wanted["server"])
    addresses = _resolve(server.hostname)
    address = _own_address(addresses, server.port)
    listen = wanted["stream_address"] or address
    date, server_error = _ask(server, wanted["ca"]) if addresses else (None, "")
    return {
        "uid": os.geteuid(),
        "machine": platform.machine(),
        "distribution": wanted["distribution"],
        "distribution_version": wanted["distribution_version"],
        "cpus": len(os.sched_getaffinity(0)),
        "virtualisation": any(f" {flag} " in _cpu_flags() for flag in ("vmx", "svm")),
        "kvm": Path("/dev/kvm").exists(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": [int(part) for part in platform.release().split("-")[0].split(".")[:2]],
        "features": [name for name in KERNEL_FEATURES if _has_feature(name)],
        "user_namespaces": int(_read("/proc/sys/user/max_user_namespaces") or 0),
        "controllers": _controllers(),
        "directories": {path: _place(Path(path)) for path in wanted["directories"]},
        "hostname": socket.gethostname(),
        "hostname_resolves": bool(_resolve(socket.gethostname())),
        "server_addresses": addresses,
        "server_error": server_error,
        "clock_skew": None if date is None else time.time() - date,
        "time_sync": any(name in _process_names() for name in _TIME_KEEPERS),
        "stream_address": listen,
        "stream_error": _cannot_listen(listen, wanted["stream_port"]) if listen else "",
        "firewalls": [name for name, command in _FIREWALLS.items() if _is_active(command)],
        "selinux": _read("/sys/fs/selinux/enforce") == "1",
        "address": address,
    }


def _read(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cpu_flags():
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("flags"):
            return line.partition(":")[2] + " "
    return ""


def _has_feature(name):
    """Built in, loaded, or there to be loaded."""
    if name in _read("/proc/filesystems").split() or Path("/sys/module", name).exists():
        return True
    if name == "tun" and Path("/dev/net/tun").exists():
        return True
    if name == "loop" and Path("/dev/loop-control").exists():
        return True
    modules = Path("/lib/modules", platform.release())
    file = name.replace("_", "[-_]")
    if any(modules.glob(f"kernel/**/{file}.ko*")):
        return True
    built_in = f"/{name}.ko" in _read(modules / "modules.builtin").replace("-", "_")
    return built_in or _answers(name)


def _answers(name):
    """Whether a kernel that lists nothing of what is in it has such a thing, by trying it."""
    if name == "nf_tables":
        return _netfilter_answers()
    kinds = {"bridge": ["bridge"], "veth": ["veth", "peer", "name", "vmpreflight1"]}
    if name not in kinds or shutil.which("ip") is None:
        return name in kinds  # without ip nobody can tell: iproute is among the packages
    command = ["ip", "link", "add", "vmpreflight0", "type", *kinds[name]]
    made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "link", "del", "vmpreflight0"], capture_output=True, check=False)
    return made


def _netfilter_answers():
    """Ask nf_tables for its generation: NFNL_SUBSYS_NFTABLES (10), NFT_MSG_GETGEN (16)."""
    request = (
        (20).to_bytes(4, "little")
        + (10 << 8 | 16).to_bytes(2, "little")
        + (1).to_bytes(2, "little")  # NLM_F_REQUEST
        + bytes(8)
        + bytes(4)
    )
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:  # NETLINK_NETFILTER
            netlink.settimeout(1)
            netlink.send(request)
            answer = netlink.recv(4096)
    except OSError:
        return False
    return int.from_bytes(answer[4:6], "little") == 10 << 8 | 15  # NFT_MSG_NEWGEN


def _controllers():
    unified = _read("/sys/fs/cgroup/cgroup.controllers").split()
    if unified:
        return unified
    mounted = [
        option
        for line in _read("/proc/self/mounts").splitlines()
        if line.split()[2] == "cgroup"
        for option in line.split()[3].split(",")
    ]
    return [name for name in CONTROLLERS if name in mounted]


def _place(path):
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    flags = {"nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC, "nosuid": os.ST_NOSUID}
    return {
        "free": found.f_bavail * found.f_frsize,
        "flags": [name for name, bit in flags.items() if found.f_flag & bit],
    }


def _resolve(name):
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({each[4][0] for each in found})


def _own_address(addresses, port):
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((address, port))
            except OSError:
                continue
            return probe.getsockname()[0]
    return ""


def _ask(server, ca):
    """The control plane's time, from an answer of whatever kind; or why there is none."""
    context = ssl.create_default_context(cadata=ca)
    try:
        return _date(server, context), ""
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in _WRONG_TIME:
            return None, error.verify_message
        # It is the clock that is wrong here or there, and by how much tells the other's date.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            return _date(server, context), error.verify_message
        except (OSError, http.client.HTTPException):
            return None, error.verify_message
    except (OSError, http.client.HTTPException) as error:
        return None, str(error)


def _date(server, context):
    connection = http.client.HTTPSConnection(
        server.hostname, server.port, timeout=_TIMEOUT, context=context
    )
    try:
        connection.request("GET", "/")
        date = connection.getresponse().headers["Date"]
    finally:
        connection.close()
    return email.utils.parsedate_to_datetime(date).timestamp() if date else None


def _cannot_listen(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen()
        except OSError as error:
            own = error.errno == errno.EADDRINUSE and _AGENT.exists()
            return "" if own else error.strerror  # where there is an agent, it listens there
    return ""


def _process_names():
    return {_read(path) for path in Path("/proc").glob("[0-9]*/comm")}


def _is_active(command):
    words = command.split()
    if shutil.which(words[0]) is None:
        return False
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "inactive" not in done.stdout


def main():
    """Look, decide, and return everything."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "str", "required": True},
            "ca": {"type": "str", "required": True},
            "distribution": {"type": "str", "required": True},
            "distribution_version": {"type": "str", "required": True},
            "stream_address": {"type": "str"},
            "stream_port": {"type": "int", "default": 7446},
            "vms": {"type": "bool", "default": True},
            "min_cpus": {"type": "int", "default": 1},
            "min_memory": {"type": "int", "default": 1024},
            "directories": {"type": "dict", "default": {}},
            "max_clock_skew": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    wanted = dict(module.params)
    wanted["server_name"] = urlsplit(wanted["server"]).hostname
    wanted["directories"] = {path: int(least) for path, least in wanted["directories"].items()}
    seen = observe(wanted)
    found = findings(seen, wanted)
    module.exit_json(
        changed=False,
        errors=[each for each in found if each["severity"] == ERROR],
        warnings_found=[each for each in found if each["severity"] != ERROR],
        address=seen["address"],
        server_addresses=seen["server_addresses"],
        machine_id=_read("/etc/machine-id"),
        hostname=seen["hostname"],
    )


if __name__ == "__main__":
    main()
