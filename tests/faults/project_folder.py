"""A small project folder as a user has it, and its commands as a user types them."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_YAML = """\
name: small
run_dir: run
device: cpu
model:
  num_layers: 1
  hidden_size: 16
  ffn_hidden_size: 32
  num_attention_heads: 2
  vocab_size: 259
parallel:
  tensor_model_parallel_size: 2
tokenizer:
  type: ByteTokenizer
data:
  train:
    - path: data_text_document
training:
  micro_batch_size: 2
  global_batch_size: 4
  seq_length: 16
  train_iters: 100
  precision: fp32
optimizer:
  lr: 1.0e-3
logging:
  log_interval: 1
launch:
  nproc_per_node: 2
  threads_per_process: 1
"""


@dataclasses.dataclass(frozen=True)
class Project:
    """A folder with ``run.yaml``, ``corpus.jsonl`` and the ``data_text_document`` set made from it."""

    folder: Path

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``./launch.sh run.yaml …`` in this folder."""
        return self._run([str(ROOT / "launch.sh"), "run.yaml", *arguments])

    def tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``python tools/NAME …`` in this folder."""
        return self._run([sys.executable, str(ROOT / "tools" / name), *arguments])

    def refuses(self, done: subprocess.CompletedProcess[str], before: dict[str, str], message: str) -> None:
        """Exit code 2, this message and no other word, and not a byte on disk."""
        assert done.stderr == f"error: {message}\n"
        assert (done.returncode, done.stdout) == (2, "")
        assert self.files() == before

    def files(self) -> dict[str, str]:
        """Every file and folder, with the hash of what it holds."""
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else "folder"
            for path in self.folder.rglob("*")
        }

    def iterations(self) -> list[int]:
        """What ``metrics.jsonl`` has logged."""
        lines = (self.folder / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["iteration"] for line in lines]

    def latest(self) -> Path:
        """The checkpoint to resume from."""
        checkpoints = self.folder / "run/checkpoints"
        return checkpoints / (checkpoints / "latest").read_text(encoding="utf-8").strip()

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=180, check=False
        )


@dataclasses.dataclass(frozen=True)
class Stopped:
    """A run that a signal to its launcher ended."""

    project: Project
    exit_code: int
    output: str
