"""A trace is data: it can be written and read, and it happens again on other peers, real ones too."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from calllab.errors import LabError
from calllab.lab.explorer import (
    MUTANTS,
    UNCHANGED,
    ConnectionDriver,
    ScriptedDriver,
    Trace,
    Wishes,
    explore,
    replay,
    replay_in_virtual_time,
)

ONE = Wishes(adds=1)


@functools.cache
def shortest(mutant: str) -> Trace:
    """Return the shortest trace that breaks a mutant."""
    return explore(ONE, ONE, mutant=mutant, until_broken=True).breaks[0].trace


@functools.cache
def peaceful() -> Trace:
    """Return a shortest way of a restart on both sides to an agreement."""
    found = explore(Wishes(restarts=1), Wishes(restarts=1), established=1).sample
    assert found is not None
    return found


# On peers without IO


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_mutants_trace_happens_again(mutant: str) -> None:
    """On fresh peers of the same kind it leads to the same end."""
    trace = shortest(mutant)
    done = await replay(trace, ScriptedDriver(trace))
    assert done.differences == ()
    assert done.performed == len(trace.steps)


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_unchanged_peers_survive_a_mutants_trace(mutant: str) -> None:
    """With the part of the pattern that the mutant lacks, the same events end in agreement."""
    trace = shortest(mutant)
    assert (await replay(trace, ScriptedDriver(trace, UNCHANGED), then_settle=True)).differences == ()


async def test_a_trace_of_others_cannot_happen() -> None:
    """The sentence names the first step that is impossible."""
    trace = shortest("duplicated")
    with pytest.raises(LabError, match=r"step \d+ of the trace .* cannot happen here"):
        await replay(trace, ScriptedDriver(trace, UNCHANGED))


# On real peer connections


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutants_trace_breaks_real_connections_alike(mutant: str) -> None:
    """Signaling states, m-lines, candidates and errors are those that the exploration foretold."""
    trace = shortest(mutant)
    done = replay_in_virtual_time(trace)
    assert done.differences == ()
    assert done.end == trace.end


@pytest.mark.parametrize("mutant", MUTANTS)
def test_unchanged_connections_survive_a_mutants_trace(mutant: str) -> None:
    """The same events in the same order, as far as they can happen, end in agreement."""
    assert replay_in_virtual_time(shortest(mutant), UNCHANGED).differences == ()


@pytest.mark.parametrize("mutant", ["dropped", "unordered"])
def test_every_way_of_breaking_breaks_real_connections_alike(mutant: str) -> None:
    """Not only the shortest: each kind of error, deadlock and missing candidate that was found."""
    found = explore(Wishes(adds=1), Wishes(), mutant=mutant)
    assert found.breaks
    for broken in found.breaks:
        assert replay_in_virtual_time(broken.trace).differences == (), broken.sentence


def test_real_connections_restart_as_explored() -> None:
    """Restarts on both sides of an established call end as in the trace, set-up included."""
    trace = peaceful()
    assert trace.setup
    assert trace.end["alice"].lines == ("audio:0",)
    assert replay_in_virtual_time(trace).end == trace.end


async def test_real_connections_on_the_real_clock_and_real_sockets() -> None:
    """The driver needs no particular loop or network."""
    trace = shortest("both-impolite")
    async with ConnectionDriver(trace) as driver:
        assert (await replay(trace, driver)).differences == ()


async def test_a_step_that_does_not_come_is_waited_for_and_then_impossible() -> None:
    """Nobody wants to negotiate, so negotiationneeded never fires."""
    trace = shortest("both-impolite")
    fire = next(step for step in trace.steps if step.action == "fire")
    async with ConnectionDriver(trace, patience_s=0.05) as driver:
        assert not await driver.perform(fire)


# As data


def test_a_trace_is_read_as_it_was_written() -> None:
    """Nothing is lost in JSON."""
    trace = shortest("without-making-offer")
    assert Trace.from_json(trace.to_json()) == trace
    assert trace.mutation is MUTANTS["without-making-offer"]


@pytest.mark.parametrize("text", ["root:x:0:0", '{"version": 1}'])
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, text: str) -> None:
    """The sentence says which file it is about."""
    file = tmp_path / "passwd"
    file.write_text(text)
    with pytest.raises(LabError, match=f"^{file}: this is no trace"):
        Trace.load(file)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """Nobody waits for a pipe, or reads a device to its end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null"), tmp_path / "nowhere"):
        with pytest.raises(LabError, match=f"^{path} (is no regular file|cannot be read: No such file)"):
            Trace.load(path)


def test_what_is_no_trace_is_refused() -> None:
    """With a sentence, whatever is wrong with it."""
    text = shortest("without-rollback").to_json()
    for wrong in ("", "{}", text.replace('"fire"', '"sing"'), text.replace('"version": 1', '"version": 2')):
        with pytest.raises(LabError, match="trace"):
            Trace.from_json(wrong)
    unknown = Trace.from_json(text.replace('"without-rollback"', '"without-sense"'))
    with pytest.raises(LabError, match="without-sense"):
        ScriptedDriver(unknown)
