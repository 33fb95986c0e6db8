r"""The linear model that a run of classification prints at its end, without training a network.

    python benchmarks/classification_baselines.py data=japanese_vowels
    python benchmarks/classification_baselines.py data=speech data.files=FOLDER \\
        data.modality.features.normalization=none
    python benchmarks/classification_baselines.py data=sentences data.files=train.jsonl data.test_files=test.jsonl

The examples, the splits and the features are those that train.py reads with the same options.
"""

import argparse
import tempfile
from typing import cast

from unrolled.training.run import compose
from unrolled.training.run.assembly import assemble
from unrolled_tasks.classification.baseline import linear_baseline
from unrolled_tasks.classification.data import ClassificationData


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = compose("task=classification", f"run_dir={folder}", "trainer=cpu", *options.overrides)
        data = cast("ClassificationData", assemble(config).data)
        data.prepare()
        metrics, description = linear_baseline(data)
        print(data.describe())
        print(description)
        print(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()
