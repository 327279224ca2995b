"""The section ``optimizer`` of a run."""

from typing import Annotated, Literal

from pydantic import Field

from megatron_ext.config.section import Beta, NonNegativeInt, PositiveInt, Section

MainDtype = Literal["fp32", "bf16"]


class OptimizerConfig(Section):
    """AdamW and its learning-rate schedule; weight decay touches matrices only."""

    lr: Annotated[float, Field(gt=0)]
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    lr_decay_style: Literal["cosine", "linear", "constant", "inverse-square-root", "WSD"] = "cosine"
    lr_warmup_iters: NonNegativeInt = 0
    lr_decay_iters: PositiveInt | None = Field(
        default=None, description="where the decay ends; default: rewarm_from_iters, else train_iters"
    )
    lr_wsd_decay_iters: PositiveInt | None = Field(
        default=None, description="with WSD (warm-up, stable, decay): last steps before the end, that decay"
    )
    lr_wsd_decay_style: Literal["linear", "cosine", "minus_sqrt"] = Field(
        default="minus_sqrt", description="minus_sqrt: the rate falls as 1 - √progress"
    )
    rewarm_from_iters: PositiveInt | None = Field(
        default=None,
        description="after so many steps the rate rises again and then decays until train_iters: for a run that "
        "goes on with new data",
    )
    rewarm_iters: NonNegativeInt = Field(default=0, description="steps of that rise, from where the rate is")
    rewarm_lr: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="what it rises to; default: lr"
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    adam_beta1: Beta = 0.9
    adam_beta2: Beta = 0.95
    adam_eps: Annotated[float, Field(gt=0)] = 1e-8
    clip_grad: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="largest gradient norm; 0 clips nothing"
    )
    main_grads_dtype: MainDtype = Field(
        default="fp32", description="what gradients are accumulated and reduced in"
    )
    exp_avg_dtype: MainDtype = Field(default="fp32", description="Adam's first moment")
    exp_avg_sq_dtype: MainDtype = Field(default="fp32", description="Adam's second moment")
    store_param_remainders: bool = Field(
        default=False,
        description="keep of the fp32 master weights the 16 bits that the bf16 weights lack: 2 bytes fewer, same bits",
    )
    loss_scale: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="with fp16: what the loss is multiplied by; default: dynamic"
    )
    initial_loss_scale: Annotated[float, Field(gt=0)] = Field(
        default=4096.0, description="first dynamic scale; the loss is a sum over tokens here, so not 2^32"
    )
    min_loss_scale: Annotated[float, Field(gt=0)] = 1.0
    loss_scale_window: PositiveInt = Field(
        default=1000, description="steps without overflow, after which the scale doubles"
    )
    hysteresis: PositiveInt = Field(default=2, description="overflows, before the scale halves at each")

    def decay_end(self, train_iters: int) -> int:
        """Step at which the first decay, the only one without re-warming, reaches ``min_lr``."""
        return self.lr_decay_iters or self.rewarm_from_iters or train_iters
