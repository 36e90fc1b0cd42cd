"""The tables, and the one way to a session."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, String, create_engine, func
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from content_factory.settings import settings


class Base(DeclarativeBase):
    """What all tables share."""

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Product(Base):
    """Something worth a video."""

    __tablename__ = "products"
    name: Mapped[str] = mapped_column(String(200))


class Script(Base):
    """What the video will say, written by an AI service."""

    __tablename__ = "scripts"
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    text: Mapped[str]


class Video(Base):
    """A rendering of a script: `pending`, `completed` or `failed`."""

    __tablename__ = "videos"
    script_id: Mapped[int] = mapped_column(ForeignKey("scripts.id"))
    status: Mapped[str] = mapped_column(String(20), default="pending")


class SocialMediaPost(Base):
    """One attempt to publish a video on one platform: `published` or `failed`."""

    __tablename__ = "social_media_posts"
    video_id: Mapped[int] = mapped_column(ForeignKey("videos.id"))
    platform: Mapped[str] = mapped_column(String(40))
    status: Mapped[str] = mapped_column(String(20))


def make_engine(url: str) -> Engine:
    """A lazy engine: an absent server is noticed by the first query, not by the import."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return create_engine(parsed)
    # pool_pre_ping: after a restart of the server the next request works, instead of finding a dead connection.
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"connect_timeout": 2},
    )


engine = make_engine(settings.database_url)
new_session = sessionmaker(engine)


def session() -> Iterator[Session]:
    """A session for one request; what it did is kept only if the request succeeds."""
    with new_session() as current:
        yield current
        current.commit()
