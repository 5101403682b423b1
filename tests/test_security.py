"""What files and folders of other people can make sdm do: nothing but fail."""

import ast
import gzip
import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from test_pomdpx import document

import sdm
from sdm.data.logs import LogsError, read_logs
from sdm.solvers_jax import load_model
from sdm.storage import arrays
from sdm.storage.arrays import read_array, read_arrays
from sdm.storage.memory import MemoryLimitError
from sdm.storage.ownership import StorageError
from sdm.storage.provenance import provenance
from sdm.tasks import cassandra_words
from sdm.tasks.cassandra_words import PomdpFileError

ROOT = Path(sdm.__file__).parent
OTHERS = {".venv", ".typing", "build", "tests", "benchmarks"}
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "torch.load",  # unless it has weights_only=True
    "numpy.load",  # `storage.arrays` reads arrays
    "tarfile.open",
    "shutil.unpack_archive",
    "xml.etree.ElementTree.parse",
    "xml.etree.ElementTree.fromstring",
    "xml.dom.minidom.parse",
}
MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


@cache
def sources():
    return tuple(parsed())


def parsed():
    for path in ROOT.rglob("*.py"):
        if not OTHERS & set(path.relative_to(ROOT).parts[:1]):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree):
    """Map each name that a module imports to its full name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                name = each.name if each.asname else each.name.partition(".")[0]
                found[each.asname or name] = name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                found[each.asname or each.name] = f"{node.module}.{each.name}"
    return found


def called(node, names):
    """Return the full name of what a call calls."""
    first, dot, rest = ast.unparse(node.func).partition(".")
    return names.get(first, first) + dot + rest


def wrong_calls(tree):
    """Yield the forbidden calls and imports of a module."""
    known = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None)] + [x.name for x in node.names]
            yield from (name for name in names if name in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = called(node, known)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN and given.get("weights_only") != "True":
            yield f"{name}(…)"
        for option in ("shell", "allow_pickle", "trust_remote_code"):
            if given.get(option) == "True":
                yield f"{name}({option}=True)"


def test_no_module_calls_what_runs_or_unpickles_a_file():
    found = {
        f"{path.relative_to(ROOT)}: {call}"
        for path, tree in sources()
        for call in wrong_calls(tree)
    }
    # It reads arrays without pickles, for everybody else.
    assert found == {"storage/arrays.py: numpy.load(…)"}
    assert len(sources()) > 300


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "yaml.load(file)",
        "from yaml import unsafe_load; unsafe_load(file)",
        "from os import system as run; run(text)",
        "import numpy as n; n.load(path)",
        "import numpy; numpy.load(path)",
        "from xml.etree import ElementTree as tree; tree.parse(path)",
        "torch.load(path)",
        "subprocess.run(x, shell=True)",
        "np.load(path, allow_pickle=True)",
        "load(base, trust_remote_code=True)",
    ],
)
def test_a_forbidden_call_is_found(text):
    assert list(wrong_calls(ast.parse(text)))


def test_no_default_trusts_the_code_of_others():
    found = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                if ast.unparse(node.target) == "trust_remote_code":
                    found.append((path, ast.unparse(node.value)))
            if isinstance(node, ast.FunctionDef):
                arguments = node.args
                words = [*arguments.posonlyargs, *arguments.args]
                values = [None] * (len(words) - len(arguments.defaults))
                pairs = [
                    *zip(words, [*values, *arguments.defaults], strict=True),
                    *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
                ]
                for word, value in pairs:
                    if word.arg == "trust_remote_code" and value is not None:
                        found.append((path, ast.unparse(value)))
    assert len(found) > 5 and {value for _, value in found} == {"False"}


def test_an_array_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", kind=np.array([{}], object))
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(StorageError, match=r"a\.npz` is not an \.npz file"):
        read_arrays(tmp_path / "a.npz")
    with pytest.raises(StorageError, match=r"a\.npy` is not an \.npy file"):
        read_array(tmp_path / "a.npy")


def test_arrays_that_do_not_fit_the_memory_are_not_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", kind=np.zeros(10**6))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    monkeypatch.setattr("sdm.storage.memory.available_memory", lambda: 10**6)
    monkeypatch.setattr(arrays.np, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(MemoryLimitError, match=r"a\.npz` needs 8\.0 MB of memory"):
        read_arrays(tmp_path / "a.npz")


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"
    data = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little")
    data += header + b"\n"
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("kind.npy", data)
    with pytest.raises(StorageError):
        read_array(tmp_path / "a.npy")
    with pytest.raises(StorageError):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.POMDP.gz", "a.pomdpx.gz"])
def test_a_bomb_is_refused_by_its_size(name, tmp_path, monkeypatch):
    monkeypatch.setattr(cassandra_words, "LARGEST_FILE", 10**6)
    (tmp_path / name).write_bytes(gzip.compress(b" \n" * 10**6))
    with pytest.raises(PomdpFileError, match="unpacks to more than 1,000,000 bytes"):
        load_model(tmp_path / name)


def test_a_long_line_of_a_compressed_log_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.data.logs.readers.json_lines.BLOCK", 10**5)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * 10**6))
    with pytest.raises(LogsError, match="a line longer than 100000 bytes"):
        read_logs(tmp_path / "a.jsonl.gz")


def test_entities_are_not_expanded(tmp_path):
    laughs = "".join(
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "ha"}">' for i in range(10)
    )
    start, rest = document().split("\n", 1)
    text = f"{start}<!DOCTYPE pomdpx [{laughs}]>{rest.replace('0.9', '&a9;', 1)}"
    (tmp_path / "a.pomdpx").write_text(text)
    with pytest.raises(PomdpFileError, match="DOCTYPE"):
        load_model(tmp_path / "a.pomdpx")


def test_secrets_of_the_environment_are_not_recorded(monkeypatch):
    secrets = {"HF_TOKEN": "hf_s3cret", "OPENAI_API_KEY": "sk-s3cret"}
    secrets |= {"HTTPS_PROXY": "http://user:s3cret@proxy:8080"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    provenance.cache_clear()
    text = json.dumps(provenance(by_torch=False))
    assert "s3cret" not in text


def whole_environments(tree):
    """Yield the uses of the environment that are not of one variable."""
    one = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            one.add(node.value)
        elif isinstance(node, ast.Attribute) and node.attr in ("get", "setdefault"):
            one.add(node.value)
        elif isinstance(node, ast.Compare):
            one |= set(node.comparators)
    for node in ast.walk(tree):
        name = getattr(node, "attr", getattr(node, "id", ""))
        if name in ("environ", "environb") and node not in one:
            yield ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (x.name for x in node.names if "environ" in x.name)


def test_no_module_reads_all_of_the_environment():
    """Except to pass it to commands whose pictures are made."""
    found = {
        path.relative_to(ROOT)
        for path, tree in sources()
        if [*whole_environments(tree)]
    }
    assert found == {Path("docs/screens/record.py")}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("x = {**os.environ}", True),
        ("notes.update(os.environ)", True),
        ("for name in os.environ: keep(name)", True),
        ("os.environ.copy()", True),
        ("from os import environ", True),
        ("os.environ.get('A')", False),
        ("os.environ['A'] = 'b'", False),
        ("'A' in os.environ", False),
    ],
)
def test_a_use_of_all_of_the_environment_is_found(text, wrong):
    assert bool([*whole_environments(ast.parse(text))]) == wrong
