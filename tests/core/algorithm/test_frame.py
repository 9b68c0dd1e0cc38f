"""core.algorithm.frame: the whole frame, as one function of tensors, equals the engine's eager parts at every
setting.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, NamedTuple

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.random_model import carry_pictures
from core.algorithm import bank as banks
from core.algorithm import stream
from core.algorithm.frame import BankMerge, FrameInputs, FrameModule, PictureDecoder, PictureEncoder
from core.algorithm.schedule import Prediction
from core.algorithm.stream import SamplingParameters, StreamState
from core.algorithm.unet import BankedUNet, layout
from core.settings import Guidance, Policy
from tests.support.small_models import DEVICE, LATENT, small_unet
from tests.support.small_sampling import sampling

SIZE = 64  # pixels; the latents are 8 x 8
PLACES = ("mid_block.attentions.0.transformer_blocks.0.attn1", "up_blocks.1.attentions.1.transformer_blocks.0")


class Parts(NamedTuple):
    """A small model in float64, apart."""

    encode: PictureEncoder
    net: BankedUNet
    decode: PictureDecoder


@functools.cache
def parts(**kind: bool) -> Parts:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            num_encoder_blocks=(1,) * 4,
            num_decoder_blocks=(1,) * 4,
        )
    carry_pictures(vae)
    vae = vae.double().eval().requires_grad_(False)
    return Parts(PictureEncoder(vae), BankedUNet(small_unet(0, **kind), PLACES), PictureDecoder(vae))


@functools.cache
def small_layout() -> banks.Layout:
    return layout(small_unet(0).config, PLACES, 8, 8)


def start(sampling: SamplingParameters, slots: int) -> StreamState:
    shapes = {} if sampling.policy is Policy.OFF else small_layout()
    return stream.initial_state(shapes, len(sampling.noise), slots, sampling.guidance, LATENT, torch.float64, DEVICE)


def pictures(count: int) -> list[Tensor]:
    """Noise that drifts, uint8 [count][64, 64, 3]."""
    scene = torch.randint(0, 256, (SIZE, SIZE + count, 3), generator=torch.Generator().manual_seed(1))
    return [scene[:, n : n + SIZE].to(torch.uint8) for n in range(count)]


def whole(model: Parts, sampling: SamplingParameters) -> FrameModule:
    return FrameModule(
        model.encode,
        model.net,
        model.decode,
        prediction=sampling.prediction,
        guidance=sampling.guidance,
        policy=sampling.policy,
    )


def advance(
    frame: FrameModule,
    sampling: SamplingParameters,
    state: StreamState,
    picture: Tensor,
    *,
    cached: bool,
    imagined: bool = False,
) -> tuple[Tensor, StreamState]:
    """One frame, and the merges of its rows."""
    now = stream.bank_update(sampling, state)
    inputs = stream.frame_inputs(sampling, state, now, imagined=imagined)
    if cached:
        inputs = inputs._replace(cross=frame.net.cross_attention(inputs.text))  # type: ignore[operator]
    shown, tensors, seen = frame(picture, inputs, state.tensors)
    groups = banks.merge_groups(banks.layout_of(tensors.bank))
    for row, group in now.merged:
        one = slice(row, row + 1)
        bank = {name: tensors.bank[name][one] for name in groups[group]}
        orders = banks.merge_orders(banks.layout_of(bank), sampling.seed, [now.ages[row]], sampling.rules)
        merged = BankMerge()(bank, {name: seen[name][one] for name in bank}, orders)
        after = {
            name: torch.cat([tensors.bank[name][:row], merged[name], tensors.bank[name][row + 1 :]]) for name in bank
        }
        tensors = tensors._replace(bank=tensors.bank | after)
    return shown, stream.next_state(state, tensors, now)


@torch.inference_mode()
def prove(sampling: SamplingParameters, slots: int = 1, frames: int = 6, *, cached: bool = True, **kind: bool) -> None:
    """The whole frame equals encoding, stream.step and decoding, and so does all that is remembered."""
    model = parts(**kind)
    frame, apart, together = whole(model, sampling), start(sampling, slots), start(sampling, slots)
    for picture in pictures(frames):
        clean, apart = stream.step(model.net, sampling, apart, model.encode(picture))
        shown, together = advance(frame, sampling, together, picture, cached=cached)
        # the one rounding at the end may go the other way
        assert (shown.int() - model.decode(clean).int()).abs().max() <= 1
        assert together.positions == apart.positions
        assert together.frame_index == apart.frame_index
        torch.testing.assert_close(together.tensors, apart.tensors, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("steps", "slots"), [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("policy", Policy)
def test_every_policy_equals_the_eager_parts(policy: Policy, steps: int, slots: int) -> None:
    prove(sampling(policy, steps), 1 if policy is Policy.MERGE else slots)


# by the function that stream.step denoises with, which test_proof.py proves for every combination
@pytest.mark.parametrize(
    ("policy", "guidance", "prediction"),
    [
        (Policy.FIFO, Guidance.FULL, Prediction.EPSILON),
        (Policy.MERGE, Guidance.SELF_NEGATIVE, Prediction.V),
        (Policy.MERGE, Guidance.ONETIME_NEGATIVE, Prediction.SAMPLE),
        (Policy.OFF, Guidance.ONETIME_NEGATIVE, Prediction.EPSILON),
    ],
)
def test_every_guidance_and_prediction_equals_the_eager_parts(
    policy: Policy, guidance: Guidance, prediction: Prediction
) -> None:
    prove(sampling(policy, 2, guidance, prediction), frames=4)


def test_the_text_of_a_model_that_wants_it_elsewhere_too_comes_along() -> None:
    prove(sampling(Policy.FIFO, 2), like_embedded=True)


def test_without_cached_keys_and_values_of_the_text_it_is_the_same() -> None:
    prove(sampling(Policy.FIFO, 2), cached=False, frames=3)


def test_without_presence_the_picture_does_not_matter() -> None:
    own = sampling(Policy.OFF, 1)
    frame = whole(parts(), own)
    shown = [advance(frame, own, start(own, 1), picture, cached=False, imagined=True)[0] for picture in pictures(2)]
    assert torch.equal(*shown)


def test_a_frame_changes_nothing_that_it_was_given() -> None:
    own = sampling(Policy.MERGE, 2)
    frame, state = whole(parts(), own), start(own, 1)
    _, state = advance(frame, own, state, pictures(1)[0], cached=True)
    inputs: FrameInputs = stream.frame_inputs(own, state, stream.bank_update(own, state))
    before = copy.deepcopy((inputs, state.tensors))
    frame(pictures(1)[0], inputs, state.tensors)
    torch.testing.assert_close((inputs, state.tensors), before, rtol=0, atol=0)


def test_a_merges_graph_keeps_the_operators_that_every_runtime_knows() -> None:
    ring = {name: torch.randn(1, 1, 30, 8) for name in ("a.key", "a.value")}
    given = (ring, {name: one[:, 0] + 1 for name, one in ring.items()}, {30: torch.randperm(60)[None]})
    with torch.no_grad():
        graph = str(torch.export.export(BankMerge(), given).graph)
    assert "scatter_add" in graph
    assert "index_" not in graph


class OnOneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails where an operation takes or makes a tensor of another device, or hands a number to Python."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor):
                assert tensor.device.type == "meta", f"{function} works on {tensor.device}"
        return result


@pytest.mark.parametrize(
    ("policy", "guidance", "subtoken"),
    [
        (Policy.OFF, Guidance.FULL, 1),
        (Policy.FIFO, Guidance.NONE, 4),
        (Policy.MERGE, Guidance.SELF_NEGATIVE, 1),
        (Policy.MERGE, Guidance.ONETIME_NEGATIVE, 4),
    ],
)
def test_nothing_of_a_frame_happens_on_the_host_and_in_half_precision_types_agree(
    policy: Policy, guidance: Guidance, subtoken: int
) -> None:
    """What a CUDA graph cannot capture fails on PyTorch's meta device too: copies from the host, and numbers to it."""
    own = sampling(policy, 2, guidance)
    model = parts() if subtoken == 1 else parts()._replace(net=BankedUNet(small_unet(0), ["up_blocks.1"], subtoken))
    frame = copy.deepcopy(whole(model, own)).to("meta", torch.float16)
    assert isinstance(frame.encode, PictureEncoder)
    frame.encode.dtype = torch.float16
    shapes = layout(small_unet(0).config, PLACES if subtoken == 1 else ["up_blocks.1"], 8, 8)
    state = start(own, 1)._replace(
        tensors=stream.initial_state(
            {} if policy is Policy.OFF else shapes, 2, 1, guidance, LATENT, torch.float16, torch.device("meta")
        ).tensors
    )
    inputs = stream.frame_inputs(own, state, stream.bank_update(own, state))
    orders = banks.merge_orders(banks.layout_of(state.tensors.bank), own.seed, [3])

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to("meta", torch.float16 if tensor.is_floating_point() else tensor.dtype)

    inputs, orders = tree_map_only(Tensor, moved, (inputs, orders))
    picture = pictures(1)[0].to("meta")
    with torch.inference_mode(), OnOneDevice():  # type: ignore[no-untyped-call]
        cross = frame.net.cross_attention(inputs.text)  # type: ignore[operator]
        shown, after, seen = frame(picture, inputs._replace(cross=cross), state.tensors)
        rows = ({name: tensor[:1] for name, tensor in part.items()} for part in (after.bank, seen))
        merged = BankMerge()(*rows, orders) if policy is Policy.MERGE else {}
    assert (shown.dtype, shown.shape) == (torch.uint8, (SIZE, SIZE, 3))
    assert {tensor.dtype for tensor in (*after.bank.values(), *merged.values(), after.in_flight)} == {torch.float16}
