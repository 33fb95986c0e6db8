"""python -m unrolled COMMAND …: `train` and `evaluate` need the training dependencies, the others torch alone."""

import sys

TRAINING = ("train", "evaluate")


def main() -> int:
    """Runs the command given as the first argument, and returns its exit status."""
    if sys.argv[1:2] not in ([name] for name in TRAINING):
        from unrolled.deployment.command import main as use

        return use()
    try:
        from unrolled.training.run import command
    except ModuleNotFoundError as error:
        if str(error.name).startswith("unrolled"):
            raise
        print(f"unrolled {sys.argv[1]}: {error}: pip install 'unrolled[train]'", file=sys.stderr)
        return 2
    command.train(sys.argv[2:]) if sys.argv[1] == "train" else command.evaluate(sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
