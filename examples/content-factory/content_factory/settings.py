"""What the environment says, read once."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Where the servers are that the application speaks to."""

    database_url: str
    redis_url: str
    # Empty unless somebody is to be told of tasks.
    sidecar_url: str
    # Empty unless scripts are written by a service.
    openai_base_url: str
    openai_api_key: str
    # Failures that somebody wants to look at, by name; empty in earnest.
    failures: frozenset[str] = frozenset()

    @staticmethod
    def from_environment() -> "Settings":
        """Without any variable: SQLite in the working directory, and Redis where it usually is."""
        return Settings(
            database_url=os.environ.get("DATABASE_URL", "sqlite:///content-factory.db"),
            redis_url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
            sidecar_url=os.environ.get("SIDECAR_URL", ""),
            openai_base_url=os.environ.get("OPENAI_BASE_URL", ""),
            openai_api_key=os.environ.get("OPENAI_API_KEY", "none"),
            failures=frozenset(filter(None, os.environ.get("CONTENT_FACTORY_FAIL", "").split(","))),
        )


settings = Settings.from_environment()
