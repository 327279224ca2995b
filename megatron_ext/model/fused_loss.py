"""GPTModel whose loss is our Triton cross entropy, on logits or together with the output projection."""

from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)

from megatron_ext.kernels.fused.cross_entropy import VocabularyPart, cross_entropy
from megatron_ext.kernels.fused.linear_cross_entropy import linear_cross_entropy
from megatron_ext.model.vocabulary import real_columns


class FusedLossModel(GPTModel):  # type: ignore[misc]
    """Losses without fp32 logits; padding of the vocabulary has no probability in them.

    Attributes:
        vocab_part: the columns of the vocabulary that this process holds, on the last pipeline stage.
        chunk_tokens: tokens whose logits exist at a time; None for all of a micro-batch.
    """

    vocab_part: VocabularyPart
    chunk_tokens: int | None

    def set_loss(self, vocab_size: int, chunk_tokens: int | None) -> None:
        """Fix what the losses are over; ``vocab_size`` is without padding."""
        self.chunk_tokens = chunk_tokens
        if self.post_process:
            group = self.pg_collection.tp
            columns = self.output_layer.output_size_per_partition
            first = group.rank() * columns
            self.vocab_part = VocabularyPart(
                first, real_columns(first, columns, vocab_size), group if group.size() > 1 else None
            )

    def compute_language_model_loss(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Labels [batch, seq] and logits [seq, batch, columns] → losses, fp32 [batch, seq]."""
        return cross_entropy(logits, labels.t(), self.vocab_part).t().contiguous()

    def _postprocess(self, hidden_states: torch.Tensor, *args: Any, **passed: Any) -> torch.Tensor:
        """Losses, hidden states or logits, as megatron-core's; the projection is skipped where the loss has it."""
        labels = passed.get("labels")
        if self.chunk_tokens is None or labels is None or not self.post_process:
            output: torch.Tensor = super()._postprocess(hidden_states, *args, **passed)
            if labels is None and self.post_process:
                output[..., self.vocab_part.real :] = torch.finfo(output.dtype).min
            return output
        for wait in self.output_layer._forward_pre_hooks.values():
            # The layer is not called, but megatron-core may have its weight gathered still.
            wait(self.output_layer, ())
        tied = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if tied else self.output_layer.weight
        parallel = self.config.sequence_parallel
        spread = gather_from_sequence_parallel_region if parallel else copy_to_tensor_model_parallel_region
        hidden_states = spread(hidden_states, group=self.pg_collection.tp)
        losses = linear_cross_entropy(hidden_states, weight, labels.t(), self.vocab_part, self.chunk_tokens)
        return losses.t().contiguous()
