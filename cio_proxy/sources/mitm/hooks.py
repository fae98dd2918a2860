"""Calls the addons: what mitmproxy's addon manager does, for addons that never change.

mitmproxy walks through all addons at every hook, wraps each call, and walks through them once more for an `update` hook
that no addon of a door has. That was a fifth of a request's time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

from mitmproxy.addonmanager import traverse
from mitmproxy.proxy.commands import StartHook


class Called(NamedTuple):
    """Who wants a hook: functions of one argument, which is the hook's only field."""

    field: str
    functions: tuple[Callable[[Any], Any], ...]
    waits: bool
    """True if one of them is a coroutine function."""


class Hooks:
    """The functions of all addons by hook, each looked up when it is first used.

    An error of one is passed to `failed`, and the next is called.
    """

    def __init__(self, addons: Iterable[object], failed: Callable[[Exception], None]) -> None:
        self._addons = addons
        self._failed = failed
        self._called: dict[type[StartHook], Called] = {}

    def waits(self, hook: StartHook) -> bool:
        """True for a hook that has to be awaited."""
        return self._of(hook).waits

    def call(self, hook: StartHook) -> None:
        """Run a hook that does not wait."""
        called = self._of(hook)
        for function in called.functions:
            try:
                function(getattr(hook, called.field))
            except Exception as error:
                self._failed(error)

    async def wait(self, hook: StartHook) -> None:
        """Run any hook."""
        called = self._of(hook)
        for function in called.functions:
            try:
                result = function(getattr(hook, called.field))
                if result is not None:
                    await result
            except Exception as error:
                self._failed(error)

    def _of(self, hook: StartHook) -> Called:
        called = self._called.get(type(hook))
        if called is None:
            (field,) = fields(hook)  # type: ignore[arg-type]
            named = (getattr(addon, hook.name, None) for addon in traverse(self._addons))
            functions = tuple(function for function in named if callable(function))
            called = Called(field.name, functions, any(map(iscoroutinefunction, functions)))
            self._called[type(hook)] = called
        return called
