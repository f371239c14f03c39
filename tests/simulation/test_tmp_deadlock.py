import asyncio

import pytest
from test_interleavings import PlanAlreadyRunning, RunRequest, runs, simulation  # noqa


@pytest.mark.parametrize("simulation", range(6), indirect=True)
async def test_x(simulation, database_server):
    s = simulation
    try:
        for i in range(60):
            plan = "browsers"

            async def st(force):
                try:
                    await runs.start(
                        s.context, s.caller, RunRequest(plan, "http://h", force=force, refuse_running=force)
                    )
                except PlanAlreadyRunning:
                    pass

            await asyncio.gather(
                st(True),
                st(False),
                runs.stop(s.context, s.caller, plan),
                s.take(),
                s.finish(),
                s.sweep(),
                s.finish(),
                s.dispatch(),
            )
    except BaseException:
        for f in database_server.postgres._folder.rglob("*log*"):
            if f.is_file() and f.stat().st_size and f.stat().st_size < 10**7:
                t = f.read_text(errors="replace")
                if "deadlock" in t:
                    print(f, t[t.index("deadlock") - 300 :][:4000])
        raise
