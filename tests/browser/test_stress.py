"""Random wishes on both sides at random moments, with Chromium in both roles at once."""

from __future__ import annotations

import asyncio
import random

from tests.browser.calls import Bench, BrowserCall, browser_call, made_up_s, stalls

ROUNDS = 30
"""For each role."""
MAX_VIDEOS = 3
LONGEST_GAP_S = 1.0
MOST_CONCEALED_S = 1.0
"""In one round: a change of path costs a tenth of it."""
OUR_WISHES = ("add", "add", "remove", "restart", "direction", "stop")
PAGE_WISHES = ("add", "add", "remove", "restart", "stop")


async def wish_ours(call: BrowserCall, entropy: random.Random) -> str:
    """Do something random on our side."""
    await asyncio.sleep(entropy.random() * 0.03)
    wish = entropy.choice(OUR_WISHES)
    videos = [t for t in call.pc.getTransceivers() if t.kind == "video" and t.direction != "stopped"]
    if wish == "add" and len(videos) < MAX_VIDEOS:
        call.add("video")
    elif wish == "remove" and videos:
        call.pc.removeTrack(entropy.choice(videos).sender)
    elif wish == "direction" and videos:
        entropy.choice(videos).direction = entropy.choice(["sendrecv", "recvonly", "inactive"])
    elif wish == "stop" and videos:
        entropy.choice(videos).stop()
    else:
        wish = "restart"
        call.manager.restart_ice()
    return wish


async def wish_page(call: BrowserCall, entropy: random.Random) -> str:
    """Let the page do something random."""
    await asyncio.sleep(entropy.random() * 0.03)
    wish = entropy.choice(PAGE_WISHES)
    if wish == "restart":
        await call.page.evaluate("peer.pc.restartIce()")
    elif wish == "add":
        await call.page.evaluate(
            "async most => peer.live('video').length < most ? peer.add('video') : peer.pc.restartIce()",
            MAX_VIDEOS,
        )
    else:
        await call.page.evaluate("wish => peer[wish]('video')", wish)
    return wish


async def run_role(bench: Bench, place: int, page_is_polite: bool) -> int:
    """Run the rounds with Chromium in one role; return how many collisions there were."""
    entropy = random.Random(place)
    async with browser_call(bench, page_is_polite=page_is_polite, place=place, seed=place) as call:
        await call.both_add("audio")
        await call.media_flows()
        for direction in ("out", "in"):
            call.channel.delay(0.005, direction=direction, jitter_s=0.03)
        done: list[tuple[str, str]] = []
        try:
            async with call.uninterrupted(LONGEST_GAP_S, most_concealed_s=ROUNDS * MOST_CONCEALED_S / 4):
                before = await call.report()
                for _ in range(ROUNDS):
                    async with stalls() as stalled_s:
                        done.append(
                            tuple(await asyncio.gather(wish_ours(call, entropy), wish_page(call, entropy)))
                        )
                        after = await call.settled()
                    assert made_up_s(before, after) < MOST_CONCEALED_S + sum(stalled_s), (before, after)
                    before = after
                    await call.expect_same_directions()
        except AssertionError as error:
            raise AssertionError(f"after {done}: {error}") from error
        seen = await call.report()
        assert {entry["mid"] for entry in seen["transceivers"]} == {t.mid for t in call.pc.getTransceivers()}
        ours = sum(event == "offer-collision" for event, _ in call.events)
        return ours + int(seen["counts"]["collisions"])


async def test_random_wishes_on_both_sides(bench: Bench) -> None:
    """Whatever both wish at once: they settle and agree each time, and nothing goes wrong or stops."""
    # Debug mode triples the cost of the media and finds nothing here that the other tests do not.
    loop = asyncio.get_running_loop()
    debug, _ = loop.get_debug(), loop.set_debug(False)
    try:
        async with asyncio.TaskGroup() as roles:
            running = [roles.create_task(run_role(bench, place, place == 0)) for place in (0, 1)]
    finally:
        loop.set_debug(debug)
    collisions = [role.result() for role in running]
    assert min(collisions) >= ROUNDS // 5, "too few collisions to prove anything: make the delays longer"
