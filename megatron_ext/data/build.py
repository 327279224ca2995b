"""From the ``data`` section of a run to what it trains on and what it validates on."""

import glob
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron_ext.config.sections import DataConfig, DatasetConfig
from megatron_ext.data.blend import BlendedDataset, ValidationDataset, normalised
from megatron_ext.data.indexed import (
    DatasetStatistics,
    IndexedDataset,
    TokenizerIdentity,
    bin_path,
    idx_path,
    statistics_path,
)
from megatron_ext.data.plan import describe_training, describe_validation
from megatron_ext.data.samples import DocumentRules, TokenSet
from megatron_ext.errors import DataError
from megatron_ext.utils.console import get_logger

TOKEN_DTYPES = (np.dtype(np.uint16), np.dtype(np.int32))
NAME_SUFFIX = "_text_document"
SHOWN_IN_ERRORS = 5

logger = get_logger(__name__)


@dataclass(frozen=True)
class Datasets:
    """What a run reads.

    Attributes:
        train: the blend.
        valid: the held-out windows, None where none are asked for.
        tokenizer: what made the ids, None where no set says; sets that disagree are refused.
    """

    train: BlendedDataset
    valid: ValidationDataset | None
    tokenizer: TokenizerIdentity | None


@dataclass(frozen=True)
class _Entry:
    """The sets that one item of ``data.train`` or ``data.valid`` names."""

    key: str
    config: DatasetConfig
    sets: tuple[TokenSet, ...]


def build_datasets(
    config: DataConfig, *, seq_length: int, seed: int, train_samples: int, eod_id: int | None
) -> Datasets:
    """Open every set, check that they belong together, work out the blend and log it as a plan.

    Args:
        config: the ``data`` section.
        seq_length: tokens of a sample.
        seed: of the samples' order.
        train_samples: samples that the whole run reads.
        eod_id: the id that ends a document; needed by ``eod_mask_loss`` and the two ``reset_`` options.

    Raises:
        DataError: a path names nothing, a set is empty or damaged, sets do not fit each other or the options.
    """
    opened: dict[Path, IndexedDataset] = {}
    entries = _dropped_zero_weights(_open_entries("data.train", config.train, opened))
    valid = _held_out(config, entries, opened)
    train = _split_entries(entries, config.split, 0)
    train_sets = _sets_of(train)
    _check_not_empty(train_sets)
    rules = _document_rules(config, eod_id)
    tokenizer = _check_together(train_sets + valid, rules)

    blended = BlendedDataset(
        train_sets,
        _shares(train, config.blend_alpha),
        order=config.order,
        seq_length=seq_length,
        seed=seed,
        train_samples=train_samples,
        rules=rules,
    )
    num_tokens = np.array([tokens.num_tokens for tokens in train_sets], dtype=np.int64)
    for line in describe_training(blended, num_tokens, str(train_sets[0].dataset.dtype), train_samples):
        logger.info(line)
    validation = ValidationDataset(valid, seq_length=seq_length, rules=rules) if valid else None
    if validation is not None:
        logger.info(describe_validation(validation))
    return Datasets(blended, validation, tokenizer)


def split_boundaries(split: str, num_sequences: int) -> tuple[tuple[int, int], ...]:
    """First and end sequence of train, valid and test, rounded as megatron-core does.

    Args:
        split: up to three shares, such as ``98,1,1``; they need not add up to anything.
        num_sequences: of the set.

    Raises:
        DataError: the text is not a split.
    """
    ends = itertools.accumulate(_split_shares(split), initial=0.0)  # one by one: megatron-core's rounding
    edges = [round(end * float(num_sequences)) for end in ends]
    return tuple(itertools.pairwise(edges))


def _split_shares(split: str) -> list[float]:
    try:
        shares = [float(part) for part in split.split(",")]
    except ValueError:
        shares = []
    usable = all(math.isfinite(share) and share >= 0 for share in shares)
    if not 1 <= len(shares) <= 3 or not usable or sum(shares) <= 0:
        raise DataError(f"data.split: {split!r} is not a split; write train,valid,test shares such as 98,1,1")
    return [float(share) for share in normalised(shares + [0.0] * (3 - len(shares)))]


def _open_entries(
    key: str, entries: Sequence[DatasetConfig], opened: dict[Path, IndexedDataset]
) -> list[_Entry]:
    """Open all sets of a list of entries; no set may come twice, and their names are unique in the list."""
    prefixes = {f"{key}[{i}]": _expand(f"{key}[{i}]", entry.path) for i, entry in enumerate(entries)}
    owners: dict[Path, str] = {}
    for entry_key, matches in prefixes.items():
        for prefix in matches:
            if prefix in owners:
                raise DataError(f"{prefix}: named by {owners[prefix]} and by {entry_key}; name each set once")
            owners[prefix] = entry_key
    names = _names(owners)
    found = []
    for (entry_key, matches), entry in zip(prefixes.items(), entries, strict=True):
        sets = tuple(_open_set(prefix, names[prefix], opened) for prefix in matches)
        found.append(_Entry(entry_key, entry, sets))
    return found


def _expand(key: str, path: str) -> list[Path]:
    """Prefixes that a path or pattern names, sorted."""
    if path.endswith((".bin", ".idx")):
        raise DataError(f"{key}: {path}: give the prefix, without {path[-4:]}")
    if idx_path(Path(path)).exists():  # a literal name may hold brackets
        return [Path(path)]
    # Path.glob takes no absolute pattern.
    matches = sorted(glob.glob(f"{path}.idx", recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207
    if not matches:
        raise DataError(
            f"{key}: no dataset matches {path} (looked for {path}.idx); tools/preprocess_data.py makes them"
        )
    return [Path(match.removesuffix(".idx")) for match in matches]


def _names(prefixes: Iterable[Path]) -> dict[Path, str]:
    """File stems; where two are equal, as many folders before them as tell them apart."""
    paths = list(prefixes)
    names = {path: path.name.removesuffix(NAME_SUFFIX) for path in paths}
    for depth in range(1, max((len(path.parts) for path in paths), default=1)):
        counts = Counter(names.values())
        for path, name in names.items():
            if counts[name] > 1 and depth < len(path.parts):
                names[path] = f"{path.parts[-1 - depth]}/{name}"
    return names


def _open_set(prefix: Path, name: str, opened: dict[Path, IndexedDataset]) -> TokenSet:
    if not bin_path(prefix).exists():
        raise DataError(f"{bin_path(prefix)}: missing beside {idx_path(prefix)}; preprocess the text again")
    dataset = opened.setdefault(prefix, IndexedDataset(prefix))
    return TokenSet(name, dataset, 0, dataset.num_sequences, DatasetStatistics.read(prefix))


def _held_out(config: DataConfig, train: list[_Entry], opened: dict[Path, IndexedDataset]) -> list[TokenSet]:
    """Sets with text to validate on; a few of many may be too small to hold any out."""
    if config.split is not None and config.valid:
        raise DataError("data.split and data.valid both hold text out; give one of them")
    for index, entry in enumerate(config.valid):
        if entry.weight is not None:
            raise DataError(f"data.valid[{index}].weight: validation reads all held-out text once; remove it")
    if config.split is not None:
        asked = _split_shares(config.split)[1] > 0
        entries = _split_entries(train, config.split, 1)
    else:
        asked = bool(config.valid)
        entries = _open_entries("data.valid", config.valid, opened)
    sets = [tokens for tokens in _sets_of(entries) if tokens.num_tokens > 1]  # a single token has no label
    if asked and not sets:
        key = "data.valid" if config.valid else f"data.split={config.split}"
        raise DataError(f"{key}: there is no text to validate on; every part is shorter than 2 tokens")
    return sets


def _split_entries(entries: list[_Entry], split: str | None, part: int) -> list[_Entry]:
    if split is None:
        return entries
    return [
        replace(entry, sets=tuple(_part_of(tokens, split, part) for tokens in entry.sets))
        for entry in entries
    ]


def _part_of(tokens: TokenSet, split: str, part: int) -> TokenSet:
    first, end = split_boundaries(split, tokens.dataset.num_sequences)[part]
    return replace(tokens, first_sequence=first, end_sequence=end)


def _sets_of(entries: Iterable[_Entry]) -> list[TokenSet]:
    return [tokens for entry in entries for tokens in entry.sets]


def _dropped_zero_weights(entries: list[_Entry]) -> list[_Entry]:
    dropped = [entry for entry in entries if entry.config.weight == 0]
    if len(dropped) == len(entries):
        raise DataError("data.train: every weight is 0; give at least one set a share")
    for entry in dropped:
        logger.info("%s: %s has weight 0 and is not read", entry.key, entry.config.path)
    return [entry for entry in entries if entry not in dropped]


def _shares(entries: list[_Entry], alpha: float) -> NDArray[np.float64]:
    """Weight of each set, in the order of `_sets_of`; they add up to 1 but for rounding."""
    missing = [entry.key for entry in entries if entry.config.weight is None]
    if not missing:
        total = math.fsum(entry.config.weight or 0.0 for entry in entries)
        parts = [(entry.config.weight or 0.0) / total * _by_size(entry.sets, alpha) for entry in entries]
        return np.concatenate(parts)
    if len(missing) < len(entries):
        raise DataError(
            f"{missing[0]}: has no weight, but other entries of data.train do; weight all of them or none"
        )
    return _by_size(_sets_of(entries), alpha)


def _by_size(sets: Sequence[TokenSet], alpha: float) -> NDArray[np.float64]:
    sizes = np.array([tokens.num_tokens for tokens in sets], dtype=np.float64) ** alpha
    return np.asarray(sizes / sizes.sum(), dtype=np.float64)


def _check_not_empty(sets: list[TokenSet]) -> None:
    empty = [str(tokens.dataset.prefix) for tokens in sets if tokens.num_tokens < 2]
    if empty:
        shown = ", ".join(empty[:SHOWN_IN_ERRORS]) + (", …" if len(empty) > SHOWN_IN_ERRORS else "")
        raise DataError(
            f"{len(empty)} of {len(sets)} training sets hold less than 2 tokens: {shown}; "
            "leave them out, or give them a larger share in data.split"
        )


def _document_rules(config: DataConfig, eod_id: int | None) -> DocumentRules:
    options = ("eod_mask_loss", "reset_attention_mask", "reset_position_ids")
    wanted = [f"data.{option}" for option in options if getattr(config, option)]
    if wanted and eod_id is None:
        raise DataError(f"{wanted[0]}: the tokenizer has no end-of-document id; turn the option off")
    return DocumentRules(
        eod_id=eod_id if wanted else None,
        eod_mask_loss=config.eod_mask_loss,
        mark_boundaries=config.reset_attention_mask or config.reset_position_ids,
    )


def _check_together(sets: list[TokenSet], rules: DocumentRules) -> TokenizerIdentity | None:
    """Refuse sets whose ids mean different things, as far as files can tell."""
    first = sets[0].dataset
    known: tuple[Path, TokenizerIdentity] | None = None
    for tokens in sets:
        dataset = tokens.dataset
        if dataset.dtype not in TOKEN_DTYPES:
            raise DataError(
                f"{idx_path(dataset.prefix)}: tokens of {dataset.dtype}; only uint16 and int32 are trained on"
            )
        if dataset.dtype != first.dtype:
            raise DataError(
                f"{idx_path(dataset.prefix)}: tokens of {dataset.dtype}, but of {first.dtype} in "
                f"{idx_path(first.prefix)}; preprocess both with one tokenizer"
            )
        if tokens.statistics is not None:
            _check_eod(dataset.prefix, tokens.statistics, rules)
            known = known or (dataset.prefix, tokens.statistics.tokenizer)
            if tokens.statistics.tokenizer != known[1]:
                raise DataError(
                    f"{statistics_path(dataset.prefix)}: made with another tokenizer than {known[0]}; "
                    "preprocess both with one tokenizer"
                )
    return known[1] if known else None


def _check_eod(prefix: Path, statistics: DatasetStatistics, rules: DocumentRules) -> None:
    if rules.eod_id is None:
        return
    if not statistics.append_eod:
        raise DataError(
            f"{statistics_path(prefix)}: its documents do not end with EOD, which data.eod_mask_loss and "
            "data.reset_* look for; preprocess with --append-eod, or turn these options off"
        )
    if statistics.eod_id != rules.eod_id:
        raise DataError(
            f"{statistics_path(prefix)}: EOD is {statistics.eod_id} there, but {rules.eod_id} in the run's "
            "tokenizer; preprocess again with that one"
        )
