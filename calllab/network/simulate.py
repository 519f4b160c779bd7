"""Runs a coroutine in virtual time, or on the real clock, as asyncio.run would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from calllab._aiortc.hooks import library_hooks
from calllab.errors import InvalidSetting
from calllab.network.virtual_loop import CodecMode, VirtualLoop

__all__ = ["ClockKind", "simulate"]

ClockKind = Literal["virtual", "real"]

T = TypeVar("T")


def simulate(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    clock: ClockKind = "virtual",
    seed: int = 0,
    codecs: CodecMode = "real",
    until_s: float | None = None,
    debug: bool | None = None,
) -> T:
    """Run ``main()`` to its end on a new event loop and return what it returns.

    With the virtual clock, the time that passes is that of the loop (:class:`VirtualLoop`), and everything
    that happens follows from ``main`` and ``seed``: there are no sockets, threads or other processes in it,
    and peers need a host of a :class:`~calllab.network.VirtualNetwork`.  With the real clock it is
    ``asyncio.run``.

    :param codecs: ``stand-in`` carries frames in packets of the right size instead of encoding them (with the
        virtual clock only).
    :param until_s: the virtual time at which ``main`` must be done (with the virtual clock only); None: a
        program that waits for what never comes goes on for as long as something ticks.

    Raises :exc:`~calllab.errors.SimulationStuck` if nothing can happen any more, the clock stands still, or
    ``until_s`` is over; :exc:`~calllab.errors.InvalidSetting` for one that is none; RuntimeError if
    an event loop is running already.
    """
    if until_s is not None and not until_s > 0.0:
        raise InvalidSetting(f"until_s={until_s:g}: give seconds, more than 0, or None for no end")
    _refuse_a_running_loop()
    if clock == "real":
        with asyncio.Runner(debug=debug) as runner:
            return runner.run(main())

    def make_loop() -> VirtualLoop:
        return VirtualLoop(seed=seed, codecs=codecs, until_s=until_s)

    with library_hooks(), asyncio.Runner(debug=debug, loop_factory=make_loop) as runner:
        return runner.run(main())


def _refuse_a_running_loop() -> None:
    """Say so before anything is made that would be left behind."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "simulate() cannot run inside of a running event loop: in a coroutine or a notebook, "
        "use `await asyncio.to_thread(simulate, main)`"
    )
