"""Writes small models in fastText's format, so that their answers are known by hand."""

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MAGIC, SUPERVISED, SOFTMAX = 793712314, 3, 3


@dataclass
class Model:
    """A model whose words have one number for each label: the softmax of their mean is the answer.

    Attributes:
        words: what it knows.
        labels: with their prefix.
        rows: [words + buckets, labels]; whole numbers from 0 to 255 if quantized.
        numbers: to write instead of the right ones, by name.
        pruned: pairs of a bucket and its row behind the words', in a quantized model.
    """

    words: list[str]
    labels: list[str]
    rows: NDArray[np.float32]
    numbers: dict[str, int] = field(default_factory=dict)
    quantized: bool = False
    pruned: list[tuple[int, int]] | None = None

    def to_bytes(self) -> bytes:
        count, dim = self.rows.shape
        self._values = {
            **{
                "magic": MAGIC,
                "version": 12,
                "dim": dim,
                "ngrams": 1,
                "loss": SOFTMAX,
                "kind": SUPERVISED,
                "bucket": 0,
            },
            **{
                "longest": 0,
                "size": len(self.words) + len(self.labels),
                "words": len(self.words),
                "word": 0,
                "label": 1,
            },
            **{
                "labels": len(self.labels),
                "pruned": -1 if self.pruned is None else len(self.pruned),
                "count": 7,
            },
            **{"quantized": int(self.quantized), "rows": count, "columns": dim, "outputs": len(self.labels)},
            **{
                "codes": self.rows.size,
                "own": dim,
                "parts": dim,
                "width": 1,
                "last": 1,
                "normed": 0,
                "qout": 0,
            },
        } | self.numbers
        identity = np.eye(len(self.labels), dim, dtype=np.float32)
        output = self._pack("B2q", "qout", "outputs", "columns") + identity.tobytes()
        return self._head() + self._entries() + self._input() + output

    def _pack(self, layout: str, *names: str) -> bytes:
        return struct.pack(f"<{layout}", *(self._values[name] for name in names))

    def _head(self) -> bytes:
        sizes = self._pack("3i", "magic", "version", "dim") + struct.pack("<4i", 5, 5, 1, 5)
        kinds = self._pack("4i", "ngrams", "loss", "kind", "bucket") + struct.pack("<i", 1)
        return sizes + kinds + self._pack("i", "longest") + struct.pack("<id", 100, 1e-4)

    def _entries(self) -> bytes:
        content = (
            self._pack("3i", "size", "words", "labels") + struct.pack("<q", 100) + self._pack("q", "pruned")
        )
        for entry in self.words:
            content += entry.encode() + b"\0" + self._pack("qb", "count", "word")
        for entry in self.labels:
            content += entry.encode() + b"\0" + self._pack("qb", "count", "label")
        return content + b"".join(struct.pack("<2i", *pair) for pair in self.pruned or ())

    def _input(self) -> bytes:
        if not self.quantized:
            return self._pack("B2q", "quantized", "rows", "columns") + self.rows.tobytes()
        content = self._pack("BB2qi", "quantized", "normed", "rows", "columns", "codes")
        content += self.rows.astype(np.uint8).tobytes() + self._pack("4i", "own", "parts", "width", "last")
        return content + np.tile(np.arange(256, dtype=np.float32), self.rows.shape[1]).tobytes()
