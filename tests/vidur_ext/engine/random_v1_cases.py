"""Engine's V1 against the plain-Python reference, one replica, random texts."""
import sys, numpy as np
from collections import deque
sys.path[:0]=['/tmp/w/v1engine','/tmp/w/v1engine/src']
from vidur_ext.config.loading import *
from vidur_ext.engine.layout import *
from vidur_ext.engine.simulation import CompiledSimulation
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.vidur.vllm_v1 import scheduler as ref
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.config.training_config import TrainingConfig
cfg=TrainingConfig(**{'cluster':{'chunk_size':2048,'batch_size_cap':128},'workload':{'max_tokens':8192}})
base=engine_cluster(cfg)
def iteration(tables,parts):  # parts: (tokens, kv)
    count=ctx=tokens=0; prefill=0.0
    for t,kv in parts:
        tokens+=t
        if t==1: count+=1; ctx+=kv
        else: prefill+=tables.prefill[0,-(-kv//tables.kv_step),-(-t//32)]
    decode=tables.decode[0,count,-(-(ctx//count)//tables.kv_step)] if count else 0.0
    terms=tables.per_tokens[0,-(-tokens//8)]
    att=terms[0]+decode+prefill+terms[1]+terms[2]
    return (att+terms[3]+terms[4])*tables.num_layers*1e-3
def make(rng,n,kind):
    segs=[];first=[0];ans=np.arange(n)+1000000;outs=np.zeros(n,int);plens=[]
    hist=[]
    for i in range(n):
        outs[i]=rng.integers(1,300 if kind=='thrash' else 90)
        u=rng.random()
        if hist and u<0.45:
            p=int(rng.integers(len(hist))); prompt=hist[p]+[(1000000+p,int(outs[p])),(2000+i,int(rng.integers(1,120)))]
        elif hist and u<0.6: prompt=list(hist[int(rng.integers(len(hist)))])
        elif hist and u<0.7:
            prompt=list(hist[int(rng.integers(len(hist)))]); s,t=prompt[-1]; prompt[-1]=(s,int(rng.integers(1,t+40)))
        elif u<0.9: prompt=[(int(rng.integers(3)),int(rng.integers(20,400)) if rng.random()<.3 else 160),(2000+i,int(rng.integers(1,600)))]
        else: prompt=[(2000+i,int(rng.integers(1,700)))]
        if sum(t for _,t in prompt)>2500: prompt=[(2000+i,300)]
        hist.append(prompt); segs+=prompt; first.append(len(segs)); plens.append(sum(t for _,t in prompt))
    s=np.array(segs)
    return s[:,0],s[:,1],np.array(first),ans,outs,np.array(plens)
def reference(table,runs,limits,tables):
    sch=ref.Scheduler(limits); n=len(table)
    reqs=[ref.Request(int(table.prefill_tokens[i]),int(table.decode_tokens[i]),runs.of_request(i).tolist()) for i in range(n)]
    idx={id(r):i for i,r in enumerate(reqs)}
    sched=np.zeros(n);pre=np.zeros(n);comp=np.zeros(n);hits=np.full(n,-1);rest=np.zeros(n,int)
    caught=set(); nxt=0; now=0.0; end=np.inf; step=None
    def start(now,attempts):
        nonlocal step,end
        for _ in range(attempts):
            s=sch.schedule()
            for r in s.preempted: rest[idx[id(r)]]+=1; caught.discard(id(r))
            for r,c in s.admitted:
                i=idx[id(r)]
                if hits[i]<0: hits[i]=c; sched[i]=now
            if s.scheduled:
                step=s; end=now+iteration(tables,[(t,r.computed_tokens) for r,t in s.scheduled]); return
        end=np.inf
    def finish(now):
        before={id(r):r.known_tokens for r,_ in step.scheduled}
        sch_fin=sch.update(step)
        for r,_ in step.scheduled:
            i=idx[id(r)]
            if r.known_tokens>before[id(r)]: caught.add(id(r))
            if r.known_tokens>before[id(r)] and pre[i]==0: pre[i]=now
        for r in sch_fin: comp[idx[id(r)]]=now
    arr=table.arrived_at
    while nxt<n or end<np.inf:
        a=arr[nxt] if nxt<n else np.inf
        if a<=end:
            now=a
            while nxt<n and arr[nxt]==a: sch.add(reqs[nxt]); nxt+=1
            if end==now: finish(now); start(now,3)
            elif end==np.inf: start(now,1)
        else:
            now=end; finish(now); start(now,2)
    return sched,pre,comp,hits,rest
def case(seed):
    rng=np.random.default_rng(seed); kind=['chat','thrash','burst'][seed%3]
    n=int(rng.integers(12,120)); bs=int(rng.choice([1,8,16,16,32,64])); 
    seg,tok,first,ans,outs,pl=make(rng,n,kind)
    need=int((-(-(pl+outs)//bs)).max())+2
    blocks=int(rng.choice([need,need+int(rng.integers(0,40)),int(need*1.5),need*4,need*30]))
    cap=int(rng.choice([4,16,64])); budget=max(int(rng.choice([128,256,512,2048])),cap)
    caching=bool(rng.random()<.85); wm=int(rng.integers(0,3)) if rng.random()<.2 else 0
    t=np.cumsum(rng.exponential(rng.choice([0.001,0.05,0.3]),n)); 
    if kind=='burst': t=np.round(t,1)
    table=RequestTable(np.sort(t),pl,outs,Prompts(seg,tok,first,ans))
    runs=block_runs(table.prompts,outs,bs)
    lim=ref.Limits(blocks+1,bs,cap,budget,caching,True,0.0)
    own=np.zeros((1,len(Own)),np.int64); own[0,Own.BATCH_CAP]=cap; own[0,Own.BLOCKS]=blocks; own[0,Own.WATERMARK]=0
    settings=base.settings._replace(scheduler=int(Batching.VLLM_V1),batch_tokens=budget,block_size=bs,batch_capacity=float(cap),own=own,prefix_caching=int(caching))
    est=base.estimates
    cl=base._replace(settings=settings,estimates=est)
    sim=CompiledSimulation(cl,table,None,choices=np.zeros(n,np.int64))
    want=reference(table,runs,lim,base.tables)
    sim.run()
    got=(sim.scheduled_at,sim.prefill_completed_at,sim.completed_at,sim.state.texts[:,Text.HITS],sim.restarts)
    for name,g,w in zip(('sched','pre','comp','hits','restarts'),got,want):
        if name in('hits','restarts'): bad=np.flatnonzero(g!=w)
        else: bad=np.flatnonzero(np.abs(g-w)>1e-9*np.maximum(1,w))
        if len(bad): print('seed',seed,kind,'caching',caching,name,'differs at',bad[:5],g[bad[:5]],w[bad[:5]],'n',n,'bs',bs,'blocks',blocks,'cap',cap,'budget',budget); return False
    return int(want[3].sum()),int(want[4].sum()),int(sim.state.shelves[0,Shelf.ROWS])
if __name__=='__main__':
    ok=0;h=r=m=0
    for s in range(int(sys.argv[1]),int(sys.argv[2])):
        try: x=case(s)
        except Exception as e:
            print('seed',s,type(e).__name__,str(e)[:300]); continue
        if x: ok+=1;h+=x[0];r+=x[1];m=max(m,x[2])
    print('equal',ok,'hits',h,'preemptions',r,'rows max',m)
