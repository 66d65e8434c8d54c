"""The address of a request's client, which never leaves the process but as a keyed digest."""

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
IPv6_PREFIX = 64  # what one household has
MAX_HOPS = 32


def networks(text: str) -> list[Network]:
    """Networks or addresses with commas between. Raises ValueError."""
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


class Clients:
    """`trusted` are the proxies whose X-Forwarded-For is believed; anybody else could write into it what they like."""

    def __init__(self, secret: str, trusted: Iterable[Network] = ()) -> None:
        self._secret = hashlib.blake2b(secret.encode()).digest()
        self._trusted = list(trusted)

    def digest(self, scope: Scope) -> str:
        """The same for all addresses of one IPv6 network of a household."""
        address = self.address(scope)
        if address is None:
            return "unknown"
        kept = address.packed if address.version == 4 else address.packed[: IPv6_PREFIX // 8]
        return hashlib.blake2b(kept, key=self._secret, digest_size=16).hexdigest()

    def address(self, scope: Scope) -> Address | None:
        """The peer, or behind trusted proxies the right-most address that is none of theirs.

        A proxy adds on the right the address it was called from, so what stands left of a stranger is hearsay.
        Where a proxy added something that is no address, the request counts as the proxy's.
        """
        found = _address((scope.get("client") or ("",))[0])
        if found is None or not self._is_trusted(found):
            return found
        for text in _forwarded(scope["headers"]):
            earlier = _address(text)
            if earlier is None:
                break
            found = earlier
            if not self._is_trusted(found):
                break
        return found

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """What X-Forwarded-For says, nearest first. Several such headers are one list (RFC 9110)."""
    whole = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
    return [part.strip() for part in reversed(whole.rsplit(",", MAX_HOPS)[-MAX_HOPS:])] if whole else []


def _address(text: str) -> Address | None:
    """An address, with or without a port; an IPv4 address that is written as IPv6 is an IPv4 address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if address.version == 6 else address
