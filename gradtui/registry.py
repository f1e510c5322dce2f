"""Objects of one kind by name: ours, those that a user's code registers, and those of installed packages.

Measures, findings and remedies of gradtui are registered in the same way as anybody's. A package registers its own by
an entry point, e.g. `[project.entry-points."gradtui.findings"]`, whose module is imported at the first look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TypeVar

from gradtui.errors import UsageError, one_line, say_once

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Entries in the order in which they were registered.

    Args:
        what: one entry in words, e.g. "finding".
        group: the group of entry points that packages use; importing one of them registers what it has.
        ours: modules of gradtui that register its own entries, imported before the first look.
    """

    def __init__(self, what: str, group: str, *ours: str) -> None:
        self.what, self.group = what, group
        self._ours = ours
        self._entries: dict[str, T] = {}
        self._is_loaded = False

    def register(self, name: str, entry: T) -> T:
        """Add an entry; raises `UsageError` if another one has the name."""
        if self._entries.get(name, entry) is not entry:
            raise UsageError(f"there is a {self.what} {name!r} already: give yours another name")
        self._entries[name] = entry
        return entry

    def unregister(self, name: str) -> None:
        """Take an entry out again; there need not be one."""
        self._entries.pop(name, None)

    def registered(self) -> list[T]:
        """The entries so far, without a look at ours or those of packages: for what registers itself."""
        return list(self._entries.values())

    def __getitem__(self, name: str) -> T:
        self._load()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(list(self._entries))

    def __len__(self) -> int:
        self._load()
        return len(self._entries)

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            for module in self._ours:
                import_module(module)
        except BaseException:  # as where no descriptor is free
            self._is_loaded = False
            raise
        from importlib.metadata import entry_points

        try:
            points = entry_points(group=self.group)
        except Exception as error:  # no descriptor is free, or the description of a package is damaged
            say_once(f"what installed packages have of the {self.what}s is left out ({one_line(error)})")
            return
        for point in points:
            try:
                point.load()
            except Exception as error:
                # somebody else's package must not end a report or a training
                say_once(f"the {self.what} {point.name!r} of {point.value} is left out ({one_line(error)})")


class LazyRegistry(Registry[T]):
    """As `Registry`, but each entry is loaded when it is first asked for, and what that raises is the caller's.

    Args:
        what: one entry in words.
        group: the group of entry points that packages use; each is an entry.
        ours: what loads those of gradtui, by name.
    """

    def __init__(self, what: str, group: str, ours: Mapping[str, Callable[[], T]]) -> None:
        super().__init__(what, group)
        self._loaders = dict(ours)

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            self._entries[name] = self._loaders[name]()
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._loaders or name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(list(dict.fromkeys([*self._loaders, *self._entries])))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _load(self) -> None:
        if not self._is_loaded:
            self._is_loaded = True
            from importlib.metadata import entry_points

            self._loaders = {**{point.name: point.load for point in entry_points(group=self.group)}, **self._loaders}
