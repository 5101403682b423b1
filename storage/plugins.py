"""Import what registers itself: the modules of a package, and other packages' modules.

Another package names its module in an entry-point group, such as `sdm.policies`.
"""

import importlib
import importlib.metadata
import pkgutil


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
