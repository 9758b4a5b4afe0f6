"""A lease that a thread keeps, on a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event

import pytest

from fer_stream.broker.client import Link, open_link
from fer_stream.broker.lease import Lease
from fer_stream.broker.lease_renewal import HeldLease

TTL_S = 0.6


@pytest.fixture(scope="module")
def link(valkey_url: str) -> Iterator[Link]:
    link = open_link(valkey_url)
    yield link
    link.close()


@pytest.fixture
def mine(link: Link, request: pytest.FixtureRequest) -> Lease:
    lease = Lease(link, f"lease:{request.node.name}", TTL_S)
    assert lease.hold()
    return lease


@pytest.fixture
def theirs(link: Link, mine: Lease) -> Lease:
    return Lease(link, mine.key, TTL_S)


def test_it_is_kept_however_long_its_owner_waits_for_something_else(mine: Lease, theirs: Lease) -> None:
    with HeldLease(mine, "door", stop=Event()) as held:
        time.sleep(2 * TTL_S)
        assert not theirs.hold()
        assert not held.over.is_set()
    assert theirs.hold()


def test_the_work_is_over_when_it_is_lost(
    link: Link, mine: Lease, theirs: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    ended = Event()
    with HeldLease(mine, "door", stop=Event(), end=ended.set) as held:
        link.call(lambda client: client.delete(mine.key))
        assert theirs.hold()
        assert held.over.wait(10)
        assert ended.wait(10)
    assert "the lease of door ran out or another process took it over" in caplog.text
    assert theirs.keep()


def test_who_is_told_to_stop_has_what_is_left_of_it_to_come_to_an_end(mine: Lease, theirs: Lease) -> None:
    stop, ended = Event(), Event()
    with HeldLease(mine, "door", stop=stop, end=ended.set) as held:
        stop.set()
        assert held.over.wait(10)
        assert ended.wait(10)
        assert not theirs.hold()
        time.sleep(TTL_S)
        assert theirs.hold()


def test_giving_it_back_is_no_loss(mine: Lease, theirs: Lease, caplog: pytest.LogCaptureFixture) -> None:
    with HeldLease(mine, "door", stop=Event()) as held:
        pass
    assert theirs.hold()
    time.sleep(TTL_S / 2)
    assert not held.over.is_set()
    assert theirs.keep()
    assert caplog.text == ""
