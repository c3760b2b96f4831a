"""Projectors by resolution: the hard gate of the hybrid gating strategy, and its controls (Sec. 3.2, Tab. 3d, 11)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from tam_plugin.config import MoeConfig, ProjectorConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.vision.gradients import project_in_step
from tam_plugin.vision.moe_mlp import MoeMlp


class ResolutionProjectors(nn.Module):
    """One copy of a dense projector per pooling stride, as children ``stride_1``, ``stride_2``…

    ``config.gate`` decides which copy a stride takes:

    - ``resolution``: its own;
    - ``swapped``: the finest and the coarsest stride trade theirs (Tab. 11);
    - ``random``: one at random for each :meth:`select`, from torch's CPU generator (Tab. 11);
    - ``single``: the only one, child ``shared`` (stage 2);
    - ``soft``: the child ``soft``, a routed mixture of two-layer MLPs (Tab. 3d). Its losses and routing come
      through :func:`tam_plugin.vision.collect_routing`, as the encoder's.

    Args:
        dense: the projector to copy, ``[..., D] -> [..., D_llm]``; it is not kept.
        config: strides and gate.
        moe: router and loss settings of the ``soft`` gate; experts and K come from ``config``.

    Raises:
        ConfigError: the ``soft`` gate over something else than linear, activation, linear.
    """

    def __init__(self, dense: nn.Module, config: ProjectorConfig, moe: MoeConfig | None = None) -> None:
        super().__init__()
        self.config = config
        if config.gate == "soft":
            fc1, activation_fn, fc2 = _two_layer_parts(dense)
            settings = {name: getattr(moe, name) for name in ("router_noise_std", "router_init_std", "backend") if moe}
            mixture = MoeConfig(num_experts=config.num_experts, top_k=config.top_k, **settings)
            self.add_module("soft", MoeMlp(fc1, activation_fn, fc2, mixture))
        elif config.gate == "single":
            self.add_module("shared", copy.deepcopy(dense))
        else:
            for stride in config.strides:
                self.add_module(config.child(stride), copy.deepcopy(dense))
        self.train(dense.training)

    def select(self, stride: int) -> str:
        """Name of the child that a video (or image) of this stride takes; ``random`` draws again on each call.

        Raises:
            InputError: a stride that the config does not have.
        """
        strides = self.config.strides
        if stride not in strides:
            raise InputError(f"pool stride {stride!r}: this model has projectors for {', '.join(map(str, strides))}")
        gate = self.config.gate
        if gate == "soft":
            return "soft"
        if gate == "single":
            return "shared"
        if gate == "random":
            stride = strides[int(torch.randint(len(strides), ()))]
        elif gate == "swapped":
            stride = {strides[0]: strides[-1], strides[-1]: strides[0]}.get(stride, stride)
        return self.config.child(stride)

    def forward(
        self,
        *tokens: torch.Tensor,
        strides: int | Sequence[int] | None = None,
        children: Sequence[str] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Project in place of the dense projector; frames of one stride share one call.

        In training, children that nothing took get zero gradients, so every rank has the same set, and all arrive in
        one order. A model calls this once per forward, with tensors as arguments: under ZeRO-3 the projectors are
        gathered and reduced together (a leaf module), by all ranks at once.

        Args:
            tokens: ``[T, P, D]`` (any leading shape if ``strides`` is one number or None); with ``children``,
                several ``[..., D]``.
            strides: one for all, one per frame, or None for images (``config.image_stride``).
            children: the child that each of ``tokens`` takes (:meth:`select`), in place of ``strides``.

        Returns:
            ``[T, P, D_llm]``, frames in their order; with ``children`` ``[..., D_llm]`` each.

        Raises:
            InputError: another number of strides than frames, or an unknown stride.
        """
        if children is not None:
            return self._project(list(zip(children, tokens, strict=True)))
        (features,) = tokens
        if strides is None or isinstance(strides, int):
            stride = self.config.image_stride if strides is None else strides
            return self._project([(self.select(stride), features)])[0]
        if len(strides) != features.shape[0]:
            raise InputError(f"{len(strides)} strides for {features.shape[0]} frames: expected one per frame")
        frames_by_child: dict[str, list[int]] = {}
        child_by_stride = {stride: self.select(stride) for stride in dict.fromkeys(strides)}
        for frame, stride in enumerate(strides):
            frames_by_child.setdefault(child_by_stride[stride], []).append(frame)
        if len(frames_by_child) <= 1:
            name = next(iter(frames_by_child), None) or self.select(self.config.image_stride)
            return self._project([(name, features)])[0]
        order = torch.tensor([frame for frames in frames_by_child.values() for frame in frames], device=features.device)
        parts = features.index_select(0, order).split([len(frames) for frames in frames_by_child.values()])
        outputs = self._project(list(zip(frames_by_child, parts, strict=True)))
        return torch.cat(outputs).index_select(0, order.argsort())

    def _project(self, groups: Sequence[tuple[str, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        """Each group by one call of its child."""
        if self.training:
            return project_in_step(self, groups)
        return tuple(self.get_submodule(name)(tokens) for name, tokens in groups)


def _two_layer_parts(dense: nn.Module) -> tuple[nn.Linear, nn.Module, nn.Linear]:
    leaves = [m for m in dense.modules() if not list(m.children())]
    match leaves:
        case [nn.Linear() as fc1, activation_fn, nn.Linear() as fc2] if not list(activation_fn.parameters()):
            return fc1, activation_fn, fc2
        case [nn.Linear() as fc1, nn.Linear() as fc2, activation_fn] if not list(activation_fn.parameters()):
            return fc1, activation_fn, fc2
    found = ", ".join(type(m).__name__ for m in leaves)
    raise ConfigError(
        f"ProjectorConfig.gate = 'soft': the projector holds {found}; expected a linear layer, an activation and a "
        "linear layer"
    )
