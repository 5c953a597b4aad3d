"""Items per second of each metric, against calling its package in the plain way its README shows.

    python benchmarks/metrics.py                                 # BERT-base shapes, CPU, 48 pairs
    python benchmarks/metrics.py --pairs 200 --device cuda
    python benchmarks/metrics.py --metric chexbert/labels --shape tiny

Checkpoints are random, in the packages' own formats and of the published ones' shapes; reports are
made up, of some fifty words. Three ratios, higher is faster than the package:

    loaded      pairs per second once everything is loaded
    whole       a process from its start to the scores of one decoder, imports and loading included
    decoders    the same of several decoders (--decoders) that answer half of the items alike, as
                `medbench rescore` does it; golds are the same for all, as they are in a benchmark

Each way is timed in a process of its own, in turns; ratios are of one round, and the table gives
their median with the lowest and highest. Where a package no longer runs with transformers 5 its
plain way is called with what medbench adds to it, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
# Two of the packages install a module of this name, which would be found instead.
sys.modules["tests"] = ModuleType("tests")
sys.modules["tests"].__path__ = [str(ROOT / "tests")]

from medbench.scorers import (  # noqa: E402 (found where the first line above says)
    bert,
    chexbert,
    coco,
    google_rouge,
    meteor,
    nltk_texts,
    radgraph,
    rate,
)

# width, layers, heads, vocabulary
SHAPES = {"tiny": (48, 24, 2, 0), "base": (768, 12, 12, 30522)}
PARTS = (
    "the heart is normal in size", "the heart is enlarged", "the lungs are clear",
    "there is a small left pleural effusion", "there is no pneumothorax or pleural effusion",
    "mild bilateral edema is present", "the mediastinum is of normal size and contour",
    "a chest tube ends in the right upper lobe", "no focal consolidation is seen",
    "there are stable degenerative changes of the spine", "a large opacity in the left lower lobe",
    "the right lung is well expanded with no opacity", "no acute cardiopulmonary abnormality",
)  # fmt: skip


def main() -> None:
    """Read the command line, time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=48, help="reports with their golds")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--metric", default=",".join(WAYS), help="names, split at commas")
    parser.add_argument("--decoders", type=int, default=3, help="scored together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # metric and way, in a child
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        run_one(*asked.one, asked)
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, {asked.pairs} pairs, {asked.shape} shapes, {asked.rounds} rounds")
    print(
        row("metric", "package /s", "medbench /s", "loaded", "whole", f"{asked.decoders} decoders")
    )
    print(f"|{'---|' * 6}")
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = folder
        for metric in asked.metric.split(","):
            time_metric(metric, asked)


def time_metric(metric: str, asked: argparse.Namespace) -> None:
    """Time one metric's ways in turns, and print a line."""
    build(metric, asked)
    loaded: dict[str, list[float]] = {"plain": [], "ours": []}
    whole: dict[str, list[float]] = {"plain": [], "ours": [], "plain-all": [], "ours-all": []}
    for _ in range(asked.rounds):
        for way, found in whole.items():
            seconds, inside = timed(metric, way, asked)
            found.append(seconds)
            if way == "plain":
                loaded[way].append(inside)
        loaded["ours"].append(timed(metric, "engine", asked)[1])
    rates = [asked.pairs / median(loaded[way]) for way in ("plain", "ours")]
    cells = (
        ratio(loaded["plain"], loaded["ours"]),
        ratio(whole["plain"], whole["ours"]),
        ratio(whole["plain-all"], whole["ours-all"]),
    )
    print(row(metric, *(f"{rate:.2f}" for rate in rates), *cells), flush=True)


def row(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def ratio(plain: list[float], ours: list[float]) -> str:
    """Return the median of rounds' ratios, with the lowest and the highest."""
    found = [a / b for a, b in zip(plain, ours, strict=True)]
    return f"{median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


def timed(metric: str, way: str, asked: argparse.Namespace) -> tuple[float, float]:
    """Run one way in a process of its own, which keeps nothing for others.

    Returns:
        Seconds of the whole process, and of its work once everything was loaded.
    """
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--one", metric, way, "--folder", asked.folder]
        command += ["--pairs", str(asked.pairs), "--shape", asked.shape, "--device", asked.device]
        command += ["--decoders", str(asked.decoders)]
        around = {**os.environ, "XDG_CACHE_HOME": cache, "PYTHONPATH": str(ROOT)}
        around |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        # f1chexbert looks for its checkpoint nowhere else.
        (Path(cache) / "chexbert").symlink_to(Path(asked.folder) / "chexbert")
        around["HF_HOME"] = str(Path(asked.folder) / "hub")
        around["NLTK_DATA"] = str(Path(asked.folder) / "nltk_data")
        begin = time.perf_counter()
        done = subprocess.run(command, env=around, capture_output=True, text=True, cwd=ROOT)
        seconds = time.perf_counter() - begin
        if done.returncode:
            sys.exit(f"{metric} {way} failed:\n{done.stderr[-3000:]}")
        return seconds, float(done.stdout.splitlines()[-1])


def reports(pairs: int, seed: int) -> list[str]:
    """Return reports of some fifty words."""
    draw = random.Random(seed)
    chosen = (draw.sample(PARTS, draw.randrange(5, 11)) for _ in range(pairs))
    return [f"{'. '.join(parts).capitalize()}." for parts in chosen]


def decoders(pairs: int, number: int) -> list[list[str]]:
    """Return several decoders' answers, of which the first half are the same."""
    first, *others = (reports(pairs, 1 + seed) for seed in range(number))
    return [first, *([*first[: pairs // 2], *other[pairs // 2 :]] for other in others)]


def run_one(metric: str, way: str, asked: argparse.Namespace) -> None:
    """Do one way of one metric, and print the seconds that it took once all was loaded."""
    golds = reports(asked.pairs, 0)
    answers = decoders(asked.pairs, asked.decoders if way.endswith("all") else 1)
    name, engine, of_pairs, plain = WAYS[metric]
    if way.startswith("plain"):
        call = plain(asked)
        call(golds[:1], golds[:1])
        begin = time.perf_counter()
        for one in answers:
            call(one, golds)
        print(time.perf_counter() - begin)
        return
    if way == "engine":
        print(time_engine(engine(asked.folder), of_pairs, answers[0], golds, asked.device))
        return
    from medbench.metric import Setting
    from medbench.scoring import score

    score(
        name.format(folder=asked.folder),
        predictions=[text for one in answers for text in one],
        golds=golds * len(answers),
        setting=Setting(asked.device),
    )
    print(0.0)


def time_engine(engine, of_pairs: bool, answers: list[str], golds: list[str], device: str) -> float:
    """Return the seconds that an engine takes for texts in the batches that it is given."""
    texts = [*zip(answers, golds, strict=True)] if of_pairs else [(t,) for t in (*answers, *golds)]
    texts = sorted(dict.fromkeys(texts), key=lambda text: max(map(len, text)))
    values = import_module(engine.module).load(dict(engine.settings), device)
    values([texts[0]])
    begin = time.perf_counter()
    for start in range(0, len(texts), engine.batch):
        values(texts[start : start + engine.batch])
    return time.perf_counter() - begin


def build(metric: str, asked: argparse.Namespace) -> None:
    """Write the random checkpoint that a metric needs, once."""
    folder = Path(asked.folder)
    width, layers, heads, vocabulary = SHAPES[asked.shape]
    shape = {"width": width, "layers": layers, "heads": heads, "vocabulary": vocabulary}
    kind = metric.partition("/")[0]
    if kind == "chexbert" and not (folder / "chexbert").exists():
        from tests.metrics.tiny import chexbert as tiny

        tiny.checkpoint(folder / "chexbert", **shape)
        place(folder / "chexbert", "bert-base-uncased", folder)
    elif kind == "radgraph" and not (folder / "radgraph-xl").exists():
        from tests.metrics.tiny import radgraph as tiny

        radgraph.adapt()
        tiny.checkpoint(folder / "radgraph-xl", **shape)
    elif kind == "bertscore" and not (folder / "bert").exists():
        from tests.metrics.tiny import bert as tiny

        shape |= {"layers": 24, **({"width": 1024, "heads": 16} if width > 100 else {})}
        tiny.checkpoint(folder / "bert", **shape)
    elif kind == "ratescore" and not (folder / "rate").exists():
        from tests.metrics.tiny import rate as tiny

        tiny.ner(folder / "rate" / "ner", **shape)
        tiny.encoder(folder / "rate" / "encoder", **shape)
    elif "nltk" in metric and not (folder / "nltk_data").exists():
        from tests.metrics.tiny import nltk_data

        nltk_data.punkt(folder / "nltk_data")
        nltk_data.wordnet(folder / "nltk_data")


def place(folder: Path, hub_id: str, root: Path) -> None:
    """Lay a folder's files out as the hub's cache does."""
    repository = root / "hub" / "hub" / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir(exist_ok=True)
    (repository / "snapshots" / ("0" * 40)).symlink_to(folder)


def bert_score_way(asked: argparse.Namespace):
    """Return bert-score called as its README does."""
    from bert_score import score

    folder = f"{asked.folder}/bert"
    return lambda hyps, refs: score(
        hyps, refs, model_type=folder, num_layers=17, device=asked.device
    )


def chexbert_way(asked: argparse.Namespace):
    """Return f1chexbert asked for each report's labels, as its `forward` does."""
    from f1chexbert import F1CheXbert
    from transformers import BertTokenizer

    def encode_plus(self, words: list[str]) -> dict[str, list[int]]:
        ids = self.convert_tokens_to_ids(words)
        return {"input_ids": [self.cls_token_id, *ids, self.sep_token_id]}

    if not hasattr(BertTokenizer, "encode_plus"):
        BertTokenizer.encode_plus = encode_plus
    scorer = F1CheXbert(device=asked.device)
    return lambda hyps, refs: [scorer.get_label(text) for text in (*refs, *hyps)]


def radgraph_way(asked: argparse.Namespace):
    """Return radgraph called as its README does."""
    radgraph.adapt()
    from radgraph import F1RadGraph

    number = -1 if asked.device == "cpu" else 0
    scorer = F1RadGraph(
        reward_level="all",
        model_type="radgraph-xl",
        model_cache_dir=f"{asked.folder}/radgraph-xl",
        cuda=number,
    )
    return lambda hyps, refs: scorer(hyps=hyps, refs=refs)


def rate_way(asked: argparse.Namespace):
    """Return RaTEScore called as its README does."""
    from RaTEScore import RaTEScore

    scorer = RaTEScore(
        bert_model=f"{asked.folder}/rate/ner",
        eval_model=f"{asked.folder}/rate/encoder",
        use_gpu=asked.device != "cpu",
    )
    return lambda hyps, refs: scorer.compute_score(hyps, refs)


def coco_way(name: str):
    """Return a maker of pycocoevalcap's scorers, on the words of its tokenizer."""

    def make(asked: argparse.Namespace):
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        scorer = {"bleu": lambda: Bleu(4), "rouge": Rouge, "meteor": Meteor}[name]()
        tokenizer = PTBTokenizer()

        def call(hyps: list[str], refs: list[str]) -> object:
            given, wanted = (
                tokenizer.tokenize({at: [{"caption": text}] for at, text in enumerate(texts)})
                for texts in (hyps, refs)
            )
            return scorer.compute_score(wanted, given)

        return call

    return make


def nltk_way(name: str):
    """Return a maker of NLTK's scorers, one pair after the other."""

    def make(asked: argparse.Namespace):
        from nltk import data, word_tokenize
        from nltk.translate import bleu_score, meteor_score

        data.path.insert(0, f"{asked.folder}/nltk_data")
        smooth = bleu_score.SmoothingFunction().method4

        def bleu(hyp: str, ref: str) -> float:
            return bleu_score.sentence_bleu(
                [word_tokenize(ref)], word_tokenize(hyp), smoothing_function=smooth
            )

        def meteor(hyp: str, ref: str) -> float:
            return meteor_score.meteor_score([word_tokenize(ref)], word_tokenize(hyp))

        one = {"bleu": bleu, "meteor": meteor}[name]
        return lambda hyps, refs: [one(hyp, ref) for hyp, ref in zip(hyps, refs, strict=True)]

    return make


def google_way(asked: argparse.Namespace):
    """Return rouge-score called as its README does."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda hyps, refs: [scorer.score(r, h) for h, r in zip(hyps, refs, strict=True)]


# Metric -> its spec, its engine, whether that takes pairs of texts, and its package's plain way.
WAYS = {
    "bleu4/nltk": ("bleu4/nltk", lambda _: nltk_texts.bleu4(), True, nltk_way("bleu")),
    "bleu4/coco": ("bleu4/coco", lambda _: coco.bleu4(), True, coco_way("bleu")),
    "rougeL/google": ("rougeL/google", lambda _: google_rouge.rouge_l(), True, google_way),
    "rougeL/coco": ("rougeL/coco", lambda _: coco.rouge_l(), True, coco_way("rouge")),
    "meteor/nltk": ("meteor/nltk", lambda _: nltk_texts.meteor(), True, nltk_way("meteor")),
    "meteor/1.5": ("meteor/1.5", lambda _: meteor.meteor(), True, coco_way("meteor")),
    "bertscore": (
        "bertscore[weights={folder}/bert]",
        lambda folder: bert.bertscore(f"{folder}/bert"),
        True,
        bert_score_way,
    ),
    "chexbert/labels": (
        "chexbert/labels[weights={folder}/chexbert]",
        lambda folder: chexbert.chexbert(f"{folder}/chexbert"),
        False,
        chexbert_way,
    ),
    "radgraph/partial": (
        "radgraph/partial[weights={folder}/radgraph-xl]",
        lambda folder: radgraph.radgraph("radgraph-xl", f"{folder}/radgraph-xl"),
        False,
        radgraph_way,
    ),
    "ratescore": (
        "ratescore[ner={folder}/rate/ner,encoder={folder}/rate/encoder]",
        lambda folder: rate.ratescore(f"{folder}/rate/ner", f"{folder}/rate/encoder"),
        True,
        rate_way,
    ),
}

if __name__ == "__main__":
    main()
