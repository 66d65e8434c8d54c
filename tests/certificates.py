"""One reading of the machine's certificates for all of httpx's clients.

httpx reads them for each client it makes, for tens of milliseconds of CPU. Tests make thousands, in loops that wait
for a process too, and none of them speaks TLS.
"""

import functools
from collections.abc import Iterator

import httpx
import pytest
from httpx._transports import default


@pytest.fixture(scope="session", autouse=True)
def _read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default, "create_ssl_context", functools.cache(httpx.create_ssl_context))
        yield
