"""Show mkdocstrings the package alone.

The root of the repository is the package, so a search of the package's folder for
modules would also visit `.venv`, and `.typing/sdm` again and again.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[2]


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> None:
    """Make a folder with links to the package's files, and search there."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    package = folder / "sdm"
    package.mkdir()
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*/__init__.py")):
        source = path if path.parent == ROOT else path.parent
        (package / source.name).symlink_to(source)
    handler = config.plugins["mkdocstrings"].config.handlers["python"]
    handler["paths"] = [str(folder)]
