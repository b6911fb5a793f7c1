"""Miniature text encoders, fine-tuned by transformers on files of texts, swept, and loaded back.

    text_zoos.py OUT --program mehl-soup [NAME...]

Each zoo has three fine-tunes of one random base, with a tokenizer of its architecture's kind. `mehl-soup run` reads JSONL,
CSV or Parquet. Then Python tokenizes the same texts with the tokenizer that lies beside the written model, and computes
the scores of all ingredients on select, and of the winner and of a learned soup on select and test, text by text without
padding. Losses must agree within 1e-5 nats, accuracies exactly but for one sample. Prints a table of Markdown.
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

import torch
import transformers as T

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import make_tokenizers

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
    def __init__(self, kind, config, tokenizer, ending="jsonl", pair=False, spec="", **keywords):
        self.kind, self.config, self.keywords = getattr(T, kind), getattr(T, config), keywords
        self.tokenizer, self.ending, self.pair, self.spec = getattr(make_tokenizers, tokenizer), ending, pair, spec

    def make(self):
        inner, names = self.tokenizer()
        tokenizer = T.PreTrainedTokenizerFast(tokenizer_object=inner, **names)
        config = self.config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **self.keywords)
        config.id2label = dict(enumerate(NAMES))
        config.label2id = {name: i for i, name in enumerate(NAMES)}
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
}  # fmt: skip


def labels(found):
    return torch.tensor([NAMES.index(row["label"]) for row in found])


def tune(zoo, model, tokenizer, steps, seed):
    torch.manual_seed(seed)
    found = list(rows(120, 7, zoo.pair))
    tokenizer.truncation_side = "right"
    inputs, right = zoo.encode(tokenizer, found, padding=True), labels(found)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    model.train()
    for _ in range(steps):
        some = torch.randint(0, len(right), (24,))
        logits = model(**{name: tensor[some] for name, tensor in inputs.items()}).logits
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, right[some]).backward()
        optimizer.step()


def make(zoo, folder):
    torch.manual_seed(0)
    model, tokenizer = zoo.make()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for i in range(INGREDIENTS):
        model.load_state_dict(base)
        tune(zoo, model, tokenizer, 40 + 8 * i, i)
        model.save_pretrained(folder / "zoo" / str(i))
        tokenizer.save_pretrained(folder / "zoo" / str(i))
    files = {split: f"{split}.{zoo.ending}" for split in SAMPLES}
    found = {
        split: write(folder / files[split], rows(n, 100 + seed, zoo.pair))
        for seed, (split, n) in enumerate(SAMPLES.items())
    }
    data = "\n".join(f'{split} = "{file}"' for split, file in files.items())
    (folder / "sweep.toml").write_text(
        f'[zoo]\ningredients = ["zoo/*"]\n[data]\n{data}\ntext.max_length = {LONGEST}\n{zoo.spec}\n'
        '[soup]\nbatch = 20\ninner_epochs = 2\n[search]\ngreedy_baseline = true\n[search.space]\n'
        'method = ["uniform", "mehl", "mehl+"]\n[compute]\nthreads = 1\ndtype = "f32"\n'
    )
    return found


def score(zoo, folder, found):
    """Loss and accuracy of a model in its folder, with the tokenizer that lies there, text by text."""
    model = zoo.kind.from_pretrained(folder).double().eval()
    tokenizer = T.PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.truncation_side = "left" if "left" in zoo.spec else "right"
    with torch.no_grad():
        logits = torch.cat([model(**zoo.encode(tokenizer, [row])).logits for row in found])
    right = labels(found)
    return torch.nn.functional.cross_entropy(logits, right).item(), (logits.argmax(1) == right).double().mean().item()


def call(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments[:3]))}: exit {done.returncode}\n{done.stderr.strip()}")


def check(zoo, folder, program):
    """The winner, and the largest difference of a loss from Python's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = make(zoo, folder)
    call(program, "run", str(folder / "sweep.toml"), "--out", str(folder / "run"))
    results = json.loads((folder / "run" / "results.json").read_text())
    differences = []

    def compare(what, told, model, split):
        loss, accuracy = score(zoo, model, found[split])
        differences.append(abs(told["loss"] - loss))
        if not differences[-1] <= TOLERANCE or abs(told["accuracy"] - accuracy) > 1.5 / SAMPLES[split]:
            raise RuntimeError(f"{what}: expected {(loss, accuracy)} as in Python, found {told}")

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
