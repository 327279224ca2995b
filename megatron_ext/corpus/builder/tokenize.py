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
    sha256 = build_tokenizer(config.type, config.model).fingerprint
    inputs = {
        folder / "data" / side / one.name: [folder / file for file in part.files]
        for one in corpus.sets
        for side, part in ((TRAIN, one.train), (VALID, one.valid))
        if part.files
    }
    made = {prefix: _statistics(prefix) for prefix in inputs}
    wanted = (sha256, config.append_eod, config.prepend_bos)
    todo = {
        str(prefix): files
        for prefix, files in inputs.items()
        if (one := made[prefix]) is None or (one.tokenizer.sha256, one.append_eod, one.prepend_bos) != wanted
    }
    if todo:
        settings = EncodeSettings(config.type, config.model, (KEY,), config.append_eod, config.prepend_bos)
        preprocess_sets(todo, settings, workers=workers, overwrite=overwrite)
        made = {prefix: _statistics(prefix) for prefix in inputs}
    else:
        logger.info("all sets are tokenized already")
    sets = tuple(_with_tokens(one, folder, made) for one in corpus.sets)
    identity = {"type": config.type, "model": config.model, "sha256": sha256}
    counted = corpus.model_copy(update={"sets": sets, "tokenizer": identity})
    if global_rank() == 0 and counted != corpus:
        counted.write(folder)
    return counted


def _dataset(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}_{KEY}_document")


def _statistics(prefix: Path) -> DatasetStatistics | None:
    """Those of a complete dataset, which is of the text as it stands: other text goes with its datasets."""
    dataset = _dataset(prefix)
    unfinished = dataset.with_name(f".{dataset.name}.parts").exists()
    return None if unfinished or not idx_path(dataset).exists() else DatasetStatistics.read(dataset)


def _with_tokens(counts: SetCounts, folder: Path, made: dict[Path, DatasetStatistics | None]) -> SetCounts:
    def side(name: str, part: PartCounts) -> PartCounts:
        prefix = folder / "data" / name / counts.name
        statistics = made.get(prefix)
        if statistics is None:
            return part
        datasets = (_dataset(prefix).relative_to(folder).as_posix(),)
        return part.model_copy(update={"tokens": statistics.tokens, "datasets": datasets})

    return counts.model_copy(update={"train": side(TRAIN, counts.train), "valid": side(VALID, counts.valid)})
