import sys, tempfile, threading, time, subprocess
from datetime import UTC, datetime
from pathlib import Path
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory
from virtmgr.store.migrate import upgrade
from virtmgr.services.container import Services
from virtmgr.services import auth, workloads, sync as sync_service
from virtmgr.services.context import open_context
from virtmgr.services.wake import HostWake
from virtmgr.images.blobs import BlobStore
from virtmgr.images.builder import Builder
from virtmgr.ports.images import BuildRequest
from virtmgr.domain.access import Action
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import *
from virtmgr.domain.host import Host
from virtmgr.domain.workload import *
from virtmgr.agent.agent import Agent, Parts
from virtmgr.agent.files import StateFiles
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.reconciler import Reconciler
from virtmgr.agent.steps import StepRunner
from virtmgr.agent.fingerprint import fingerprint
from virtmgr.drivers.network.adapter import LinuxNetwork
from virtmgr.drivers.oci.driver import OciDriver
from virtmgr.drivers.storage.local import LocalStorage
from virtmgr.ports.clock import SystemClock
from virtmgr.services.placement import Overtaken
d=Path(tempfile.mkdtemp(dir="/var/tmp")); d.chmod(0o755)
url=f"sqlite:///{d}/db"; upgrade(url)
wake=HostWake(); 
store=BlobStore(d/"images")
s=Services(units=SqlUnitOfWorkFactory(make_engine(url)),blobs=store,wake_host=wake.wake)
with s.units() as u: secret=auth.initialise(u,s.clock); u.commit()
principal=auth.authenticate(s,secret)
print("principal",principal)
t=time.time(); m=Builder(store=store,cache=d/"cache").build(BuildRequest("busybox"),lambda *a:None,lambda:False); print("build",time.time()-t,m.size)
now=datetime.now(UTC); host_id=new_id()
with s.units() as u:
    u.images.add(Image(id=new_id(),name="busybox",type=m.type,state=ImageState.READY,source="build",manifest=m,digest=None,size=m.size,created_at=now))
    u.hosts.add(Host(id=host_id,name="h1",cluster_id=u.clusters.find("default").id,created_at=now)); u.commit()
class CP:
    def sync(self,r): return sync_service.sync(s,host_id,type(r).model_validate_json(r.model_dump_json(exclude_unset=True)))
    def wait_for_wake(self,rev):
        sig=wake.signal(host_id); seen=sig.count
        with s.units(read_only=True) as u: r=u.hosts.get(host_id).revision
        return r>rev or sig.wait(seen,2.0)
    def fetch(self,dg,off):
        with store.open(dg,off) as f:
            while c:=f.read(1<<20): yield c
    def close(self): pass
    def renew(self,x): pass
net=LinuxNetwork(run_directory=d/"run/net",table="vthin")
drv=OciDriver(state_directory=d/"c",run_directory=d/"run/c",network=net,cgroup_parent="virtmgr-thin")
st=LocalStorage(directory=d/"pool")
out=Outbox(); nk=NetworkKeeper(net); cp=CP()
rec=Reconciler(runner=StepRunner({Kind.CONTAINER:drv},st,nk,cp),networks=nk,storage=st,files=StateFiles(d/"state"),outbox=out,clock=SystemClock(),boot_id="b")
ag=Agent(Parts(connect=lambda:cp,reconciler=rec,storage=st,outbox=out,fingerprint=lambda: fingerprint(boot="b",storage=st,drivers=[drv.facts()],accelerator=("none",""),stream_url="",data_directory=d),renew=lambda c:False))
th=threading.Thread(target=ag.run); th.start()
def ctx(u,a=Action.WORKLOADS_CREATE): return open_context(s,u,principal,a,project="default")
def wait(op,sec=20):
    from virtmgr.services import operations
    operations.wait(s,[op.id],sec)
    with s.units(read_only=True) as u: o=u.operations.get(op.id); return o and (o.verb,o.state.value,o.message,o.error)
def act(f):
    for _ in range(8):
        try:
            with s.units() as u:
                c=ctx(u); r=f(c); u.after_commit(s.committed.notify); u.commit(); return r
        except Overtaken: continue
try:
    time.sleep(1.5)
    for n in ("w1","w2"):
        t=time.time(); r=act(lambda c: workloads.create(c,WorkloadSpec(name=n,kind="container",image="busybox",command=("httpd","-f","-p","80")))); t1=time.time()-t
        print(wait(r[0].operation), "commit %.1f ms, total %.1f ms"%(t1*1e3,(time.time()-t)*1e3))
    with s.units(read_only=True) as u:
        for w in u.workloads.on_host(host_id): print(w.name,w.status)
    for verb in ("pause","resume","stop","start","restart"):
        t=time.time(); r=act(lambda c: workloads.set_power(c,workloads.find(c,"w1"),verb,timeout=2)); print(wait(r.operation),"%.1f ms"%((time.time()-t)*1e3))
    for n in ("w1","w2"):
        t=time.time(); r=act(lambda c: workloads.delete(c,workloads.find(c,n))); print(wait(r.operation),"%.1f ms"%((time.time()-t)*1e3))
    with s.units(read_only=True) as u:
        print(u.hosts.get(host_id).claimed_memory, [ (e.type,e.message) for e in u.events.after(0,limit=100)])
finally:
    ag.stop(); th.join(20)
    for i in drv.list(): drv.destroy(i)
    net.remove_all(); 
    import shutil; subprocess.run(f"mount | grep {d}",shell=True)
    print(d)
