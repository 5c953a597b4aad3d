"""OPERA against a search written here: whole passes, whole attention maps, copied states."""

import copy
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch

import medbench
from medbench.errors import UserError

BARRED = -999.0
# The published lists of rollbacks and of rejects have this many places.
PLACES = 512


@dataclass(frozen=True)
class Setting:
    """Parameters of one search; `half`: phi is stored as float16; `by_ids`: the longer window."""

    beams: int = 5
    tried: int = 5
    scale: float = 50.0
    threshold: int = 15
    weight: float = 1.0
    compat: bool = False
    half: bool = False
    by_ids: bool = False
    limit: int = 45

    def spec(self):
        values = {
            "beams": self.beams,
            "num_attn_candidates": self.tried,
            "scale_factor": self.scale,
            "threshold": self.threshold,
            "penalty_weights": self.weight,
            "opera_compat": str(self.compat).lower(),
            "opera_phi_dtype": "float16" if self.half else "float32",
            "response_start": "ids" if self.by_ids else "answer",
        }
        return f"opera[{','.join(f'{name}={value}' for name, value in values.items())}]"


@dataclass
class Sample:
    """A sample's prompt, and whole passes over it and any answers of one length, unpadded."""

    reference: object
    ids: list
    features: torch.Tensor
    known: dict = field(default_factory=dict)

    @property
    def image(self):
        token = self.reference.backbone.image_token_id
        return [place for place, one in enumerate(self.ids) if one == token]

    def passes(self, answers):
        """Return the next logits and the last layer's map, largest over heads, by answer."""
        answers = [tuple(answer) for answer in answers]
        unknown = [answer for answer in dict.fromkeys(answers) if answer not in self.known]
        if unknown:
            rows = [self.reference.embed([*self.ids, *one], self.features) for one in unknown]
            with torch.no_grad():
                output = self.reference.language_model(
                    inputs_embeds=torch.stack(rows), use_cache=False, output_attentions=True
                )
            maps = output.attentions[-1].amax(1)
            logits = output.logits[:, -1].double()
            self.known |= zip(unknown, zip(logits, maps, strict=True), strict=True)
        logits, maps = zip(*(self.known[answer] for answer in answers), strict=True)
        return torch.stack(logits), torch.stack(maps)


@dataclass
class Keeper:
    """The finished answers, best first; by the rules of 4.29 one prompt token counts as well."""

    setting: Setting
    ends: tuple
    kept: list = field(default_factory=list)
    done: bool = False

    def keep(self, score, tokens):
        ranked = sorted([*self.kept, (score, tokens)], key=lambda one: -one[0])
        self.kept = ranked[: self.setting.beams]

    def advance(self, running, sums, rows):
        """Return the next beams, their sums, and the (token, beam) that made each."""
        beams, compat = self.setting.beams, self.setting.compat
        step = len(running[0]) + 1
        last = step == self.setting.limit
        ranked = [
            (total + log, beam, token)
            for beam, total in enumerate(sums)
            for token, log in enumerate(rows[beam].tolist())
        ]
        ranked.sort(key=lambda one: -one[0])
        chosen = []
        for rank, (score, beam, token) in enumerate(ranked):
            if rank >= beams and len(chosen) == beams:
                break
            ended = token in self.ends
            if rank < beams and (ended or (last and not compat)):
                # The end token counts today; in 4.29 one prompt token stood in its place.
                self.keep(score / step, [*running[beam], token])
            if not ended and len(chosen) < beams:
                chosen.append((score, beam, token))
        following = [[*running[beam], token] for _, beam, token in chosen]
        best = ranked[0][0] / (step + 1) if compat else chosen[0][0] / step
        self.done = len(self.kept) == beams and best <= self.kept[-1][0]
        if last and compat and not self.done:
            for tokens, (score, _, _) in zip(following, chosen, strict=True):
                self.keep(score / (step + 1), tokens)
        self.done |= last
        choices = [(token, beam) for _, beam, token in chosen]
        return following, [score for score, _, _ in chosen], choices


@dataclass(frozen=True)
class Run:
    """A search's answer, its steps' scores, and the lengths it went back to.

    `late` counts those at which nothing was left to take back, `yielded` those that were one
    shorter than wanted because the search had been there often enough, and `near` the times it did
    not go back because that was too near the beginning.
    """

    tokens: list
    rows: torch.Tensor
    targets: list = field(default_factory=list)
    late: int = 0
    yielded: int = 0
    near: int = 0


def start(beams):
    """Return beams of which only the first is alive."""
    return [[] for _ in range(beams)], [0.0] + [-1e9] * (beams - 1)


def mode(values):
    """Return the commonest; the smallest of equally common ones."""
    counts = Counter(values)
    return min(value for value in counts if counts[value] == max(counts.values()))


def over_trust(attention, window_start, setting):
    """Return phi of every column of the window, the rows of the map summing to 1."""
    window = setting.scale * attention[window_start:, window_start:].double()
    places = torch.arange(len(window))
    behind = places[:, None] >= places
    phi = 1e-7 * window.where(behind, torch.ones_like(window)).prod(0)
    return phi.half() if setting.half else phi


def naive_opera(sample, ends, setting):
    """Search with every candidate tried in a pass of its own and every state kept whole."""
    beams, tried, compat = setting.beams, setting.tried, setting.compat
    image = sample.image
    window_start = len(sample.ids) - (len(image) - 1 if setting.by_ids else 0)
    running, sums = start(beams)
    keeper = Keeper(setting, ends)
    history, snapshots, choices = [], [], []
    visits, rejected = [0] * PLACES, [set() for _ in range(PLACES)]
    record, targets, late, yielded, near = [], [], 0, 0, 0
    while not keeper.done:
        generated = len(running[0])
        logits, _ = sample.passes(running)
        candidates = logits.topk(tried).indices.tolist()
        _, maps = sample.passes(
            [[*tokens, one] for tokens, row in zip(running, candidates, strict=True) for one in row]
        )
        rows, trusted = torch.full_like(logits, BARRED), []
        for beam in range(beams):
            places = []
            for number, token in enumerate(candidates[beam]):
                attention = maps[beam * tried + number]
                attention = attention / attention.sum(-1, keepdim=True)
                phi = over_trust(attention, window_start, setting)
                places.append(int(phi.argmax()))
                penalty = float(phi.max())
                if len(phi) <= 10:
                    penalty = -float(attention[-1, image].sum())
                rows[beam, token] = logits[beam, token] - setting.weight * penalty
            trusted.append(mode(places))
        common = mode(trusted)
        history.append(trusted)
        snapshots.append((running, copy.deepcopy(keeper), sums, choices))
        counts = [sum(past[beam] == common for past in history) for beam in range(beams)]
        back = min(counts) > setting.threshold and not setting.by_ids
        near += back and common == 9
        back = back and common >= 10
        target = common + 1
        if back and visits[target] >= tried:
            target -= 1
        back = back and visits[target] < tried and (compat or target < generated)
        if back:
            visits[target] += 1
            targets.append(target)
            late += target >= generated
            yielded += target == common
            dropped = max(0, generated - target - 1)
            left = snapshots[: len(snapshots) - dropped]
            choices = left[-1][3]
            running, saved, sums, _ = left[-2]
            snapshots, history = left[:-1], history[: len(left) - 1]
            keeper = saved if compat else copy.deepcopy(saved)
            gone = [target + 1] if compat else range(target + 1, PLACES)
            for place in [*gone, *(-(one + 1) for one in range(dropped) if compat)]:
                rejected[place] = set()
            rejected[target] |= set(choices)
            rows, _ = sample.passes(running)
            rows = rows - (rows.amin(-1, keepdim=True) - BARRED)
            for token, beam in rejected[target]:
                rows[beam, token] = BARRED
        rows = rows.log_softmax(-1)
        # A search that went back behind a step does it again, and only that is recorded.
        record[len(running[0]) :] = [rows]
        running, sums, choices = keeper.advance(running, sums, rows)
    return Run(keeper.kept[0][1], torch.stack(record), targets, late, yielded, near)


def beam_search_among(sample, ends, setting, rewarded=0):
    """Return plain beam search over each beam's likeliest tokens.

    The first `rewarded` tokens gain their attention on the image.
    """
    running, sums = start(setting.beams)
    keeper, record = Keeper(setting, ends), []
    while not keeper.done:
        logits, _ = sample.passes(running)
        rows = torch.full_like(logits, BARRED)
        for beam, tokens in enumerate(running):
            for token in logits[beam].topk(setting.tried).indices.tolist():
                rows[beam, token] = logits[beam, token]
                if len(tokens) < rewarded:
                    attention = sample.passes([[*tokens, token]])[1][0, -1]
                    rows[beam, token] += (attention / attention.sum())[sample.image].sum()
        record.append(rows.log_softmax(-1))
        running, sums, _ = keeper.advance(running, sums, record[-1])
    return Run(keeper.kept[0][1], torch.stack(record))


@pytest.fixture
def sample(eager, images, questions):
    """Return a maker of the sample of that index; one test's searches share its passes."""
    made = {}

    def make(backbone, index):
        key = backbone.name, index
        if key not in made:
            reference = eager(backbone)
            pixels = backbone.pixel_values([images[index]])
            prompt = backbone.prompt(questions[index], backbone.encode(pixels)[0])
            made[key] = Sample(reference, prompt.ids.tolist(), reference.features(pixels[0]))
        return made[key]

    return make


@pytest.fixture
def decode(images, questions):
    """Return a decoder of the samples of these indices in one batch."""

    def run(backbone, method, indices, limit=45):
        opera = isinstance(method, Setting)
        limit = method.limit if opera else limit
        return medbench.generate(
            backbone,
            method=method.spec() if opera else method,
            images=[images[index] for index in indices],
            prompts=[questions[index] for index in indices],
            batch_size=len(indices),
            max_new_tokens=limit,
            record_scores=limit,
        )

    return run


def check(answer, run, ends):
    """Assert that an answer is the reference's, and so are the scores of every step."""
    assert answer.token_ids == run.tokens
    assert answer.stop == ("eos" if run.tokens[-1] in ends else "length")
    assert answer.scores.shape == run.rows.shape
    bounds = torch.where(run.rows < BARRED / 2, 1e-3, 1e-4)
    assert ((answer.scores - run.rows).abs() / bounds).max() < 1


@pytest.mark.parametrize("compat", [False, True], ids=["today", "published"])
@pytest.mark.parametrize(
    ("spec", "setting"),
    [
        ("toy", Setting()),
        ("toy[seed=4,layers=3,kv_heads=4]", Setting(3, 4, scale=100.0, weight=2.5)),
        ("toy[seed=2,text=mistral,kv_heads=1]", Setting(beams=4, half=True)),
    ],
    ids=["default", "three beams", "half precision"],
)
def test_each_step_of_a_ragged_batch_is_that_of_whole_passes(
    toy, sample, decode, spec, setting, compat
):
    backbone, setting = toy(spec), replace(setting, compat=compat, limit=26)
    batch = decode(backbone, setting, [0, 1, 2])
    assert len({len(sample(backbone, index).ids) for index in range(3)}) == 3
    for index, answer in enumerate(batch):
        run = naive_opera(sample(backbone, index), backbone.eos_token_ids, setting)
        assert len(run.rows) >= 24
        check(answer, run, backbone.eos_token_ids)


# Searches that go back: backbone, letters that end an answer there, sample and setting; what
# happens by the rules of today, what by those of the published code, whether the answers differ.
BACK = {
    "twice to one place": (
        ("toy[seed=1,layers=3]", 0, 1, Setting(scale=100.0, threshold=2)),
        ({"again"}, {"again"}, False),
    ),
    "no heads shared": (
        ("toy[seed=3,layers=3,kv_heads=4]", 0, 2, Setting(scale=50.0, threshold=3)),
        ({"ended"}, set(), True),
    ),
    "nothing left to take back": (
        ("toy[seed=0,layers=3]", 0, 1, Setting(3, 4, threshold=0)),
        (set(), {"again", "late", "yielded"}, True),
    ),
    "too often to one place": (
        ("toy[seed=2,layers=3,kv_heads=4]", 0, 2, Setting(2, 2, threshold=0)),
        ({"again", "yielded"}, {"again", "late", "yielded"}, True),
    ),
    "what was taken before a rollback": (
        ("toy[seed=1,layers=3]", 0, 0, Setting(2, 2, scale=100.0, threshold=2)),
        ({"again", "near"}, {"again", "near"}, True),
    ),
    "phi stored in half precision": (
        ("toy[seed=2,layers=3,kv_heads=4]", 0, 2, Setting(2, 2, threshold=0, half=True)),
        ({"again", "yielded"}, {"late"}, True),
    ),
    "the end token": (
        ("toy[seed=0,layers=3]", 6, 0, Setting(3, 4, threshold=0)),
        ({"again", "ended"}, {"again", "late", "ended"}, True),
    ),
}


@pytest.mark.parametrize(("case", "shown"), BACK.values(), ids=BACK)
def test_a_search_that_goes_back_is_that_of_whole_passes(toy, sample, decode, case, shown):
    spec, letters, index, setting = case
    *shows, differ = shown
    backbone = toy(spec, ends=letters)
    ends, tokens = backbone.eos_token_ids, []
    for compat, expected in zip((False, True), shows, strict=True):
        chosen = replace(setting, compat=compat)
        run = naive_opera(sample(backbone, index), ends, chosen)
        seen = {
            "again": len(set(run.targets)) < len(run.targets),
            "late": run.late > 0,
            "yielded": run.yielded > 0,
            "near": run.near > 0,
            "ended": run.tokens[-1] in ends,
        }
        assert run.targets
        assert expected <= {name for name, happens in seen.items() if happens}
        assert letters or len(run.tokens) >= 40
        [answer] = decode(backbone, chosen, [index])
        check(answer, run, ends)
        tokens.append(run.tokens)
    assert (tokens[0] != tokens[1]) == differ


def test_samples_that_go_back_leave_the_others_of_their_batch_alone(toy, sample, decode):
    backbone = toy("toy[seed=2,layers=3,kv_heads=4]")
    setting = Setting(2, 2, threshold=0)
    runs = [
        naive_opera(sample(backbone, index), backbone.eos_token_ids, setting) for index in range(3)
    ]
    assert len({len(run.targets) for run in runs} - {0}) == 3
    for run, answer in zip(runs, decode(backbone, setting, [0, 1, 2]), strict=True):
        check(answer, run, backbone.eos_token_ids)


@pytest.mark.parametrize("compat", [False, True], ids=["today", "published"])
def test_without_trust_it_is_beam_search_over_the_candidates(toy, sample, decode, compat):
    """Scale 0 makes phi 0 everywhere; only the first ten tokens gain by looking at the image."""
    backbone = toy(ends=6)
    ends = backbone.eos_token_ids
    setting = Setting(3, 4, scale=0.0, threshold=0, compat=compat, limit=24)
    for index, answer in enumerate(decode(backbone, setting, [0, 1, 2, 3])):
        expected = beam_search_among(sample(backbone, index), ends, setting, rewarded=10)
        check(answer, expected, ends)


@pytest.mark.parametrize("compat", [False, True], ids=["today", "published"])
def test_with_no_weight_it_is_beam_search_over_the_candidates(toy, sample, decode, compat):
    backbone = toy(ends=6)
    ends = backbone.eos_token_ids
    setting = Setting(3, 4, weight=0.0, compat=compat, limit=24)
    answers = decode(backbone, setting, [0, 1, 2, 3])
    for index, answer in enumerate(answers):
        check(answer, beam_search_among(sample(backbone, index), ends, setting), ends)
    weighted = decode(backbone, replace(setting, weight=1.0), [0, 1, 2, 3])
    assert any(a.token_ids != b.token_ids for a, b in zip(answers, weighted, strict=True))


def test_with_no_weight_and_all_tokens_tried_it_is_plain_beam_search(toy, decode):
    backbone = toy(ends=6)
    tokens = backbone.language_model.config.vocab_size
    setting = Setting(3, tokens, weight=0.0, limit=24)
    tried = decode(backbone, setting, range(8))
    plain = decode(backbone, "beam[beams=3]", range(8), limit=24)
    few = decode(backbone, replace(setting, tried=3), range(8))
    assert [a.token_ids for a in tried] == [a.token_ids for a in plain]
    assert [a.token_ids for a in few] != [a.token_ids for a in plain]


@pytest.mark.parametrize("compat", [False, True], ids=["today", "published"])
def test_all_tokens_can_be_tried(toy, sample, decode, compat):
    backbone = toy("toy[seed=3,kv_heads=1]")
    tokens = backbone.language_model.config.vocab_size
    setting = Setting(2, tokens, scale=100.0, compat=compat, limit=12)
    [answer] = decode(backbone, setting, [2])
    run = naive_opera(sample(backbone, 2), backbone.eos_token_ids, setting)
    assert (run.rows > BARRED / 2).all()
    check(answer, run, backbone.eos_token_ids)


@pytest.mark.parametrize("compat", [False, True], ids=["today", "published"])
def test_one_candidate_is_greedy_as_long_as_it_never_goes_back(toy, decode, compat):
    """All other tokens are barred, whatever the one loses."""
    backbone = toy(ends=6)
    setting = Setting(tried=1, threshold=45, compat=compat)
    one = decode(backbone, setting, range(4))
    greedy = decode(backbone, "greedy", range(4))
    assert [a.token_ids for a in one] == [a.token_ids for a in greedy]
    assert {answer.stop for answer in greedy} == {"eos", "length"}


@pytest.mark.parametrize("letters", [30, 70])
def test_most_letters_can_end_an_answer(toy, sample, decode, letters):
    backbone = toy(ends=letters)
    ends = backbone.eos_token_ids
    setting = Setting(tried=20, limit=12)
    for index, answer in enumerate(decode(backbone, setting, [0, 1])):
        check(answer, naive_opera(sample(backbone, index), ends, setting), ends)


@pytest.mark.parametrize("compat", [False, True], ids=["today", "published"])
def test_a_window_that_begins_inside_the_prompt_never_goes_back(toy, sample, decode, compat):
    backbone = toy("toy[seed=1,layers=3]")
    ends = backbone.eos_token_ids
    setting = Setting(3, 4, scale=45.0, threshold=0, by_ids=True, compat=compat, limit=30)
    [answer] = decode(backbone, setting, [4])
    check(answer, naive_opera(sample(backbone, 4), ends, setting), ends)
    # The prompt once, and then each candidate once.
    assert answer.forwards == 1 + 30 * 3 * 4


@pytest.mark.parametrize("method", ["opera[beams=1]", "opera[select=sample]"])
def test_one_beam_and_drawn_tokens_are_refused(toy, decode, method):
    with pytest.raises(UserError, match="opera refuses|cannot select"):
        decode(toy(), method, [0])
