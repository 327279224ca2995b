import pytest

from megatron_ext.model.vocabulary import padded_vocab_size


@pytest.mark.parametrize(
    ("vocab_size", "tensor_parallel", "padded"),
    [(259, 1, 259), (259, 2, 260), (260, 2, 260), (1, 8, 8), (32_000, 8, 32_000), (32_001, 8, 32_008)],
)
def test_rows_are_the_next_multiple(vocab_size: int, tensor_parallel: int, padded: int) -> None:
    assert padded_vocab_size(vocab_size, tensor_parallel) == padded
