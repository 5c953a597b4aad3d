"""Fixtures that several folders of tests share; torch is imported only by tests that use them."""

from dataclasses import replace

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what is remembered between processes out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def medbench(capsys):
    """Return a function that runs a command here and returns (exit code, output, errors)."""
    from medbench.cli import main

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def extra() -> None:
    """Skip what needs medbench[labels] where it is not installed, or does not fit torch."""
    try:
        import open_clip  # noqa: F401
        import segment_anything  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"medbench[labels] cannot be imported: {error}")


@pytest.fixture(scope="session")
def toy():
    """Return a loader of toy backbones in float32; `ends` lets that many letters end an answer."""
    import medbench

    loaded = {}

    def load(spec="toy", ends=0):
        if spec not in loaded:
            loaded[spec] = medbench.load_backbone(spec, device="cpu", dtype="float32")
        backbone = loaded[spec]
        return replace(backbone, eos_token_ids=(2, *range(20, 20 + ends))) if ends else backbone

    return load


@pytest.fixture(scope="session")
def images():
    """Return eight random images of different sizes."""
    from medbench.contract import toys

    return toys.images()


@pytest.fixture(scope="session")
def questions():
    """Return eight questions of different lengths."""
    from medbench.contract import toys

    return [*toys.QUESTIONS]


@pytest.fixture(scope="session")
def eager():
    """Return a maker of plain references: eager attention, one row, no padding, no cache."""
    import copy

    import torch

    class Reference:
        def __init__(self, backbone):
            self.backbone = backbone
            self.language_model = copy.deepcopy(backbone.language_model)
            self.language_model.set_attn_implementation("eager")

        def features(self, pixels):
            """Return [N, width] for pixels [3, size, size]."""
            hidden = self.backbone.vision_tower(pixels[None], output_hidden_states=True)
            return self.backbone.projector(hidden.hidden_states[-2][:, 1:])[0].detach()

        def embed(self, ids, features=None):
            """Return [T, width]; features take the places of the image's ids, in order."""
            table = self.language_model.get_input_embeddings().weight
            rows, unused = [], [] if features is None else list(features)
            for token in ids:
                # Past the image's places, its id is a token like any other: answers may hold it.
                visual = bool(unused) and token == self.backbone.image_token_id
                rows.append(unused.pop(0) if visual else table[token])
            assert not unused
            return torch.stack(rows)

        def run(self, ids, features=None):
            """Return logits [T, vocabulary] and attention [layers, heads, T, T]."""
            with torch.no_grad():
                output = self.language_model(
                    inputs_embeds=self.embed(ids, features)[None],
                    use_cache=False,
                    output_attentions=True,
                )
            return output.logits[0], torch.cat(output.attentions)

        def next(self, ids, features=None):
            """Return the logits [vocabulary] of the token after these."""
            return self.run(ids, features)[0][-1]

    made = {}

    def make(backbone):
        key = id(backbone.language_model)
        if key not in made:
            made[key] = Reference(backbone)
        return made[key]

    return make
