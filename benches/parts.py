"""Where the CPU time of the process under measurement goes, by part of the work: stacks that perf samples.

A sample belongs to the first part that one of its functions names, from the innermost on. What a function was inlined into
stands for it: the parts are the modules' own, to a few percent. Must not: run beside a round whose figures count.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from deployment import BenchError

SAMPLES_PER_S = 199
# Enough of a stack to find its way out of a batch.
STACK_BYTES = 8192
REPORT_WAIT_S = 300

# Threads that do one thing, by how their names begin.
THREADS = {"commit": "commit", "rdk:": "librdkafka", "identities": "store"}
COMPUTING = ("ledger", "helper")
# Of the threads that compute, by their functions.
FUNCTIONS = tuple((part, re.compile(pattern)) for part, pattern in (
    ("decode", r"creditstream::event|ledger::decoding|part::Merged|blake3"),
    ("snapshots", r"WalletSnapshot|wallet::snapshot"),
    ("progress", r"Progress|push_json"),
    ("identities", r"identity_store|ledger::memory|wallet::job|shard::look_up"),
    ("encode", r"wallet::encode|creditstream::json|Outbox::push|Timestamp::write_to"),
    ("wallets", r"ledger::(wallets|flight|report|shard)|packed|serde_core"),
    ("apply", r"creditstream::wallet|creditstream::rate|ledger::alerts"),
    ("gather", r"kafka::sys::consume|rd_kafka|ledger::batch"),
    ("checks", r"process::process|part::Part"),
))
OTHER = "other"


def parts(pid: int, folder: Path, seconds: float) -> dict[str, float]:
    """Share of each part in the process's CPU time, in a stretch of so many seconds from now on; empty without perf."""
    if shutil.which("perf") is None:
        return {}
    data = folder / "perf.data"
    run("record", "--freq", str(SAMPLES_PER_S), "--call-graph", f"dwarf,{STACK_BYTES}", "--pid", str(pid),
        "--output", str(data), "--", "sleep", str(seconds))
    counts = Counter(part_of(thread, stack) for thread, stack in samples(
        run("script", "--input", str(data), "--no-inline", "--fields", "comm,ip,sym")))
    return {part: count / counts.total() for part, count in counts.most_common()}


def run(*arguments: str) -> str:
    ended = subprocess.run(["perf", *arguments], capture_output=True, text=True, timeout=REPORT_WAIT_S, check=False)
    if ended.returncode != 0:
        raise BenchError(f"`perf {arguments[0]}` ended with {ended.returncode}: {ended.stderr[-500:]}")
    return ended.stdout


def samples(script: str) -> Iterator[tuple[str, list[str]]]:
    """Thread and functions of each sample, the innermost first."""
    for block in script.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if lines[0].strip():
            yield lines[0].strip(), [line.strip().partition(" ")[2] for line in lines[1:]]


def part_of(thread: str, stack: list[str]) -> str:
    if not thread.startswith(COMPUTING):
        return next((part for name, part in THREADS.items() if thread.startswith(name)), OTHER)
    found = (part for function in stack for part, pattern in FUNCTIONS if pattern.search(function))
    return next(found, OTHER)
