"""The sequential loop: one frame goes through all its steps, one UNet call each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.frame import denoise
from core.algorithm.net import Net
from core.algorithm.stream import SamplingParameters, StreamState
from core.settings import Guidance


def sequential(
    net: Net, sampling: SamplingParameters, states: Sequence[StreamState], latent: Tensor
) -> tuple[Tensor, tuple[StreamState, ...]]:
    """Run all steps of one frame, one call each; states[r] is a one-row stream for step r.

    Equals what core.algorithm.stream.step gives rows-1 calls later.
    """
    clean, origin = latent, latent
    done = []
    for row, state in enumerate(states):
        one = sampling._replace(rows=sampling.rows.row(row), noise=sampling.noise[row : row + 1])
        # only row 0 runs the one-time negative, so later steps guide as the self-negative does
        if sampling.guidance is Guidance.ONETIME_NEGATIVE and row > 0:
            one = one._replace(guidance=Guidance.SELF_NEGATIVE)
        update, bank = stream.bank_update(one, state), state.tensors.bank
        inputs = stream.frame_inputs(one, state, update)
        clean, origin, seen = denoise(
            net, inputs, bank, clean, origin, prediction=one.prediction, guidance=one.guidance
        )
        tensors = state.tensors._replace(bank=banks.apply_update(bank, seen, update, one.seed, one.rules))
        done.append(stream.next_state(state, tensors, update))
    return clean, tuple(done)
