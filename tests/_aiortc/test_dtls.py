from __future__ import annotations

import asyncio

import pytest

from calllab._aiortc import Certificate, DtlsFingerprint, DtlsTransport, IceTransport
from tests._aiortc.helpers import call, ice_pair, until


async def test_a_wrong_fingerprint_fails_and_says_so() -> None:
    """The handshake of a peer with another certificate is refused."""
    async with ice_pair() as pair:
        alice, bob = DtlsTransport(pair.alice.ice), DtlsTransport(pair.bob.ice)
        states: list[str] = []
        alice.on_state_change = lambda: states.append(alice.state)
        pair.negotiate()
        await asyncio.gather(
            alice.start("server", Certificate.generate().fingerprints),
            bob.start("client", alice.fingerprints),
        )
        assert alice.state == "failed"
        assert states == ["connecting", "failed"]
        assert alice.error_text == "the peer's certificate does not match the fingerprint that it signalled"
        await asyncio.gather(alice.stop(), bob.stop())


async def test_unknown_hash_functions_alone_are_no_proof() -> None:
    """A fingerprint that cannot be checked is not taken for a match."""
    async with ice_pair() as pair:
        alice, bob = DtlsTransport(pair.alice.ice), DtlsTransport(pair.bob.ice)
        pair.negotiate()
        await asyncio.gather(
            alice.start("server", [DtlsFingerprint("md5", "00")]), bob.start("client", alice.fingerprints)
        )
        assert alice.state == "failed"
        await asyncio.gather(alice.stop(), bob.stop())


async def test_lost_flights_are_sent_again() -> None:
    """The first DTLS datagram of each side is lost; the handshake succeeds all the same."""
    async with ice_pair() as pair:
        lost = {side.name: 1 for side in (pair.alice, pair.bob)}

        def losing(name: str) -> None:
            def drop(data: bytes) -> bool:
                if 19 < data[0] < 64 and lost[name]:
                    lost[name] -= 1
                    return True
                return False

            getattr(pair, name).wire.drop = drop

        losing("alice")
        losing("bob")
        alice, bob = DtlsTransport(pair.alice.ice), DtlsTransport(pair.bob.ice)
        pair.negotiate()
        await asyncio.gather(alice.start("server", bob.fingerprints), bob.start("client", alice.fingerprints))
        assert alice.state == bob.state == "connected"
        assert lost == {"alice": 0, "bob": 0}
        await asyncio.gather(alice.stop(), bob.stop())


async def test_stop_ends_a_start_that_waits() -> None:
    """Whether it waits for ICE or for the peer's first flight; and stop() is idempotent."""
    async with ice_pair() as pair:
        waiting, unanswered = DtlsTransport(IceTransport()), DtlsTransport(pair.alice.ice)
        fingerprints = waiting.fingerprints
        starts = [
            asyncio.ensure_future(waiting.start("client", fingerprints)),
            asyncio.ensure_future(unanswered.start("client", fingerprints)),
        ]
        pair.negotiate()
        await until(lambda: unanswered.state == "connecting")
        await asyncio.gather(waiting.stop(), unanswered.stop(), unanswered.stop())
        await asyncio.gather(*starts)
        assert waiting.state == unanswered.state == "closed"


async def test_a_cancelled_start_leaves_nothing() -> None:
    """Cancelling whoever waits ends the handshake."""
    dtls = DtlsTransport(IceTransport())
    start = asyncio.ensure_future(dtls.start("client", dtls.fingerprints))
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await dtls.stop()


async def test_start_is_for_once_and_wants_fingerprints() -> None:
    """A second session or one without identity is refused in words."""
    async with call() as c:
        with pytest.raises(RuntimeError, match="was started before"):
            await c.alice.dtls.start("server", c.bob.dtls.fingerprints)
    dtls = DtlsTransport(IceTransport())
    with pytest.raises(ValueError, match="fingerprint"):
        await dtls.start("client", [])


async def test_the_peers_goodbye_closes_the_session() -> None:
    """stop() on one side is seen as "closed" on the other, at once."""
    async with call() as c:
        await c.alice.dtls.stop()
        await until(lambda: c.bob.dtls.state == "closed", timeout_s=1)


async def test_one_session_for_all_generations() -> None:
    """After restarts the same keys carry the data: no second handshake."""
    async with call() as c:
        before = c.alice.dtls.statistics()
        states: list[str] = []
        c.alice.dtls.on_state_change = lambda: states.append(c.alice.dtls.state)
        for _ in range(3):
            c.ice.negotiate(c.ice.bob)
            await c.ice.connected()
        assert not states
        after = c.alice.dtls.statistics()
        assert (before.local_certificate, before.remote_certificate) == (
            after.local_certificate,
            after.remote_certificate,
        )
