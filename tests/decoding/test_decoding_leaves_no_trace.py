"""After decoding, a model is what it was: nothing patched, hooked, switched or left behind."""

import pytest
import torch

import medbench
from medbench.contract.traces import fingerprint, functions

METHODS = [
    "greedy",
    "beam",
    "nucleus",
    "vcd",
    "avisc",
    "m3id",
    "damro",
    "pai",
    "dola",
    "opera",
    "opera[scale_factor=300,threshold=1]",
    "controlmllm",
]


@pytest.fixture
def backbone(toy):
    """Return a model that has been asked for hidden states once.

    transformers then puts capturing hooks on it for good, whoever asked; ours must add nothing.
    """
    loaded = toy("toy[layers=3]")
    loaded.language_model(input_ids=torch.tensor([[5]]), output_hidden_states=True)
    loaded.vision_states(torch.zeros(1, 3, 16, 16))
    return loaded


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_the_same_objects_before_and_after(backbone, images, questions, method):
    rois = [image_region(image) for image in images]
    before = fingerprint(backbone), functions()
    plain = medbench.generate(backbone, images=images, prompts=questions, max_new_tokens=8)
    answers = medbench.generate(
        backbone, method=method, images=images, prompts=questions, rois=rois, max_new_tokens=30
    )
    assert len(answers) == 8
    assert (fingerprint(backbone), functions()) == before
    again = medbench.generate(backbone, images=images, prompts=questions, max_new_tokens=8)
    assert [one.token_ids for one in again] == [one.token_ids for one in plain]


def image_region(image):
    import numpy as np

    region = np.zeros((image.height, image.width), dtype=bool)
    region[image.height // 2 :, image.width // 2 :] = True
    return region


def test_the_fingerprint_sees_what_patching_would_change(backbone):
    before = fingerprint(backbone)
    module = backbone.language_model.model.layers[0].self_attn
    handle = module.register_forward_hook(lambda *_: None)
    assert fingerprint(backbone) != before
    handle.remove()
    assert fingerprint(backbone) == before
    module.forward = module.forward
    assert fingerprint(backbone) != before
    del module.forward
    assert fingerprint(backbone) == before
