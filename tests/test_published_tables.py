"""Tables in the docs that were written by hand hold the means of published rows."""

import json
import re
from pathlib import Path

import numpy as np

from sdm.experiments.catalogue import PUBLISHED
from sdm.experiments.rows import read_rows, rows_file

ROOT = Path(__file__).resolve().parents[1]
CHOSEN = {0: 1.5, 1: 1.3, 2: 1.7}  # temperature by seed, chosen on other tasks
UNIFORM, HARD = {"separation": 0.0, "horizon": 25}, {"separation": 0.2, "horizon": 100}


def table_of(text, first):
    """The cells of the rows of each table whose head begins with `first`."""
    lines = iter(text.splitlines())
    for line in lines:
        head = cells_of(line)
        if not head or not re.fullmatch(first, head[0]):
            continue
        next(lines)  # alignment
        for below in lines:
            if not below.startswith("|"):
                break
            cells = cells_of(below)
            yield head, cells[0], dict(enumerate(cells[1:], start=1))


def cells_of(line):
    return [part.strip() for part in line.strip("| ").split("|")] if "|" in line else []


def shown(values, text):
    """The mean with as many decimals as `text`, with the range if `text` has one."""
    assert len(values) == 3, text
    digits = len(text.split(" ")[0].partition(".")[2])
    mean, low, high = (
        f"{each:.{digits}f}" for each in (np.mean(values), min(values), max(values))
    )
    return f"{mean} ({low} … {high})" if "(" in text else mean


def rows_of(name, policy, test=None, **learn):
    """Rows of a policy with these entries of the test and of the training, by seed."""
    wanted = {"law": None, **(test or {})}
    found = [
        row
        for row in read_rows(rows_file(PUBLISHED, name, "laptop"))
        if row["policy"] == policy
        and wanted.items() <= {"law": None, **row["test"]}.items()
        and learn.items() <= (row.get("learn") or {}).items()
    ]
    return sorted(found, key=lambda row: row["seed"])


def test_the_tables_of_energy_tasks_hold_means_of_rows():
    text = (ROOT / "docs/self_training.md").read_text(encoding="utf-8")
    policies = {"realised regret": "selftrain"}
    checked = 0
    for head, label, cells in table_of(text, r"T = \d+"):
        horizon = int(head[0].removeprefix("T = "))
        iteration = re.search(r"iteration (\d+)", label)
        learn = {"iteration": int(iteration[1]) if iteration else 0}
        for at, cell in cells.items():
            policy = policies.get(head[at], head[at])
            if label.startswith("oracle supervision"):
                policy, learn = "oracle supervision", {}
            found = [
                row["result"]["gap_percent"]
                for row in rows_of("self-training", policy, **learn)
                if row["test"]["horizon"] == horizon and "family" not in row["test"]
            ]
            if cell:
                assert cell == shown(found, cell), (head[0], label, head[at])
                checked += 1
    assert checked == 2 * (1 + 4 * 3 + 1)


def bandit_rows(label, test):
    """Rows of a line of the table of bandits, by its first cell."""
    if " chosen " in label:
        return [
            row
            for row in rows_of("bandits", "selftrain-warm", test)
            if row["learn"]["acting_temperature"] == CHOSEN[row["seed"]]
        ]
    numbers = [float(x) for x in re.findall(r"\d+(?:\.\d+)?", label)]
    if "temperature" in label:
        warm = {"iteration": numbers[0], "acting_temperature": numbers[1]}
        return rows_of("bandits", "selftrain-warm", test, **warm)
    if "iteration" in label or label == "start":
        return rows_of("bandits", "selftrain", test, iteration=sum(numbers))
    policy = label.split(",")[0].removesuffix(" sampling").lower()
    return rows_of("bandits", policy, test)


def test_the_table_of_bandits_holds_means_of_rows():
    text = (ROOT / "docs/self_training.md").read_text(encoding="utf-8")
    columns = [
        (UNIFORM, "regret"),
        ({**HARD, "horizon": 25}, "regret"),
        (HARD, "regret"),
        (HARD, "regret_exponent"),
        (HARD, "suffix_failure_frequency"),
        (HARD, "k_min_fraction"),
    ]
    checked = 0
    for head, label, cells in table_of(text, "model"):
        if len(head) != 1 + len(columns):
            continue
        for at, cell in cells.items():
            test, measure = columns[at - 1]
            found = [row["result"][measure] for row in bandit_rows(label, test)]
            if cell:
                assert cell == shown(found, cell), (label, head[at])
                checked += 1
    assert checked == 7 * 6 + 6 * 4


def test_the_main_page_gives_the_means_of_the_demo():
    files = sorted((PUBLISHED / "demo").glob("results-seed-*.json"))
    runs = [json.loads(path.read_text(encoding="utf-8"))["policies"] for path in files]
    gaps = [run["smollm2 fine-tuned"]["gap_percent"] for run in runs]
    before = np.mean([run["icl:smollm2"]["gap_percent"] for run in runs])
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert len(gaps) == 5
    assert (
        f"has a mean gap of {np.mean(gaps):.2f} % ({min(gaps):.2f} to {max(gaps):.2f}),"
        f" the same model without fine-tuning {before:.0f} %"
    ) in page


def test_the_table_of_laws_holds_the_rows_of_each_seed():
    text = (ROOT / "docs/self_training.md").read_text(encoding="utf-8")
    checked = 0
    for head, label, cells in table_of(text, "model"):
        if len(head) != 3:
            continue
        for at, cell in cells.items():
            law = head[at].split(":")[0].lower()
            rows = bandit_rows(label, {"horizon": 25, "law": law})
            found = [row["result"]["regret"] for row in rows]
            each = ", ".join(f"{value:.2f}" for value in found)
            assert cell == (shown(found, cell) if "(" in cell else each), label
            checked += 1
    assert checked == 2 * 6


def test_the_intervals_of_exponents_in_the_text_are_those_of_the_rows():
    text = (ROOT / "docs/self_training.md").read_text(encoding="utf-8")
    said = " ".join(text.split())
    for label in ("iteration 12", "temperature chosen on other tasks"):
        ends = [
            f"{row['result']['regret_exponent_high']:.3f}"
            for row in bandit_rows(label, HARD)
        ]
        assert "end at {}, {} and {}.".format(*ends) in said, label
