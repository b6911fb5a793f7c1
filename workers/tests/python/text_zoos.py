"""Miniature text encoders, fine-tuned by transformers on files of texts, swept, and loaded back.

    text_zoos.py OUT --program mehl-soup [NAME...]

Each zoo has three fine-tunes of one random base, with a tokenizer of its architecture's kind. `mehl-soup run` reads JSONL,
CSV or Parquet. Then Python tokenizes the same texts with the tokenizer that lies beside the written model, and computes
the scores of all ingredients on select, and of the winner and of a learned soup on select and test, text by text without
padding. Losses must agree within 1e-5, metrics within 1e-4, or exactly but for one sample. sentence-transformers loads the
embedding models. Prints a table of Markdown.
Needs the packages of `../fixtures/requirements.txt`.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers as T
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import make_tokenizers

ROOT = Path(__file__).resolve().parents[3]
NAMES = ["animal", "number", "weather"]
WORDS = {
    "animal": "cat dog owl horse mouse Größe feather paw".split(),
    "number": "one two three 3.14 seven sum zero 42".split(),
    "weather": "rain snow wind sun cloud naïve storm 🙂".split(),
}
OTHERS = "the a and on it is not of with at near under 日本 maybe (yes) isn't".split()
INGREDIENTS = 3
TOLERANCE = 1e-5
SAMPLES = {"learn": 90, "select": 70, "test": 70}
LONGEST = 40


def rows(n, seed, pair):
    """Texts whose words tell the class, some of them long, with names of classes."""
    draw = random.Random(seed)
    for _ in range(n):
        label = draw.choice(NAMES)
        words = [
            draw.choice(WORDS[label] if draw.random() < 0.3 else OTHERS) for _ in range(draw.choice([3, 6, 9, 14, 60]))
        ]
        middle = len(words) // 2
        texts = {"text": " ".join(words)}
        if pair:
            texts = {"text": " ".join(words[:middle]), "text_pair": " ".join(words[middle:])}
        yield {"id": draw.random(), **texts, "label": label}


def write(file, found):
    """The rows, in the format of the file's name."""
    found = list(found)
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    else:
        with file.open("w", newline="") as out:
            table = csv.DictWriter(out, list(found[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(found)
    return found


class Zoo:
    """A classifier of texts, and how its targets are written and compared."""

    target, metric = "label", "accuracy"

    def __init__(self, kind, config, tokenizer, ending="jsonl", pair=False, spec="", **keywords):
        self.kind, self.config, self.keywords = getattr(T, kind), getattr(T, config), keywords
        self.tokenizer, self.ending, self.pair, self.spec = getattr(make_tokenizers, tokenizer), ending, pair, spec

    def rows(self, n, seed):
        return rows(n, seed, self.pair)

    def named(self, config):
        config.id2label = dict(enumerate(NAMES))
        config.label2id = {name: i for i, name in enumerate(NAMES)}

    def make(self):
        inner, names = self.tokenizer()
        tokenizer = T.PreTrainedTokenizerFast(tokenizer_object=inner, **names)
        config = self.config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **self.keywords)
        self.named(config)
        return self.kind(config), tokenizer

    def encode(self, tokenizer, found, **options):
        texts = [[row["text"] for row in found]]
        if self.pair:
            texts.append([row["text_pair"] for row in found])
        encoded = tokenizer(
            *texts, truncation=True, max_length=LONGEST, return_tensors="pt", return_token_type_ids=True, **options
        )
        if "type_vocab_size" not in self.keywords:
            del encoded["token_type_ids"]
        return encoded

    def targets(self, found):
        return torch.tensor([NAMES.index(row["label"]) for row in found])

    def loss(self, logits, targets):
        return torch.nn.functional.cross_entropy(logits, targets)

    def measure(self, logits, targets):
        return {"accuracy": (logits.argmax(1) == targets).double().mean().item()}

    def fit(self, folder):
        """The ingredients, in their folders."""
        torch.manual_seed(0)
        model, tokenizer = self.make()
        base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        found = list(self.rows(120, 7))
        inputs, right = self.encode(tokenizer, found, padding=True), self.targets(found)
        for i in range(INGREDIENTS):
            model.load_state_dict(base)
            torch.manual_seed(i)
            optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
            model.train()
            for _ in range(40 + 8 * i):
                some = torch.randint(0, len(right), (24,))
                logits = model(**{name: tensor[some] for name, tensor in inputs.items()}).logits
                optimizer.zero_grad()
                self.loss(logits, right[some]).backward()
                optimizer.step()
            model.save_pretrained(folder / str(i))
            tokenizer.save_pretrained(folder / str(i))

    def score(self, folder, found):
        """Loss and metrics of a model in its folder, with the tokenizer that lies there, text by text."""
        model = self.kind.from_pretrained(folder).double().eval()
        tokenizer = T.PreTrainedTokenizerFast.from_pretrained(folder)
        tokenizer.truncation_side = "left" if "left" in self.spec else "right"
        with torch.no_grad():
            logits = torch.cat([model(**self.encode(tokenizer, [row])).logits for row in found])
        right = self.targets(found)
        return {"loss": self.loss(logits, right.to(logits.dtype) if right.is_floating_point() else right).item()} | (
            self.measure(logits, right)
        )


class MultiLabel(Zoo):
    """A text has two labels, or one."""

    def rows(self, n, seed):
        one, other = rows(n, seed, False), rows(n, seed + 1000, False)
        for a, b in zip(one, other):
            text = f"{a['text']} {b['text']}"
            yield {"text": text, "labels": sorted({a["label"], b["label"]})}

    def named(self, config):
        super().named(config)
        config.problem_type = "multi_label_classification"

    def targets(self, found):
        return torch.tensor([[float(name in row["labels"]) for name in NAMES] for row in found])

    def loss(self, logits, targets):
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)

    def measure(self, logits, targets):
        return {}


class Regression(Zoo):
    """A cross-encoder: the score of two texts is the share of words that tell one class."""

    def rows(self, n, seed):
        for row in rows(n, seed, True):
            words = f"{row['text']} {row['text_pair']}".split()
            score = sum(word in WORDS["animal"] for word in words) / len(words)
            yield {"sentence1": row["text"], "sentence2": row["text_pair"], "score": round(score, 4)}

    def named(self, config):
        config.num_labels = 1

    def encode(self, tokenizer, found, **options):
        pairs = [{"text": row["sentence1"], "text_pair": row["sentence2"]} for row in found]
        return super().encode(tokenizer, pairs, **options)

    def targets(self, found):
        return torch.tensor([[row["score"]] for row in found])

    def loss(self, logits, targets):
        return torch.nn.functional.mse_loss(logits, targets)

    def measure(self, logits, targets):
        a, b = logits.flatten().numpy(), targets.flatten().numpy()
        return {"pearson": np.corrcoef(a, b)[0, 1]}


class Pairs(Zoo):
    """An embedding model of sentence-transformers; pairs are texts of one class, and each has a harder negative."""

    def __init__(self, tokenizer, pooling, kind="Bert", exported=False, **keywords):
        super().__init__(f"{kind}Model", f"{kind}Config", tokenizer, **keywords)
        self.pooling, self.spec, self.exported = pooling, "", exported

    def rows(self, n, seed):
        found = list(rows(3 * n, seed, False))
        for i in range(n):
            label = found[i]["label"]
            positive = next(row for row in found[n + i :] + found if row["label"] == label and row is not found[i])
            negative = next(row for row in found[2 * n + i :] + found if row["label"] != label)
            yield {"anchor": found[i]["text"], "positive": positive["text"], "negative": negative["text"]}

    def named(self, config):
        pass

    def fit(self, folder):
        torch.manual_seed(0)
        model, tokenizer = self.make()
        start = folder.parent / "start"
        model.save_pretrained(start)
        tokenizer.save_pretrained(start)
        encoder = Transformer(str(start), max_seq_length=LONGEST)
        width = model.config.hidden_size
        built = SentenceTransformer(modules=[encoder, Pooling(width, pooling_mode=self.pooling), Normalize()], device="cpu")
        base = {name: tensor.clone() for name, tensor in built.state_dict().items()}
        found = list(self.rows(60, 7))
        for i in range(INGREDIENTS):
            built.load_state_dict(base)
            optimizer = torch.optim.AdamW(built.parameters(), 1e-3)
            built.train()
            for step in range(12 + 4 * i):
                some = [found[(step * 20 + j) % len(found)] for j in range(20)]
                optimizer.zero_grad()
                self.pairs_loss(self.embedded(built, some)).backward()
                optimizer.step()
            built.save(str(folder / str(i)), safe_serialization=True)

    def embedded(self, model, found):
        texts = [[row[name] for row in found] for name in ("anchor", "positive", "negative")]
        return [model(model.preprocess(one))["sentence_embedding"] for one in texts]

    def pairs_loss(self, embedded):
        anchors, *candidates = embedded
        scores = 20.0 * anchors @ torch.cat(candidates).T
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(anchors)))

    def score(self, folder, found):
        model = SentenceTransformer(str(folder), device="cpu").double().eval()
        with torch.no_grad():
            embedded = self.embedded(model, found)
            scores = embedded[0] @ torch.cat(embedded[1:]).T
        right = (scores.argmax(1) == torch.arange(len(found))).double().mean().item()
        return {"loss": self.pairs_loss(embedded).item(), "accuracy_at_1": right}


SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
ZOOS = {
    "bert": Zoo(
        "BertForSequenceClassification", "BertConfig", "wordpiece", pair=True, type_vocab_size=2,
        max_position_embeddings=48, **SMALL,
    ),
    "roberta": Zoo(
        "RobertaForSequenceClassification", "RobertaConfig", "bpe", "csv", max_position_embeddings=50,
        spec='text.truncate = "left"', **SMALL,
    ),
    "xlm-roberta": Zoo(
        "XLMRobertaForSequenceClassification", "XLMRobertaConfig", "unigram", "tsv", max_position_embeddings=50, **SMALL
    ),
    "distilbert": Zoo(
        "DistilBertForSequenceClassification", "DistilBertConfig", "wordpiece", n_layers=2, dim=32, n_heads=2,
        hidden_dim=64, max_position_embeddings=48,
    ),
    "modernbert": Zoo(
        "ModernBertForSequenceClassification", "ModernBertConfig", "bpe", num_hidden_layers=4, hidden_size=32,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=64, local_attention=8,
        global_attn_every_n_layers=2, classifier_pooling="mean", bos_token_id=0, eos_token_id=2, cls_token_id=0,
        sep_token_id=2,
    ),
    "multi-label": MultiLabel(
        "BertForSequenceClassification", "BertConfig", "wordpiece", max_position_embeddings=48, **SMALL
    ),
    "regression": Regression(
        "BertForSequenceClassification", "BertConfig", "wordpiece", "csv", pair=True, type_vocab_size=2,
        max_position_embeddings=48, num_labels=1, **SMALL,
    ),
    "pairs": Pairs("wordpiece", "mean", max_position_embeddings=48, **SMALL),
    # Not native: by an exported graph.
    "pairs-mpnet": Pairs("bpe", "mean", "MPNet", True, max_position_embeddings=50, **SMALL),
}  # fmt: skip


def make(zoo, folder):
    zoo.fit(folder / "zoo")
    files = {split: f"{split}.{zoo.ending}" for split in SAMPLES}
    found = {
        split: write(folder / files[split], zoo.rows(n, 100 + seed)) for seed, (split, n) in enumerate(SAMPLES.items())
    }
    data = "\n".join(f'{split} = "{file}"' for split, file in files.items())
    architecture = 'architecture = "exported"' if getattr(zoo, "exported", False) else ""
    # Pairs are compared within a batch: a split of one batch has the same whatever the order.
    batch = SAMPLES["select"] if isinstance(zoo, Pairs) else 20
    (folder / "sweep.toml").write_text(
        f'[zoo]\ningredients = ["zoo/*"]\nallow_chance = true\n{architecture}\n[data]\n{data}\ntext.max_length = {LONGEST}\n'
        f"{zoo.spec}\n[soup]\nbatch = {batch}\ninner_epochs = 2\n[search]\ngreedy_baseline = true\n"
        '[search.space]\nmethod = ["uniform", "mehl", "mehl+"]\n[compute]\nthreads = 1\ndtype = "f32"\n'
    )
    return found


def call(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments[:3]))}: exit {done.returncode}\n{done.stderr.strip()}")


def check(zoo, folder, program):
    """The winner, and the largest difference of a loss from Python's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = make(zoo, folder)
    if getattr(zoo, "exported", False):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
        export = [sys.executable, "-m", "mehl_soup", "export", folder / "zoo" / "0", "--out", folder / "exported"]
        subprocess.run(export, check=True, env=environment, stdout=subprocess.DEVNULL)
    call(program, "run", str(folder / "sweep.toml"), "--out", str(folder / "run"))
    results = json.loads((folder / "run" / "results.json").read_text())
    differences = []

    def compare(what, told, model, split):
        expected = zoo.score(model, found[split])
        differences.append(abs(told["loss"] - expected["loss"]))
        metrics = [name for name in expected if name != "loss"]
        # One sample may be on the edge of two classes.
        slack = {name: 1.5 / SAMPLES[split] if name.startswith("accuracy") else 1e-4 for name in metrics}
        wrong = [name for name in metrics if not abs(told[name] - expected[name]) <= slack[name]]
        if not differences[-1] <= TOLERANCE or wrong:
            raise RuntimeError(f"{what}: expected {expected} as in Python, found {told}")

    for i, ingredient in enumerate(results["ingredients"]):
        compare(f"ingredient {i} on select", ingredient["select"], folder / "zoo" / str(i), "select")
    winner = results["tasks"][0]
    learned = next(task for task in results["tasks"] if task["method"].startswith("mehl"))
    coefficients = folder / "run" / "tasks" / learned["task_id"] / "coefficients.safetensors"
    call(program, "materialize", str(coefficients), "--out", str(folder / "learned"))
    for task, written in ((winner, folder / "run" / "best"), (learned, folder / "learned")):
        for split in ("select", "test"):
            compare(f"{task['method']} on {split}", task[split], written, split)
    if not any("were truncated to" in note for note in results["notes"]):
        raise RuntimeError(f"expected a note of truncated texts, found {results['notes']}")
    return winner, max(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--program", default="target/release/mehl-soup")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(ZOOS)}")
    options = parser.parse_args()
    torch.set_num_threads(2)
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    failed = []
    print("| architecture | data | winner | select loss | largest difference of a loss | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.names or ZOOS:
        begun, zoo = time.monotonic(), ZOOS[name]
        try:
            winner, difference = check(zoo, (options.out / name).resolve(), options.program)
        except Exception as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        data = f"{zoo.ending}, pairs" if zoo.pair else zoo.ending
        cells = [name, data, winner["method"], f"{winner['select']['loss']:.4f}", f"{difference:.1e}"]
        print(f"| {' | '.join(cells)} | {time.monotonic() - begun:.0f} |", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
