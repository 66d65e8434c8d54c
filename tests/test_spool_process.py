"""The spool under real processes, threads and disks: killed in mid-append, filled, and used from all sides at once."""

import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.spool import Spool, SpoolFull, SpoolInUse
from tests.spools import append, forget_all

DISK_BYTES = 1024 * 1024

APPENDING = """
import os, sys
from backends.spool import Entry, Spool
spool = Spool(sys.argv[1], 10**9, 10**12)
first = int(sys.argv[2])
for number in range(first, first + 10**9):
    spool.append([Entry("topic", "organisation", 1, 1, b"%d %s" % (number, b"x" * (number % 5000)))])
    os.write(1, b"%d\\n" % number)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def numbers(spool: Spool) -> list[int]:
    return [int(line.split()[0]) for line in forget_all(spool)]


def test_a_process_that_is_killed_has_kept_everything_it_said_it_has(tmp_path: Path) -> None:
    folder, first, said = tmp_path / "spool", 0, []
    for delay in range(8):
        command = [sys.executable, "-c", APPENDING, str(folder), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0], "it appended nothing"
            for _ in range(delay * 7):
                said.append(int(process.stdout.readline()))
            with pytest.raises(SpoolInUse):
                Spool(folder, 10**9, 10**12)
            process.send_signal(signal.SIGKILL)
            said += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
        first = said[-1] + 2 if said else 0  # one more may be there than was said
    spool = Spool(folder, 10**9, 10**12)
    assert spool.status().damaged == 0
    assert spool.status().entries >= len(said)
    read = numbers(spool)
    spool.close()
    assert read == sorted(set(read))
    assert set(said) <= set(read)
    assert len(read) - len(said) <= 8


def test_a_full_disk_is_said_and_used_again_when_there_is_room(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", 10**9, 10**12)
    somebody_elses = small_disk / "filler"
    somebody_elses.write_bytes(bytes(DISK_BYTES // 2))
    promised = []
    with pytest.raises(SpoolFull, match="No space left on device"):
        for number in range(10**6):
            append(spool, f"{number} " + "x" * 10_000)
            promised.append(number)
    assert promised
    assert spool.problem() == "No space left on device"
    with pytest.raises(SpoolFull):
        append(spool, "refused" * 10_000)
    somebody_elses.unlink()
    assert spool.problem() is None
    append(spool, f"{len(promised)} last")
    assert numbers(spool) == [*promised, len(promised)]
    spool.close()


def test_a_full_disk_is_emptied_by_flushing_and_forgets_what_it_may(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", 10**9, 10**12)
    append(spool, "0 " + "x" * 10_000)
    with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert numbers(spool) == [0]
    append(spool, "1")
    spool.close()
    spool = Spool(small_disk / "spool", 10**9, 10**12)
    assert numbers(spool) == [1]
    spool.close()


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 10**9, 10**12)
    append(spool, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(SpoolFull, match="File too large"):
            append(spool, "b" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    append(spool, "c")
    assert forget_all(spool) == ["a", "c"]
    spool.close()


def test_appended_read_and_forgotten_by_many_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each appender's lines stay in order, each is read, and the counters are never wrong at the end or below 0."""
    monkeypatch.setattr("backends.spool.spool.SEGMENT_BYTES", 2000)
    spool = Spool(tmp_path / "spool", 10**9, 10**12)
    each, appenders = 100, 4
    lines: list[list[str]] = [[], []]
    problems: list[BaseException] = []
    done = threading.Event()

    def appending(thread: int) -> None:
        for number in range(each):
            append(spool, f"{thread} {number}", f"{thread} {number} too")

    def flushing(mine: list[str]) -> None:
        while True:
            last = done.is_set()
            mine += forget_all(spool)
            if last:
                return

    def watching() -> None:
        while not done.is_set():
            status = spool.status()
            assert 0 <= status.entries <= status.events <= 2 * each * appenders
            assert spool.problem() is None

    def guarded(work: threading.Thread) -> threading.Thread:
        run = work.run

        def noted() -> None:
            try:
                run()
            except BaseException as error:
                problems.append(error)

        work.run = noted  # type: ignore[method-assign]
        work.start()
        return work

    flushers = [guarded(threading.Thread(target=flushing, args=[mine])) for mine in lines]
    watcher = guarded(threading.Thread(target=watching))
    for one in [guarded(threading.Thread(target=appending, args=[number])) for number in range(appenders)]:
        one.join()
    done.set()
    for one in [*flushers, watcher]:
        one.join()
    assert problems == []
    assert spool.status() == (0, 0, 0, None, 0)
    assert list((tmp_path / "spool").glob("*.segment")) == []
    spool.close()
    for mine in lines:
        for thread in range(appenders):
            order = [int(line.split()[1]) for line in mine if line.startswith(f"{thread} ")]
            first_seen = list(dict.fromkeys(order))  # what the other flusher forgot in between is read twice
            assert first_seen == sorted(first_seen)
    expected = {f"{thread} {n}{too}" for thread in range(appenders) for n in range(each) for too in ("", " too")}
    assert set(lines[0]) | set(lines[1]) == expected
