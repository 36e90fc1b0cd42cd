"""What is done later, by Celery workers: rendering and publishing."""

import time
from contextlib import AbstractContextManager, nullcontext

from celery import Celery
from typing_extensions import TypedDict

from content_factory.database import SocialMediaPost, Video, new_session
from content_factory.settings import settings

PLATFORMS = ("instagram", "tiktok", "youtube")

QUEUES = {
    "task_routes": {
        "content_factory.tasks.render_video": {"queue": "video-queue"},
        "content_factory.tasks.publish_video": {"queue": "publish-queue"},
    },
    "task_default_queue": "main-queue",
    "task_send_sent_event": True,
    "broker_connection_retry_on_startup": True,
    # A request that enqueues must not wait for a Redis that is away.
    "task_publish_retry": False,
    "broker_transport_options": {"socket_connect_timeout": 2, "socket_timeout": 2, "max_retries": 1},
}

# The web processes only send. With a result backend they would also subscribe to each result, and a Redis that
# is away would hold a request for twenty seconds.
orders = Celery("content_factory", broker=settings.redis_url, set_as_current=False)
orders.conf.update(QUEUES)

# The workers run the tasks and keep the results.
celery = Celery("content_factory", broker=settings.redis_url, backend=settings.redis_url)
celery.conf.update(QUEUES)


class Outcome(TypedDict):
    """What a task says of itself; Celery calls it a success whatever `status` says."""

    status: str
    message: str


class Publication(TypedDict):
    """What became of one video on one platform."""

    platform: str
    status: str


def monitored(name: str) -> AbstractContextManager[object]:
    """A task that the sidecar is told of, where SIDECAR_URL says so; its client is needed only then."""
    if not settings.sidecar_url:
        return nullcontext()
    from content_factory_sidecar import TaskMonitor

    return TaskMonitor(name, url=settings.sidecar_url)


def publish(video_id: int) -> list[Publication]:
    """Publishes on every platform and keeps the results; every seventh video is refused by the last platform."""
    with monitored("publish_video"), new_session.begin() as session:
        results = [
            Publication(
                platform=platform,
                status="failed" if platform == PLATFORMS[-1] and video_id % 7 == 0 else "published",
            )
            for platform in PLATFORMS
        ]
        session.add_all(SocialMediaPost(video_id=video_id, **result) for result in results)
    return results


@celery.task(name="content_factory.tasks.render_video")
def render_video(video_id: int) -> Outcome:
    """Renders a video; every fifth one fails, in the way of the real application: as a result."""
    time.sleep(0.02)  # the renderer
    failed = video_id % 5 == 0
    with new_session.begin() as session:
        video = session.get(Video, video_id)
        if video is None:
            return Outcome(status="error", message="no such video")
        video.status = "failed" if failed else "completed"
    if failed:
        return Outcome(status="error", message="the renderer gave up")
    return Outcome(status="success", message="rendered")


@celery.task(name="content_factory.tasks.publish_video")
def publish_video(video_id: int) -> Outcome:
    """Publishes a video on all platforms."""
    refused = [result["platform"] for result in publish(video_id) if result["status"] == "failed"]
    if refused:
        return Outcome(status="error", message=f"refused by {', '.join(refused)}")
    return Outcome(status="success", message="published")
