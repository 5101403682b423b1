"""A folder for a hub of datasets: Parquet files, a dataset card and the manifest."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sdm.data.exports import datasets
from sdm.data.exports.format import register_format
from sdm.data.shards import PARAMETERS, read_manifest, whole_shards
from sdm.storage.files import write_atomically

CARD = "README.md"
SIZES = (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6))
LARGER = "n>1M"


@register_format
class Hub:
    """Shards in `data/`, a card with the metadata that hubs read, `manifest.json`."""

    name: ClassVar[str] = "hub"
    source: ClassVar[str] = datasets.SOURCE

    def reads(self, path: Path) -> bool:
        """Return whether a path has what the format reads, whole or damaged."""
        return datasets.is_dataset(path)

    def identity(self, path: Path) -> str:
        """Return a digest of what would be exported."""
        return datasets.identity(path)

    def write(self, path: Path, folder: Path) -> Mapping[str, Any]:
        """Write an export into an existing folder; see `ExportFormat`."""
        manifest = read_manifest(path)
        (folder / "data").mkdir()
        for shard in whole_shards(path):
            shutil.copyfile(shard, folder / "data" / shard.name)
        text = json.dumps(manifest, indent=2) + "\n"
        write_atomically(folder / "manifest.json", text)
        write_atomically(folder / CARD, card(manifest))
        return {"rows": manifest["rows"], "files": len(manifest["shards"])}


def card(manifest: Mapping[str, Any]) -> str:
    """Return the dataset card of a manifest."""
    rows = manifest["rows"]
    size = next((name for name, most in SIZES if rows < most), LARGER)
    options = manifest["family_config"].items()
    columns = manifest["columns"].items()
    random = manifest["random_trajectories"]
    return f"""---
pretty_name: {json.dumps(datasets.title(manifest))}
task_categories:
- reinforcement-learning
tags:
- sequential-decision-making
- {manifest["kind"]}
- sdm
size_categories:
- {size}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# {datasets.title(manifest)}

A row is an episode of a decision task that was solved exactly or with bounds. Each task
has {manifest["trajectories"]} episodes of the optimal policy, and {random} of random
actions. `optimal_action` has the solution's action at every decision.

```python
import datasets

datasets.load_dataset("FOLDER", split="train")  # or the name on the hub
```

`pandas.read_parquet("FOLDER/data")` and `polars.read_parquet("FOLDER/data")` read the
same rows.

## Columns

Lists have an entry for each decision (T) or each model (K).

| column | type | axes | content |
|---|---|---|---|
{_table((n, x["type"], x["axes"], x["about"]) for n, x in columns)}
| {PARAMETERS} | struct | | hidden parameters of the task |

## Tasks

| | |
|---|---|
| family | {manifest["family"]} |
| kind of model | {manifest["kind"]} |
| decisions | {manifest["horizon"]} |
| agents see rewards | {manifest["observes_reward"]} |
| random seed | {manifest["seed"]} |
{_table(options)}

`manifest.json` has the whole configuration, versions, and the SHA-256 of each file.
Made by sdm {manifest["versions"]["sdm"]}, schema version {manifest["schema_version"]}.
"""


def _table(rows: Any) -> str:
    """Return lines of a Markdown table."""
    lines = ("| " + " | ".join(str(x).replace("|", "\\|") for x in row) for row in rows)
    return "\n".join(f"{line} |" for line in lines)
