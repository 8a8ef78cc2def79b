"""Usage of the usual mix at a steady rate, by the product's own generator, and how late balances are meanwhile."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployment import BINARY, BenchError, Deployment, Instance
from latency import Latency

# Of the first seconds no figure is taken: the generator prepares itself, and every wallet is new.
WARM_UP_S, SPARE_S = 20, 5
# A generator that is so much later than its rate has it hangs.
LATE_S_MAX = 60
POLL_S = 0.2


@contextmanager
def generating(deployment: Deployment, config: Path, rate: int, seconds: float, wallets: int, seed: int = 1) -> Iterator[None]:
    """Events of so many wallets for so long, from a process of its own. `seed`: another one than that of the events which are
    there already, or they are duplicates."""
    command = [
        str(BINARY), "--config", str(config), "generate", "--phase", "usage", "--rate", str(rate), "--seed", str(seed),
        "--events", str(int(rate * seconds)), "--wallets", str(wallets)]
    deadline = time.monotonic() + seconds + LATE_S_MAX
    events = subprocess.Popen(command, env=deployment.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield
        try:
            _, told = events.communicate(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as late:
            raise BenchError(f"the generator did not keep up with {rate:,} events/s") from late
        if events.returncode != 0:
            raise BenchError(f"the events could not be sent: {told.decode()[-500:]}")
    finally:
        events.kill()
        events.wait()


def wait_until_ready(instance: Instance, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not instance.is_ready():
        if time.monotonic() > deadline:
            raise BenchError("an instance was not ready when time was up")
        time.sleep(POLL_S)


def latency_at(rate: int, seconds: float, instance: Instance, deployment: Deployment, config: Path, wallets: int,
               seed: int = 1) -> Latency:
    """How late balances are at that rate, after a warm-up that does not count."""
    with generating(deployment, config, rate, WARM_UP_S + seconds + SPARE_S, wallets, seed):
        time.sleep(WARM_UP_S)
        before = instance.metrics()
        time.sleep(seconds)
        latency = Latency.between(before, instance.metrics())
    if latency.count == 0:
        raise BenchError(f"none of {rate:,} events/s was charged")
    return latency
