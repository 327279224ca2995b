"""The decoder layer on our Triton kernels: megatron-core's modules, weights and checkpoints, other passes between them.

For training with the Llama layer of ``transformer.py`` only: no dropout, no bias but that of
queries, keys and values, no caches for generation. The
attention's residual addition and the norm behind it are one kernel. The MLP's addition and the next layer's norm stay
two: megatron-core passes one tensor from layer to layer, and pipeline stages send it.
"""

from functools import partial
from typing import Any

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, checkpoint
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayer

from megatron_ext.kernels.fused.rms_norm import add_rms_norm, forked_rms_norm, rms_norm
from megatron_ext.kernels.fused.rope import rope_packed
from megatron_ext.kernels.fused.swiglu import fill_with_swiglu, swiglu
from megatron_ext.kernels.recompute import discard_until_backward
from megatron_ext.kernels.rms_norm import RMSNorm


class FusedRMSNorm(RMSNorm):
    """The same weight, normalised with in one kernel."""

    eps: float

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None, *, forked: bool = False) -> Any:
        """[..., hidden] → the same, normalised.

        Args:
            x: what is normalised.
            residual: as ``x``; if it is given, the sum is normalised, and comes as a second result.
            forked: whether ``x`` comes as a second result, for its other use.
        """
        if residual is not None:
            return add_rms_norm(x, residual, self.weight, self.eps)
        return (forked_rms_norm if forked else rms_norm)(x, self.weight, self.eps)


class FusedSelfAttention(SelfAttention):  # type: ignore[misc]
    """Splits the projection, a bias added, and turns queries and keys in one kernel; it has no norms of these."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary_pos_emb: torch.Tensor,
        packed_seq_params: Any = None,
        **_of_generation: Any,
    ) -> tuple[torch.Tensor, None]:
        """[seq, batch, hidden] → the same; ``rotary_pos_emb`` is a :class:`RotaryTable`'s, [seq, 1, 1, head_size]."""
        mixed_qkv, _ = self.linear_qkv(hidden_states)
        groups = self.num_query_groups_per_partition
        heads_per_group = self.num_attention_heads_per_partition // groups
        query, key, value = rope_packed(mixed_qkv, rotary_pos_emb, groups, heads_per_group)
        recompute = self.checkpoint_core_attention and self.training
        attend = self._checkpointed_attention_forward if recompute else self.core_attention
        context = attend(
            query,
            key,
            value,
            attention_mask,
            attn_mask_type=self.attn_mask_type,
            packed_seq_params=packed_seq_params,
        )
        output, bias = self.linear_proj(context)
        return output, bias


class FusedMLP(MLP):  # type: ignore[misc]
    """Keeps fc1's output only: what enters fc2 is computed again when fc2's weight gradient needs it.

    One more pass over memory (0.3 % of a layer's time at Llama 2 7B's shapes) for 2 × ffn_hidden_size bytes a token.
    """

    def __init__(self, config: Any) -> None:
        # Not from a spec: megatron-core's layer warns of one for a subclass of MLP.
        products = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
        super().__init__(config, products, ffn_hidden_size=config.ffn_hidden_size)
        again = config.recompute_modules if config.recompute_granularity == "selective" else ()
        self.runs_twice = "mlp" in again

    def forward(self, hidden_states: torch.Tensor, **_of_experts: Any) -> tuple[torch.Tensor, None]:
        """[seq, batch, hidden] → the same."""
        gate_up, _ = self.linear_fc1(hidden_states)
        gate_up = gate_up.contiguous()
        activated = swiglu(gate_up)
        output, bias = self.linear_fc2(activated)
        if not self.runs_twice:  # or it would be computed a third time, right after the second
            discard_until_backward(activated, output, partial(fill_with_swiglu, gate_up.detach()))
        return output, bias


class FusedTransformerLayer(TransformerLayer):  # type: ignore[misc]
    """Adds and normalises in one kernel after attention.

    Norms are called as modules: megatron-core may have their weights gathered still, and waits in hooks of the call.
    """

    def forward(self, hidden_states: torch.Tensor, **passed: Any) -> tuple[torch.Tensor, None]:
        """[seq, batch, hidden] → the same, and None for the context that cross attention would return."""
        normed, hidden_states = self.input_layernorm(hidden_states, forked=True)
        attention, _ = self.self_attention(
            normed,
            attention_mask=passed["attention_mask"],
            rotary_pos_emb=passed["rotary_pos_emb"],
            packed_seq_params=passed.get("packed_seq_params"),
        )
        normed, residual = self.pre_mlp_layernorm(attention, hidden_states)
        output, _ = checkpoint(self.mlp, False, normed) if self.recompute_mlp else self.mlp(normed)
        return residual + output, None
