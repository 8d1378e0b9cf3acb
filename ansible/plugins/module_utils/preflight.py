"""Whether a machine can be a host of virtmgr: pure decisions over what was seen on it.

Runs on the host, under whatever Python 3.8 or newer its distribution has.
"""

from __future__ import annotations

ERROR = "error"
WARNING = "warning"

MIB = 1024 * 1024

SUPPORTED = {
    "Debian": ("12", "13"),
    "Ubuntu": ("22.04", "24.04"),
    "RedHat": ("9", "10"),
    "Rocky": ("9", "10"),
    "AlmaLinux": ("9", "10"),
}

# Where the Python that the agent needs stands beside the system's, which libvirt's binding is for.
CONTAINERS_ONLY = (
    ("Ubuntu", "22.04"),
    ("RedHat", "9"),
    ("Rocky", "9"),
    ("AlmaLinux", "9"),
)

# Features of the kernel, and what does not work without them.
KERNEL_FEATURES = {
    "overlay": "containers' root file systems",
    "bridge": "networks",
    "veth": "containers' NICs",
    "tun": "VMs' NICs",
    "nf_tables": "address translation and security",
    "loop": "containers' disks",
    "ext4": "containers' disks",
}
CONTROLLERS = ("cpu", "memory", "pids")


def finding(severity, what, message, hint):
    """One thing that was found, and what to do about it."""
    return {"severity": severity, "what": what, "message": message, "hint": hint}


def findings(seen, wanted):
    """Everything that speaks against this machine, worst first.

    :param seen: what ``modules/preflight.py`` observed.
    :param wanted: the module's parameters.
    """
    found = []
    for check in (
        _system,
        _cpu,
        _memory,
        _kernel,
        _cgroups,
        _disk,
        _names,
        _control_plane,
        _clock,
        _ports,
        _others,
    ):
        found.extend(check(seen, wanted))
    return sorted(found, key=lambda each: each["severity"] != ERROR)


def _is(version, wanted):
    return version == wanted or version.startswith(wanted + ".")


def _system(seen, wanted):
    if seen["uid"] != 0:
        yield finding(
            ERROR,
            "privileges",
            f"the tasks run as user id {seen['uid']}, not as root",
            "run the play with become, or connect as root",
        )
    if seen["machine"] != "x86_64":
        yield finding(
            ERROR,
            "cpu",
            f"this machine is {seen['machine']}",
            "virtmgr's hosts are x86_64 in this release",
        )
    versions = SUPPORTED.get(seen["distribution"], ())
    version = seen["distribution_version"]
    if not any(_is(version, each) for each in versions):
        yield finding(
            ERROR,
            "distribution",
            f"{seen['distribution']} {version} is not supported",
            "use " + ", ".join(f"{name} {'/'.join(those)}" for name, those in SUPPORTED.items()),
        )
    name = seen["distribution"]
    if wanted["vms"] and any(name == n and _is(version, v) for n, v in CONTAINERS_ONLY):
        yield finding(
            ERROR,
            "libvirt",
            f"{name} {version} has no libvirt binding for the agent's Python: no VMs here",
            "set virtmgr_vms to false for this host: it runs containers",
        )


def _cpu(seen, wanted):
    if seen["cpus"] < wanted["min_cpus"]:
        yield finding(
            ERROR,
            "cpu",
            f"{seen['cpus']} CPUs, {wanted['min_cpus']} wanted",
            "give the machine more, or lower preflight_min_cpus",
        )
    if wanted["vms"] and not seen["kvm"]:
        flags = "has no vmx or svm" if not seen["virtualisation"] else "has it, /dev/kvm is missing"
        yield finding(
            WARNING,
            "kvm",
            f"VMs will run without KVM, many times slower: the CPU {flags}",
            "switch virtualisation on in the firmware (on a VM: nested virtualisation), "
            "and load kvm_intel or kvm_amd",
        )


def _memory(seen, wanted):
    if seen["memory"] < wanted["min_memory"] * MIB:
        yield finding(
            ERROR,
            "memory",
            f"{seen['memory'] // MIB} MiB of memory, {wanted['min_memory']} wanted",
            "give the machine more, or lower preflight_min_memory",
        )


def _kernel(seen, _wanted):
    version = tuple(seen["kernel"])
    name = ".".join(map(str, version))
    if version < (5, 4):
        yield finding(ERROR, "kernel", f"kernel {name} is older than 5.4", "install a newer kernel")
    elif version < (5, 12):
        yield finding(
            WARNING,
            "kernel",
            f"kernel {name} has no idmapped mounts: containers start slowly the first time",
            "install kernel 5.12 or newer",
        )
    for feature, use in KERNEL_FEATURES.items():
        if feature not in seen["features"]:
            yield finding(
                ERROR,
                "kernel",
                f"the kernel has no {feature}, which is needed for {use}",
                "install the distribution's full kernel (not a stripped one), "
                "or allow the module to be loaded",
            )
    if seen["user_namespaces"] == 0:
        yield finding(
            ERROR,
            "kernel",
            "user namespaces are switched off (user.max_user_namespaces = 0)",
            "set user.max_user_namespaces to 15000 or more in /etc/sysctl.d",
        )


def _cgroups(seen, _wanted):
    missing = [name for name in CONTROLLERS if name not in seen["controllers"]]
    if missing:
        yield finding(
            ERROR,
            "cgroups",
            f"control groups without {', '.join(missing)}: containers cannot be limited",
            f"boot with cgroup_enable={missing[0]}, or mount cgroup2 at /sys/fs/cgroup",
        )


def _disk(seen, wanted):
    for directory, least in wanted["directories"].items():
        place = seen["directories"][directory]
        if place["free"] < least * MIB:
            yield finding(
                ERROR,
                "disk",
                f"{place['free'] // MIB} MiB are free for {directory}, {least} wanted",
                "make room, mount a disk there, or lower preflight_directories",
            )
        for flag in place["flags"]:
            yield finding(
                ERROR,
                "disk",
                f"{directory} is mounted {flag}",
                f"mount it without {flag}: programs and devices of containers are on it",
            )


def _names(seen, wanted):
    if seen["hostname"] in ("", "localhost", "localhost.localdomain"):
        yield finding(
            ERROR,
            "names",
            f"the machine's name is {seen['hostname']!r}",
            "give it one of its own: hostnamectl set-hostname NAME",
        )
    elif not seen["hostname_resolves"]:
        yield finding(
            WARNING,
            "names",
            f"the machine cannot resolve its own name {seen['hostname']}",
            "put it into DNS or /etc/hosts",
        )
    if not seen["server_addresses"]:
        yield finding(
            ERROR,
            "names",
            f"the control plane's name {wanted['server_name']} cannot be resolved",
            "put it into DNS or /etc/hosts, or use its address in virtmgr_server",
        )


def _control_plane(seen, wanted):
    if seen["server_error"] and seen["server_addresses"]:
        yield finding(
            ERROR,
            "control plane",
            f"{wanted['server']} does not answer: {seen['server_error']}",
            "let TCP through from this machine to the control plane's port for agents, check that "
            "virtmgr serve listens on that address, and that virtmgr_ca_file is its CA",
        )


def _clock(seen, wanted):
    skew = seen["clock_skew"]
    if skew is not None and abs(skew) > wanted["max_clock_skew"]:
        yield finding(
            ERROR,
            "clock",
            f"the clock is {skew:+.0f} s off the control plane's",
            "synchronise both: certificates and leases depend on it",
        )
    if not seen["time_sync"]:
        yield finding(
            WARNING,
            "clock",
            "nothing keeps the clock in time",
            "install and start chrony or systemd-timesyncd",
        )


def _ports(seen, wanted):
    if seen["stream_error"]:
        yield finding(
            ERROR,
            "ports",
            f"cannot listen on {seen['stream_address']} port {wanted['stream_port']}: "
            + seen["stream_error"],
            "free the port, or set virtmgr_stream_port or virtmgr_stream_address",
        )


def _others(seen, wanted):
    port = wanted["stream_port"]
    for manager in seen["firewalls"]:
        yield finding(
            WARNING,
            "firewall",
            f"{manager} is active and may drop what the control plane sends to port {port}",
            f"allow TCP port {port} from the control plane in it",
        )
    if seen["selinux"]:
        yield finding(
            WARNING,
            "selinux",
            "SELinux is enforcing, which virtmgr has not been tried with",
            "be ready to look for denials: ausearch -m avc",
        )
