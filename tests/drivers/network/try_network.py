import subprocess, sys, tempfile, time
from pathlib import Path
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import *
from virtmgr.domain.sync import *
from virtmgr.domain.workload import *
from virtmgr.drivers.network.adapter import LinuxNetwork

net_id = new_id()
subprocess.run(["ip", "link", "set", "lo", "up"])


def nic(i):
    n = new_id()
    return DesiredNic(
        id=n,
        index=0,
        network_id=net_id,
        mac=mac_address(n),
        ipv4=f"10.64.0.{i}/16",
        ipv6=f"fd00:64::{i}/64",
        gateway4="10.64.0.1",
        gateway6="fd00:64::1",
        dns=("10.64.0.1",),
        dns_domain="default.virt",
    )


n1, n2 = nic(2), nic(3)


def wl(name, n, ports=()):
    return DesiredWorkload(
        id=new_id(),
        project="p",
        name=name,
        kind="container",
        init="app",
        generation=1,
        revision=1,
        spec=WorkloadSpec(name=name, kind="container", image="x", init="app", ports=ports),
        state="running",
        nics=(n,),
    )


w = [wl("a", n1, (Port(host=8080, guest=80),)), wl("b", n2)]
net = DesiredNetwork(
    id=net_id,
    name="default",
    type="nat",
    bridge=bridge_name(net_id),
    ipv4="10.64.0.0/16",
    ipv6="fd00:64::/64",
    gateway4="10.64.0.1",
    gateway6="fd00:64::1",
    dns_domain="default.virt",
    names=(
        NetworkName(name="a", mac=n1.mac, ipv4="10.64.0.2", ipv6="fd00:64::2"),
        NetworkName(name="b", mac=n2.mac, ipv4="10.64.0.3"),
    ),
)
d = Path(tempfile.mkdtemp())
d.chmod(0o755)
ln = LinuxNetwork(run_directory=d, table="vtest")
ln.recover()
ps = []
try:
    t = time.time()
    ln.ensure([net], w)
    print("ensure", time.time() - t)
    t = time.time()
    ln.ensure([net], w)
    print("again", time.time() - t)
    ps = [subprocess.Popen(["unshare", "-n", "sleep", "60"]) for _ in range(2)]
    time.sleep(0.3)
    for n, p in ((n1, ps[0]), (n2, ps[1])):
        t = time.time()
        ln.connect(n, p.pid)
        print("connect", time.time() - t)
    ln.connect(n1, ps[0].pid)

    def inside(i, *c):
        r = subprocess.run(
            ["nsenter", f"--net=/proc/{ps[i].pid}/ns/net", *c], capture_output=True, text=True
        )
        print(c[0:3], r.returncode, (r.stdout + r.stderr).strip()[-200:])

    inside(0, "ip", "-br", "addr")
    inside(0, "ping", "-c1", "-W1", "10.64.0.3")
    inside(0, "ping", "-c1", "-W1", "fd00:64::3")
    inside(0, "ping", "-c1", "-W1", "10.64.0.1")
    inside(1, "dig", "+short", "@10.64.0.1", "a.default.virt")
    inside(1, "dig", "+short", "@10.64.0.1", "a.default.virt", "AAAA")
    inside(1, "dig", "+short", "@10.64.0.1", "-x", "10.64.0.3")
    srv = subprocess.Popen(
        [
            "nsenter",
            f"--net=/proc/{ps[0].pid}/ns/net",
            "busybox",
            "httpd",
            "-f",
            "-p",
            "80",
            "-h",
            "/etc",
        ]
    )
    ps.append(srv)
    time.sleep(0.3)
    print(
        "published",
        subprocess.run(
            ["curl", "-s", "-m", "3", "http://127.0.0.1:8080/hostname"], capture_output=True
        ),
    )
    inside(1, "curl", "-s", "-m", "2", "http://10.64.0.2/hostname")
    inside(1, "curl", "-s", "-m", "2", "--interface", "eth0", "http://10.64.0.1:22/")
    inside(1, "ip", "addr", "add", "10.64.0.99/16", "dev", "eth0")
    inside(1, "ping", "-c1", "-W1", "-I", "10.64.0.99", "10.64.0.2")
    inside(1, "ping", "-c1", "-W1", "10.64.0.2")
    print(ln.ports())
finally:
    for p in ps:
        p.kill()
        p.wait()
    ln.remove_all()
    print(
        "left",
        subprocess.run(
            "ip -br link; nft list tables; ls " + str(d), shell=True, capture_output=True, text=True
        ).stdout,
    )
