"""The faults of a scenario's TURN server, of which several can be on at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from calllab.lab.scenario.model import TurnFault
from calllab.network import VirtualTurnServer

__all__ = ["TurnFaults"]


class TurnFaults:
    """Puts together what the faults that are on make of the server.

    What the later of two refusals says counts; a server that is dead is dead as long as one fault says so.
    """

    def __init__(self, faults: list[TurnFault]) -> None:
        self._faults = faults
        self._on: list[TurnFault] = []

    def steps(self) -> Iterator[tuple[float, bool, str, Callable[[VirtualTurnServer], None]]]:
        """Yield when something changes, whether a fault begins then, what it is in words, and the change."""
        for fault in self._faults:
            words = f"the TURN server {_words(fault)}"
            yield fault.at_s, True, words, partial(self._begin, fault)
            if fault.for_s is not None:
                end_s = fault.at_s + fault.for_s
                yield end_s, False, f"{words}: over", partial(self._end, fault)

    def _begin(self, fault: TurnFault, server: VirtualTurnServer) -> None:
        self._on.append(fault)
        self._apply(server)

    def _end(self, fault: TurnFault, server: VirtualTurnServer) -> None:
        self._on = [other for other in self._on if other is not fault]
        self._apply(server)

    def _apply(self, server: VirtualTurnServer) -> None:
        refusals = [fault.reject for fault in self._on if fault.reject is not None]
        server.fault(
            reject=refusals[-1] if refusals else None, silent=any(fault.silent for fault in self._on)
        )
        if any(fault.dead for fault in self._on):
            server.stop()
        else:
            server.start()


def _words(fault: TurnFault) -> str:
    if fault.reject is not None:
        return f"answers {fault.reject}"
    return "is dead" if fault.dead else "is silent"
