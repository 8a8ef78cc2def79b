"""The binary to deploy, compiled with a profile of its own work: target/optimised/creditstream.

    make release        a quarter of an hour on two cores

An instrumented build goes through a backlog of the usual mix on the local Kafka. What it counted tells the compiler which branches
are taken and which functions are worth putting into others. It is the same program: nothing but its speed depends on the profile.
`make bench BENCH="--optimised"` measures it. Exit code 1: a step failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.dont_write_bytecode = True

from deployment import CHECKOUT, OPTIMISED, BenchError, exit_code
from load import another

FOLDER = OPTIMISED.parent
EVENTS, WALLETS = 1_000_000, 100_000


def command(*words: str | Path, flag: str = "") -> str:
    """Its stdout. `flag`: for the compiler, after those that the caller gives it."""
    flags = f"{os.environ.get('RUSTFLAGS', '')} {flag}".strip()
    ended = subprocess.run(
        words, cwd=CHECKOUT, env={**os.environ, "RUSTFLAGS": flags} if flag else None, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        raise BenchError(f"`{' '.join(map(str, words[:2]))}` ended with {ended.returncode}")
    return ended.stdout


def host() -> str:
    return next(line.split()[1] for line in command("rustc", "-vV").splitlines() if line.startswith("host:"))


def profdata() -> Path:
    """The one of the compiler's own LLVM: another version may not read its counts."""
    program = Path(command("rustc", "--print", "sysroot").strip(), "lib", "rustlib", host(), "bin", "llvm-profdata")
    if not program.exists():
        if shutil.which("rustup") is None:
            raise BenchError(f"{program.name} of this compiler's LLVM is not there: install the component llvm-tools of its toolchain")
        command("rustup", "component", "add", "llvm-tools")
    return program


def build(part: str, flag: str) -> Path:
    """In a folder of its own, which is kept. With a target that is named, build scripts and macros are built without the flag."""
    folder = FOLDER / part
    command("cargo", "build", "--release", "--locked", "--bin", "creditstream", "--target", host(), "--target-dir", folder, flag=flag)
    return folder / host() / "release" / "creditstream"


def optimise() -> None:
    program, counts, profile = profdata(), FOLDER / "counts", FOLDER / "creditstream.profdata"
    instrumented = build("instrumented", f"-Cprofile-generate={counts}")
    with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder, ExitStack() as cleanup:
        bench = another([], EVENTS, WALLETS, Path(folder), "-profile", cleanup)
        records = bench.preload(instrumented)
        # What the generator did is no work of a service, and neither is what an earlier build counted.
        shutil.rmtree(counts)
        bench.round(instrumented, 1, records).print("instrumented")
    command(program, "merge", "--output", profile, counts)
    shutil.copy2(build("optimised", f"-Cprofile-use={profile}"), OPTIMISED)
    print(f"{OPTIMISED.relative_to(CHECKOUT)}: compiled with the profile of {records:,} records")


if __name__ == "__main__":
    sys.exit(exit_code(optimise))
