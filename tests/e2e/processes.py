"""Real processes, each in a process group of its own, each with a log, none left behind."""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Below the range from which the kernel takes ports for outgoing connections, so that nobody takes one
# between the moment it is found free and the moment a server binds it.
PORTS = range(20_000, 32_000)
# Nobody listens yet on a port that was just given, and some are left for a while: none is given to two.
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that this run has given to nobody else."""
    while True:
        port = random.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


class Process:
    """A program that runs until it is told otherwise; it can be started again after its end."""

    # all that live, for the report of a failed test and for the end of the run
    alive: list[Process] = []

    def __init__(self, name: str, command: list[str], environment: dict[str, str], folder: Path):
        self.name, self.command, self.environment, self.folder = name, command, environment, folder
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Starts it, and does not wait for anything."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        Process.alive.append(self)

    def must_live(self) -> None:
        """Fails, with the end of its log, if it has ended; for use while waiting until it is ready."""
        code = self.process.poll()
        if code is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.said()}")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the program itself."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Waits for its end and returns the exit code."""
        code = self.process.wait(timeout=seconds)
        self._forget()
        return code

    def stop(self, seconds: float = 30) -> int:
        """Asks it to end, and returns the exit code."""
        self.send(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """Ends the whole group, as a power cut would."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(timeout=10)
        self._forget()

    def said(self, characters: int = 6000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def _forget(self) -> None:
        if self in Process.alive:
            Process.alive.remove(self)


def end_all() -> None:
    """Kills whatever still lives."""
    for process in list(Process.alive):
        process.kill()


atexit.register(end_all)
