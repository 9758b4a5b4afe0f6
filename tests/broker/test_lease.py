"""Leases on a real server. Expiry is simulated by deleting the key, which is what the server does after the TTL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from threading import enumerate as threads

import pytest

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.broker.lease import AutoRenewingLease, Lease, Owner, is_held
from tests.support.waiting import wait_until

INTERVAL_S = 0.01


@pytest.fixture(scope="module")
def client(valkey_url: str) -> Iterator[RedisClient]:
    client = open_client(valkey_url)
    yield client
    client.close()


@pytest.fixture
def key(client: RedisClient, request: pytest.FixtureRequest) -> str:
    key = f"lease:{request.node.name}"
    expire(client, key)
    return key


@pytest.fixture
def lease(client: RedisClient, key: str) -> Lease:
    lease = Lease(client, key)
    assert lease.acquire()
    return lease


@pytest.fixture
def other(client: RedisClient, key: str) -> Lease:
    return Lease(client, key)


def expire(client: RedisClient, key: str) -> None:
    client.call(lambda connection: connection.delete(key))


def ttl_ms(client: RedisClient, key: str) -> int:
    return client.call(lambda connection: connection.pttl(key))


def shorten_ttl(client: RedisClient, key: str) -> None:
    """Set a TTL that a renewal to 10 s extends visibly, far from expiring during the test."""
    client.call(lambda connection: connection.pexpire(key, 5000))


def test_only_one_owner_holds_the_lease(client: RedisClient, key: str) -> None:
    first, second = Lease(client, key), Lease(client, key)
    assert not is_held(client, key)
    assert first.acquire()
    assert not second.acquire()
    assert first.acquire()
    assert is_held(client, key)


@pytest.mark.parametrize("extend", [Lease.acquire, Lease.renew])
def test_lease_has_a_ttl_that_is_extended(client: RedisClient, lease: Lease, extend: Callable[[Lease], bool]) -> None:
    assert 0 < ttl_ms(client, lease.key) <= 1000 * lease.ttl_s
    shorten_ttl(client, lease.key)
    assert extend(lease)
    assert ttl_ms(client, lease.key) > 5000


def test_expired_lease_can_be_acquired_by_another_owner(client: RedisClient, lease: Lease, other: Lease) -> None:
    expire(client, lease.key)
    assert other.acquire()
    assert not lease.acquire()


def test_release_allows_immediate_acquisition(lease: Lease, other: Lease) -> None:
    other.release()
    assert not other.acquire()
    lease.release()
    assert other.acquire()


def test_next_generation_takes_over_and_excludes_the_previous_one(client: RedisClient, key: str) -> None:
    owner = Owner()
    old, new = Lease(client, key, owner=owner), Lease(client, key, owner=Owner.parse(str(owner.next_generation)))
    assert old.acquire()
    assert new.acquire()
    assert (old.acquire(), old.renew()) == (False, False)
    assert new.renew()


def test_same_or_earlier_generation_and_other_owners_are_refused(client: RedisClient, key: str) -> None:
    owner = Owner(generation=2)
    assert Lease(client, key, owner=owner).acquire()
    for other in (owner, Owner(owner.name, 1), Owner(generation=3)):
        assert not Lease(client, key, owner=other).acquire()


def test_expired_lease_cannot_be_renewed(client: RedisClient, lease: Lease) -> None:
    expire(client, lease.key)
    assert not lease.renew(), "another owner may have held it in between"
    assert not lease.is_valid
    assert lease.acquire()


def test_lease_is_valid_until_its_ttl_has_passed_on_the_local_clock(client: RedisClient, key: str) -> None:
    now_s = 0.0
    lease = Lease(client, key, 10.0, clock=lambda: now_s)
    valid = [lease.is_valid]
    assert lease.acquire()
    now_s = 9.9
    valid.append(lease.is_valid)
    now_s = 10.0
    valid.append(lease.is_valid)
    assert lease.renew()
    assert [*valid, lease.is_valid] == [False, True, False, True]


def test_lease_is_acquired_and_renewed_at_the_memory_limit(client: RedisClient, key: str) -> None:
    lease = Lease(client, key)
    client.call(lambda connection: connection.config_set("maxmemory", 1))
    try:
        assert lease.acquire()
        assert lease.renew()
    finally:
        client.call(lambda connection: connection.config_set("maxmemory", 0))


def test_lease_is_renewed_in_the_background(client: RedisClient, lease: Lease, other: Lease) -> None:
    with AutoRenewingLease(lease, "door", stop=Event(), interval_s=INTERVAL_S) as renewing:
        for _ in range(3):
            shorten_ttl(client, lease.key)
            wait_until(lambda: ttl_ms(client, lease.key) > 5000)
        assert not other.acquire()
        assert not renewing.lost.is_set()
    assert other.acquire()


def test_loss_of_the_lease_is_reported(
    client: RedisClient, lease: Lease, other: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    on_lost = Event()
    with AutoRenewingLease(lease, "door", stop=Event(), on_lost=on_lost.set, interval_s=INTERVAL_S) as renewing:
        # One step, so that no renewal falls between deletion and acquisition.
        client.call(lambda connection: connection.set(lease.key, other.token))
        assert renewing.lost.wait(10)
        assert on_lost.wait(10)
    assert "lease_lost" in caplog.text
    assert other.renew()


def test_stopped_lease_is_kept_but_no_longer_renewed(client: RedisClient, lease: Lease, other: Lease) -> None:
    stop, on_lost = Event(), Event()
    with AutoRenewingLease(lease, "stopped", stop=stop, on_lost=on_lost.set, interval_s=INTERVAL_S) as renewing:
        stop.set()
        assert renewing.lost.wait(10)
        assert on_lost.wait(10)
        wait_until(lambda: "lease-renewal stopped" not in {thread.name for thread in threads()})
        assert not other.acquire()
        expire(client, lease.key)
        assert other.acquire()


def test_releasing_the_lease_is_not_reported_as_a_loss(
    lease: Lease, other: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    with AutoRenewingLease(lease, "released", stop=Event(), interval_s=INTERVAL_S) as renewing:
        pass
    assert other.acquire()
    wait_until(lambda: "lease-renewal released" not in {thread.name for thread in threads()})
    assert not renewing.lost.is_set()
    assert other.renew()
    assert caplog.text == ""
