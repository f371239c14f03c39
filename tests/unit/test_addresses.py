"""The judge of callback addresses: what a server must not be made to call."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.domain.addresses import AddressRules, check_url, parse_allow
from proctor.errors import UsageError

PUBLIC_ONLY = AddressRules()


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::8"])
def test_public_addresses_may_be_called(text: str) -> None:
    assert PUBLIC_ONLY.why_refused(ip_address(text)) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd12:3456::1", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "site-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:ec2::254%eth0", "metadata"),
        ("100.64.0.1", "carrier"),
        ("100.127.255.255", "carrier"),
        ("192.0.0.8", "reserved"),
        ("192.0.2.1", "documentation"),
        ("198.18.0.1", "benchmarks"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("ff02::1", "multicast"),
        ("100::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("2001:10::1", "reserved"),
        ("4000::1", "reserved"),
        ("::ffff:127.0.0.1", "carries a loopback"),
        ("::ffff:8.8.8.8", "carries an IPv4"),
        ("::7f00:1", "carries a loopback"),
        ("::808:808", "carries an IPv4"),
        ("64:ff9b::7f00:1", "carries a loopback"),
        ("64:ff9b::a9fe:a9fe", "carries the address of a cloud's metadata"),
        ("64:ff9b::808:808", "carries an IPv4"),
        ("64:ff9b:1::a00:1", "carries a private"),
        ("2002:7f00:1::", "carries a loopback"),
        ("2002:808:808::", "carries an IPv4"),
        # Teredo keeps the client's IPv4 address inverted in its last 32 bits: 127.0.0.1 here.
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "carries a loopback"),
        ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", "carries an IPv4"),
    ],
)
def test_other_addresses_are_refused_with_what_they_are(text: str, kind: str) -> None:
    reason = PUBLIC_ONLY.why_refused(ip_address(text))

    assert reason is not None
    assert kind in reason


def test_loopback_may_be_allowed_and_nothing_else_with_it() -> None:
    rules = AddressRules(allow_loopback=True)

    assert rules.why_refused(ip_address("127.0.0.1")) is None
    assert rules.why_refused(ip_address("::1")) is None
    assert rules.why_refused(ip_address("0.0.0.0")) is not None
    assert rules.why_refused(ip_address("10.0.0.1")) is not None


def test_an_allowed_range_wins() -> None:
    rules = AddressRules(parse_allow("10.0.0.0/8, 192.168.1.5,fd12::/16"))

    assert rules.why_refused(ip_address("10.200.0.1")) is None
    assert rules.why_refused(ip_address("192.168.1.5")) is None
    assert rules.why_refused(ip_address("fd12::1")) is None
    assert rules.why_refused(ip_address("192.168.1.6")) is not None
    assert rules.why_refused(ip_address("fd13::1")) is not None


@pytest.mark.parametrize(
    ("range_around", "service"),
    [("169.254.0.0/16", "169.254.169.254"), ("fd00::/8", "fd00:ec2::254"), ("100.64.0.0/10", "100.100.100.200")],
)
def test_a_metadata_service_is_opened_only_by_its_own_address(range_around: str, service: str) -> None:
    assert AddressRules(parse_allow(range_around)).why_refused(ip_address(service)) is not None
    assert AddressRules(parse_allow(service)).why_refused(ip_address(service)) is None


def test_an_allowed_nat64_range_does_not_lead_to_refused_ipv4_addresses() -> None:
    rules = AddressRules(parse_allow("64:ff9b::/96"))

    assert rules.why_refused(ip_address("64:ff9b::808:808")) is None
    assert rules.why_refused(ip_address("64:ff9b::7f00:1")) is not None
    assert rules.why_refused(ip_address("64:ff9b::a9fe:a9fe")) is not None


@given(st.ip_addresses(v=4).map(IPv4Address))
def test_an_ipv4_address_that_is_refused_is_refused_in_every_disguise(ip: IPv4Address) -> None:
    number = int(ip)
    everything = AddressRules(parse_allow("::/0"))
    disguises = [
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
    ]

    if PUBLIC_ONLY.why_refused(ip) is not None:
        assert all(everything.why_refused(disguise) is not None for disguise in disguises)
    assert all(PUBLIC_ONLY.why_refused(disguise) is not None for disguise in disguises)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "localhost", "10.0.0.1/8", "10.0.0.0/8;11.0.0.0/8"])
def test_an_allow_list_that_cannot_be_read_says_which_part(text: str) -> None:
    with pytest.raises(UsageError, match="PROCTOR_CALLBACK_ALLOW") as caught:
        parse_allow(text)

    assert text in caught.value.detail


def test_an_empty_allow_list_allows_nothing() -> None:
    assert parse_allow(" , ") == ()


@pytest.mark.parametrize(
    "url",
    [
        "https://ci.example.com/hooks/1?x=y",
        "http://127.0.0.1:8000/",
        "http://[::1]:65535/a",
        "http://host",
        "https://bücher.example/",
        "https://1password.example/",
        "http://203.0.113.7/",
    ],
)
def test_urls_of_http_with_a_host_are_accepted(url: str) -> None:
    assert check_url(url) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "http://"),
        ("ftp://host/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("javascript:alert(1)", "http://"),
        ("//host/", "http://"),
        ("http:///path", "no host"),
        ("http://:80/", "no host"),
        ("http://user:secret@host/", "password"),
        ("http://user@host/", "user name"),
        ("http://@host/", "user name"),
        ("http://host:0/", "port 0"),
        ("http://host:65536/", "not a URL"),
        ("http://host:http/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://host/\r\nX: y", "control"),
        ("http://host/a b", "blank"),
        ("http://good.example\\@evil.example/", "backslash"),
        ("http://host/\x00", "control"),
        ("http://host/\x85", "control"),
        ("http://2130706433/", "number"),
        ("http://127.1/", "number"),
        ("http://127.0.0.1./", "number"),
        ("http://0177.0.0.1/", "number"),
        ("http://0x7f000001/", "number"),
        ("http://host/" + "a" * 2_000, "2,000"),
    ],
)
def test_other_urls_are_refused_with_the_reason(url: str, reason: str) -> None:
    refused = check_url(url)

    assert refused is not None
    assert reason in refused


@given(st.text(max_size=200))
def test_no_text_makes_the_check_of_urls_fail(text: str) -> None:
    for url in (text, f"http://{text}", f"http://host:{text}/"):
        assert check_url(url) is None or isinstance(check_url(url), str)
