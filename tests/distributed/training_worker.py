"""Processes of test_parallel_training.py: two of them, one layout after the other, all from one checkpoint.

Usage: training_worker.py FOLDER. Rank r leaves what it saw in FOLDER/rank{r}.pt.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.utils import unwrap_model

from megatron_ext.backend.device import select_backend
from megatron_ext.checkpoint.distributed import load_distributed, save_distributed
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.transformer import build_model, to_training_precision, transformer_config
from megatron_ext.optim.optimizer import build_optimizer, set_learning_rate, wrap_data_parallel
from megatron_ext.train.group_losses import GroupLosses
from megatron_ext.train.setup import form_groups, start_processes
from megatron_ext.train.step import StepOutcome, connect_schedule, train_step

VOCAB, SEQ, ROWS, STEPS = 259, 16, 8, 3
OWNERS = np.array([0, 2, 0, 1, 2, 2, 0, 0], dtype=np.int32)  # the set of each row of a global batch
LAYOUTS: dict[str, dict[str, Any]] = {
    "DP2": {},
    "DP2, distributed optimizer": {"use_distributed_optimizer": True, "overlap_grad_reduce": True},
    "TP2": {"tensor_model_parallel_size": 2},
    "TP2 SP": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "PP2": {"pipeline_model_parallel_size": 2},
    "CP2": {"context_parallel_size": 2},
}
HALVES = {"main_grads_dtype": "bf16", "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16"}
STATES: dict[str, dict[str, Any]] = {
    "18 bytes": {},
    "12 bytes": HALVES,
    "10 bytes": {**HALVES, "store_param_remainders": True},
}


def run_config(
    optimizer: dict[str, Any] | None = None,
    *,
    fused: bool = False,
    tied: bool = False,
    num_layers: int = 2,
    **parallel: Any,
) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "model": {
                "num_layers": num_layers, "hidden_size": 16, "ffn_hidden_size": 32, "num_attention_heads": 4,
                "num_query_groups": 2, "vocab_size": VOCAB, "untie_embeddings_and_output_weights": not tied,
            },
            "parallel": parallel,
            "kernels": {"fused": fused},
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {
                "micro_batch_size": 2, "global_batch_size": ROWS, "seq_length": SEQ, "train_iters": 10,
                "precision": "fp32" if optimizer is None else "bf16",
            },
            "optimizer": {"lr": 1e-2, **(optimizer or {})},
            "launch": {"nproc_per_node": 2},
        }
    )  # fmt: skip


class Training:
    """Model and optimizer of one layout, in this process."""

    def __init__(self, optimizer: dict[str, Any] | None = None, **settings: Any) -> None:
        self.config = run_config(optimizer, **settings)
        form_groups(self.config.parallel)
        torch.manual_seed(5)
        model_parallel_cuda_manual_seed(5)
        megatron = transformer_config(self.config, fused_kernels=False)
        bare = to_training_precision(build_model(self.config, megatron), megatron, torch.device("cpu"))
        self.model = wrap_data_parallel(self.config, megatron, bare)
        self.optimizer = build_optimizer(self.config, self.model)
        connect_schedule(self.model, self.optimizer)

    @property
    def bare(self) -> Any:
        return unwrap_model(self.model[0])

    def steps(self, first: int, last: int) -> list[tuple[float, ...]]:
        """Mean loss and gradient norm of these steps, and the sum of losses and tokens of each set."""
        return [self._report(self._step(number)) for number in range(first, last + 1)]

    def _step(self, number: int) -> StepOutcome:
        rank, size = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        tokens, mask = batch(number)
        share = [
            MicroBatch(tokens[row : row + 2], mask[row : row + 2], None, OWNERS[row : row + 2])
            for row in range(2 * rank, ROWS, 2 * size)
        ]
        return train_step(self.config, self.model, self.optimizer, share, number)

    @staticmethod
    def _report(outcome: StepOutcome) -> tuple[float, ...]:
        by_set = GroupLosses({"label": {"any": [0, 1, 2]}}, 3, torch.device("cpu"))
        by_set.add(outcome)
        totals = torch.cat([outcome.loss, by_set.take()])
        dist.all_reduce(totals)
        loss_sum, num_tokens, *sums = totals.tolist()
        return loss_sum / num_tokens, float(outcome.grad_norm), *sums


def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and loss mask of a global batch; rows keep 2, 4, … tokens, so that ranks differ in how many."""
    tokens = np.random.default_rng(number).integers(0, VOCAB, (ROWS, SEQ + 1)).astype(np.uint16)
    kept = np.arange(SEQ) < 2 * np.arange(1, ROWS + 1)[:, None]
    return tokens, kept.astype(np.uint8)


def by_autograd(model: Any) -> tuple[float, ...]:
    """As of a step, of the first batch from its logits, in one piece: no schedule, no reduction."""
    for module in model.modules():
        if hasattr(module, "gradient_accumulation_fusion"):
            module.gradient_accumulation_fusion = False  # it hands autograd no gradient
    tokens, mask = (torch.from_numpy(array).long() for array in batch(1))
    logits = model(tokens[:, :-1], None, None).double()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    losses = losses * mask.flatten()
    loss = losses.sum() / mask.sum()
    own = [torch.from_numpy(index == OWNERS) for index in range(3)]
    sums = [float(part[rows].sum()) for rows in own for part in (losses.detach().view_as(mask), mask)]
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return (
        float(loss),
        float(torch.cat([gradient.flatten() for gradient in gradients]).double().norm()),
        *sums,
    )


def check_weight_decay(training: Training) -> dict[str, float]:
    """Factor by which a step without gradients shrinks each weight, at learning rate 0.1 and decay 0.5."""
    before = {name: weight.detach().clone() for name, weight in training.bare.named_parameters()}
    training.model[0].zero_grad_buffer()
    training.optimizer.zero_grad()
    set_learning_rate(training.optimizer, 0.1, 0.5)
    training.optimizer.step()
    return {
        name: float(weight.detach().norm() / before[name].norm())
        for name, weight in training.bare.named_parameters()
    }


def check_padding(training: Training) -> dict[str, Any]:
    """Logits of the last column and gradients of the last rows, which on the last rank no token has."""
    training.steps(1, 1)
    tokens = torch.from_numpy(batch(1)[0]).long()
    with torch.no_grad():
        logits = training.bare(tokens[:, :-1], None, None)
    rows = (training.bare.embedding.word_embeddings.weight, training.bare.output_layer.weight)
    return {
        "columns": logits.shape[-1],
        "last logits": (logits[..., -1].min().item(), logits[..., -1].max().item()),
        "gradients": [weight.main_grad[-1].abs().max().item() for weight in rows],
    }


def check_distributed_optimizer(folder: Path) -> dict[str, Any]:
    """Two steps, a save, a load into a new one, two steps in both."""
    layout = {"use_distributed_optimizer": True}
    training = Training(**layout)
    load_distributed(folder / "start", training.model, training.optimizer, with_optimizer=False)
    training.steps(1, 2)
    save(folder / "middle", training)
    through = training.steps(3, 4)
    weights = [weight.detach().clone() for weight in training.bare.parameters()]
    resumed = Training(**layout)
    load_distributed(folder / "middle", resumed.model, resumed.optimizer, with_optimizer=True)
    (inner,) = resumed.optimizer.chained_optimizers
    loaded_steps = inner.optimizer.steps
    again = resumed.steps(3, 4)
    return {
        "steps": (loaded_steps, inner.optimizer.steps),
        "through": through,
        "resumed": again,
        "equal weights": all(map(torch.equal, weights, resumed.bare.parameters())),
    }


def check_states(folder: Path) -> dict[str, Any]:
    """As above, for each choice of states; and one choice from a checkpoint of another."""
    layout = {"use_distributed_optimizer": True, "overlap_grad_reduce": True, "overlap_param_gather": True}
    seen: dict[str, Any] = {}
    for number, (name, choice) in enumerate(STATES.items()):
        training = Training(choice, **layout)
        load_distributed(folder / "start", training.model, training.optimizer, with_optimizer=False)
        first = training.steps(1, 2)
        save(folder / f"states{number}", training)
        saved = states(training)
        through = training.steps(3, 4)
        resumed = Training(choice, **layout)
        load_distributed(folder / f"states{number}", resumed.model, resumed.optimizer, with_optimizer=True)
        loaded = states(resumed)
        again = resumed.steps(3, 4)
        equal_states = all(map(torch.equal, states(training), states(resumed)))
        load_distributed(folder / f"states{number}", resumed.model, resumed.optimizer, with_optimizer=False)
        exported = [weight.detach() for weight in resumed.bare.parameters()]
        kept = sum(
            buffer.nbytes
            for flat, _ in training.optimizer.optimizer.shards
            for buffer in (flat.master, flat.exp_avg, flat.exp_avg_sq)
        )
        seen[name] = {
            "first": first,
            "through": through,
            "resumed": again,
            "loaded as saved": all(map(torch.equal, saved, loaded)),
            "weights alone": all(map(torch.equal, saved, exported)),
            "equal states": equal_states,
            "bytes": kept,
            "values": sum(flat.weights.numel() for flat, _ in training.optimizer.optimizer.shards),
        }
    other = Training(STATES["18 bytes"], **layout)
    load_distributed(folder / "states2", other.model, other.optimizer, with_optimizer=True)
    compact = Training(STATES["10 bytes"], **layout)
    load_distributed(folder / "states2", compact.model, compact.optimizer, with_optimizer=True)
    seen["another choice"] = all(map(torch.equal, states(other), states(compact)))
    return seen


def states(training: Training) -> list[torch.Tensor]:
    """Master weights and moments of this rank as fp32, and the model's weights."""
    (part,) = training.optimizer.chained_optimizers
    found = [weight.detach().clone() for weight in training.bare.parameters()]
    for weight in part.model_param_group_index_map:
        kept = part._get_main_param_and_optimizer_states(weight)
        found += [kept[name].float().clone() for name in ("param", "exp_avg", "exp_avg_sq")]
    return found


def fill(model: Any) -> None:
    """The same weights in every process, whether or not megatron-core has initialised its own."""
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        mean, spread = (1.0, 0.1) if weight.dim() == 1 else (0.0, 0.2)
        weight.data.copy_(mean + spread * torch.randn(weight.shape, generator=generator))


def save(folder: Path, training: Training) -> None:
    folder.mkdir(exist_ok=True)
    dist.barrier()
    save_distributed(folder, training.model, training.optimizer)


def main() -> None:
    folder = Path(sys.argv[1])
    environment = ProcessEnvironment.detect()
    start_processes(run_config(), environment, select_backend("cpu", 0, 2))
    seen: dict[str, Any] = {"layouts": {}}
    origin = Training()
    fill(origin.bare)
    save(folder / "start", origin)
    seen["autograd"] = by_autograd(origin.bare)
    seen["weight decay"] = check_weight_decay(origin)
    for name, parallel in LAYOUTS.items():
        training = Training(**parallel)
        load_distributed(folder / "start", training.model, training.optimizer, with_optimizer=False)
        seen["layouts"][name] = training.steps(1, STEPS)
        if name == "TP2":
            seen["padding"] = check_padding(training)
    seen["distributed optimizer"] = check_distributed_optimizer(folder)
    seen["states"] = check_states(folder)
    torch.save(seen, folder / f"rank{environment.rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
