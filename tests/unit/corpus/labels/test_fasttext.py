import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fasttext_model import Model

from megatron_ext.corpus.labels.fasttext_format import check_model
from megatron_ext.corpus.labels.identifiers import build_identifier
from megatron_ext.corpus.labels.identify import Identification
from megatron_ext.errors import CorpusError

LABELS = ["__label__eng_Latn", "__label__ku", "__label__eml", "__label__zho_Hant"]
WORDS = ["alpha", "ئەلف", "gamma", "中"]
ROWS = np.array([[3, 0, 0, 1], [0, 4, 0, 1], [0, 1, 5, 0], [1, 1, 0, 4]], np.float32)
DENSE = Model(WORDS, LABELS, ROWS)
QUANTIZED = replace(DENSE, quantized=True)
BUCKETS = replace(
    QUANTIZED,
    rows=np.vstack([ROWS, ROWS[:2]]),
    numbers={"bucket": 10, "longest": 2},
    pruned=[(3, 0), (7, 1)],
)


def _write(folder: Path, model: Model) -> Path:
    path = folder / "model.bin"
    path.write_bytes(model.to_bytes())
    return path


@pytest.mark.parametrize("model", [DENSE, QUANTIZED], ids=["dense", "quantized"])
def test_answers_are_the_softmax_of_the_mean_row(tmp_path: Path, model: Model) -> None:
    identifier = build_identifier(str(_write(tmp_path, model)))
    lines = ["alpha alpha\ngamma alpha", "ئەلف ئەلف ئەلف", "gamma gamma gamma", "中 中 中 中 中 中 中"]
    english, kurdish, neither, chinese = identifier.identify(lines)
    means = [(3 * ROWS[0] + ROWS[2]) / 4, ROWS[1], ROWS[2], ROWS[3]]
    best = [float((np.exp(mean) / np.exp(mean).sum()).max()) for mean in means]
    assert (english.language, english.script) == ("eng", "Latn")
    assert (kurdish.language, kurdish.script) == ("ckb", "Arab")  # ku in Arabic letters
    assert neither == Identification(None, "Latn", 0.0)  # eml is no language of ISO 639-3 any more
    assert (chinese.language, chinese.script) == ("cmn", "Hant")  # the model tells what letters do not
    found = [english.confidence, kurdish.confidence, chinese.confidence]
    assert found == pytest.approx([best[0], best[1], best[3]], abs=1e-4)


def test_answers_of_a_hierarchical_softmax_are_those_of_its_tree(tmp_path: Path) -> None:
    """Two labels hang on one node, whose vector is the output's first row: the first label's branch is its sigmoid."""
    model = Model(["alpha", "gamma"], ["__label__en", "__label__de"], ROWS[:2, :2], numbers={"loss": 1})
    identifier = build_identifier(str(_write(tmp_path, model)))
    english, german = identifier.identify(["alpha alpha alpha", "gamma gamma gamma"])
    assert (english.language, german.language) in {("eng", "deu"), ("eng", "eng")}
    assert english.confidence == pytest.approx(1 / (1 + math.exp(-3)), abs=1e-4)
    assert german.confidence == pytest.approx(0.5, abs=1e-4)


def test_words_that_the_model_does_not_know_are_no_language(tmp_path: Path) -> None:
    identifier = build_identifier(str(_write(tmp_path, DENSE)))
    assert identifier.identify(["omega omega omega"]) == [Identification(None, "Latn", 0.0)]


@pytest.mark.parametrize("model", [DENSE, QUANTIZED, BUCKETS], ids=["dense", "quantized", "buckets"])
def test_a_file_cut_anywhere_or_too_long_is_refused(tmp_path: Path, model: Model) -> None:
    path = _write(tmp_path, model)
    check_model(path)
    whole = path.read_bytes()
    for size in [*range(0, min(len(whole), 600)), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(CorpusError, match=rf"^{path}: "):
            check_model(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CorpusError, match="goes on after its end"):
        check_model(path)


@pytest.mark.parametrize(
    ("model", "numbers", "told"),
    [
        *[(DENSE, {"magic": 1}, "begins with something else"), (DENSE, {"version": 13}, "of version 13")],
        *[
            (DENSE, {"kind": 1}, "not trained to tell labels"),
            (DENSE, {"loss": 9}, "not trained to tell labels"),
        ],
        *[(DENSE, {"dim": 0}, "sizes"), (DENSE, {"longest": 3}, "sizes"), (DENSE, {"ngrams": 2}, "sizes")],
        *[
            (DENSE, {"bucket": 2, "longest": 3}, "too few rows"),
            (DENSE, {"bucket": 9, "longest": 99}, "sizes"),
        ],
        *[(DENSE, {"words": 5}, "number of words"), (DENSE, {"labels": 0, "words": 8}, "number of words")],
        *[(DENSE, {"word": 1}, "mixed"), (DENSE, {"label": 0}, "mixed"), (DENSE, {"quantized": 2}, "flag")],
        *[
            (DENSE, {"loss": 1, "count": 0}, "labels' counts"),
            (DENSE, {"loss": 1, "count": 10**15}, "labels' counts"),
        ],
        *[
            (DENSE, {"rows": 2**61}, "too early"),
            (DENSE, {"rows": -1}, "does not fit"),
            (DENSE, {"columns": 3}, "fit"),
        ],
        *[
            (DENSE, {"outputs": 3}, "too early|labels|after"),
            (DENSE, {"pruned": 0}, "pruned and not quantized"),
        ],
        *[(DENSE, {"pruned": 2**60}, "too early"), (QUANTIZED, {"codes": 15}, "does not fit")],
        *[
            (QUANTIZED, {"own": 5}, "quantizer"),
            (QUANTIZED, {"parts": 3}, "quantizer"),
            (QUANTIZED, {"last": 0}, "quantizer"),
        ],
        *[(QUANTIZED, {"width": 0}, "quantizer"), (QUANTIZED, {"codes": -1}, "too early")],
        *[
            (replace(BUCKETS, pruned=[(3, 2)]), {}, "too few rows"),
            (replace(BUCKETS, pruned=[(3, -1)]), {}, "negative"),
        ],
    ],
)
def test_numbers_that_would_lead_the_reader_astray_are_refused(
    tmp_path: Path, model: Model, numbers: dict[str, int], told: str
) -> None:
    path = _write(tmp_path, replace(model, numbers=model.numbers | numbers))
    with pytest.raises(CorpusError, match=told):
        build_identifier(str(path))


def test_what_passes_the_check_is_read_without_a_crash(tmp_path: Path) -> None:
    """Bytes changed at random: a file is refused, or another process loads it and answers."""
    draw = random.Random(5)
    passed = []
    for model in (DENSE, QUANTIZED, BUCKETS):
        whole = model.to_bytes()
        for number in range(200):
            changed = bytearray(whole)
            for _ in range(draw.choice([1, 1, 2])):
                changed[draw.randrange(min(len(whole), 400))] = draw.choice(
                    [0, 1, 127, 128, 255, draw.randrange(256)]
                )
            path = tmp_path / f"{len(whole)}_{number}.bin"
            path.write_bytes(changed)
            try:
                check_model(path)
            except CorpusError:
                continue
            passed.append(str(path))
    assert 100 < len(passed) < 500
    program = (
        "import sys, fasttext\n"
        "for path in sys.argv[1:]:\n"
        "    model = fasttext.load_model(path)\n"
        "    for line in ('alpha gamma omega', '中 ئەلف'):\n"
        "        try: model.predict(line, k=1)\n"
        "        except RuntimeError: pass\n"  # fastText's own, of numbers that are none
        "print('read', len(sys.argv) - 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *passed], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"read {len(passed)}\n"), done.stderr


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "no fastText model"), (b"PK\x03\x04", "no fastText model")]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"{path}: {told}"):
        build_identifier(str(path))
    with pytest.raises(CorpusError, match=r"no language identifier \(py3langid\), and no file"):
        build_identifier(str(tmp_path / "none.bin"))
