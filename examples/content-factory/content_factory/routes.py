"""The routes under `/api/v1`."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from kombu.exceptions import OperationalError as BrokerError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from content_factory.ai import Refused
from content_factory.ai import write_script as ask_for_script
from content_factory.database import Product, Script, Video, session
from content_factory.failures import failing
from content_factory.tasks import Publication, orders, publish, render_video

router = APIRouter(prefix="/api/v1")
# Committed before the answer is sent: who has the answer finds the row.
CurrentSession = Annotated[Session, Depends(session, scope="function")]
Row = TypeVar("Row", Product, Script, Video)

# The AI service refuses every tenth product: a rate of errors that a test can reckon with.
REFUSED_EVERY = 10


class NewProduct(BaseModel):
    """What a product is made from."""

    name: str = Field(min_length=1, max_length=200)


class ProductOut(BaseModel):
    """A product as it is told."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class ScriptOut(BaseModel):
    """A script as it is told."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    product_id: int
    text: str


class NewVideo(BaseModel):
    """What a video is made from."""

    script_id: int


class VideoOut(BaseModel):
    """A video as it is told."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    script_id: int
    status: str


class PublishResult(BaseModel):
    """What became of a video, platform by platform: always 200, the failures are inside."""

    video_id: int
    results: list[Publication]


def found(row: Row | None) -> Row:
    """The row, or 404."""
    if row is None:
        raise HTTPException(404, "not found")
    return row


@router.get("/products")
def list_products(db: CurrentSession, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[ProductOut]:
    """The newest products."""
    rows = db.scalars(select(Product).order_by(Product.id.desc()).limit(limit))
    return [ProductOut.model_validate(row) for row in rows]


@router.post("/products", status_code=201)
def create_product(db: CurrentSession, new: NewProduct) -> ProductOut:
    """Keeps a product."""
    row = Product(name=new.name)
    db.add(row)
    db.flush()
    return ProductOut.model_validate(row)


@router.get("/products/{product_id}")
def read_product(db: CurrentSession, product_id: int) -> ProductOut:
    """One product."""
    return ProductOut.model_validate(found(db.get(Product, product_id)))


@router.post("/products/{product_id}/scripts", status_code=201)
def write_script(db: CurrentSession, product_id: int) -> ScriptOut:
    """Has a script written; 502 when the AI service refuses."""
    product = found(db.get(Product, product_id))
    if product_id % REFUSED_EVERY == 0 or failing("ai-refuses"):
        raise HTTPException(502, "the AI service refused")
    try:
        text = ask_for_script(product.name)
    except Refused as error:
        raise HTTPException(502, "the AI service refused") from error
    row = Script(product_id=product.id, text=text)
    db.add(row)
    db.flush()
    return ScriptOut.model_validate(row)


@router.post("/videos", status_code=202)
def order_video(db: CurrentSession, new: NewVideo) -> VideoOut:
    """Orders a rendering; 503 when the queue cannot be reached."""
    row = Video(script_id=found(db.get(Script, new.script_id)).id, status="pending")
    db.add(row)
    db.flush()
    answer = VideoOut.model_validate(row)
    # The worker may be quick: what it looks for must be there before it is asked.
    db.commit()
    try:
        orders.send_task(render_video.name, [answer.id])
    except BrokerError as error:
        raise HTTPException(503, "the task queue cannot be reached") from error
    return answer


@router.get("/videos/{video_id}")
def read_video(db: CurrentSession, video_id: int) -> VideoOut:
    """One video."""
    return VideoOut.model_validate(found(db.get(Video, video_id)))


@router.post("/social-media/publish-video/{video_id}")
def publish_video(db: CurrentSession, video_id: int) -> PublishResult:
    """Publishes now; each platform's result is inside an answer that is always 200."""
    found(db.get(Video, video_id))
    return PublishResult(video_id=video_id, results=publish(video_id))


@router.get("/videos/{video_id}/progress")
async def watch_progress(
    video_id: int,
    steps: Annotated[int, Query(ge=1, le=100)] = 5,
    interval: Annotated[float, Query(ge=0, le=5)] = 0.2,
) -> StreamingResponse:
    """The progress of a rendering as server-sent events, one a step."""

    async def events() -> AsyncIterator[str]:
        for step in range(1, steps + 1):
            yield f"event: progress\ndata: {json.dumps({'video_id': video_id, 'percent': 100 * step // steps})}\n\n"
            if step < steps:
                await asyncio.sleep(interval)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/reports/slow")
async def slow_report(seconds: Annotated[float, Query(ge=0, le=30)] = 1.0) -> dict[str, float]:
    """A report that takes its time."""
    await asyncio.sleep(seconds)
    return {"seconds": seconds}


@router.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    """Sends back whatever it is sent, text as text and bytes as bytes."""
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                await socket.send_bytes(message["bytes"])
            else:
                await socket.send_text(message["text"])
    except WebSocketDisconnect:
        return
