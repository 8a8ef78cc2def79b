"""The local stack without Docker: Kafka, ClickHouse's engine, Prometheus and Alertmanager on 127.0.0.1.

Owns: the commands up, down, status, env, install, wipe. Invariants: `up` twice is `up` once; what the environment
gives an address for is used and never started; data outlive everything but `wipe`.
Must not: know how a component is configured (components.py), downloaded (install.py) or ended (processes.py).

Needs Python 3.9 and Linux, and nothing beyond the standard library.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
import urllib.error
import urllib.request

# No __pycache__ beside the sources, for those who are not root in the checkout.
sys.dont_write_bytecode = True

import install
import processes
from components import COMPONENTS, Component, Stack
from processes import StackError

START_WAIT_S = 60
STOP_WAIT_S = 25


def up(stack: Stack, names: list[str]) -> None:
    """Bring, start and wait for the named components."""
    local = [name for name in names if not stack.is_external(COMPONENTS[name])]
    with processes.lock(stack.folder):
        install.ensure(stack.folder, local, with_build=True)
        began = time.monotonic()
        started = [name for name in names if name in local and _start_one(stack, COMPONENTS[name])]
        for name in local:
            _wait_for(stack, COMPONENTS[name])
        if "prometheus" in local and "prometheus" not in started:
            COMPONENTS["prometheus"].prepare(stack)
            _reload_prometheus(stack)
    _check_external(stack, [name for name in names if name not in local])
    print(f"up in {time.monotonic() - began:.1f} s ({', '.join(started) or 'all was running'})", file=sys.stderr)


def _start_one(stack: Stack, component: Component) -> bool:
    """Start it unless it runs; tells whether it did."""
    address = stack.address(component)
    running = processes.read_record(stack.folder, component.name)
    if running is not None and running.address != address:
        raise StackError(f"{component.name} runs at {running.address} and is wanted at {address}: "
                         "`stack.py down` first, or set the ports as they were")
    if running is not None:
        return False
    for variable, default in ((component.port_variable, component.port_default), *component.more_ports):
        port = stack.port(variable, default)
        if not processes.port_is_free(port):
            raise StackError(f"port {port} of {component.name} is in use by another program: "
                             f"set {variable} to a free one, or {component.address_variable} to use what is there")
    component.prepare(stack)
    processes.start(stack.folder, component.name, component.command(stack), address)
    return True


def _wait_for(stack: Stack, component: Component) -> None:
    deadline = time.monotonic() + START_WAIT_S
    log = processes.log_path(stack.folder, component.name)
    while not component.is_healthy(stack.address(component)):
        if processes.read_record(stack.folder, component.name) is None:
            raise StackError(f"{component.name} died while starting; the end of {log}:\n{processes.last_lines(log)}")
        if time.monotonic() > deadline:
            raise StackError(f"{component.name} does not answer at {stack.address(component)} within "
                             f"{START_WAIT_S} s; the end of {log}:\n{processes.last_lines(log)}")
        time.sleep(0.1)


def _reload_prometheus(stack: Stack) -> None:
    """Rules may be newer than the running Prometheus."""
    url = stack.address(COMPONENTS["prometheus"]).rstrip("/") + "/-/reload"
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()
    except urllib.error.HTTPError as error:
        raise StackError(f"prometheus refuses its rules: {error.read().decode(errors='replace').strip()}") from error
    except OSError as error:
        raise StackError(f"prometheus cannot be told to read its rules anew: {error}") from error


def _check_external(stack: Stack, names: list[str]) -> None:
    """What others run is only asked whether it is there; Kafka may ask for TLS, which this test does not speak."""
    for name in names:
        component = COMPONENTS[name]
        address = stack.address(component)
        if not component.is_healthy(address):
            print(f"warning: {name} at {address} (from {component.address_variable}) does not answer in plain text",
                  file=sys.stderr)


def down(stack: Stack) -> None:
    with processes.lock(stack.folder):
        _stop_all(stack)


def _stop_all(stack: Stack) -> None:
    stopped = processes.stop(stack.folder, list(COMPONENTS), STOP_WAIT_S)
    print(f"stopped: {', '.join(stopped) or 'nothing was running'}", file=sys.stderr)


def wipe(stack: Stack, everything: bool) -> None:
    """Ends all, and deletes the data; with `everything` also downloads, logs and the folder itself."""
    with processes.lock(stack.folder):
        _stop_all(stack)
        if everything:
            # The lock file goes too: whoever waits for it makes a new folder.
            shutil.rmtree(stack.folder)
        else:
            shutil.rmtree(stack.folder / "data", ignore_errors=True)
    print(f"deleted: {stack.folder if everything else stack.folder / 'data'}", file=sys.stderr)


def status(stack: Stack) -> int:
    """A table of the components. 0 if all are healthy."""
    rows = [("component", "address", "state", "version", "pid", "RSS MB")]
    for component in COMPONENTS.values():
        address = stack.address(component)
        healthy = component.is_healthy(address)
        record = processes.read_record(stack.folder, component.name)
        if stack.is_external(component):
            rows.append((component.name, address, "external" if healthy else "external, no answer", "-", "-", "-"))
        elif record is None:
            rows.append((component.name, address, "stopped", component.version(stack), "-", "-"))
        else:
            state = "running" if healthy else "running, no answer"
            rows.append((component.name, record.address, state, component.version(stack), str(record.pid),
                         str(processes.rss_mb(record.pid))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0 if all(row[2] in ("running", "external") for row in rows[1:]) else 1


def env(stack: Stack) -> None:
    """Shell lines for what wants the addresses: eval "$(python3 stack/stack.py env)"."""
    for component in COMPONENTS.values():
        print(f"export {component.address_variable}={shlex.quote(stack.address(component))}")
    print(f"export CREDITSTREAM_STACK_PYTHON={shlex.quote(str(install.venv_python(stack.folder)))}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="stack.py", description="The local stack, without Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="download what is missing, start, wait until all answer")
    up_parser.add_argument("component", nargs="*", help=f"of {', '.join(COMPONENTS)}; default: all")
    commands.add_parser("down", help="end what `up` started; data stay")
    commands.add_parser("status", help="what runs, where, in which version")
    commands.add_parser("env", help="addresses, as lines for a shell")
    commands.add_parser("install", help="bring everything, start nothing")
    commands.add_parser("pin-jars", help="write pins/kafka-jars.sha256 anew after a change of pins/pom.xml")
    wipe_parser = commands.add_parser("wipe", help="down, and delete the data")
    wipe_parser.add_argument("--all", action="store_true", help="delete downloads and logs too")
    options = parser.parse_args()
    try:
        stack = Stack.from_environment()
        if options.command == "up":
            unknown = [name for name in options.component if name not in COMPONENTS]
            if unknown:
                parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(COMPONENTS)}")
            up(stack, [name for name in COMPONENTS if name in (options.component or COMPONENTS)])
        elif options.command == "down":
            down(stack)
        elif options.command == "wipe":
            wipe(stack, options.all)
        elif options.command == "status":
            return status(stack)
        elif options.command == "env":
            env(stack)
        elif options.command == "install":
            local = [name for name in COMPONENTS if not stack.is_external(COMPONENTS[name])]
            with processes.lock(stack.folder):
                install.ensure(stack.folder, local, with_build=True)
                install.bring_dashboards(stack.folder)
        else:
            install.write_jar_sums(stack.folder)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
