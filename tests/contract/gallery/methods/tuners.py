"""Tuners that break the contract, each in one way."""

import random
from dataclasses import dataclass

import torch
from torch import nn

from medbench.method import Tuner


class Part(nn.Module):
    """A module that changes nothing, with what an extension must have."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def attach(self, layers):
        return lambda: None

    def begin(self, masks, *, joins=False):
        pass

    def settle(self):
        pass

    def keep(self, rows):
        pass


class MovesBase(Tuner):
    """Write into the weights that it should leave alone."""

    name = "moves_base"

    def extend(self, backbone):
        with torch.no_grad():
            backbone.language_model.lm_head.weight.mul_(1.01)


class TrainsBase(Tuner):
    """Train a layer of the backbone as if it were its own."""

    name = "trains_base"

    def extend(self, backbone):
        part = Part()
        part.head = backbone.language_model.lm_head
        return part


class TunerHooksOn(Tuner):
    """Put a hook on the model and never take it off."""

    name = "tuner_hooks_on"

    def extend(self, backbone):
        class Hooked(Part):
            def attach(self, layers):
                layers[0].register_forward_hook(lambda *_: None)
                return lambda: None

        return Hooked()


class Forgets(Tuner):
    """Answer with something that is not saved."""

    name = "forgets"

    def extend(self, backbone):
        drawn = torch.randn(())

        class Shifted(Part):
            def attach(self, layers):
                def shifted(module, arguments, output):
                    return output + drawn + self.shift

                return layers[0].mlp.register_forward_hook(shifted).remove

        return Shifted()


class MeanOfLosses(Tuner):
    """Give every sample the mean loss of its batch."""

    name = "mean_of_losses"

    def auxiliary(self, view):
        words = view.batch.answer.sum(1).float()
        return {"length": words.mean().expand(len(words))}


class OneLoss(Tuner):
    """Give one loss for all samples."""

    name = "one_loss"

    def auxiliary(self, view):
        return {"length": view.batch.answer.sum(1).float().mean()}


class TunerDraws(Tuner):
    """Draw from Python's own generator while training."""

    name = "tuner_draws"

    def auxiliary(self, view):
        return {"noise": torch.full((len(view.batch.ids),), random.random())}


@dataclass(frozen=True)
class NoRate(Tuner):
    """Learn nothing."""

    name = "learns_nothing"

    max_grad_norm: float = 0.0


class Infinite(Tuner):
    """Have a loss that is not finite."""

    name = "infinite"

    def auxiliary(self, view):
        return {"nothing": torch.full((len(view.batch.ids),), float("nan"))}
