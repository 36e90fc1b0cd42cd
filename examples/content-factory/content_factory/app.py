"""The web application: `gunicorn content_factory.app:app`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError

from content_factory import logs, status
from content_factory.failures import failing, hold_up_the_event_loop
from content_factory.routes import router



@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """The life of one process."""
    troubles = [asyncio.create_task(hold_up_the_event_loop())] if failing("web-event-loop-blocked") else []
    yield
    for trouble in troubles:
        trouble.cancel()


logs.configure()
app = FastAPI(title="Content factory", version="1.0.0", lifespan=lifespan)
app.include_router(router)
app.include_router(status.router)
app.add_middleware(logs.RequestLog)


@app.exception_handler(OperationalError)
def database_is_away(_request: Request, _error: OperationalError) -> JSONResponse:
    """503 in fixed words: the exception's text holds the connection's address."""
    return JSONResponse({"detail": "the database cannot be reached"}, status_code=503)


@app.get("/")
async def root() -> dict[str, str]:
    """Says what this is."""
    return {"name": "content factory"}


@app.get("/health")
async def health(response: Response) -> dict[str, str]:
    """Says that this process answers; what stands behind it is the sidecar's concern."""
    if failing("web-unhealthy"):
        response.status_code = 503
        return {"status": "unhealthy"}
    return {"status": "healthy"}
