from pathlib import Path

import pytest
from pydantic import ValidationError

from megatron_ext.config.load import load_section
from megatron_ext.corpus.cleaning import CleaningConfig
from megatron_ext.corpus.cleaning.filters import FilterConfig
from megatron_ext.corpus.counts import CATEGORIES
from megatron_ext.corpus.duplicates.minhash import UNSPACED_SCRIPTS
from megatron_ext.errors import ConfigError


def read(folder: Path, text: str) -> CleaningConfig:
    file = folder / "cleaning.yaml"
    file.write_text(text)
    return load_section(file, CleaningConfig)


def test_a_category_goes_before_a_script_and_a_script_before_the_rest(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
filters: {min_words: 50, max_words: 1000}
scripts:
  Thai: {min_words: 40, max_symbol_share: null}
categories:
  paper: {filters: {min_words: 30}, repairs: {composition: false}}
""",
    )
    assert config.filters_for("Latn", "mono").min_words == 50
    thai = config.filters_for("Thai", "mono")
    assert (thai.min_words, thai.max_symbol_share, thai.max_words) == (40, None, 1000)
    assert config.filters_for("Thai", "paper").min_words == 30
    assert config.repairs_for("mono").composition
    assert not config.repairs_for("paper").composition


def test_presets_lie_under_what_is_written(tmp_path: Path) -> None:
    config = read(
        tmp_path, "scripts: {thai: {max_top_2gram: 0.5}}\ncategories: {code: {repairs: {white_space: true}}}"
    )
    thai = config.filters_for("Thai", "mono")
    assert (thai.max_top_2gram, thai.characters_per_word, thai.min_letter_words) == (0.5, 5, None)
    code = config.repairs_for("code")
    assert code.white_space
    assert not code.composition
    assert CleaningConfig().filters_for("Thai", "mono").max_top_2gram == 0.221


def test_what_is_written_down_reads_back_as_the_same(tmp_path: Path) -> None:
    config = read(tmp_path, "filters: {min_words: null}\nscripts: {Hang: {min_words: 3}}")
    dump = config.model_dump(mode="json")
    assert CleaningConfig.model_validate(dump).model_dump(mode="json") == dump
    assert dump["scripts"]["Kore"] == {"min_mean_word_length": 1.0, "min_words": 3}
    for script in (None, "Latn", "Kore", "Jpan"):
        for category in CATEGORIES:
            again = CleaningConfig.model_validate(dump)
            assert again.filters_for(script, category) == config.filters_for(script, category)
            assert again.repairs_for(category) == config.repairs_for(category)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filters: {min_wrods: 3}", "filters.min_wrods: unknown key; did you mean min_words"),
        ("filters: {max_words: many}", "filters.max_words=many"),
        ("scripts: {Thay: {min_words: 3}}", "'Thay' is no script of ISO 15924; the nearest are Thai"),
        ("scripts: {Thai: {min_wrods: 3}}", "unknown key; did you mean min_words"),
        ("categories: {cod: {}}", "cod is no category; did you mean code"),
        ("categories: {code: {repairs: {white_spaces: true}}}", "unknown key; did you mean white_space"),
        ("repairs: {ftfy: true}", "repairs.ftfy: unknown key"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "cleaning.yaml:1" in str(caught.value)


def test_scripts_without_spaces_count_characters() -> None:
    config = CleaningConfig()
    counting = {script for script in config.scripts if config.filters_for(script, "mono").characters_per_word}
    # Tibetan parts syllables. Those of Tai Viet and the like that are written with spaces today count words.
    assert UNSPACED_SCRIPTS - counting == {"Tibt", "Ahom", "Hrkt", "Tale", "Talu", "Tavt"}


def test_every_preset_is_a_value_that_could_be_written() -> None:
    config = CleaningConfig()
    for category in CATEGORIES:
        for script in config.scripts:
            filters = config.filters_for(script, category)
            assert FilterConfig.model_validate(filters.model_dump()) == filters
    with pytest.raises(ValidationError):
        CleaningConfig.model_validate({"filters": {"max_digit_share": 2.0}})
