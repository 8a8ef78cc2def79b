"""A ClickHouse engine of a measurement's own: nothing else is asked of it, and it keeps to the cores that it is given.

Owns: the process and its data, which are gone in the end. Must not: touch the stack's engine.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployment import CHECKOUT, START_POLL_S, START_WAIT_S, STOP_WAIT_S, BenchError, tail

FRONT = CHECKOUT / "stack" / "clickhouse_front.py"


@dataclass(frozen=True)
class Engine:
    url: str
    pid: int


@contextmanager
def engine(folder: Path, cores: set[int]) -> Iterator[Engine]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "clickhouse.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-B", str(FRONT), "--data", str(folder / "clickhouse"), "--port", str(port)], stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(url, process, log)
        yield Engine(url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_WAIT_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=START_WAIT_S).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"ClickHouse did not start:\n{tail(log)}") from None
        time.sleep(START_POLL_S)
