"""Score a trained network on any data: python evaluate.py checkpoint=PATH data=text data.files=FILE."""

from unrolled.training.run.command import evaluate

if __name__ == "__main__":
    evaluate()
