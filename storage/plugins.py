"""Import what registers itself: the modules of a package, and other packages' modules.

Another package names its module in an entry-point group, such as `sdm.policies`.
"""

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Mapping
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


def load_plugins(
    package: str, *, group: str | None = None, what: str = "plugin"
) -> None:
    """Import every module of a package, and every module of an entry-point group.

    Args:
        package: name of the package, such as `sdm.policies.untrained`.
        group: the entry-point group; None for none.
        what: what the modules register, for the error.

    Raises:
        ValueError: if the module of an entry point cannot be loaded.

    """
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    for point in () if group is None else importlib.metadata.entry_points(group=group):
        try:
            point.load()
        except Exception as error:
            raise ValueError(
                f"{what} `{point.name}`: its package cannot be loaded, found "
                f"`{point.value}`: {error}"
            ) from error


class NamedClasses:
    """Classes that register themselves under their attribute `name`.

    Args:
        package: package whose modules register our classes.
        group: entry-point group of other packages' modules.
        what: what the classes are, for errors.

    """

    def __init__(self, package: str, *, group: str, what: str) -> None:
        self._package, self._group, self._what = package, group, what
        self._classes: dict[str, Any] = {}
        self._loaded = False

    def add(self, new: Class) -> Class:
        """Register a class; use it as a decorator.

        Raises:
            ValueError: if another class has its name.

        """
        name = new.name  # type: ignore[attr-defined]
        if self._classes.setdefault(name, new) is not new:
            raise ValueError(f"{self._what} `{name}`: registered already")
        return new

    def all(self) -> Mapping[str, Any]:
        """Return all classes by name.

        Raises:
            ValueError: if the module of an entry point cannot be loaded.

        """
        if not self._loaded:
            load_plugins(self._package, group=self._group, what=self._what)
            self._loaded = True
        return dict(self._classes)

    def find(self, name: str) -> Any:
        """Return the class with a name.

        Raises:
            ValueError: if the name is unknown.

        """
        known = self.all()
        if name not in known:
            names = ", ".join(sorted(known))
            raise ValueError(f"{self._what}: must be one of {names}, found {name!r}")
        return known[name]
