"""How near-duplicates are found, with the parameters that large corpora were made with."""

from typing import Literal

from megatron_ext.config.section import PositiveInt, Section

Preset = Literal["fineweb2", "hplt", "text_dedup"]


class MinHashConfig(Section):
    """MinHash with locality-sensitive hashing: texts that share all rows of one band are near-duplicates.

    Two texts whose shingles have the Jaccard index s share a band with the probability 1 - (1 - s^rows)^bands
    (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4.2). Pairs are not verified any further, as in
    FineWeb2: that would take all rows of every text on disk (16 times what the bands take) to refuse a few pairs
    below the threshold.
    """

    bands: PositiveInt = 14
    rows: PositiveInt = 8
    word_ngram: PositiveInt = 5
    # Where words are not written apart, five of them are eight to ten characters in Chinese and Japanese; 9 is
    # what Mining of Massive Datasets, 3.2.2, recommends for long documents.
    character_ngram: PositiveInt = 9
    seed: PositiveInt = 1

    def collision_probability(self, jaccard: float) -> float:
        """Of two texts whose shingles have this Jaccard index, in 0 to 1."""
        return 1.0 - (1.0 - jaccard**self.rows) ** self.bands


# FineWeb2: MinhashConfig of its published pipeline (fineweb-2-pipeline.py), arXiv 2506.20920. The other two publish a
# number of hashes and a Jaccard index; bands × rows is the division that makes false positives and false
# negatives fewest at that index (datasketch's optimal_param with equal weights, which text-dedup uses).
PRESETS: dict[Preset, MinHashConfig] = {
    "fineweb2": MinHashConfig(),
    "hplt": MinHashConfig(bands=16, rows=15),  # 240 hashes at 0.8, arXiv 2503.10267
    "text_dedup": MinHashConfig(bands=24, rows=10),  # 240 hashes at 0.7
}
