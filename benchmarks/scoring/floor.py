"""The floor: as many threads of C++ as there are cores, over the same texts with the same model.

MeCab is the wheel's own library. Texts are normalised beforehand, nothing is read and nothing written.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import ipadic
import MeCab
import numpy as np
import pyarrow.parquet as pq

from mlbatch.text import normalise

SOURCE = Path(__file__).with_name("floor.cpp")


class Floor:
    """The compiled loop and what it reads."""

    def __init__(self, folder: Path, parts: list[Path], weights: Path) -> None:
        """Compile, and lay texts and weights out as the loop wants them, in ``folder``."""
        self._program = folder / "floor"
        compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
        self.missing = None if compiler else "no C++ compiler"
        if compiler is None:
            return
        command = [compiler, "-O3", "-o", str(self._program), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        found = np.load(weights)
        self._classes, self._weights = len(found["classes"]), folder / "weights.bin"
        np.ascontiguousarray(found["coef"].T).tofile(self._weights)
        texts = [text for part in parts for text in pq.read_table(part)["text"].to_pylist()]
        self.rows, cores = len(texts), os.cpu_count() or 1
        self._files = [folder / f"texts-{core}.txt" for core in range(cores)]
        for core, file in enumerate(self._files):
            lines = [normalise(text) for text in texts[core::cores]]
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def seconds(self) -> float:
        """One run: the slowest thread's seconds."""
        wheel = Path(MeCab.__file__).parent
        library = next(wheel.with_name("mecab_python3.libs").glob("libmecab*"))
        arguments = [*shlex.split(ipadic.MECAB_ARGS), "-Owakati"]
        running = [
            subprocess.Popen(
                [self._program, library, file, self._weights, str(self._classes), *arguments],
                stdout=subprocess.PIPE, text=True,
            )
            for file in self._files
        ]  # fmt: skip
        return max(float(json.loads(process.communicate()[0])["seconds"]) for process in running)
