"""The panel as the kernel uses it: pressed from another thread while a cell runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import ipywidgets
import pytest

from calllab import Lab
from calllab.widgets import LiveChart, LiveSlider, Panel, Series


async def press(button: ipywidgets.Button) -> None:
    """Press a button from another thread, as ipykernel's subshells do."""
    await asyncio.to_thread(button.click)


def move(slider: LiveSlider, value: Any) -> None:
    """Move a slider as the front end tells it."""
    slider._handle_custom_msg({"value": value}, [])


async def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    """Wait until something shows."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_panel_makes_a_call_breaks_it_and_hangs_up() -> None:
    """Call, sliders, glare and hang up work while the 'cell' waits, and the charts get their points."""
    async with Lab(seed=2, sample_every_s=0.25) as lab:
        panel = lab.panel()
        assert isinstance(panel, Panel)
        assert (panel.call_button.disabled, panel.hang_up_button.disabled) == (False, True)
        await press(panel.call_button)
        await until(lambda: "connected" in panel.state.value)
        assert (panel.call_button.disabled, panel.glare_button.disabled) == (True, False)
        loss, delay = panel.sliders["alice"]
        await asyncio.to_thread(move, loss, 20)
        await asyncio.to_thread(move, delay, 50)
        interface = lab.peers["alice"].interface
        await until(lambda: interface.settings.loss == 0.2 and interface.settings.delay_ms == 50)
        await press(panel.glare_button)
        await until(lambda: "rolled back" in panel.state.value)
        await until(lambda: len(panel.charts["bitrate_kbps"].points.get("alice→bob", [])) > 3)
        await press(panel.hang_up_button)
        await until(lambda: "ended" in panel.state.value)
        assert not panel.call_button.disabled
        panel.close()


async def test_an_error_is_shown_and_the_panel_goes_on() -> None:
    """A call that is refused shows its sentence in the state line, escaped."""
    async with Lab() as lab:
        await lab.peer("alice", video=False)
        bob = await lab.peer("bob", video=False)
        bob.phone.on_incoming = lambda call: call.reject("<b>not now</b>")
        panel = lab.panel()
        await press(panel.call_button)
        await until(lambda: "not now" in panel.state.value)
        assert "<b>not now" not in panel.state.value
        assert not panel.call_button.disabled
        panel.close()


async def test_a_closed_panel_listens_no_more() -> None:
    """After close() the laboratory has no listener of the panel left."""
    async with Lab() as lab:
        panel = lab.panel()
        listening = len(lab._sample_listeners)
        panel.close()
        assert len(lab._sample_listeners) == listening - 1


def test_a_chart_keeps_a_bounded_window() -> None:
    """Old points go, and a line that is not the chart's is an error."""
    chart = LiveChart("Loss", "%", [Series("a→b", "#0072b2")], window_s=5)
    for second in range(100):
        chart.add(float(second), {"a→b": 1.0})
    assert [point[0] for point in chart.points["a→b"]] == [float(t) for t in range(90, 100)]
    with pytest.raises(KeyError):
        chart.add(0.0, {"b→a": 1.0})
    chart.clear()
    assert chart.points["a→b"] == []
    chart.close()


def test_a_slider_stays_within_its_bounds_whatever_it_is_told() -> None:
    """Numbers are cut to the range; anything else changes nothing."""
    slider = LiveSlider("loss", "%", max=50, step=1)
    move(slider, 80)
    assert slider.value == 50
    for nonsense in (None, "many", float("nan"), [1]):
        move(slider, nonsense)
        assert slider.value == 50
    slider._handle_custom_msg("text", [])
    move(slider, -1)
    assert slider.value == 0
    slider.close()
