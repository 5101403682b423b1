"""Objects that users name as MODULE:OBJECT, and why they cannot be imported."""

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from typing import Any


class FamilyError(ValueError):
    """A family that cannot be found, made or used."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep what is wrong and what to do about it apart."""
        super().__init__(message)
        self.hint = hint


def import_object(module: str, name: str) -> Any:
    """Import an object, also from the working folder.

    Raises:
        FamilyError: if the module or the object cannot be found or imported.

    """
    here, reference = str(Path.cwd()), f"{module}:{name}"
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()  # a module may be newer than the last look
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(reference, error) from error
        raise FamilyError(
            f"family `{reference}`: there is no module `{module}` in `{here}`, nor "
            "is one installed",
            _where(module, name),
        ) from error
    except FamilyError:  # of a module that registers one
        raise
    except (Exception, SystemExit) as error:
        raise _failed(reference, error) from error
    finally:
        if added:  # what it imports later is found, but hides nothing installed
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
    """Say where a module is looked for."""
    if module.endswith(".py"):
        return f"name the module without `.py`: {module[:-3]}:{name}"
    file = f"{module.replace('.', '/')}.py"
    return f"run this in the folder of `{file}`, or install its package"


def _failed(reference: str, error: BaseException) -> FamilyError:
    """Say that a module raised an error, and in which line."""
    frames = traceback.extract_tb(error.__traceback__)
    at = ""
    if frames and not isinstance(error, SyntaxError):  # whose text says it
        at = f" (`{Path(frames[-1].filename).name}`, line {frames[-1].lineno})"
    return FamilyError(
        f"family `{reference}`: its module cannot be imported: {reason(error)}{at}",
        "correct the module; set `SDM_DEBUG=1` to see the traceback",
    )


def reason(error: BaseException) -> str:
    """Return an error's type and first line."""
    return f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
