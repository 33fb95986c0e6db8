"""Train a recurrent network: python train.py task=char_lm model=lstm (python train.py --help lists the choices)."""

from unrolled.training.run.command import train

if __name__ == "__main__":
    train()
