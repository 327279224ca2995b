"""The training loop."""

from megatron_ext.train.run import Run
from megatron_ext.train.state import TrainState
from megatron_ext.train.step import train_step


def train(run: Run) -> TrainState:
    """Train until the run is complete or asked to stop; what else happens is in the hooks.

    Returns:
        Where the run stands at its end.
    """
    state = run.start
    for hook in run.hooks:
        hook.before_training(run, state)
    batches = run.train_loader.batches(state.consumed_samples)
    batch_sizes, seq_length = run.config.training.batch_sizes, run.config.training.seq_length
    while not run.reached_end(state):
        outcome = train_step(
            run.config, run.model, run.optimizer, next(batches), state.next_update, graphs=run.graphs
        )
        samples = batch_sizes.at(state.consumed_samples)
        state = state.advance(samples, samples * seq_length, skipped=outcome.skipped)
        for hook in run.hooks:
            hook.after_step(run, state, outcome)
    for hook in run.hooks:
        hook.after_training(run, state)
    return state
