"""`/status`: the node, the rows, the interpreter and the version, as texts for people."""

import os
import platform
import shutil
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from content_factory.database import Base, Product, SocialMediaPost, Video, new_session

router = APIRouter()
TABLES: tuple[type[Base], ...] = (Product, Video, SocialMediaPost)


def gigabytes(size: int) -> str:
    """2^30 bytes are one."""
    return f"{size / 2**30:.2f} GB"


def system() -> dict[str, str]:
    """The node. The load of the last minute stands for the CPU, so that no request waits for a measurement."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, available = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    disk = shutil.disk_usage("/")
    return {
        "cpu_usage": f"{min(100.0, 100 * os.getloadavg()[0] / (os.cpu_count() or 1)):.1f}%",
        "memory_total": gigabytes(total),
        "memory_available": gigabytes(available),
        "memory_used": gigabytes(total - available),
        "memory_percent": f"{100 * (total - available) / total:.1f}%",
        "disk_total": gigabytes(disk.total),
        "disk_used": gigabytes(disk.used),
        "disk_free": gigabytes(disk.free),
        "disk_percent": f"{100 * disk.used / disk.total:.2f}%",
        "platform": platform.platform(),
        "python_version": platform.python_version(),
    }


def rows() -> dict[str, int | str]:
    """How many rows each table has; the word `Error` when that cannot be told."""
    try:
        with new_session() as db:
            return {table.__tablename__: db.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES}
    except SQLAlchemyError:
        return {table.__tablename__: "Error" for table in TABLES}


@router.get("/status")
def status(request: Request) -> dict[str, Any]:
    """Everything at once; in a thread, so that the other requests of this process go on."""
    health = {"status": "healthy", "services": {}}
    return {"health": health, "system": system(), "database_stats": rows(), "version": request.app.version}
