import asyncio, random
import pytest, world
from proctor.services import runs
from proctor.services.runs import RunRequest
from proctor.services.dispatch import dispatch
from proctor.testing.worker import FakeWorker, MACHINERY, FAILED

async def test_y(context, database_server):
    await world.put(context, world.service(number=300, plans=[{"name":"smoke","parallel":1000,"retries":5}]))
    caller=await world.caller(context)
    w=await FakeWorker.sign_on(context, concurrency=1)
    try:
        for r in range(25):
            await world.sql(context,"UPDATE workers SET concurrency=1")
            a=await runs.start(context,caller,RunRequest("smoke","http://h"))
            # shuffle the heap: touch rows in random order
            ids=[i for (i,) in await world.sql(context,"SELECT id FROM jobs WHERE execution_id=:e",e=a.execution_id)]
            random.Random(r).shuffle(ids)
            for i in ids[:60]: await world.sql(context,"UPDATE jobs SET message='x' WHERE id=:i",i=i)
            await world.sql(context,"UPDATE workers SET concurrency=1000")
            async def stop():
                await asyncio.sleep(r*0.0015)
                await runs.stop(context,caller,"smoke")
            await asyncio.gather(dispatch(context), stop(), dispatch(context))
            for t in await w.take(a.execution_id): await w.finish(t.fence)
    except BaseException:
        for f in database_server.postgres._folder.rglob("log"):
                t=f.read_text(errors="replace")
                if "deadlock" in t: print(f, t[t.index("deadlock")-300:][:4000])
        raise
