"""Files with flipped bits, missing parts or odd numbers are read or refused."""

import gzip
import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from random_models import random_apomdp, random_mdp, random_pomdp, tiger
from test_pomdpx import document

from sdm.commands.config_options import fields_of, from_file
from sdm.data import shards
from sdm.data.logs import read_logs
from sdm.data.off_policy.policies.table_files import _arrays
from sdm.data.shards import read_shards
from sdm.experiments.catalogue import HERE, read
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.run_folder import read_merged, read_run
from sdm.policies.policy_runs import (
    LearnedRun,
    PolicyRecord,
    load_policy_run,
    save_policy_run,
)
from sdm.solvers_jax import load_model, save_npz, save_pomdp, solve
from sdm.solvers_jax.solution_files import load_solution, save_solution
from sdm.tasks.families.folder import FolderFamily

ODD = (b"", b"nan", b"-1", b"1e999", b"9" * 30, b"{", b"[" * 9999, b"\x00", b"../x")
LOG = "episode,step,observation,action,reward,done\n" + "".join(
    f"{e},{t},{'ab'[t % 2]},{'xy'[e % 2]},{t / 2},{str(t == 2).lower()}\n"
    for e in range(6)
    for t in range(3)
)
TASKS = {
    **{"family": "energy", "kind": "mdp", "family_config": {}},
    **{"horizon": 2, "tasks": 2, "trajectories": 1, "observes_reward": True},
}


def mutated(data, chance):
    """Return a file's bytes with one to three changes."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 4, 64)))
        change = chance.randrange(6)
        if change == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif change == 1:
            del data[at:]
        elif change == 2:
            del data[at:end]
        elif change == 3:
            data[at:at] = data[at:end]
        elif change == 4:
            data[at:end] = bytes(end - at)
        else:
            words = list(re.finditer(rb"[\w.+-]+", data))
            if words:
                word = chance.choice(words)
                data[word.start() : word.end()] = chance.choice(ODD)
    return bytes(data)


def write_log(path, text=LOG):
    """Write logs in the format of the file's name."""
    names, *rows = (line.split(",") for line in text.splitlines())
    rows = [dict(zip(names, row, strict=True)) for row in rows]
    rows = [row | {"reward": float(row["reward"])} for row in rows]
    if ".jsonl" in path.name:
        text = "\n".join(map(json.dumps, rows))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_dataset(folder):
    folder.mkdir()
    table = {"task": np.arange(2), "episode": np.zeros(2, int)}
    for name, (kind, axes, _) in shards.COLUMNS.items():
        if name not in table:
            x = np.zeros((2, 2) if axes else 2, bool if kind == "bool" else float)
            table[name] = x.astype(int) if "int" in str(kind) else x
    table["parameters.p"] = np.full(2, 0.1)
    shards.write_shard(shards.shard_path(folder, 0), table)
    shards.write_manifest(folder, TASKS)


def models_of(folder):
    return FolderFamily(str(folder)).folder.models


def write_run(folder):
    config = {"data": "d", "base": "tiny", "schema": "compact", "lora_rank": 0}
    header = {"run_version": 4, **TASKS, "base": None, "finetune": config}
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(header))
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / "model" / name).touch()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a valid file of each kind, with the function that reads it."""
    here = tmp_path_factory.mktemp("valid")
    found = {}

    def add(name, reader, write, place=None):
        write(here / name)
        found[name] = (here / name, lambda: reader(place or here / name))

    model, ambiguous = tiger(), random_apomdp(0, 0.5)
    add("a.POMDP", load_model, lambda path: save_pomdp(model, path))
    add("a.POMDP.gz", load_model, lambda path: save_pomdp(model, path))
    add("a.pomdpx", load_model, lambda path: path.write_text(document()))
    add("a.npz", load_model, lambda path: save_npz(ambiguous, path))
    family = here / "family"
    family.mkdir()
    for seed, name in enumerate("bc"):
        save_npz(random_pomdp(seed), family / f"{name}.npz")
    add("family/c.npz", models_of, lambda path: None, family)
    for name in ("csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"):
        add(f"log.{name}", read_logs, write_log)
    table = np.full((2, 2), 0.5)
    add("p.npz", _arrays, lambda path: np.savez_compressed(path, probabilities=table))
    add("p.npy", _arrays, lambda path: np.save(path, table))
    options = fields_of(FinetuneConfig)
    text = "data: d\nbase: tiny\nepochs: 2\nlearning_rate: 1e-3\n"
    add("c.yaml", lambda x: from_file(x, options), lambda path: path.write_text(text))
    toml = (HERE / "configs" / "mdp-horizon.toml").read_text()
    add("e.toml", read, lambda path: path.write_text(toml))
    write_dataset(data := here / "data")
    for name in ("shard-00000.parquet", "__sdm__/manifest.parquet"):
        add(f"data/{name}", read_shards, lambda path: None, data)
    write_run(run := here / "run")
    add("run/config.yaml", read_run, lambda path: None, run)
    merged = {**TASKS, "run_version": 4, "run": "r", "base": "b", "schema": "paper"}
    (here / "merged").mkdir()
    text = json.dumps(merged | {"support": 2})
    add(
        "merged/merged.json",
        read_merged,
        lambda path: path.write_text(text),
        here / "merged",
    )
    record = PolicyRecord(TASKS, {}, {}, {})
    (policy := here / "policy").mkdir()
    save_policy_run(policy, LearnedRun("dpt", {"w": table}, record), by_torch=False)
    for name in ("policy.json", "policy.safetensors"):
        add(
            f"policy/{name}",
            lambda x: load_policy_run(x, "dpt"),
            lambda _: None,
            policy,
        )
    save_solution(solve(random_mdp(0), horizon=1), solution := here / "solution")
    for name in ("manifest.json", "solution.npz"):
        add(f"solution/{name}", load_solution, lambda path: None, solution)
    return found


def check_mutations(files, count, seed):
    """Read `count` mutations of every file; return what was raised that must not be."""
    faults = set()
    for name, (path, read_it) in files.items():
        read_it()
        whole, chance = path.read_bytes(), random.Random(f"{name} {seed}")
        for _ in range(count):
            path.write_bytes(data := mutated(whole, chance))
            try:
                read_it()
            except (ValueError, OSError) as error:
                if not any(part in str(error) for part in Path(name).parts):
                    faults.add((name, f"does not name the file: {error}"[:300]))
            except Exception as error:
                faults.add((name, f"{type(error).__name__}: {error}"[:200], data[:40]))
        path.write_bytes(whole)
    return faults


def test_mutations_are_read_or_refused(files):
    assert not check_mutations(files, 4, "fast")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_mutations_are_read_or_refused(files, seed):
    assert not check_mutations(files, 100, seed)
