"""A TCP proxy on one link, which the harness cuts, slows, or lets swallow bytes."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

CHUNK = 64 * 1024
MODES = ("pass", "cut", "delay", "black-hole", "half-close", "deaf")
"""pass: forwards. cut: resets every connection and each new one. delay: holds every chunk for a while, both ways.
black-hole: nothing arrives either way, nothing closes. half-close: the server's side is closed to the client, what the
client writes still arrives. deaf: what the client writes arrives, no answer comes back.

What black-hole and deaf held back goes on its way when the link is well again, as TCP would send it once more.
"""


class Loop:
    """An event loop on a thread of its own, for all proxies."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """From another thread; returns what it returned."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        async def cancel_all() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Proxy:
    """Listens on `port` of the loopback and forwards to `target` there, as its mode says."""

    def __init__(self, loop: Loop, port: int, target: int) -> None:
        self.port = port
        self._loop = loop
        self._target = target
        self._mode = "pass"
        self._delay = 0.0
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server = loop.run(asyncio.start_server(self._accept, "127.0.0.1", port))

    @property
    def mode(self) -> str:
        return self._mode

    def set(self, mode: str, delay: float = 0.0) -> None:
        """From another thread. `delay` in seconds, for the mode of that name."""
        if mode not in MODES:
            raise ValueError(f"no such mode: {mode}")
        self._loop.run(self._set(mode, delay))

    def close(self) -> None:
        self._loop.run(self._close())

    async def _set(self, mode: str, delay: float) -> None:
        before, self._mode, self._delay = self._mode, mode, delay
        for pair in list(self._pairs):
            if mode == "cut" or before == "half-close":  # a half that is closed does not open again
                pair.reset()
            elif mode == "half-close":
                pair.close_half()
            pair.changed.set()

    async def _close(self) -> None:
        self._server.close()
        for pair in list(self._pairs):
            pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            _reset(writer)
            return
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        pair = _Pair((reader, writer), upstream)
        self._pairs.add(pair)
        if self._mode == "half-close":
            pair.close_half()
        try:
            await asyncio.gather(
                self._forward(pair, reader, upstream[1], lambda: self._mode == "black-hole"),
                self._forward(pair, upstream[0], writer, lambda: self._mode in ("black-hole", "deaf")),
            )
        except OSError:
            pass
        finally:
            pair.reset()
            self._pairs.discard(pair)

    async def _forward(
        self, pair: "_Pair", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: Callable[[], bool]
    ) -> None:
        """Raises OSError where either side is gone."""
        answers = writer is pair.client[1]
        while chunk := await reader.read(CHUNK):
            if self._mode == "delay":
                await asyncio.sleep(self._delay)
            await pair.passes(held)
            if answers and pair.half:
                continue
            writer.write(chunk)
            await writer.drain()
        await pair.passes(held)
        if not (answers and pair.half):
            with suppress(OSError, RuntimeError):
                writer.write_eof()


class _Pair:
    """One connection of a client and the one it stands for."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.client = client
        self.half = False
        self.changed = asyncio.Event()
        self._upstream = upstream

    async def passes(self, held: Callable[[], bool]) -> None:
        """Returns when nothing holds this direction back."""
        while held():
            self.changed.clear()
            await self.changed.wait()

    def close_half(self) -> None:
        self.half = True
        with suppress(OSError, RuntimeError):
            self.client[1].write_eof()

    def reset(self) -> None:
        _reset(self.client[1])
        _reset(self._upstream[1])
        self.changed.set()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
