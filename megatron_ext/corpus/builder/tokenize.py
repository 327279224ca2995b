"""The last step: every set of a corpus as a ``.bin/.idx``."""

from pathlib import Path

from megatron_ext.corpus.builder.shards import TRAIN, VALID
from megatron_ext.corpus.counts import Corpus, PartCounts, SetCounts
from megatron_ext.corpus.manifest import TokenizeConfig
from megatron_ext.data.indexed import DatasetStatistics, idx_path
from megatron_ext.data.preprocess import preprocess_sets
from megatron_ext.data.preprocess_encode import EncodeSettings
from megatron_ext.tokenizer.build import build_tokenizer
from megatron_ext.utils.console import get_logger, global_rank

KEY = "text"

logger = get_logger(__name__)


def tokenize(
    corpus: Corpus, folder: Path, config: TokenizeConfig, *, workers: int | None, overwrite: bool
) -> Corpus:
    """Tokenize the text of a corpus, and count its tokens in ``corpus.json``.

    Args:
        corpus: that of ``folder``.
        folder: datasets are ``data/SIDE/CATEGORY/LABEL_text_document`` in it.
        config: the tokenizer.
        workers: as in `megatron_ext.data.preprocess`.
        overwrite: replace datasets of another tokenizer.

    Raises:
        DataError, TokenizerError, EndedByAnotherRankError: as in `megatron_ext.data.preprocess`.
    """
    identity = {
        "type": config.type,
        "model": config.model,
        "sha256": build_tokenizer(config.type, config.model).fingerprint,
    }
    if corpus.tokenizer == identity and _complete(corpus, folder):
        logger.info("its sets are tokenized already")
        return corpus
    inputs = {
        str(folder / "data" / side / one.name): [folder / file for file in part.files]
        for one in corpus.sets
        for side, part in ((TRAIN, one.train), (VALID, one.valid))
        if part.files
    }
    settings = EncodeSettings(config.type, config.model, (KEY,), config.append_eod, config.prepend_bos)
    report = preprocess_sets(inputs, settings, workers=workers, overwrite=overwrite)
    statistics = {
        result.prefix.relative_to(folder).as_posix(): result.statistics for result in report.datasets
    }
    sets = tuple(_with_tokens(one, statistics) for one in corpus.sets)
    corpus = corpus.model_copy(update={"sets": sets, "tokenizer": identity})
    if global_rank() == 0:
        corpus.write(folder)
    return corpus


def _complete(corpus: Corpus, folder: Path) -> bool:
    names = [name for one in corpus.sets for part in (one.train, one.valid) for name in part.datasets]
    return bool(names) and all(idx_path(folder / name).is_file() for name in names)


def _with_tokens(counts: SetCounts, statistics: dict[str, DatasetStatistics]) -> SetCounts:
    def side(name: str, part: PartCounts) -> PartCounts:
        prefix = f"data/{name}/{counts.name}_{KEY}_document"
        found = statistics.get(prefix)
        return part.model_copy(update={"tokens": found.tokens, "datasets": (prefix,)}) if found else part

    return counts.model_copy(update={"train": side(TRAIN, counts.train), "valid": side(VALID, counts.valid)})
