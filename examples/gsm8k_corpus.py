"""Makes a corpus of GSM8K's training problems.

    python examples/gsm8k_corpus.py corpora/gsm8k

Needs the extra ``learn`` and the hub. The commit is pinned; the manifest's digest is that of the rows as written, so a
later run with other rows is noticed. GSM8K: arXiv:2110.14168, MIT licence.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

REPO, REVISION = "openai/gsm8k", "e53f048856ff4f594e959d75785d2c2d37b678ee"
ASK = "{question}\nReason step by step and give the answer as a number in the last line."


def write(rows: Iterable[Mapping[str, str]], folder: Path) -> int:
    """Writes the corpus; returns how many rows it has.

    Args:
        rows: With ``question`` and ``answer``, whose number stands behind ####.
        folder: Made where it is missing.
    """
    lines = [
        json.dumps(
            {
                "prompt": ASK.format(question=row["question"]),
                "completion": row["answer"].rpartition("####")[2].strip().replace(",", ""),
            },
            ensure_ascii=False,
        )
        for row in rows
    ]
    data = "".join(f"{line}\n" for line in lines).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_bytes(data)
    (folder / "corpus.yaml").write_text(
        "id: gsm8k\nversion: 1\ntitle: GSM8K, training problems and their answers\nlicence: MIT\nsplit: train\n"
        f"no_train: false\ndata: train.jsonl\nsha256: {hashlib.sha256(data).hexdigest()}\nrows: {len(lines)}\n"
        f"made: From {REPO} at {REVISION}; the worked solutions are left out.\n"
    )
    return len(lines)


if __name__ == "__main__":
    from datasets import load_dataset

    print(write(load_dataset(REPO, "main", revision=REVISION, split="train"), Path(sys.argv[1])))
