"""Whether the server is alive, and whether it can do its work."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from proctor.api.deps import ContextDep
from proctor.services import health

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive: the process answers."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "Not ready, and what is down."}})
async def readyz(context: ContextDep) -> JSONResponse:
    """Ready: database and queue answer, and a worker is alive; 503 says which is not."""
    async with asyncio.timeout(5):
        checks = await health.check(context)
    ready = all(checks.values())
    body = {
        "status": "ready" if ready else "not ready",
        **{name: "ok" if ok else "down" for name, ok in checks.items()},
    }
    return JSONResponse(body, status_code=200 if ready else 503)
