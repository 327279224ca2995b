"""What there is to mix: sets with their token counts, from ``corpus.json`` or from a folder of tokenised sets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_ext.corpus.counts import CATEGORIES, FILE_NAME, Corpus, PartCounts, SetCounts
from megatron_ext.data.indexed import IndexedDataset
from megatron_ext.data.sets import NAME_SUFFIX
from megatron_ext.errors import CorpusError

TOKENIZER_TOKENS, WHITESPACE_TOKENS = "tokenizer's tokens", "whitespace tokens"


@dataclass(frozen=True)
class Dataset:
    """A tokenised file: its prefix as a run is to name it, and its tokens."""

    prefix: str
    tokens: int


@dataclass(frozen=True)
class MixtureSet:
    """All training text of one label in one category.

    Attributes:
        category: such as ``mono``.
        label: such as ``eng_Latn``.
        tokens: available, in the unit of the plan.
        whitespace_tokens: None where they were not counted.
        datasets: that hold the tokens; empty: not tokenised yet.
        valid: prefixes of held-out text.
    """

    category: str
    label: str
    tokens: int
    whitespace_tokens: int | None = None
    datasets: tuple[Dataset, ...] = ()
    valid: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``category/label``, which no other set has."""
        return f"{self.category}/{self.label}"


@dataclass(frozen=True)
class CountedSets:
    """The sets of a corpus, or of several.

    Attributes:
        sets: each name once.
        unit: what `MixtureSet.tokens` counts, in words.
    """

    sets: tuple[MixtureSet, ...]
    unit: str


def read_corpus(path: Path) -> CountedSets:
    """The sets of ``corpus.json`` (or of its folder), in tokenizer's tokens where all are tokenised.

    Raises:
        CorpusError: the file is missing or damaged, or only some of its sets are tokenised.
    """
    counts = Corpus.read(path)
    folder = path if path.is_dir() else path.parent
    tokenised = [one.train.tokens is not None for one in counts.sets]
    if any(tokenised) and not all(tokenised):
        missing = counts.sets[tokenised.index(False)].name
        raise CorpusError(
            f"{path}: some sets are tokenised and others, such as {missing}, are not; tokenise all of them, "
            "so that the mixture counts all in the same unit"
        )
    sets = tuple(_of_counts(folder, one) for one in counts.sets)
    _refuse_twice(path, [one.name for one in sets])
    return CountedSets(sets, TOKENIZER_TOKENS if tokenised and tokenised[0] else WHITESPACE_TOKENS)


def _of_counts(folder: Path, counts: SetCounts) -> MixtureSet:
    whitespace = counts.train.whitespace_tokens
    return MixtureSet(
        category=counts.category,
        label=counts.label,
        tokens=whitespace if counts.train.tokens is None else counts.train.tokens,
        whitespace_tokens=whitespace,
        datasets=_datasets(folder, counts.train),
        valid=tuple(str(folder / one) for one in counts.valid.datasets),
    )


def _datasets(folder: Path, part: PartCounts) -> tuple[Dataset, ...]:
    """Files and their tokens, which the counts tell only where there is one file."""
    if part.tokens is not None and len(part.datasets) == 1:
        return (Dataset(str(folder / part.datasets[0]), part.tokens),)
    return tuple(Dataset(str(folder / one), IndexedDataset(folder / one).num_tokens) for one in part.datasets)


def read_tokenised(folder: Path) -> CountedSets:
    """The sets of a folder of ``.bin``/``.idx`` files, or of its ``train`` and ``valid``, named by their files.

    A folder of a category's name, such as ``code``, gives the category of what lies in it; others are ``mono``.

    Raises:
        CorpusError: there are none, or two of the same name.
        DataError: one is damaged.
    """
    train = folder / "train" if (folder / "train").is_dir() else folder
    held_out: dict[str, str] = {}
    if train != folder:
        held_out = {_name(prefix): str(prefix) for prefix in _prefixes(folder / "valid")}
    sets = []
    for prefix in _prefixes(train):
        category, label = _name(prefix).split("/")
        tokens = IndexedDataset(prefix).num_tokens
        valid = (held_out[_name(prefix)],) if _name(prefix) in held_out else ()
        sets.append(MixtureSet(category, label, tokens, None, (Dataset(str(prefix), tokens),), valid))
    if not sets:
        raise CorpusError(
            f"{folder}: holds neither {FILE_NAME} nor tokenised sets (.idx); build one with "
            "tools/build_corpus.py or tools/preprocess_data.py"
        )
    _refuse_twice(folder, [one.name for one in sets])
    return CountedSets(tuple(sets), TOKENIZER_TOKENS)


def _prefixes(folder: Path) -> list[Path]:
    return [path.with_suffix("") for path in sorted(folder.rglob("*.idx"))]


def _name(prefix: Path) -> str:
    category = next((part for part in reversed(prefix.parent.parts) if part in CATEGORIES), "mono")
    return f"{category}/{prefix.name.removesuffix(NAME_SUFFIX)}"


def merged(sources: Sequence[CountedSets]) -> CountedSets:
    """Several corpora as one; sets of the same name are added up.

    Raises:
        CorpusError: they count in different units.
    """
    units = sorted({one.unit for one in sources})
    if len(units) > 1:
        raise CorpusError(f"the corpora count in {' and in '.join(units)}; tokenise all of them")
    sets: dict[str, MixtureSet] = {}
    for one in (one for source in sources for one in source.sets):
        known = sets.get(one.name)
        sets[one.name] = one if known is None else _added(known, one)
    return CountedSets(tuple(sets.values()), units[0])


def _added(first: MixtureSet, second: MixtureSet) -> MixtureSet:
    counted = (first.whitespace_tokens, second.whitespace_tokens)
    return replace(
        first,
        tokens=first.tokens + second.tokens,
        whitespace_tokens=None if None in counted else sum(one for one in counted if one is not None),
        datasets=first.datasets + second.datasets,
        valid=first.valid + second.valid,
    )


def _refuse_twice(path: Path, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise CorpusError(f"{path}: {name} is there twice; give each set once")
        seen.add(name)
