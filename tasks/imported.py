"""Import objects that users reference as MODULE:OBJECT, with clear errors."""

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from typing import Any


class FamilyError(ValueError):
    """A family that cannot be found, created or used."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Set the message, and the hint on how to fix it."""
        super().__init__(message)
        self.hint = hint


def import_object(module: str, name: str) -> Any:
    """Import an object from an installed module or the working folder.

    Raises:
        FamilyError: if the module or the object cannot be found or imported.

    """
    here, reference = str(Path.cwd()), f"{module}:{name}"
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()  # a module may be newer than the cache
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(reference, error) from error
        raise FamilyError(
            f"family `{reference}`: no module `{module}` in `{here}` or among the "
            "installed packages",
            _where(module, name),
        ) from error
    except FamilyError:  # raised while the module registers a family
        raise
    except (Exception, SystemExit) as error:
        raise _failed(reference, error) from error
    finally:
        if added:  # later imports still work, but hide no installed package
            sys.path.remove(here)
            sys.path.append(here)
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            raise FamilyError(
                f"family `{reference}`: `{module}` has no `{part}`",
                f"did you mean `{close[0]}`?" if close else _where(module, name),
            )
        found = getattr(found, part)
    return found


def _where(module: str, name: str) -> str:
    """Return a hint on where modules are searched."""
    if module.endswith(".py"):
        return f"pass the module without `.py`: {module[:-3]}:{name}"
    file = f"{module.replace('.', '/')}.py"
    return f"run this in the folder of `{file}`, or install its package"


def _failed(reference: str, error: BaseException) -> FamilyError:
    """Return the error for a module that raises one, with the line."""
    frames = traceback.extract_tb(error.__traceback__)
    at = ""
    if frames and not isinstance(error, SyntaxError):  # its text names the line
        at = f" (`{Path(frames[-1].filename).name}`, line {frames[-1].lineno})"
    return FamilyError(
        f"family `{reference}`: its module cannot be imported: {reason(error)}{at}",
        "correct the module; set `SDM_DEBUG=1` to see the traceback",
    )


def reason(error: BaseException) -> str:
    """Return an error's type and first line."""
    return f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
