"""Series with a tag for each step: read from tables, split, batched, refused with their place."""

from pathlib import Path

import pytest
import torch

from unrolled.training.data.base import DataError
from unrolled_tasks.tagging import FrameTaggingData


def table(path: Path, rows: list[str]) -> str:
    path.write_text("\n".join(["run,x,y,tag", *rows]))
    return str(path)


def test_a_series_is_the_rows_of_a_name(tmp_path: Path) -> None:
    rows = [
        f"{run},{step * run},{-step},{'even' if step % 2 == 0 else 'odd'}"
        for run in (1, 2, 3)
        for step in range(run + 2)
    ]
    data = FrameTaggingData(files=table(tmp_path / "a.csv", rows), series="run", split_fractions=[1, 0, 0])
    data.prepare()
    source, target = data.processor()
    batch = next(iter(data.train_dataloader()))
    longest = int(batch.lengths.argmax())

    assert sorted(batch.lengths.tolist()) == [3, 4, 5]
    assert target.labels == ["even", "odd"]
    assert data.sizes() == {"vocabulary": 0, "characters": 0, "features": 2, "outputs": 2}
    expected = torch.tensor([[3.0 * step, -step] for step in range(5)], dtype=torch.float64)
    torch.testing.assert_close(source.decode(batch.source[longest]), expected, rtol=0, atol=1e-5)
    assert batch.targets[longest].tolist() == [0, 1, 0, 1, 0]


def test_the_last_series_are_for_the_test(tmp_path: Path) -> None:
    rows = [f"{run},{run},0,{'ab'[step]}" for run in range(10) for step in range(2)]
    data = FrameTaggingData(files=table(tmp_path / "a.csv", rows), series="run")
    data.prepare()

    assert data.splits() == ("train", "validation", "test")
    (batch,) = data.test_dataloader()
    assert batch.sentences[0] == (["0", "1"], ["a", "b"])
    assert data.processor().source.decode(batch.source[0])[0, 0] == pytest.approx(9)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,x,0,a", "1,1,1,b"], "a channel has something else than a number"),
        (["1,0,0,a", "1,1,1,a"], "all steps have the tag 'a': there must be two or more"),
        (["1,nan,0,a", "1,1,1,b"], "a.csv, line 2: a channel is not finite"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    data = FrameTaggingData(files=table(tmp_path / "a.csv", rows), series="run", split_fractions=[1, 0, 0])
    with pytest.raises(DataError, match=message):
        data.prepare()
