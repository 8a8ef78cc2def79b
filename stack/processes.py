"""Processes that the local stack starts, and ends.

Owns: the lock, the records of what was started, starting detached, ending. Invariant: only a process that this stack
started is ever signalled: its pid, its start time and the machine's boot must all be those in the record.
Must not: know what a component is, or look for processes by name.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

LOG_BYTES_MAX = 16 * 1024 * 1024


class StackError(Exception):
    """Something that the person at the keyboard has to know, in one message."""


@dataclass(frozen=True)
class Record:
    """What tells a process of ours from another one with the same pid."""

    pid: int
    start_ticks: int
    boot_id: str
    address: str

    def is_alive(self) -> bool:
        return self.boot_id == _boot_id() and _start_ticks(self.pid) == self.start_ticks


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    """Ticks from boot to the start of a process; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything; the fields after it are state (0) … start time (19).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def rss_mb(pid: int) -> int:
    """Resident memory; 0 if the process is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One `up`, `down` or `wipe` at a time. The kernel lets go of it, however the holder ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another stack command is running; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_record(folder: Path, name: str) -> Record | None:
    """The record of a component whose process lives; None otherwise."""
    try:
        record = Record(**json.loads((folder / "pids" / f"{name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return record if record.is_alive() else None


def log_path(folder: Path, name: str) -> Path:
    return folder / "logs" / f"{name}.log"


def last_lines(path: Path, count: int = 20) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join("  " + line[:400] for line in lines[-count:])


def start(folder: Path, name: str, command: list[str], address: str) -> Record:
    """Start a process that outlives this one, its terminal and its session; its output goes to its log."""
    log = log_path(folder, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            cwd=folder, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, start_new_session=True, close_fds=True,
        )
    record = Record(process.pid, _start_ticks(process.pid) or 0, _boot_id(), address)
    # Written aside and renamed, so that a record is whole or absent.
    path = folder / "pids" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(asdict(record)))
    aside.replace(path)
    return record


def stop(folder: Path, names: list[str], wait_s: float) -> list[str]:
    """SIGTERM to all, wait, SIGKILL to those left. Returns the names that were running."""
    records = {name: record for name in names if (record := read_record(folder, name)) is not None}
    for record in records.values():
        _signal(record, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline and any(record.is_alive() for record in records.values()):
        time.sleep(0.05)
    for name, record in records.items():
        if record.is_alive():
            print(f"{name} does not end within {wait_s:.0f} s; killing it", file=sys.stderr)
            _signal(record, signal.SIGKILL)
    deadline = time.monotonic() + 5
    for name, record in records.items():
        while record.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        if record.is_alive():
            raise StackError(f"{name} (pid {record.pid}) does not end, even by SIGKILL")
    for name in names:
        (folder / "pids" / f"{name}.json").unlink(missing_ok=True)
    return list(records)


def _signal(record: Record, number: int) -> None:
    """Signal only who is in the record: a pid descriptor cannot be given to another process in between."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if record.is_alive():
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do it: a connection that lingers from the last run is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
