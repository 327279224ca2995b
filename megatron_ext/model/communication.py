"""Seconds that collectives take on NVLink and the network, before anything hides them. No torch here.

Ring collectives: a reduce-scatter or an all-gather of n bytes over g devices moves (g - 1) / g * n through each, an
all-reduce twice that (Patarasuk and Yuan, 2009; nccl-tests, PERFORMANCE.md).
"""

from megatron_ext.config.sections import RunConfig
from megatron_ext.model.activations import ACTIVATION_BYTES, sequence_shards, tokens_per_device
from megatron_ext.model.hardware import GPUS_PER_NODE, LINK_EFFICIENCY, Gpu


def ring_seconds(size: float, group: int, bandwidth: float) -> float:
    """One reduce-scatter or all-gather of ``size`` bytes in all."""
    return (group - 1) / group * size / (bandwidth * LINK_EFFICIENCY)


def group_bandwidth(gpu: Gpu, group: int, stride: int) -> float:
    """Bytes/s of a device in a group whose members are ``stride`` ranks apart.

    Inside a node it is NVLink. A ring over nodes enters and leaves each by the network cards of all the group's
    members there, so each member has as many cards' speed as there are members in its node.
    """
    if group * stride <= GPUS_PER_NODE:
        return gpu.nvlink
    members = max(1, GPUS_PER_NODE // stride)
    return min(gpu.nvlink, gpu.network * members)


def tensor_parallel_seconds(run: RunConfig, gpu: Gpu) -> float:
    """Of one layer's forward pass: attention and MLP each gather their input and reduce their output.

    Without sequence parallelism that is one all-reduce each, of the same volume. The backward pass costs the same.
    """
    tensor = run.parallel.tensor_model_parallel_size
    size = tokens_per_device(run) * run.model.hidden_size * ACTIVATION_BYTES[run.training.precision]
    return 4 * ring_seconds(size, tensor, group_bandwidth(gpu, tensor, 1))


def context_parallel_seconds(run: RunConfig, gpu: Gpu) -> float:
    """Of one layer's forward pass: keys and values are gathered; backward, their gradients are scattered."""
    model, parallel = run.model, run.parallel
    tensor, context = parallel.tensor_model_parallel_size, parallel.context_parallel_size
    width = 2 * model.query_groups * model.head_size / tensor
    size = tokens_per_device(run) * context * width * ACTIVATION_BYTES[run.training.precision]
    return ring_seconds(size, context, group_bandwidth(gpu, context, tensor))


def pipeline_seconds(run: RunConfig, gpu: Gpu) -> float:
    """One activation, or its gradient, from a stage to the next; stages lie as far apart as ranks allow."""
    parallel = run.parallel
    if parallel.pipeline_model_parallel_size == 1:
        return 0.0
    size = tokens_per_device(run) * run.model.hidden_size * ACTIVATION_BYTES[run.training.precision]
    stride = run.launch.world_size // parallel.pipeline_model_parallel_size
    inside = stride * parallel.pipeline_model_parallel_size <= GPUS_PER_NODE
    bandwidth = gpu.nvlink if inside else gpu.network
    return size / sequence_shards(parallel) / (bandwidth * LINK_EFFICIENCY)


def data_parallel_seconds(run: RunConfig, gpu: Gpu, parameters: int, bytes_each: int) -> float:
    """One reduce-scatter of gradients, or one all-gather of weights, over data and context parallelism."""
    parallel = run.parallel
    group = run.data_parallel_size * parallel.context_parallel_size
    bandwidth = group_bandwidth(gpu, group, parallel.tensor_model_parallel_size)
    return ring_seconds(parameters * bytes_each, group, bandwidth)
