"""PostgreSQL and Redis as Debian installs them, on ports of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import redis
from processes import Process, free_port
from waiting import eventually


class Postgres(Process):
    """One PostgreSQL server, in a folder that ends with it: Debian's, or that of `programs`."""

    def __init__(self, folder: Path, programs: Path | None = None, *further: str):
        self.port = free_port()
        # PostgreSQL refuses to run as root, and another user cannot look into pytest's folders.
        self.data = Path(tempfile.mkdtemp(prefix="content-factory-postgres-"))
        self.as_owner = []
        if os.geteuid() == 0:
            shutil.chown(self.data, "postgres")
            self.as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        self.programs = _postgres_folder()
        if programs:
            # what is installed for us alone is nothing that the server's user could run
            shutil.copytree(programs, self.data / "programs", symlinks=True)
            self.programs = self.data / "programs" / "bin"
        binary = self.programs / "postgres"
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self.data}", "fsync=off", "max_connections=100", *further]
        flags = [word for setting in settings for word in ("-c", setting)]
        command = [*self.as_owner, str(binary), "-D", str(self.data / "db"), "-p", str(self.port), *flags]
        super().__init__("postgres", command, {}, folder)

    @property
    def url(self) -> str:
        """What goes into `DATABASE_URL`."""
        return f"postgresql://factory:secret-of-the-database@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Makes the cluster, with the one user of the application."""
        password = self.data / "password"
        password.write_text("secret-of-the-database")
        password.chmod(0o644)
        initdb = [str(self.programs / "initdb"), "-D", str(self.data / "db"), "-U", "factory", "--no-sync"]
        flags = ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
        # the working directory must be one that the server's user may enter
        subprocess.run([*self.as_owner, *initdb, *flags], check=True, capture_output=True, cwd="/")
        password.unlink()

    def start(self) -> None:
        """Returns once it answers a query."""
        self.spawn()

        def answers() -> bool:
            self.must_live()
            try:
                with psycopg.connect(self.url, connect_timeout=2) as connection:
                    return connection.execute("SELECT 1").fetchone() == (1,)
            except psycopg.OperationalError as error:
                raise AssertionError(str(error)) from error

        eventually(answers, "PostgreSQL to answer")

    def kill(self) -> None:
        """Ends it at once, without a checkpoint. Its processes leave the group, so the server must end them itself."""
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGQUIT)
            self.process.wait(timeout=10)
        super().kill()

    def remove(self) -> None:
        """Ends it and removes its folder."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


class Redis(Process):
    """One Redis server, in memory."""

    def __init__(self, folder: Path):
        self.port = free_port()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis", command, {}, folder)

    @property
    def url(self) -> str:
        """What goes into `REDIS_URL`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns once it answers PING."""
        self.spawn()

        def answers() -> bool:
            self.must_live()
            try:
                with redis.Redis.from_url(self.url, socket_timeout=2) as connection:
                    return bool(connection.ping())
            except (redis.ConnectionError, redis.TimeoutError) as error:
                raise AssertionError(str(error)) from error

        eventually(answers, "Redis to answer")


def _postgres_folder() -> Path:
    """Where the server's programs are; Debian keeps them out of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(installed[-1]) if installed else shutil.which("initdb")
    assert found, "found no initdb, expected PostgreSQL: tests/setup/debian.sh installs it"
    return Path(found).parent
