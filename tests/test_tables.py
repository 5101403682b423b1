"""Tables at the widths of real terminals: no word and no number is broken."""

import io
import re

import pytest
from rich.console import Console

from sdm.commands.console import pairs_table
from sdm.evaluation.fitting_table import FittingTable

WIDTHS = (60, 80, 100, 200)


def drawn(table, width):
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def example(**options):
    table = FittingTable(title="A title that is long enough for two lines", **options)
    table.add_column("policy")
    for name in ("gap", "95 % interval", "agreement", "return", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("about")
    cells = ("12.34", "11.22 … 13.45", "98.7 %", "7654.321", "1234.5")
    table.add_row("observation-as-state", *cells, "policies without any training")
    return table


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_fits_and_breaks_neither_words_nor_numbers(width):
    shown = drawn(example(), width)
    assert max(map(len, shown.splitlines())) <= width
    for word in ("observation-as-state", "12.34", "policy"):
        assert word in shown
    hidden = re.search("columns hidden: (.*)", " ".join(shown.split()))
    names = ["95 % interval", "agreement", "return", "seconds", "about"]
    gone = [name for name in names if hidden and name in hidden[1]]
    for name, cell in zip(
        names,
        ("11.22 … 13.45", "98.7 %", "7654.321", "1234.5", "training"),
        strict=True,
    ):
        assert (cell in shown) == (name not in gone), name
    assert gone == names[len(names) - len(gone) :]  # the last columns go first
    assert bool(gone) == (width < 200)


def test_the_named_columns_are_hidden_first_and_a_note_says_where_they_are():
    shown = drawn(example(spare=("return", "agreement"), caption="below"), 80)
    words = " ".join(shown.split())
    assert "below terminal too narrow, columns hidden: return" in words
    assert "--json has all" in words and "7654.321" not in shown


def test_markup_in_a_value_is_shown_as_it_is():
    assert "[bold]x" in drawn(pairs_table({"out": "[bold]x", "n": 1.5}), 60)


@pytest.mark.parametrize("width", WIDTHS)
def test_columns_that_are_not_named_are_hidden_when_those_are_not_enough(width):
    shown = drawn(example(spare=("return",)), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "observation-as-state" in shown and "12.34" in shown
    assert ("11.22 … 13.45" in shown) or "95 % interval" in shown.split("hidden:")[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_path_is_wrapped_and_whole(width):
    path = "/a/very/long/path" * 6
    shown = drawn(pairs_table({"out": path}), width)
    assert path in re.sub(r"[\s│┌┐└┘─┬┴]|out", "", shown)
    assert max(map(len, shown.splitlines())) <= width


def test_a_column_without_any_cell_is_not_shown():
    table = FittingTable()
    for name in ("policy", "exact gap", "invalid"):
        table.add_column(name)
    assert "exact gap" in drawn(table, 80), "of a table without rows"
    table.add_row("ce", "", "")
    table.add_row("tiny", "", "0.1 %")
    shown = drawn(table, 80)
    assert "exact gap" not in shown and "hidden" not in shown
    assert "invalid" in shown and "0.1 %" in shown


def test_a_long_value_is_cut():
    shown = drawn(pairs_table({"action": list(range(1000))}), 200)
    assert "[0, 1, 2" in shown and "999" not in shown and "--json has all" in shown
