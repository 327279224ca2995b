"""What must hold between the values of ``training`` and ``optimizer``: schedule, batch and precision."""

from collections.abc import Iterator

from megatron_ext.config.sections import RunConfig
from megatron_ext.config.violation import Rule, Violation

FP8_MULTIPLE = 16
"""Of the sizes of a matrix product, as cuBLAS asks for."""
BF16_LARGEST_BETA = 0.996
"""1 - 2⁻⁸, rounded down: half the distance between 1 and the next bf16 value is the least change that is not lost."""


def _schedule(run: RunConfig) -> Iterator[Violation]:
    optimizer = run.optimizer
    if optimizer.min_lr > optimizer.lr:
        yield Violation(
            ("optimizer.min_lr", "optimizer.lr"),
            f"optimizer.min_lr={optimizer.min_lr:g} is above lr={optimizer.lr:g}; nearest: {optimizer.lr:g}",
        )
    end = optimizer.decay_end(run.training.train_iters)
    name = next(
        (key for key in ("lr_decay_iters", "rewarm_from_iters") if getattr(optimizer, key)),
        "training.train_iters",
    )
    if optimizer.lr_warmup_iters >= end:
        yield Violation(
            ("optimizer.lr_warmup_iters", "optimizer.lr_decay_iters", "training.train_iters"),
            f"optimizer.lr_warmup_iters={optimizer.lr_warmup_iters} leaves no step to decay in, with "
            f"{name}={end}; nearest: {end - 1}",
        )


def _wsd(run: RunConfig) -> Iterator[Violation]:
    optimizer = run.optimizer
    decay = optimizer.lr_wsd_decay_iters
    if (optimizer.lr_decay_style == "WSD") != (decay is not None):
        yield Violation(
            ("optimizer.lr_wsd_decay_iters", "optimizer.lr_decay_style"),
            "optimizer.lr_wsd_decay_iters: lr_decay_style=WSD needs it, and no other style has it; a tenth of the "
            f"run would be {max(1, run.training.train_iters // 10)}",
        )
    elif decay is not None:
        room = optimizer.decay_end(run.training.train_iters) - optimizer.lr_warmup_iters
        if optimizer.rewarm_from_iters is not None:
            room = min(room, run.training.train_iters - optimizer.rewarm_from_iters - optimizer.rewarm_iters)
        if decay > room:
            yield Violation(
                ("optimizer.lr_wsd_decay_iters",),
                f"optimizer.lr_wsd_decay_iters={decay} does not fit between warm-up and the decay's end; "
                f"nearest: {max(0, room)}",
            )


def _rewarming(run: RunConfig) -> Iterator[Violation]:
    optimizer, train_iters = run.optimizer, run.training.train_iters
    begin, peak = optimizer.rewarm_from_iters, optimizer.rewarm_lr
    if begin is None:
        for name, given in (("rewarm_iters", optimizer.rewarm_iters > 0), ("rewarm_lr", peak is not None)):
            if given:
                yield Violation(
                    (f"optimizer.{name}",),
                    f"optimizer.{name} has no effect without rewarm_from_iters; set that",
                )
        return
    if begin + optimizer.rewarm_iters >= train_iters:
        yield Violation(
            ("optimizer.rewarm_from_iters", "optimizer.rewarm_iters", "training.train_iters"),
            f"optimizer.rewarm_from_iters + rewarm_iters = {begin} + {optimizer.rewarm_iters} leaves no step to "
            f"decay in, with training.train_iters={train_iters}; raise train_iters by the steps on new data",
        )
    if optimizer.lr_decay_iters is not None and optimizer.lr_decay_iters > begin:
        yield Violation(
            ("optimizer.lr_decay_iters", "optimizer.rewarm_from_iters"),
            f"optimizer.lr_decay_iters={optimizer.lr_decay_iters} is after rewarm_from_iters={begin}: it ends the "
            f"decay before the re-warming, and train_iters the one after; nearest: {begin}",
        )
    if peak is not None and peak < optimizer.min_lr:
        yield Violation(
            ("optimizer.rewarm_lr", "optimizer.min_lr"),
            f"optimizer.rewarm_lr={peak:g} is below min_lr={optimizer.min_lr:g}; nearest: {optimizer.min_lr:g}",
        )


def _rampup(run: RunConfig) -> Iterator[Violation]:
    training = run.training
    if training.rampup_batch_size is None:
        return
    start, increment, _ = training.rampup_batch_size
    key = ("training.rampup_batch_size",)
    if start >= training.global_batch_size:
        yield Violation(
            key,
            f"training.rampup_batch_size starts at {start}, which is not below "
            f"global_batch_size={training.global_batch_size}; remove the key, or start lower",
        )
    elif (training.global_batch_size - start) % increment:
        yield Violation(
            key,
            f"training.rampup_batch_size: from {start} in steps of {increment} the batch never is "
            f"global_batch_size={training.global_batch_size}; choose an increment that divides "
            f"{training.global_batch_size - start}",
        )
    if run.launch.world_size % run.parallel.replica_size:
        return  # data_parallel_size means nothing then: reported elsewhere
    stages = run.parallel.pipeline_model_parallel_size
    interleaved = stages if run.parallel.virtual_pipeline_model_parallel_size is not None else 1
    wave = training.micro_batch_size * run.data_parallel_size * interleaved
    if start % wave or increment % wave:
        yield Violation(
            key,
            f"training.rampup_batch_size: start {start} and increment {increment} must be multiples of "
            f"micro_batch_size × data_parallel_size = {training.micro_batch_size} × {run.data_parallel_size}"
            + (
                f", × {stages} micro-batches that interleaved stages pass on together"
                if interleaved > 1
                else ""
            )
            + f", or some processes would have nothing to do; nearest: multiples of {wave}",
        )


def _states(run: RunConfig) -> Iterator[Violation]:
    optimizer, precision = run.optimizer, run.training.precision
    reduced = [
        f"{key}=bf16"
        for key in ("main_grads_dtype", "exp_avg_dtype", "exp_avg_sq_dtype")
        if getattr(optimizer, key) == "bf16"
    ]
    if optimizer.store_param_remainders:
        reduced.append("store_param_remainders=true")
    if not reduced:
        return
    keys = tuple(f"optimizer.{one.partition('=')[0]}" for one in reduced)
    if not run.parallel.use_distributed_optimizer:
        yield Violation(
            (*keys, "parallel.use_distributed_optimizer"),
            f"optimizer.{', '.join(reduced)}: only the distributed optimizer keeps reduced states, on one process "
            "too; set parallel.use_distributed_optimizer=true",
        )
    needs_bf16 = [one for one in reduced if not one.startswith("exp_avg")]
    if needs_bf16 and precision != "bf16":
        yield Violation(
            tuple(f"optimizer.{one.partition('=')[0]}" for one in needs_bf16),
            f"optimizer.{', '.join(needs_bf16)} goes with bf16 weights, and training.precision={precision}; set "
            "that to bf16, or remove it",
        )


def _moments(run: RunConfig) -> Iterator[Violation]:
    """A moment moves by (1 - β) of its distance a step; in bf16 less than 2⁻⁸ of it may be lost."""
    optimizer = run.optimizer
    for moment, beta in (("exp_avg", "adam_beta1"), ("exp_avg_sq", "adam_beta2")):
        value = getattr(optimizer, beta)
        if getattr(optimizer, f"{moment}_dtype") == "bf16" and value > BF16_LARGEST_BETA:
            yield Violation(
                (f"optimizer.{moment}_dtype", f"optimizer.{beta}"),
                f"optimizer.{moment}_dtype=bf16 with {beta}={value:g}: a step would change the moment by less than "
                f"bf16 can hold, and it would never fall; nearest: {beta}={BF16_LARGEST_BETA}, or fp32",
            )


def _loss_scale(run: RunConfig) -> Iterator[Violation]:
    optimizer = run.optimizer
    if optimizer.loss_scale is not None and run.training.precision != "fp16":
        yield Violation(
            ("optimizer.loss_scale", "training.precision"),
            f"optimizer.loss_scale keeps small gradients in fp16's range, and training.precision="
            f"{run.training.precision}; remove it",
        )
    if optimizer.min_loss_scale > optimizer.initial_loss_scale:
        yield Violation(
            ("optimizer.min_loss_scale", "optimizer.initial_loss_scale"),
            f"optimizer.min_loss_scale={optimizer.min_loss_scale:g} is above initial_loss_scale="
            f"{optimizer.initial_loss_scale:g}; nearest: {optimizer.initial_loss_scale:g}",
        )


def _fp8(run: RunConfig) -> Iterator[Violation]:
    training, model = run.training, run.model
    if training.fp8 is None:
        return
    if training.precision != "bf16" or run.device == "cpu":
        yield Violation(
            ("training.fp8", "training.precision", "device"),
            f"training.fp8={training.fp8} needs training.precision=bf16 around its products and a GPU, not "
            f"precision={training.precision} and device={run.device}; remove it",
        )
    sizes = {
        "model.hidden_size": model.hidden_size,
        "model.ffn_hidden_size": model.ffn_hidden_size // run.parallel.tensor_model_parallel_size,
        "training.micro_batch_size × seq_length": training.micro_batch_size * training.seq_length,
    }
    for name, size in sizes.items():
        if size % FP8_MULTIPLE:
            yield Violation(
                ("training.fp8",),
                f"training.fp8={training.fp8}: FP8 products take sizes that are multiples of {FP8_MULTIPLE}, and "
                f"{name} comes to {size} on a process; remove it, or change that size",
            )


TRAINING_RULES: tuple[Rule, ...] = (
    _schedule,
    _wsd,
    _rewarming,
    _rampup,
    _states,
    _moments,
    _loss_scale,
    _fp8,
)
