"""Which sets can be read together, and under which rules for documents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from megatron_ext.config.section_data import DataConfig
from megatron_ext.data.indexed import DatasetStatistics, TokenizerIdentity, idx_path, statistics_path
from megatron_ext.data.samples import DocumentRules, TokenSet
from megatron_ext.errors import DataError

TOKEN_DTYPES = (np.dtype(np.uint16), np.dtype(np.int32))
SHOWN_IN_ERRORS = 5


def check_not_empty(sets: Sequence[TokenSet]) -> None:
    """Refuse training sets without a single label.

    Raises:
        DataError: names them.
    """
    empty = [str(tokens.dataset.prefix) for tokens in sets if tokens.num_tokens < 2]
    if empty:
        shown = ", ".join(empty[:SHOWN_IN_ERRORS]) + (", …" if len(empty) > SHOWN_IN_ERRORS else "")
        raise DataError(
            f"{len(empty)} of {len(sets)} training sets hold less than 2 tokens: {shown}; "
            "leave them out, or give them a larger share in data.split"
        )


def document_rules(config: DataConfig, eod_id: int | None) -> DocumentRules:
    """What the end-of-document token means to batches of a run.

    Raises:
        DataError: it is to mean something, and there is none.
    """
    options = ("eod_mask_loss", "reset_attention_mask", "reset_position_ids")
    wanted = [f"data.{option}" for option in options if getattr(config, option)]
    if wanted and eod_id is None:
        raise DataError(f"{wanted[0]}: the tokenizer has no end-of-document id; turn the option off")
    return DocumentRules(
        eod_id=eod_id if wanted else None,
        eod_mask_loss=config.eod_mask_loss,
        mark_boundaries=config.reset_attention_mask or config.reset_position_ids,
    )


def check_together(sets: Sequence[TokenSet], rules: DocumentRules) -> TokenizerIdentity | None:
    """Refuse sets whose ids mean different things, as far as files can tell.

    Returns:
        What made the ids, None where no set says.

    Raises:
        DataError: dtypes or tokenizers differ, or documents do not end as the rules need.
    """
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
