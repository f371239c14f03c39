"""Which addresses a server may be made to call, and which URLs name something callable at all."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from proctor.errors import UsageError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_URL_LENGTH: Final = 2_000

# Services that hand credentials to whoever asks from inside: an allowed range around one must not open it.
# AWS (instance, containers, pods), Azure's wire server, Alibaba, Oracle, Tencent, Google over IPv6.
_METADATA: Final = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "169.254.0.23",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)

# IANA's special-purpose registries. `ip.is_global` is no substitute: it is true for multicast, site-local, NAT64, 6to4.
_REFUSED: Final = tuple(
    (ip_network(text), kind)
    for text, kind in (
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "an address shared by a carrier's customers"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address for documentation"),
        ("192.88.99.0/24", "a reserved address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address for benchmarks"),
        ("198.51.100.0/24", "an address for documentation"),
        ("203.0.113.0/24", "an address for documentation"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "an address for documentation"),
        ("3fff::/20", "an address for documentation"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a site-local address"),
        ("ff00::/8", "a multicast address"),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")

# Networks whose addresses end in an IPv4 address; 6to4 and Teredo keep theirs elsewhere.
_ENDING_IN_IPV4: Final = tuple(
    IPv6Network(text) for text in ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48")
)


@dataclass(frozen=True)
class AddressRules:
    """Judges single addresses: public ones may be called, others only where `allow` or `allow_loopback` says so."""

    allow: tuple[IPNetwork, ...] = ()
    allow_loopback: bool = False

    def why_refused(self, ip: IPAddress) -> str | None:
        """What the address is, as in `a private address`, or None when it may be called."""
        # `fd00:ec2::254%eth0` is the same machine, but compares unequal.
        ip = IPv6Address(int(ip)) if ip.version == 6 else ip
        if ip_network(ip) in self.allow:
            return None
        if ip in _METADATA:
            return "the address of a cloud's metadata service"
        carried = embedded_ipv4(ip)
        if carried is not None and (reason := self.why_refused(carried)) is not None:
            return f"an IPv6 address that carries {reason}"
        if any(ip in network for network in self.allow):
            return None
        if carried is not None:
            return "an IPv6 address that carries an IPv4 address"
        return None if self.allow_loopback and ip.is_loopback else _kind_refused(ip)


def embedded_ipv4(ip: IPAddress) -> IPv4Address | None:
    """The IPv4 address that a mapped, compatible, NAT64, 6to4 or Teredo address leads to."""
    if ip.version == 4 or int(ip) <= 1:  # `::` and `::1` lie in the compatible range and are none of it
        return None
    if any(ip in network for network in _ENDING_IN_IPV4):
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip.teredo is not None:
        return ip.teredo[1]
    return ip.sixtofour


def _kind_refused(ip: IPAddress) -> str | None:
    for network, kind in _REFUSED:
        if ip in network:
            return kind
    if ip.version == 6 and ip not in _GLOBAL_UNICAST:
        return "a reserved address"
    return None


def parse_allow(text: str) -> tuple[IPNetwork, ...]:
    """Reads `10.0.0.0/8,192.168.1.5`, the form of `PROCTOR_CALLBACK_ALLOW`; UsageError names the part that is wrong."""
    return tuple(_parse_network(part.strip()) for part in text.split(",") if part.strip())


def _parse_network(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise UsageError(
            f"PROCTOR_CALLBACK_ALLOW cannot be read: {error}. "
            "Write addresses and ranges separated by commas, as in 10.0.0.0/8,192.168.1.5."
        ) from None


def check_url(url: str) -> str | None:
    """Why the text cannot be a callback's URL, as a clause that follows the URL's name, or None when it can."""
    if len(url) > MAX_URL_LENGTH:
        return f"is longer than {MAX_URL_LENGTH:,} characters"
    # Parsers disagree about backslashes and blanks: what this one takes for a path may be another one's host.
    if any(character <= " " or "\x7f" <= character <= "\xa0" or character == "\\" for character in url):
        return "contains a blank, a backslash or a control character"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is not a URL ({error})"
    return _check_parts(parts, port)


def _check_parts(parts: SplitResult, port: int | None) -> str | None:
    if parts.scheme not in {"http", "https"}:
        return "must begin with http:// or https://"
    if parts.username is not None or parts.password is not None:
        return "must not contain a user name or a password"
    if not parts.hostname:
        return "names no host"
    if port == 0:
        return "has port 0; ports are 1 to 65535"
    return _check_host(parts.hostname)


def _check_host(host: str) -> str | None:
    # `127.1`, `2130706433` and `0x7f000001` are addresses to the system's resolver, and must be written in full.
    last = host.rstrip(".").rpartition(".")[2]
    looks_numeric = last.isdigit() or last.startswith("0x")
    if looks_numeric and parse_literal(host) is None:
        return "has a host that is a number but not an address; write it as in 203.0.113.7"
    return None


def parse_literal(host: str) -> IPAddress | None:
    """The address that a URL's host spells out, or None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
