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
    training = run.config.training
    while not run.reached_end(state):
        outcome = train_step(run.config, run.model, run.optimizer, next(batches), state.iteration + 1)
        state = state.advance(training.global_batch_size, training.tokens_per_iteration)
        for hook in run.hooks:
            hook.after_step(run, state, outcome)
    for hook in run.hooks:
        hook.after_training(run, state)
    return state
