import json
from pathlib import Path

import pytest

from megatron_ext.corpus.counts import Corpus, PartCounts, SetCounts
from megatron_ext.errors import CorpusError


def _corpus() -> Corpus:
    train = PartCounts(documents=2, characters=11, bytes=12, whitespace_tokens=4, tokens=6)
    return Corpus(sets=(SetCounts(category="mono", label="eng_Latn", train=train, sources={"web": 2}),))


def test_what_is_written_is_plain_json_and_reads_back_equal(tmp_path: Path) -> None:
    corpus = _corpus()
    corpus.write(tmp_path)
    (entry,) = json.loads((tmp_path / "corpus.json").read_text())["sets"]
    assert (entry["label"], entry["train"]["tokens"], entry["sources"]) == ("eng_Latn", 6, {"web": 2})
    assert Corpus.read(tmp_path) == Corpus.read(tmp_path / "corpus.json") == corpus
    assert corpus.sets[0].name == "mono/eng_Latn"
    assert corpus.sets[0].fertility == 1.5


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot be read"), ("{", "not the counts"), ('{"sets": [{"label": "x"}]}', "sets.0.category")],
)
def test_a_missing_or_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, content: str | None, told: str
) -> None:
    path = tmp_path / "corpus.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CorpusError, match=f"{path}.*{told}"):
        Corpus.read(tmp_path)
