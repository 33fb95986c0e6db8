r"""What a linear classifier says that knows no order: the least that a recurrent network has to beat.

    python benchmarks/classification_baselines.py data=japanese_vowels
    python benchmarks/classification_baselines.py data=speech data.files=FOLDER \\
        data.modality.features.normalization=none
    python benchmarks/classification_baselines.py data=sentences data.files=train.jsonl data.test_files=test.jsonl

Frames become their mean and standard deviation over a sequence, standardised; texts become tf-idf of words and pairs of
words. Both go through scikit-learn's logistic regression with its default penalty. The examples, the parts and the
features are those that train.py reads with the same options; nothing is changed at random.
"""

import argparse
import tempfile
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unrolled.training.configuration.overrides import config_folder
from unrolled.training.run.runner import assemble


def summary(frames: np.ndarray) -> np.ndarray:
    """(time, features) -> (2 × features,): mean and deviation of each."""
    return np.concatenate([frames.mean(0), frames.std(0)])


def examples(loader: Any, *, text: bool) -> tuple[list[Any], list[int]]:
    """Sources, each as a text or a summary, and their labels."""
    sources: list[Any] = []
    labels: list[int] = []
    for batch in loader:
        if text:
            sources += [
                " ".join(map(str, ids[:n])) for ids, n in zip(batch.source.tolist(), batch.lengths, strict=True)
            ]
        else:
            pairs = zip(batch.source.numpy(), batch.lengths.tolist(), strict=True)
            sources += [summary(frames[:length]) for frames, length in pairs]
        labels += batch.targets.tolist()
    return sources, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(config_folder()), version_base="1.3"):
        given = ["task=classification", f"run_dir={folder}", "trainer=cpu", *options.overrides]
        config = compose("train", given)
        if config.data.modality.get("augmentation"):
            config.data.modality.augmentation = None
        data = assemble(config).data
        data.prepare()
        text = config.data.unit == "token"
        first = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+") if text else StandardScaler()
        classifier = make_pipeline(first, LogisticRegression(max_iter=2000))
        classifier.fit(*examples(data.train_dataloader(), text=text))
        print(data.describe())
        print(f"right: {100 * classifier.score(*examples(data.test_dataloader(), text=text)):.1f} %")


if __name__ == "__main__":
    main()
