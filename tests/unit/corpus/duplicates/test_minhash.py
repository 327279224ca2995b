import math
import random

import numpy as np
import pytest
from numpy.typing import NDArray

from megatron_ext.corpus.duplicates.config import PRESETS, MinHashConfig, Preset
from megatron_ext.corpus.duplicates.keys import NO_KEY
from megatron_ext.corpus.duplicates.minhash import signatures

FINEWEB2 = PRESETS["fineweb2"]


def english(texts: list[str], config: MinHashConfig = FINEWEB2) -> NDArray[np.uint64]:
    return signatures(texts, ["Latn"] * len(texts), config)


def words(count: int, source: random.Random) -> list[str]:
    return ["".join(source.choices("abcdefghijklmnop", k=8)) for _ in range(count)]


def pair_of(shared: int, own: int, source: random.Random) -> tuple[str, str]:
    """Texts of ``shared`` words that begin both and of ``own`` that end each: all words differ."""
    begin = words(shared, source)
    return " ".join(begin + words(own, source)), " ".join(begin + words(own, source))


def jaccard(shared: int, own: int, length: int) -> float:
    common, each = shared - length + 1, shared + own - length + 1
    return common / (2 * each - common)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("own", [5, 10, 20, 40])
def test_pairs_collide_as_often_as_the_closed_formula_says(preset: Preset, own: int) -> None:
    config, shared, num_pairs = PRESETS[preset], 100, 1000
    source = random.Random(own)
    pairs = [pair_of(shared, own, source) for _ in range(num_pairs)]
    first, second = english([a for a, _ in pairs], config), english([b for _, b in pairs], config)
    collided = int((first == second).any(axis=1).sum())
    expected = config.collision_probability(jaccard(shared, own, config.word_ngram))
    deviation = math.sqrt(num_pairs * expected * (1 - expected))
    assert abs(collided - num_pairs * expected) <= 4 * deviation + 1


def test_the_formula_is_that_of_the_book() -> None:
    """Mining of Massive Datasets, figure 3.8: 20 bands of 5 rows."""
    config = MinHashConfig(bands=20, rows=5)
    found = [config.collision_probability(s / 10) for s in range(2, 9)]
    assert np.allclose(found, [0.006, 0.047, 0.186, 0.470, 0.802, 0.975, 0.9996], atol=1e-3)


@pytest.mark.parametrize(("preset", "threshold"), [("hplt", 0.8), ("text_dedup", 0.7)])
def test_a_published_threshold_is_divided_where_errors_are_fewest(preset: Preset, threshold: float) -> None:
    s = np.linspace(0, 1, 2001)

    def errors(bands: int, rows: int) -> float:
        collides = 1 - (1 - s**rows) ** bands
        return float(np.where(s < threshold, collides, 1 - collides).mean())

    divisions = [(bands, rows) for bands in range(1, 241) for rows in range(1, 240 // bands + 1)]
    best = min(divisions, key=lambda division: errors(*division))
    assert (PRESETS[preset].bands, PRESETS[preset].rows) == best


def test_a_signature_depends_on_its_text_and_the_seed_only() -> None:
    source = random.Random(0)
    texts = [" ".join(words(count, source)) for count in (3, 50, 0, 7, 4000)]
    together = english(texts)
    assert together.shape == (5, 14)
    assert np.array_equal(together, np.concatenate([english([text]) for text in texts]))
    assert np.array_equal(together[::-1], english(texts[::-1]))
    other_seed = english(texts, FINEWEB2.model_copy(update={"seed": 2}))
    assert (other_seed[1] != together[1]).all()


def test_a_text_shorter_than_a_shingle_has_no_keys() -> None:
    keys = english(["one two three four", "one two three four five", ""])
    assert (keys[[0, 2]] == NO_KEY).all()
    assert (keys[1] != NO_KEY).all()
    assert english(["", "short"]).tolist() == [[0] * 14] * 2
    assert english([]).shape == (0, 14)


def test_bands_need_no_number_to_differ() -> None:
    keys = english([f"all work and no play makes jack a dull boy {i}" * 3 for i in range(50)])
    assert not set(keys[:, 0].tolist()) & set(keys[:, 1:].ravel().tolist())


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    sentence = "人人生而自由在尊严和权利上一律平等他们赋有理性和良心并应以兄弟关系的精神相对待"
    other = "人人有资格享有本宣言所载的一切权利和自由不分种族肤色性别语言宗教政治或其他见解"
    texts = [sentence * 1, sentence + "。", other]
    keys = signatures(texts, ["Hani"] * 3, FINEWEB2)
    assert (keys[0] == keys[1]).all()
    assert (keys[0] != keys[2]).all()
    assert (signatures(texts, ["Latn"] * 3, FINEWEB2) == NO_KEY).all()
