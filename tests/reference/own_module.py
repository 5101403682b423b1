"""Modules of a user's own, outside the repository: the family of the how-to page."""

import importlib.metadata
import sys
from contextlib import contextmanager
from pathlib import Path

import docs_support
import pytest

from sdm.tasks import registry

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def blocks(language):
    """Fenced blocks of the how-to page."""
    return [text for _, _, text in docs_support.blocks("docs/families.md", language)]


def how_to_family():
    """Source of the page's complete family."""
    return blocks("python")[0]


@contextmanager
def working_folder(folder, **sources):
    """Work in a folder with these modules; forget them afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(registry, "_registered", dict(registry._registered))
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source)
        try:
            yield
        finally:
            for name in sources:
                sys.modules.pop(name, None)
            importlib.invalidate_caches()


@contextmanager
def installed(folder, points):
    """Let the modules in a folder be installed, with these entry points by name."""

    def entry_points(*, group):
        make = importlib.metadata.EntryPoint
        ours = points if group == registry.GROUP else {}
        return [make(name, value, group) for name, value in ours.items()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", entry_points)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        patch.setattr(registry, "_registered", dict(registry._registered))
        _look_again()
        yield
    _look_again()


def _look_again():
    registry.families.cache_clear()
    registry._entry_points.cache_clear()
