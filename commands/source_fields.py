"""Read the fields of a config dataclass from its source, without importing it.

Importing JAX or PyTorch takes seconds, which would slow down `--help`.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sdm.commands.config_options import UNSET, OptionField, option_name
from sdm.storage.docstrings import parse_attributes

ROOT = Path(__file__).parents[1]
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "Literal": Literal}


def config_fields(
    module: str, config: str, *, without: tuple[str, ...] = ()
) -> list[OptionField]:
    """Return the options of a dataclass of this package, in field order.

    Args:
        module: path of the file in the package, such as `llm/recipes.py`.
        config: name of the class.
        without: fields to exclude.

    """
    return [f for f in _all_fields(ROOT / module)[config] if f.name not in without]


@cache
def _all_fields(path: Path) -> dict[str, list[OptionField]]:
    return {node.name: fields for node, fields in classes_of(path)}


def classes_of(path: Path) -> list[tuple[ast.ClassDef, list[OptionField]]]:
    """Return the classes that a file's source defines, with their options."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = dict(TYPES)
    for node in tree.body:  # type aliases: X = Literal[…]
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if ast.unparse(node.value).startswith("Literal["):
                names[node.targets[0].id] = _type(node.value, names)
    return [
        (node, _class_fields(node, names))
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    ]


def _type(annotation: ast.expr, names: dict[str, Any]) -> Any:
    """Return the type that an annotation names, or `str` for an unknown name."""
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return None
    if isinstance(annotation, ast.BinOp):  # X | Y
        return _type(annotation.left, names) | _type(annotation.right, names)
    if isinstance(annotation, ast.Subscript) and _type(annotation.value, names) is (
        Literal
    ):
        return Literal[ast.literal_eval(annotation.slice)]
    return names.get(ast.unparse(annotation), str)


def _class_fields(node: ast.ClassDef, names: dict[str, Any]) -> list[OptionField]:
    """Return the options that a dataclass's source defines, in field order."""
    texts = parse_attributes(ast.get_docstring(node) or "")
    found = []
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if ast.unparse(item.annotation).startswith("ClassVar"):
            continue
        name, (default, option) = item.target.id, _default(item.value)
        found.append(
            OptionField(
                name=name,
                annotation=_type(item.annotation, names),
                default=default,
                text=texts.get(name, ""),
                option=option or option_name(name),
            )
        )
    return found


def string_of(node: ast.ClassDef, name: str) -> str:
    """Return the text that a class's source assigns to an annotated name, or ""."""
    for item in node.body:
        if (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and item.target.id == name
            and isinstance(item.value, ast.Constant)
        ):
            return str(item.value.value)
    return ""


def _default(value: ast.expr | None) -> tuple[Any, str | None]:
    """Return a field's default and the option name in its metadata, if any."""
    if value is None:
        return UNSET, None
    if isinstance(value, ast.Call):  # field(default=…, metadata={"option": …})
        given = {word.arg: ast.literal_eval(word.value) for word in value.keywords}
        return given.get("default", UNSET), given.get("metadata", {}).get("option")
    try:
        return ast.literal_eval(value), None
    except ValueError:
        return UNSET, None
