"""Methods: a `Tuner` changes weights, a `Decoder` changes how tokens are chosen.

A method is one frozen dataclass in one file. Its annotated attributes are its parameters
(`alpha: float = 1.0`); the attributes without annotation describe it and must be literals, since
`medbench list` reads them from the source without running it:

- `name`: what users type; `paper`: where it comes from;
- `needs`: what a backbone or a task must offer (`"attention"`, `"roi"`, ...); `uses`: what it takes
  where it is offered and does without elsewhere;
- `variants`: name -> parameter values, e.g. those of the published code;
- `deviates`: where this file knowingly differs from the published code, in a sentence;
- `unkeyed`: parameters that move no answer by themselves (what a path leads to is hashed).

Nothing here imports torch, so that naming a method costs nothing; the hooks' types are only
for readers and type checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medbench.backbone import Depth
    from medbench.decoding.answer import Answer
    from medbench.decoding.context import DecodeContext, DecodeSettings
    from medbench.decoding.reading import Reading
    from medbench.model.llava import Backbone
    from medbench.model.prompt import Prompt
    from medbench.task import Sample
    from medbench.tuning.batch import TrainBatch
    from medbench.tuning.step import TrainView


# From a sample to the targets of a loss, [k, ...].
Target = Callable[["Sample"], "Tensor"]


@dataclass(frozen=True)
class Method:
    """What tuners and decoders share: a name, a source, needs, and named variants."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    uses: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    deviates: ClassVar[str] = ""
    unkeyed: ClassVar[tuple[str, ...]] = ()

    def check(self, depth: Depth) -> None:
        """Raise a ValueError that says why it cannot run on a backbone of this depth."""


@dataclass(frozen=True)
class Decoder(Method):
    """Chooses tokens: rewrites the prompt, adds branches, combines their logits.

    Every hook has a default that does nothing, so plain greedy decoding is a file with a name. They
    are called in this order: `check` before weights load, `look` for each image, then for each
    batch `prepare`, `reading`, `branches`, and `combine` for each token.

    Class attributes beside those of `Method`:
        image: whose image the model sees: "own", or "other" (another sample's).
        published: selection of the authors' runs, used by `select="preset"` under the
            preset `published`; under `matched` every method takes the argmax.
        rows_per_token: what runs through the language model for each new token of a sample.
        extra_memory: what it holds beyond greedy decoding.
        schedule: how the samples of a batch are run, where they are not run together.

    Args:
        select: pick the likeliest token, draw one, or do what the preset says.
        temperature: divides the scores before a draw.
        top_k: draw from that many tokens only; 0 from all.
        top_p: draw from the fewest tokens that hold this much probability; 1 from all.
        repetition_penalty: makes tokens that were there before less likely; 1 does not.
        beams: more than one searches with that many beams instead.
        length_norm: of beam search: new tokens only, or the prompt's too as transformers 4.29 did.
    """

    image: ClassVar[str] = "own"
    published: ClassVar[Mapping[str, Any]] = {}
    rows_per_token: ClassVar[str] = "1"
    extra_memory: ClassVar[str] = "none"
    schedule: ClassVar[str] = ""

    select: Literal["preset", "argmax", "sample"] = "preset"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    beams: int = 1
    length_norm: Literal["generated", "prompt"] = "generated"

    def look(self, backbone: Backbone, vision_states: Sequence[Tensor]) -> Tensor | None:
        """Read something off the vision tower while an image is encoded; None reads nothing.

        Args:
            vision_states: the tower's hidden states of one image, each [1, T, width].

        Returns:
            One image's tensor [1, ...]; a batch of them stands in `context.looked`.
        """
        return None

    def prepare(self, prompts: list[Prompt], context: DecodeContext) -> list[Prompt]:
        """Rewrite the main prompts before anything runs; the default leaves them as they are."""
        return prompts

    def reading(self, depth: Depth) -> Reading | None:
        """Say what to read of the main rows beside their logits, or to change in them."""
        return None

    def branches(self, prompts: list[Prompt], context: DecodeContext) -> dict[str, list[Prompt]]:
        """Return further prompts by branch name, one per sample; none by default.

        Called when the main prompts have run, so that `context` holds what was read of them. Each
        branch is one more row per sample in every forward pass, and receives the same new tokens
        as the main row.
        """
        return {}

    def combine(self, logits: Mapping[str, Tensor], step: int) -> Tensor:
        """Turn the branches' logits into the scores that a token is picked from.

        Args:
            logits: branch name -> float32 [rows, vocabulary]; "main" is always there, and with a
                readout "early", [rows, exits, vocabulary].
            step: 0 for the first new token.

        Returns:
            float32 [rows, vocabulary]; -inf bars a token.
        """
        return logits["main"]

    def search(
        self, prompts: list[Prompt], context: DecodeContext, settings: DecodeSettings
    ) -> list[Answer] | None:
        """Decode a batch by a search of its own, in place of all hooks but `prepare`."""
        return None


@dataclass(frozen=True)
class Tuner(Method):
    """Changes weights: LoRA on the language model, plus what a subclass adds.

    A parameter whose default is None takes the task's own value (`Task.tuning`), and the task
    may also set the defaults of the others; what the user writes always wins.

    Class attributes beside those of `Method`:
        supervision: parameter -> "regions" or "expert", for parameters that name a provider of
            targets (`medbench.provider`) by its spec.

    Args:
        rank, alpha, dropout: of LoRA; updates are scaled by alpha / rank.
        learning_rate, warmup_ratio, weight_decay, max_grad_norm: AdamW, cosine schedule.
        batch_size: samples per optimiser step (the effective batch).
        micro_batch: samples per forward pass; changes memory, and no result but through the
            draws of dropout.
        epochs: passes over the training split.
        gradient_checkpointing: keep no layer's activations and compute them again on the way
            back: less memory for another forward pass, and the same result up to rounding.
        log_terms_every: steps from one line of the log to the next that tells each loss's own
            gradient norm, which takes a backward pass for each; 0 never does.
        adapter: folder of an adapter trained before, to use instead of training.
    """

    # Checkpointing runs the same operations with the same draws once more, so that an adapter
    # trained with it is the one trained without, as far as a device repeats itself.
    unkeyed: ClassVar[tuple[str, ...]] = ("adapter", "gradient_checkpointing", "log_terms_every")
    supervision: ClassVar[Mapping[str, str]] = {}

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.05
    learning_rate: float = 2e-4
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    batch_size: int = 32
    micro_batch: int = 8
    epochs: int | None = None
    gradient_checkpointing: bool = False
    log_terms_every: int = 50
    adapter: str = ""

    def lora_targets(self) -> tuple[str, ...]:
        """Names of the language model's linear layers that get LoRA."""
        return ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def extend(self, backbone: Backbone) -> nn.Module | None:
        """Build trainable parts beyond LoRA (`medbench.tuning.adapter.Extension`), if any."""
        return None

    def supervised(self) -> tuple[str, ...]:
        """Names of the parameters of `supervision` that these settings make use of."""
        return tuple(self.supervision)

    def targets(self, backbone: Backbone, given: Mapping[str, Any]) -> Mapping[str, Target]:
        """Return what gives a sample's targets, by name.

        Args:
            given: by parameter of `supervised`, a function from a sample to its regions
                (`Sequence[Region]`) or to its `ExpertView`.

        Returns:
            Functions from a sample to a tensor [k, ...], k being how many there are; the batch
            holds them side by side (`TrainBatch.targets`).
        """
        return {}

    def queries(self, batch: TrainBatch) -> Tensor | None:
        """Return which rows' attention the losses read, bool [samples, T]; None for none."""
        return None

    def attention_layers(self, backbone: Backbone) -> Sequence[int] | None:
        """Return the layers whose attention the losses read, from 0; None for all."""
        return None

    def calibrate(self, views: Iterable[TrainView]) -> dict[str, Any]:
        """Read the untuned model on the first effective batch, once, before the first step.

        What is decided here is kept in buffers of the extension, which are saved with it. Returns
        what the first line of the training log shall say about it. Views that are not asked for
        cost nothing.
        """
        return {}

    def auxiliary(self, view: TrainView) -> dict[str, Tensor]:
        """Return further losses by name, each a float32 [samples] already weighted."""
        return {}

    def observe(self, view: TrainView) -> dict[str, Sequence[Any]]:
        """Return what else the training log shall say of a pass, by name.

        A list of numbers, say one a sample, is logged as its mean over the step; a list of tuples,
        such as the heads that were chosen, as the five most frequent. It is called after
        `auxiliary`, which may leave things in `view.notes`, and must change nothing.
        """
        return {}
