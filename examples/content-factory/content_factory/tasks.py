"""What is done later, by Celery workers: rendering and publishing."""

import os
import signal
import time
from contextlib import AbstractContextManager, nullcontext

from celery import Celery, Task
from celery.signals import worker_ready
from celery.worker.consumer import Consumer
from typing_extensions import TypedDict

from content_factory.database import SocialMediaPost, Video, new_session
from content_factory.failures import failing
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

    monitor = TaskMonitor(name, url=settings.sidecar_url)
    if failing("task-never-ended"):
        monitor.__enter__()
        return nullcontext()
    return monitor


def refused(platform: str, video_id: int) -> bool:
    """Every seventh video is refused by the last platform."""
    return (platform == PLATFORMS[-1] and video_id % 7 == 0) or failing("publish-refused")


def publish(video_id: int) -> list[Publication]:
    """Publishes on every platform and keeps the results."""
    with monitored("publish_video"), new_session.begin() as session:
        results = [
            Publication(platform=platform, status="failed" if refused(platform, video_id) else "published")
            for platform in PLATFORMS
        ]
        session.add_all(SocialMediaPost(video_id=video_id, **result) for result in results)
    return results


@worker_ready.connect
def turn_deaf(sender: Consumer, **_: object) -> None:
    """Where that failure was asked for, the worker takes no message from the moment on at which it could."""
    if failing("celery-worker-deaf"):
        sender.task_consumer.cancel()


def fail_to_render(task: Task, video_id: int) -> None:
    """Fails as was asked for."""
    if failing("celery-worker-killed") and video_id % 5 == 0:
        time.sleep(2)  # Celery tells of a start within a second: what is killed before was never heard of
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if failing("celery-task-fails"):
        raise RuntimeError("the renderer gave up: its password is hunter2")
    if failing("celery-task-retried") and task.request.retries == 0:
        raise task.retry(countdown=0.1)


@celery.task(name="content_factory.tasks.render_video", bind=True)
def render_video(self: Task, video_id: int) -> Outcome:
    """Renders a video; every fifth one fails, in the way of the real application: as a result."""
    fail_to_render(self, video_id)
    time.sleep(3 if failing("celery-worker-slow") else 0.02)  # the renderer
    failed = video_id % 5 == 0 or failing("celery-task-says-error")
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
    refusing = [result["platform"] for result in publish(video_id) if result["status"] == "failed"]
    if refusing:
        return Outcome(status="error", message=f"refused by {', '.join(refusing)}")
    return Outcome(status="success", message="published")
