"""What ``calllab proxy`` does: proxies with faults from the command line, and a line for all that happens."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from calllab.errors import InvalidSetting
from calllab.lab.proxies import CallProxy, senders_of
from calllab.lab.scenario.links import LinkFault
from calllab.lab.scenario.shape import explained, setting_words
from calllab.network import read_trace
from calllab.network.timeline import Timeline
from calllab.signaling import SignalingEvent, SignalingFault
from calllab.signaling.ws_proxy import ProxyEvent

__all__ = ["parse_fault", "run_proxy"]

_TEXTS: Final = ("direction", "kind", "peer", "trace", "trace_file")
"""What is text even if it looks like a number: a user may be called 123."""
_TIMES: Final = frozenset({"at_s", "for_s"})
_SHOWN: Final = 40

_T = TypeVar("_T")


def parse_fault(text: str) -> SignalingFault | tuple[str, dict[str, Any]]:
    """Read a fault: one of signaling if it names a ``kind``, else direction and settings of one of media.

    Raises :exc:`~calllab.errors.InvalidSetting` if it is none.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidSetting(f"--fault {text!r}: {error}") from error
    settings: dict[str, Any] = {"direction": words.pop(0)} if words and "=" not in words[0] else {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise InvalidSetting(f"--fault {text!r}: {word!r} is no setting, write name=value")
        if name in settings:
            raise InvalidSetting(f"--fault {text!r}: {name} is there twice")
        settings[name] = _value(name, value)
    if "trace_file" in settings and "trace" in settings:
        raise InvalidSetting(f"--fault {text!r}: give one of trace and trace_file")
    if "kind" not in settings and not settings.keys() - {"direction", *_TIMES}:
        raise InvalidSetting(f"--fault {text!r}: say what to break, as in loss=0.1, or kind=drop")
    try:
        return _converted(settings, SignalingFault) if "kind" in settings else _media_fault(settings)
    except InvalidSetting as error:
        raise InvalidSetting(f"--fault {text!r}: {setting_words(str(error)) or error}") from error


def _media_fault(settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    direction = settings.pop("direction", "*->*")
    senders_of(direction)
    if "trace_file" in settings:
        settings["trace"] = read_trace(settings.pop("trace_file"))
    changes = {name: value for name, value in settings.items() if name not in _TIMES}
    _converted({"direction": direction, **changes}, LinkFault)
    Timeline().plan(settings.get("at_s", 0.0), settings.get("for_s"), changes)
    return direction, settings


def _converted(data: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise InvalidSetting(explained(data, kind, "", str(error)).lstrip(".: ")) from error


async def run_proxy(
    relay_url: str,
    *,
    host: str,
    port: int,
    faults: Sequence[str],
    allowed: Sequence[str],
    media: bool,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Run proxies until interrupted, and tell of what happens.

    Raises :exc:`~calllab.errors.LabError` if they do not start, or a fault makes no sense.
    """
    parsed = [parse_fault(text) for text in faults]
    for text, fault in zip(faults, parsed, strict=True):
        if not media and not isinstance(fault, SignalingFault):
            raise InvalidSetting(
                f"--fault {text!r}: --no-media leaves the media as it is: leave out one of them"
            )
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        began = loop.time()  # where the times of faults begin, too
        async with CallProxy(
            relay_url, host=host, port=port, media=media, allowed=allowed, seed=seed
        ) as proxy:

            def tell(event: ProxyEvent | SignalingEvent | dict[str, Any]) -> None:
                if line := _line(event):
                    say(f"{loop.time() - began:8.2f} s  {line}")

            proxy.on_event(tell)
            for fault in parsed:
                if isinstance(fault, SignalingFault):
                    proxy.signaling_fault(fault)
                else:
                    await proxy.fault(fault[0], **fault[1])
            say(f"clients use {proxy.url} instead of {relay_url}; end with Ctrl-C")
            await stop.wait()
            counted = None if proxy.media is None else await proxy.media.counters()
        say(_summary(counted))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _value(name: str, value: str) -> Any:
    if name == "types":
        return tuple(value.split(","))
    if name in _TEXTS:
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _line(event: ProxyEvent | SignalingEvent | dict[str, Any]) -> str:
    if isinstance(event, ProxyEvent):
        who = event.user_id or "somebody"
        if event.event == "message":
            does = "sends" if event.direction == "out" else "gets"
            return f"{who} {does} {event.type or 'what is no message'}"
        return f"{who} {event.event}{event.detail and ': ' + event.detail}"
    if isinstance(event, SignalingEvent):
        settings = " ".join(f"{name}={value}" for name, value in event.planned.fault.settings().items())
        return f"signaling fault {event.event}: {settings}" + (
            f" ({event.count} times)" if event.count else ""
        )
    fault = event["fault"]
    what = event["settings"] if fault is None else fault["changes"]
    settings = " ".join(f"{name}={_short(value)}" for name, value in what.items())
    return f"media of {event['user']}, {event['event']}: {settings or 'clean'}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _summary(counted: dict[str, Any] | None) -> str:
    if counted is None or not counted["users"]:
        return "no media passed"
    lines = [
        f"media of {user}: {link['offered']} datagrams offered, {link['delivered']} delivered"
        for user, link in counted["users"].items()
    ]
    if counted["refused"]:
        lines.append("not forwarded: " + ", ".join(f"{n} {why}" for why, n in counted["refused"].items()))
    return "\n".join(lines)
