from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fer_stream.broker.client import Link, open_link
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.lease import Lease, Owner


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    with EmbeddedServer(tmp_path_factory.mktemp("lease"), "queue") as server:
        link = open_link(server.url)
        yield link
        link.close()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"lease:{request.node.name}"


def test_one_holds_it_at_a_time(link: Link, key: str) -> None:
    first, second = Lease(link, key), Lease(link, key)
    assert first.hold()
    assert not second.hold()
    assert first.hold()


def test_it_ends_unless_it_is_lengthened(link: Link, key: str) -> None:
    first, second = Lease(link, key, ttl_s=0.3), Lease(link, key, ttl_s=0.3)
    first.hold()
    for _ in range(4):
        time.sleep(0.1)
        assert first.hold()
        assert not second.hold()
    time.sleep(0.4)
    assert second.hold()
    assert not first.hold()


def test_releasing_lets_the_next_one_in_at_once(link: Link, key: str) -> None:
    first, second = Lease(link, key), Lease(link, key)
    first.hold()
    second.release()
    assert not second.hold()
    first.release()
    assert second.hold()


def test_the_next_life_of_an_owner_takes_over_and_the_former_is_shut_out(link: Link, key: str) -> None:
    first = Owner()
    dead, heir = Lease(link, key, owner=first), Lease(link, key, owner=Owner.parse(str(first.next_life)))
    assert dead.hold()
    assert heir.hold()
    assert (dead.hold(), dead.keep()) == (False, False)
    assert heir.keep()


def test_one_life_has_no_two_leases_and_a_stranger_none(link: Link, key: str) -> None:
    owner = Owner(life=2)
    assert Lease(link, key, owner=owner).hold()
    for other in (owner, Owner(owner.name, 1), Owner(life=3)):
        assert not Lease(link, key, owner=other).hold()


def test_what_ran_out_is_not_lengthened(link: Link, key: str) -> None:
    lease = Lease(link, key, ttl_s=0.2)
    before, got, during = lease.held, lease.hold(), lease.held
    time.sleep(0.3)
    assert (before, got, during, lease.held) == (False, True, True, False)
    assert not lease.keep(), "somebody else may have had it in between"
    assert lease.hold()


def test_the_owner_keeps_it_at_the_memory_limit(link: Link, key: str) -> None:
    lease = Lease(link, key)
    link.call(lambda client: client.config_set("maxmemory", 1))
    try:
        assert lease.hold()
        assert lease.keep()
    finally:
        link.call(lambda client: client.config_set("maxmemory", 0))
