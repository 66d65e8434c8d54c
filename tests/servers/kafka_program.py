"""Kafka's program on this machine: its jars, fetched once, and an archive of its loaded classes, made once.

A broker that lives for seconds spends them on loading classes and on compiling code. What it is given here cuts its
start to a third.
"""

import fcntl
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "4.1.2"
POM = Path(__file__).with_name("kafka-pom.xml")
QUICK = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]  # what the second compiler takes, it never gives back

Train = Callable[[Path, list[str]], None]
"""Has a broker start and end in this folder, with these options for its JVM."""


def jars() -> Path:
    """The folder of Kafka's jars, fetched from Maven Central once. Raises RuntimeError where it cannot be had."""
    target = _cache() / f"kafka-{VERSION}"
    with _alone("jars"):
        if target.is_dir():
            return target
        if not shutil.which("mvn") or not shutil.which("java"):
            raise RuntimeError("no java and mvn")
        fresh = _cache() / f"kafka-{uuid.uuid4()}"
        fresh.mkdir()
        shutil.copy(POM, fresh / "pom.xml")
        fetch = ["mvn", "-q", "-B", "-f", str(fresh / "pom.xml"), "dependency:copy-dependencies"]
        fetch += ["-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(fetch, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            raise RuntimeError("Maven could not fetch Kafka's jars")
        fresh.rename(target)
    return target


def quick_options(train: Train) -> list[str]:
    """For the JVM of a broker that lives for one test, or for one run of them.

    The archive is of one JVM and one set of jars. A JVM that was replaced since would start without it, and say so.
    """
    java = shutil.which("java")
    if java is None:
        raise RuntimeError("no java and mvn")
    target = _cache() / f"kafka-{VERSION}-{Path(java).resolve().stat().st_mtime_ns}.jsa"
    with _alone("classes"):
        if not target.exists():
            fresh = _cache() / f"training-{uuid.uuid4()}"
            fresh.mkdir()
            train(fresh, [*QUICK, f"-XX:ArchiveClassesAtExit={fresh}/classes.jsa"])
            if (fresh / "classes.jsa").exists():
                (fresh / "classes.jsa").rename(target)
            shutil.rmtree(fresh)
    return [*QUICK, f"-XX:SharedArchiveFile={target}"] if target.exists() else QUICK


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "zenstep-ingest"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(what: str) -> Iterator[None]:
    """One process at a time prepares; the others find it done."""
    with (_cache() / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
