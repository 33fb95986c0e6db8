"""Prefix beam search against all transcripts, torch's loss, and greedy decoding."""

from functools import partial
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unrolled import AutoregressiveDecoder, CTCHead, GRUCell, Recurrent, ShapeError
from unrolled.generation import Hypotheses, LanguageModel, ctc_alignment, ctc_beam_search
from unrolled.sequences import mask_from_lengths

TOKENS = torch.tensor([0, 3, 1, 2])  # the language model's tokens of the labels 1 to 3; its 0 is the start


def language_model(weight: float) -> LanguageModel:
    torch.manual_seed(3)
    decoder = AutoregressiveDecoder.of_tokens(4, 5, partial(Recurrent, GRUCell, hidden_size=6))
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=1.5)
    return LanguageModel(decoder.double().eval(), TOKENS, start=0, weight=weight)


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def every_transcript(
    parameters: Tensor, model: LanguageModel | None, bonus: float
) -> list[tuple[float, float, list[int]]]:
    """All transcripts of one row (time, classes), with score and log probability by torch's loss, the best first."""
    time, classes = parameters.shape
    scores = parameters.log_softmax(-1).unsqueeze(1)
    found: list[tuple[float, float, list[int]]] = []
    for length in range(time + 1):
        for labels in product(range(1, classes), repeat=length):
            if length + sum(a == b for a, b in pairwise(labels)) > time:
                continue
            sizes = torch.tensor([time]), torch.tensor([length])
            target = torch.tensor([labels], dtype=torch.int64).view(1, length)
            log_probability = -float(nn.CTCLoss(reduction="none")(scores, target, *sizes))
            score = log_probability + bonus * length
            if model is not None and length:
                read = torch.tensor([[model.start, *(int(TOKENS[label]) for label in labels)]])
                chances = model.decoder(read[:, :-1]).parameters.log_softmax(-1)
                score += model.weight * float(chances.gather(2, read[:, 1:, None]).sum())
            found.append((score, log_probability, list(labels)))
    return sorted(found, reverse=True)


def texts(found: Hypotheses, row: int) -> list[list[int]]:
    lengths = found.lengths[row].tolist()
    return [tokens[:length] for tokens, length in zip(found.tokens[row].tolist(), lengths, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize(("weight", "bonus"), [(None, 0.0), (None, 1.5), (0.7, 0.0), (0.7, 0.9)])
def test_a_beam_for_each_transcript_finds_all_of_them_in_order(weight: float | None, bonus: float) -> None:
    parameters, lengths = logits(3, 4, 4), torch.tensor([4, 2, 0])
    model = None if weight is None else language_model(weight)

    found = ctc_beam_search(parameters, lengths, num_beams=150, n_best=150, language_model=model, insertion_bonus=bonus)

    for row, length in enumerate(lengths.tolist()):
        oracle = every_transcript(parameters[row, :length], model, bonus) if length else [(0.0, 0.0, [])]
        number = len(oracle)
        assert texts(found, row)[:number] == [labels for _, _, labels in oracle]
        assert found.scores[row, :number].tolist() == pytest.approx([score for score, _, _ in oracle], abs=1e-9)
        assert found.log_probability[row, :number].tolist() == pytest.approx([p for _, p, _ in oracle], abs=1e-9)
        assert bool(found.scores[row, number:].isneginf().all()), "there are no others, and none twice"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.booleans())
def test_a_narrow_beam_returns_bounds_and_no_transcript_twice(seed: int, beams: int, modeled: bool) -> None:
    parameters = logits(2, 7, 4, seed=seed)

    model = language_model(0.5) if modeled else None
    found = ctc_beam_search(parameters, num_beams=beams, n_best=beams, language_model=model)

    head = CTCHead(1, 4).double()
    for row in range(2):
        written = texts(found, row)
        assert len({tuple(text) for text in written}) == beams
        for text, score in zip(written, found.log_probability[row].tolist(), strict=True):
            exact = -float(head.losses(parameters[row : row + 1], torch.tensor([text], dtype=torch.int64).view(1, -1)))
            assert score <= exact + 1e-9


def test_rows_and_padding_do_not_affect_each_other() -> None:
    parameters, lengths = logits(3, 8, 4), torch.tensor([8, 3, 5])
    model = language_model(0.6)
    together = ctc_beam_search(parameters, lengths, num_beams=4, language_model=model)
    parameters[1, 3:], parameters[2, 5:] = torch.nan, torch.inf

    again = ctc_beam_search(parameters, lengths, num_beams=4, language_model=model)

    torch.testing.assert_close(again.scores, together.scores, rtol=0, atol=0)
    for row, length in enumerate(lengths.tolist()):
        alone = ctc_beam_search(parameters[row : row + 1, :length], num_beams=4, language_model=model)
        assert texts(alone, 0) == texts(together, row) == texts(again, row)
        torch.testing.assert_close(alone.scores[0], together.scores[row], rtol=1e-12, atol=1e-12)


def test_certain_frames_give_the_greedy_transcript() -> None:
    parameters = 200 * torch.nn.functional.one_hot(torch.tensor([[0, 2, 2, 0, 2, 1, 1, 3]]), 4).double()
    head = CTCHead(1, 4).double()

    found = ctc_beam_search(parameters, num_beams=3)

    assert texts(found, 0)[0] == [2, 2, 1, 3]
    assert head.predict(parameters)[0].tolist() == [2, 2, 1, 3, -1, -1, -1, -1]
    assert head.started(parameters)[0].tolist() == [0, 2, 0, 0, 2, 1, 0, 3]


@given(st.integers(0, 10_000), st.integers(0, 9))
def test_a_stream_in_two_pieces_begins_the_same_labels(seed: int, cut: int) -> None:
    head, parameters = CTCHead(1, 3).double(), logits(2, 9, 3, seed=seed)
    best = parameters.argmax(-1)

    first = head.started(parameters[:, :cut])
    second = head.started(parameters[:, cut:], previous=best[:, cut - 1] if cut else None)

    assert torch.equal(torch.cat([first, second], 1), head.started(parameters))


def test_labels_begin_within_the_mask_alone() -> None:
    head, parameters = CTCHead(1, 3).double(), logits(2, 6, 3)
    mask = mask_from_lengths(torch.tensor([6, 2]), 6)
    assert torch.equal(head.started(parameters, mask)[1, :2], head.started(parameters[:, :2])[1])
    assert not bool(head.started(parameters, mask)[1, 2:].any())


def test_wrong_arguments_are_refused() -> None:
    parameters = logits(2, 3, 4)
    with pytest.raises(ValueError, match="num_beams=0: expected an integer of 1 or more"):
        ctc_beam_search(parameters, num_beams=0)
    with pytest.raises(ValueError, match="n_best=3 is above num_beams=2"):
        ctc_beam_search(parameters, num_beams=2, n_best=3)
    with pytest.raises(ValueError, match="insertion_bonus=nan"):
        ctc_beam_search(parameters, insertion_bonus=float("nan"))
    with pytest.raises(ShapeError):
        ctc_beam_search(parameters, torch.tensor([3]))
    with pytest.raises(ShapeError, match="one for each class"):
        ctc_beam_search(logits(1, 3, 6), language_model=language_model(1.0))
    with pytest.raises(ValueError, match="tokens 0 to 3, but a label or `start` is 7"):
        ctc_beam_search(parameters, language_model=language_model(1.0)._replace(start=7))
    with pytest.raises(ValueError, match="the language model is a GRUCell, expected a decoder"):
        ctc_beam_search(parameters, language_model=LanguageModel(GRUCell(2, 3), TOKENS, 0))  # pyright: ignore[reportArgumentType]
    parameters[1, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="row 1"):
        ctc_beam_search(parameters)


def test_no_rows_and_no_frames_are_batches() -> None:
    assert ctc_beam_search(logits(0, 3, 4)).tokens.shape == (0, 1, 0)
    found = ctc_beam_search(logits(2, 0, 4), language_model=language_model(1.0))
    assert found.tokens.shape == (2, 1, 0)
    assert found.scores.tolist() == [[0.0], [0.0]]


@given(st.integers(0, 10_000), st.lists(st.integers(1, 3), max_size=4), st.integers(4, 7))
def test_an_alignment_is_the_best_of_all_paths(seed: int, labels: list[int], time: int) -> None:
    parameters = logits(time, 4, seed=seed)
    scores = parameters.log_softmax(-1)
    best, wanted = -float("inf"), list[int]()
    for path in product(range(4), repeat=time) if time < 6 else ():
        begins = [n for n, label in enumerate(path) if label and (n == 0 or path[n - 1] != label)]
        if [path[n] for n in begins] == labels:
            score = float(scores[torch.arange(time), torch.tensor(path)].sum())
            best, wanted = max((best, wanted), (score, begins))
    needed = len(labels) + sum(a == b for a, b in pairwise(labels))
    if needed > time:
        with pytest.raises(ValueError, match=f"the transcript of {len(labels)} labels is too long for {time} frames"):
            ctc_alignment(parameters, torch.tensor(labels))
        return

    found = ctc_alignment(parameters, torch.tensor(labels, dtype=torch.int64)).tolist()

    assert found == (wanted if time < 6 else sorted(found))
