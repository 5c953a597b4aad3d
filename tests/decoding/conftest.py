"""A whole model written out in float64, for references that share no code with the decoders."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import silu

import medbench

STEPS = 24


class Plain:
    """One row of embeddings in, logits and attention of every position out; nothing is kept.

    In float64, so that all rounding in a comparison is that of the decoders.
    """

    def __init__(self, backbone):
        self.tokenizer = backbone.tokenizer
        self.tower = copy.deepcopy(backbone.vision_tower).double()
        self.projector = copy.deepcopy(backbone.projector).double()
        self.first_feature = 1 if backbone.vision_select == "patch" else 0
        self.config = backbone.language_model.config
        weights = backbone.language_model.named_parameters()
        self.weights = {name: weight.detach().double() for name, weight in weights}
        self.table = self.weights["model.embed_tokens.weight"]

    @torch.no_grad()
    def states(self, pixels):
        """Return the vision tower's hidden states [1 + N, width] of pixels [3, size, size]."""
        output = self.tower(pixels[None].double(), output_hidden_states=True)
        return [state[0] for state in output.hidden_states]

    @torch.no_grad()
    def features(self, pixels):
        """Return the image's rows in the prompt, [N, width]."""
        return self.projector(self.states(pixels)[-2][self.first_feature :])

    def text(self, text, *, begin=False):
        """Return the embeddings of a text, behind the begin token if it shall have one."""
        return self.table[self.tokenizer(text, add_special_tokens=begin).input_ids]

    def prompt(self, question, features=None):
        """Return the toy's template around a question, with the image's rows if there are any."""
        before, after = self.text("user: ", begin=True), self.text(f" {question} assistant:")
        return torch.cat([before, after] if features is None else [before, features, after])

    def columns(self, features):
        """Return where the image stands in a prompt."""
        start = len(self.text("user: ", begin=True))
        return slice(start, start + len(features))

    def run(self, rows, edit=None):
        """Return logits [T, vocabulary] and attention [layers, heads, T, T].

        `edit` takes a layer's index and its attention scores before the softmax, [heads, T, T].
        """
        config, weights = self.config, self.weights
        heads, length = config.num_attention_heads, len(rows)
        width = config.hidden_size // heads
        rates = config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2) / width)
        angles = torch.outer(torch.arange(length), rates).repeat(1, 2).double()
        future = torch.full((length, length), -math.inf).triu(1)
        maps = []

        def linear(x, name):
            bias = weights.get(f"{name}.bias", 0)
            return x @ weights[f"{name}.weight"].T + bias

        def normed(x, name):
            scale = (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).rsqrt()
            return x * scale * weights[f"{name}.weight"]

        def split(x):
            return x.view(length, -1, width).transpose(0, 1)

        def turned(x):
            first, second = x.chunk(2, -1)
            return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

        hidden = rows
        for layer in range(config.num_hidden_layers):
            name = f"model.layers.{layer}"
            x = normed(hidden, f"{name}.input_layernorm")
            q, k, v = (split(linear(x, f"{name}.self_attn.{part}_proj")) for part in "qkv")
            shared = heads // config.num_key_value_heads
            k, v = turned(k).repeat_interleave(shared, 0), v.repeat_interleave(shared, 0)
            scores = turned(q) @ k.transpose(1, 2) / math.sqrt(width) + future
            attention = (scores if edit is None else edit(layer, scores)).softmax(-1)
            maps.append(attention)
            mixed = (attention @ v).transpose(0, 1).reshape(length, -1)
            hidden = hidden + linear(mixed, f"{name}.self_attn.o_proj")
            x = normed(hidden, f"{name}.post_attention_layernorm")
            gated = silu(linear(x, f"{name}.mlp.gate_proj")) * linear(x, f"{name}.mlp.up_proj")
            hidden = hidden + linear(gated, f"{name}.mlp.down_proj")
        return linear(normed(hidden, "model.norm"), "lm_head"), torch.stack(maps)

    def next(self, prompt, tokens, edit=None):
        """Return the logits [vocabulary] of the token after a prompt and new tokens."""
        return self.run(torch.cat([prompt, self.table[tokens]]), edit)[0][-1]

    def cut(self, scores, main, beta):
        """Return the scores with what the main branch finds implausible at -inf."""
        least = main.max() + (math.log(beta) if beta else -math.inf)
        return torch.where(main >= least, scores, -math.inf)

    def contrast(self, main, other, alpha, beta):
        """Return a function from the tokens so far to the scores of two contrasted prompts."""

        def score(tokens):
            z, n = self.next(main, tokens), self.next(other, tokens)
            return self.cut((1 + alpha) * z - alpha * n, z, beta)

        return score


@pytest.fixture(scope="session")
def plain():
    """Return a maker of whole models written out in float64."""
    made = {}

    def make(backbone):
        key = id(backbone.language_model), backbone.vision_select
        if key not in made:
            made[key] = Plain(backbone)
        return made[key]

    return make


@pytest.fixture(scope="session")
def endless(toy):
    """Return a loader of toys that no token stops, so that every answer has all its steps."""

    def load(spec):
        return replace(toy(spec), eos_token_ids=())

    return load


@pytest.fixture(scope="session")
def decode(images, questions):
    """Return a decoder of three samples, all scores recorded, in one batch or as told."""

    def answers(backbone, method, *, batch_size=3, **options):
        return medbench.generate(
            backbone,
            method=method,
            images=images[:3],
            prompts=questions[:3],
            max_new_tokens=STEPS,
            record_scores=STEPS,
            batch_size=batch_size,
            **options,
        )

    return answers


@pytest.fixture(scope="session")
def agree(plain, decode, images, questions):
    """Return a comparison of a decoder with a reference, alone and in a padded batch of three.

    The reference takes a plain model, a question, pixels and a sample's index, and returns a
    function from the tokens so far to the next scores. Returned are the reference's answers.
    """

    def follow(score, ends):
        tokens, scores = [], []
        while len(tokens) < STEPS and (not tokens or tokens[-1] not in ends):
            scores.append(score(tokens))
            tokens.append(int(scores[-1].argmax()))
        return tokens, torch.stack(scores)

    def compare(backbone, method, reference, *, tolerance=1e-4, **options):
        model, expected = plain(backbone), []
        for index, pixels in enumerate(backbone.pixel_values(images[:3])):
            score = reference(model, questions[index], pixels, index)
            expected.append(follow(score, backbone.eos_token_ids))
        for batch_size in (1, 3):
            decoded = decode(backbone, method, batch_size=batch_size, **options)
            for answer, (tokens, scores) in zip(decoded, expected, strict=True):
                kept = scores.isfinite()
                assert answer.token_ids == tokens
                assert torch.equal(answer.scores.isfinite(), kept)
                assert (answer.scores - scores)[kept].abs().max() < tolerance
        return [tokens for tokens, _ in expected]

    return compare


@pytest.fixture(scope="session")
def greedy_under_cut(decode):
    """Return a check that a method scores as greedy does, where greedy finds it plausible."""

    def check(backbone, method, beta, *, logs=False):
        decoded = decode(backbone, method)
        for answer, greedy in zip(decoded, decode(backbone, "greedy"), strict=True):
            main = greedy.scores.log_softmax(-1) if logs else greedy.scores
            least = main.amax(-1, keepdim=True) + (math.log(beta) if beta else -math.inf)
            kept = main >= least
            assert kept.all() == (beta == 0)
            assert answer.token_ids == greedy.token_ids
            assert torch.equal(answer.scores.isfinite(), kept)
            assert (answer.scores - main)[kept].abs().max() < 1e-4

    return check
