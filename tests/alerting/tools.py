"""What the tests of rules and of Alertmanager share: the real promtool, amtool and Prometheus, as the stack brings them.

A tool that is missing fails the tests: `stack/stack.py install` brings them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent.parent
RULES = CHECKOUT / "config" / "prometheus" / "rules"
ALERTMANAGER = CHECKOUT / "config" / "alertmanager" / "alertmanager.yml"
TEMPLATES = ALERTMANAGER.parent / "templates"
BINARIES = Path(os.environ.get("CREDITSTREAM_STACK_DIR") or CHECKOUT / ".stack").resolve() / "downloads/debian/usr/bin"


def tool(name: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of promtool or amtool."""
    done = subprocess.run([str(BINARIES / name), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    return done.returncode, done.stdout


def rule_files() -> list[Path]:
    return sorted(RULES.glob("*.yml"))


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prometheus(target: str, at_once: bool, alertmanager_url: str | None = None) -> Iterator[str]:
    """A Prometheus of our own with the shipped rules, which tells that Alertmanager; its URL. at_once: no alert waits, nor lasts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in rule_files():
            text = path.read_text()
            if at_once:
                text = re.sub(r"^        (for|keep_firing_for): \S+$", r"        \1: 0s", text, flags=re.MULTILINE)
            (folder / path.name).write_text(text)
        (folder / "prometheus.yaml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [f"{folder}/*.yml"],
            "scrape_configs": [{"job_name": "creditstream", "static_configs": [{"targets": [target]}]}],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager_url.removeprefix("http://")]}]}]
                         if alertmanager_url else []},
        }))
        address = f"127.0.0.1:{free_port()}"
        with _server(address, folder / "log", "prometheus", f"--config.file={folder}/prometheus.yaml",
                     f"--storage.tsdb.path={folder}/data") as url:
            yield url


@contextmanager
def alertmanager(configuration: str) -> Iterator[str]:
    """An Alertmanager of our own, and its URL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "alertmanager.yml").write_text(configuration)
        with _server(f"127.0.0.1:{free_port()}", folder / "log", "prometheus-alertmanager",
                     f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}",
                     "--cluster.listen-address=") as url:
            yield url


@contextmanager
def _server(address: str, log: Path, name: str, *arguments: str) -> Iterator[str]:
    with open(log, "wb") as output:
        process = subprocess.Popen([str(BINARIES / name), *arguments, f"--web.listen-address={address}"],
                                   stdout=output, stderr=output)
    try:
        _wait_until_ready(f"http://{address}", process, log)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(url + "/-/ready", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("It does not start:\n" + log.read_text())


def alerts_of(url: str) -> dict[str, dict[str, Any]]:
    """Alerting rules by name, as Prometheus understood them: `query`, `labels`, `annotations`, `duration`, `alerts`."""
    groups = get(url + "/api/v1/rules")["data"]["groups"]
    return {rule["name"]: rule for group in groups for rule in group["rules"] if rule["type"] == "alerting"}


def queries_of(url: str) -> dict[str, str]:
    """Expressions of all rules, recorded ones too, by name."""
    groups = get(url + "/api/v1/rules")["data"]["groups"]
    return {rule["name"]: rule["query"] for group in groups for rule in group["rules"]}
