"""Free ports and waiting for a server to listen."""

import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int, seconds: float, process: "subprocess.Popen[bytes] | None", log: Path | None) -> None:
    """Raises RuntimeError, with the end of the log, where nothing listens in time or the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:] if log is not None and log.exists() else ""
    raise RuntimeError(f"nothing listens on port {port}\n{tail}")


def end(process: "subprocess.Popen[bytes]", seconds: float = 20) -> None:
    """SIGTERM to this process alone, then SIGKILL."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
