"""The panel of a laboratory: buttons, sliders, a state line and live charts."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from itertools import chain
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from calllab.errors import CalllabError
from calllab.lab.rates import RateMeter
from calllab.report.palette import BACKWARD, FORWARD
from calllab.widgets.chart import LiveChart, Series
from calllab.widgets.slider import LiveSlider

if TYPE_CHECKING:
    from calllab.call import Call
    from calllab.lab import Lab

__all__ = ["Panel"]

_STATE_COLORS = {"connected": "#009e73", "reconnecting": "#e69f00", "ended": "#777777"}


class Panel(widgets.VBox):  # type: ignore[misc]
    """Call, hang up, glare, loss and delay per direction, and what comes of them.

    It must be made on the event loop of the laboratory.  Its buttons work while a cell runs, in whichever
    thread the kernel calls them: all work is handed to that loop.  :meth:`close` takes it away and ends all
    that it began; the laboratory goes on.

    :param caller: the peer who calls, made if there is none of that name.
    :param callee: the peer who is called, made likewise.
    """

    def __init__(self, lab: Lab, *, caller: str = "alice", callee: str = "bob") -> None:
        self._lab = lab
        self._names = (caller, callee)
        self._loop = asyncio.get_running_loop()
        self._running: set[Future[None]] = set()
        self._meters = {caller: RateMeter(), callee: RateMeter()}
        self._leave = [lab.on_sample(self._on_sample)]
        self._failure = ""
        self._busy = ""

        self.call_button = self._button("Call", "phone", self._call)
        self.hang_up_button = self._button("Hang up", "times", self._hang_up)
        self.glare_button = self._button("Glare", "random", self._glare)
        self.state = widgets.HTML()
        forward, backward = f"{caller}→{callee}", f"{callee}→{caller}"
        self.sliders = {
            name: (self._slider(name, "loss", "%", 50, 1), self._slider(name, "delay", "ms", 1000, 10))
            for name in self._names
        }
        lines = (Series(forward, FORWARD), Series(backward, BACKWARD, dashed=True))
        self.charts = {
            "bitrate_kbps": LiveChart("Bitrate", "kbit/s", lines),
            "loss": LiveChart("Loss", "%", lines),
            "rtt_ms": LiveChart("Round-trip time", "ms", _sides(caller, callee)),
            "fps": LiveChart("Frames", "1/s", lines),
        }
        buttons = widgets.HBox([self.call_button, self.hang_up_button, self.glare_button, self.state])
        sliders = widgets.HBox(
            [
                widgets.VBox([widgets.HTML(f"<b>{html.escape(title)}</b>"), *self.sliders[name]])
                for title, name in zip((forward, backward), self._names, strict=True)
            ]
        )
        grid = widgets.GridBox(
            list(self.charts.values()),
            layout=widgets.Layout(grid_template_columns="repeat(2, minmax(260px, 1fr))", width="100%"),
        )
        super().__init__([buttons, sliders, grid])
        self._refresh()

    def close(self) -> None:
        """Take the panel away: its work is cancelled, its sliders no longer impair anything."""
        while self._leave:
            self._leave.pop()()
        for future in list(self._running):
            future.cancel()
        for part in (*self.charts.values(), *chain.from_iterable(self.sliders.values())):
            part.close()
        super().close()

    # Widgets

    def _button(self, label: str, icon: str, work: Callable[[], Coroutine[Any, Any, None]]) -> widgets.Button:
        button = widgets.Button(description=label, icon=icon, layout=widgets.Layout(width="110px"))
        button.on_click(lambda _: self._start(label, work))
        return button

    def _slider(self, name: str, setting: str, unit: str, top: float, step: float) -> LiveSlider:
        slider = LiveSlider(setting, unit, max=top, step=step)
        slider.observe(lambda _: self._loop.call_soon_threadsafe(self._impair, name), names="value")
        return slider

    # Work: always on the laboratory's loop, from whichever thread the kernel calls

    def _start(self, label: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        future = asyncio.run_coroutine_threadsafe(self._do(label, work), self._loop)
        self._running.add(future)
        future.add_done_callback(self._running.discard)

    async def _do(self, label: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._busy:
            return  # pressed twice: the first press is still being carried out
        self._busy, self._failure = f"{label.lower()} …", ""
        self._refresh()
        try:
            await work()
        except CalllabError as exc:
            self._failure = str(exc)
        finally:
            self._busy = ""
            self._refresh()

    async def _call(self) -> None:
        for name in self._names:
            if name not in self._lab.peers:
                await self._lab.peer(name)
            self._impair(name)
        caller, callee = self._names
        call = await self._lab.peers[caller].call(callee)
        call.on_state(self._on_state)

    async def _hang_up(self) -> None:
        if self._lab.call is not None:
            await self._lab.call.hang_up()

    async def _glare(self) -> None:
        outcome = await self._lab.glare()
        self._failure = f"{outcome.ignored_by} ignored, {outcome.rolled_back_by} rolled back"

    def _impair(self, name: str) -> None:
        peer = self._lab.peers.get(name)
        if peer is not None:
            loss, delay = self.sliders[name]
            peer.interface.set(loss=loss.value / 100, delay_ms=delay.value)

    # What is shown

    def _on_state(self, call: Call) -> None:
        self._refresh()

    def _refresh(self) -> None:
        call = self._lab.call
        state = "idle" if call is None else call.state
        reason = f" ({call.end_reason})" if call is not None and call.end_reason else ""
        color = _STATE_COLORS.get(state, "#0072b2")
        shown = html.escape(self._busy or state + reason)
        note = f" &nbsp; {html.escape(self._failure)}" if self._failure else ""
        self.state.value = f'<span style="color:{color}">●</span> {shown}{note}'
        up = state in ("connecting", "connected", "reconnecting")
        self.call_button.disabled = bool(self._busy) or up
        self.hang_up_button.disabled = bool(self._busy) or not up
        self.glare_button.disabled = bool(self._busy) or state != "connected"

    def _on_sample(self, t_s: float, peer: str, report: Mapping[str, Mapping[str, Any]]) -> None:
        if peer not in self._meters:
            return
        rates = self._meters[peer].update(report)
        other = self._names[1] if peer == self._names[0] else self._names[0]
        arriving = f"{other}→{peer}"
        loss = None if rates.loss is None else rates.loss * 100
        self.charts["bitrate_kbps"].add(t_s, {arriving: rates.bitrate_kbps})
        self.charts["loss"].add(t_s, {arriving: loss})
        self.charts["fps"].add(t_s, {arriving: rates.fps})
        self.charts["rtt_ms"].add(t_s, {f"seen by {peer}": rates.rtt_ms})


def _sides(caller: str, callee: str) -> tuple[Series, Series]:
    """Return the lines of what each side measures of the whole loop."""
    return Series(f"seen by {caller}", FORWARD), Series(f"seen by {callee}", BACKWARD, dashed=True)
