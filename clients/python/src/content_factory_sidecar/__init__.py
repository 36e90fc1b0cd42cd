"""Tells the content-factory sidecar which tasks an application runs, and how they end.

    async with TaskMonitor("video_generation"):
        ...

Nothing here raises into the application or makes it wait; what cannot be told is dropped, and counted by `dropped`.
"""

from content_factory_sidecar._courier import dropped, flush
from content_factory_sidecar._monitor import TaskMonitor

__all__ = ["TaskMonitor", "dropped", "flush"]
