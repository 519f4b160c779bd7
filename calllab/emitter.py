"""Events whose handlers cannot harm whoever emits them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, overload

__all__ = ["Emitter", "EventHandler", "Handler"]

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[..., Awaitable[None] | None]


class Emitter:
    """Calls handlers by event name.

    A handler may be a function, called before :meth:`emit` returns, or a coroutine function, run as a task
    that the emitter owns.  What a handler raises is logged and goes no further: it must not fail the
    operation that caused the event.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, list[tuple[Handler, bool]]] = {}
        self._attributes: dict[str, Handler] = {}
        self._handler_tasks: set[asyncio.Task[None]] = set()
        self._spared: set[asyncio.Task[None]] = set()

    @overload
    def on(self, event: str, handler: Handler) -> Handler: ...

    @overload
    def on(self, event: str) -> Callable[[Handler], Handler]: ...

    def on(self, event: str, handler: Handler | None = None) -> Handler | Callable[[Handler], Handler]:
        """Call ``handler`` for each event of this name; without a handler, return a decorator."""
        if handler is None:
            return lambda decorated: self.on(event, decorated)
        self._handlers.setdefault(event, []).append((handler, False))
        return handler

    def once(self, event: str, handler: Handler) -> Handler:
        """Call ``handler`` for the next event of this name only."""
        self._handlers.setdefault(event, []).append((handler, True))
        return handler

    def addEventListener(self, event: str, handler: Handler, *, once: bool = False) -> None:
        """Call ``handler`` for each event of this name, as DOM's EventTarget does: never twice for one."""
        if all(known != handler for known, _ in self._handlers.get(event, ())):
            self._handlers.setdefault(event, []).append((handler, once))

    def removeEventListener(self, event: str, handler: Handler) -> None:
        """Stop calling ``handler``; one that is not registered is no error."""
        self.remove_listener(event, handler)

    def remove_listener(self, event: str, handler: Handler) -> None:
        """Stop calling ``handler``; one that is not registered is no error."""
        handlers = self._handlers.get(event, [])
        self._handlers[event] = [entry for entry in handlers if entry[0] != handler]

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Stop calling all handlers of ``event``, or of every event."""
        if event is None:
            self._handlers.clear()
        else:
            self._handlers.pop(event, None)

    def handler_attribute(self, event: str) -> Handler | None:
        """Return what was assigned to the ``on...`` attribute of an event."""
        return self._attributes.get(event)

    def set_handler_attribute(self, event: str, handler: Handler | None) -> None:
        """Assign to the ``on...`` attribute of an event; see :class:`EventHandler`."""
        if handler is not None and not callable(handler):
            raise TypeError(f"a handler of {event!r} is callable or None, not {type(handler).__name__}")
        entries = self._handlers.setdefault(event, [])
        before = self._attributes.pop(event, None)
        place = next((i for i, (known, _) in enumerate(entries) if known is before), len(entries))
        del entries[place : place + 1]
        if handler is not None:
            self._attributes[event] = handler
            entries.insert(place, (handler, False))

    def emit(self, event: str, *arguments: Any) -> bool:
        """Call the handlers of ``event`` in the order of their registration; return whether there was one."""
        entries = list(self._handlers.get(event, ()))
        for entry in entries:
            if all(entry is not known for known in self._handlers.get(event, ())):
                continue  # another handler has removed it
            handler, once = entry
            if once:
                self.remove_listener(event, handler)
            try:
                result = handler(*arguments)
            except (Exception, asyncio.CancelledError):
                # Nobody cancels a function: this is the result of some task that the handler looked at.
                logger.exception("a handler of %r failed", event)
                continue
            if inspect.isawaitable(result):
                self._own(event, result)
        return bool(entries)

    def spare_handler(self) -> None:
        """Leave the coroutine handler that calls this, if it is one, out of :meth:`cancel_handlers`.

        It is about to wait for the end of whoever cancels the others.
        """
        task = asyncio.current_task()
        if task is not None and task in self._handler_tasks:
            self._handler_tasks.discard(task)
            self._spared.add(task)
            task.add_done_callback(self._spared.discard)

    async def cancel_handlers(self) -> None:
        """Cancel the coroutine handlers that still run, and wait for them."""
        tasks = set(self._handler_tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _own(self, event: str, awaitable: Awaitable[None]) -> None:
        task = asyncio.get_running_loop().create_task(_awaited(awaitable), name=f"handler of {event}")
        self._handler_tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._handler_tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("a handler of %r failed", event, exc_info=error)

        task.add_done_callback(done)


class EventHandler:
    """An event handler attribute of an :class:`Emitter`, such as ``pc.ontrack`` (HTML's event handler IDL
    attributes).

    There is one handler an attribute; assigning another one puts it in the place of the first, and None
    takes it away.  It is called among those of :meth:`Emitter.on`.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._event = name.removeprefix("on")

    @overload
    def __get__(self, emitter: None, owner: type) -> EventHandler: ...

    @overload
    def __get__(self, emitter: Emitter, owner: type) -> Handler | None: ...

    def __get__(self, emitter: Emitter | None, owner: type) -> EventHandler | Handler | None:
        return self if emitter is None else emitter.handler_attribute(self._event)

    def __set__(self, emitter: Emitter, handler: Handler | None) -> None:
        emitter.set_handler_attribute(self._event, handler)


def _awaited(awaitable: Awaitable[None]) -> Coroutine[Any, Any, None]:
    async def wait() -> None:
        await awaitable

    return wait()
