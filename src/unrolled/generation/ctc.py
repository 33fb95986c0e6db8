"""Prefix beam search for a `CTCHead`, optionally with a language model."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.generation.beam import Hypotheses
from unrolled.generation.limits import check_time, undefined_row, whole
from unrolled.heads.ctc import BLANK
from unrolled.heads.temperature import widened
from unrolled.models.decoders.base import Decoder, DecoderState
from unrolled.sequences import mask_from_lengths
from unrolled.shapes import ShapeError, expect
from unrolled.state import leaves, rebuild, select
from unrolled.wording import article

_PADDING = -1  # as in the predictions of a `CTCHead`


class LanguageModel(NamedTuple):
    """A language model beside a `CTCHead`, and how its tokens correspond to the head's labels."""

    decoder: Decoder  # a decoder of tokens without a source, in evaluation mode
    tokens: Tensor  # (num_classes,) int64: the token of each label; that of the blank, class 0, is not read
    start: int  # the token before the first label
    weight: float = 0.5  # of its log probabilities


def ctc_beam_search(
    parameters: Tensor,
    lengths: Tensor | None = None,
    *,
    num_beams: int = 10,
    n_best: int = 1,
    language_model: LanguageModel | None = None,
    insertion_bonus: float = 0.0,
) -> Hypotheses:
    """Search for the transcripts Y with the highest score log P(Y|X) + α log P_lm(Y) + β |Y|.

    Prefix beam search (Graves 2012, section 7.4.2; Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech
    Recognition using Bi-Directional Recurrent DNNs"): each hypothesis is a transcript with the probability of all its
    alignments to the frames so far that were not dropped from the beam. With a beam for each possible transcript, the
    search is exact.

    Args:
        parameters: (batch, time, num_classes), the logits of a `CTCHead`.
        lengths: (batch,) numbers of valid frames; None without padding.
        num_beams: number of transcripts kept at each frame.
        n_best: number of transcripts returned for each row.
        language_model: its decoder, and α as its weight.
        insertion_bonus: β, added for each label; a language model alone favors short transcripts.

    Returns:
        `tokens` are labels, padded with −1; `log_probability` is log P(Y|X), a lower bound if the beam was full.

    Raises:
        ShapeError: tensors whose shapes don't match.
        ValueError: an option outside its range, a language model of other labels, logits that are NaN or infinite.
    """
    expect(parameters, "batch time classes", name="parameters")
    batch, time, classes = parameters.shape
    whole(1, num_beams=num_beams, n_best=n_best)
    if n_best > num_beams:
        raise ValueError(f"n_best={n_best} is above num_beams={num_beams}; raise num_beams")
    if not abs(insertion_bonus) < float("inf"):
        raise ValueError(f"insertion_bonus={insertion_bonus}: expected a finite number")
    scores = widened(parameters).detach().log_softmax(-1)
    if lengths is not None:
        expect(lengths, "batch", batch=batch, name="lengths")
        valid = mask_from_lengths(lengths.to(scores.device), time)
        # After the end, the blank is certain, so that nothing changes.
        after = scores.new_full((classes,), -torch.inf)
        after[BLANK] = 0.0
        scores = torch.where(valid.unsqueeze(-1), scores, after)
    broken = scores.isnan().flatten(1).any(1)
    if bool(broken.any()):
        raise undefined_row(int(broken.int().argmax()))
    beam = _Beam(scores, num_beams, _Scorer(language_model, insertion_bonus, batch * num_beams, scores))
    with torch.no_grad():
        for frame in scores.unbind(1):
            check_time()
            beam.advance(frame)
    return beam.best(n_best)


class _Scorer:
    """The scores of labels after each transcript: the bonus, and the language model's, whose state it holds."""

    def __init__(self, model: LanguageModel | None, bonus: float, rows: int, like: Tensor) -> None:
        self.model, self.labels = model, like.new_full((rows, like.shape[-1]), bonus)
        self.state: DecoderState | None = None
        if model is None:
            return
        self._bonus = bonus
        self._tokens = _checked_tokens(model, like)
        self.state, self._memory = model.decoder.start(rows)
        self._read(torch.arange(rows, device=like.device), torch.full((rows,), model.start, device=like.device))

    def extend(self, origins: Tensor, labels: Tensor) -> None:
        """Reorder rows as (rows,) origins say, and append (rows,) labels; the blank appends nothing."""
        if self.model is None:
            return
        self.labels, self.state = self.labels.index_select(0, origins), select(self.state, origins)
        rows = (labels != BLANK).nonzero()[:, 0]
        if len(rows):
            self._read(rows, self._tokens[labels[rows]])

    def _read(self, rows: Tensor, tokens: Tensor) -> None:
        model: Any = self.model
        with torch.no_grad():
            decoded = model.decoder.step(tokens, select(self.state, rows), self._memory)
        pairs = zip(leaves(self.state), leaves(decoded.state), strict=True)
        self.state = rebuild(self.state, [old.index_copy(0, rows, new.to(old.dtype)) for old, new in pairs])
        found = widened(decoded.parameters).log_softmax(-1)[:, self._tokens]
        self.labels = self.labels.index_copy(0, rows, model.weight * found.to(self.labels) + self._bonus)


class _Beam:
    """The transcripts that are kept, (batch, num_beams)."""

    def __init__(self, scores: Tensor, num_beams: int, scorer: _Scorer) -> None:
        batch = len(scores)
        self.scorer = scorer
        self.tokens = torch.full((batch, num_beams, 0), _PADDING, device=scores.device)
        self.lengths = self.tokens.new_zeros(batch, num_beams)
        # Log probabilities of the alignments that end with a blank, and of those that end with the last label.
        self.blank = scores.new_full((batch, num_beams), -torch.inf)
        self.blank[:, :1] = 0.0  # of the empty transcript; the other places are not taken yet
        self.label = scores.new_full((batch, num_beams), -torch.inf)
        self.bonus = scores.new_zeros(batch, num_beams)  # of the language model and of the number of labels

    def advance(self, frame: Tensor) -> None:
        """Read the log probabilities (batch, classes) of a frame."""
        batch, beams = self.blank.shape
        total, last = torch.logaddexp(self.blank, self.label), self._last()
        blank = total + frame[:, :1]
        label = self.label + frame.gather(1, last)
        extended = total.unsqueeze(-1) + frame.unsqueeze(1)
        # The same label again needs a blank between the two.
        again = (self.blank + frame.gather(1, last)).unsqueeze(-1)
        extended = extended.scatter(2, last.unsqueeze(-1), again)
        extended[:, :, BLANK] = -torch.inf
        label, extended = self._merged(total > -torch.inf, last, label, extended)
        scored = extended + (self.bonus.view(-1, 1) + self.scorer.labels).view_as(extended)
        stayed = torch.logaddexp(blank, label) + self.bonus
        chosen = torch.cat([stayed, scored.flatten(1)], 1).topk(beams, dim=1).indices
        new = chosen >= beams
        place = (chosen - beams).clamp(min=0)
        origins = torch.where(new, place // frame.shape[1], chosen)
        labels = torch.where(new, place % frame.shape[1], BLANK)
        gained = self.scorer.labels.view_as(extended).flatten(1).gather(1, place).masked_fill(~new, 0.0)
        self.bonus = self.bonus.gather(1, origins) + gained
        self.blank = blank.gather(1, origins).masked_fill(new, -torch.inf)
        self.label = torch.where(new, extended.flatten(1).gather(1, place), label.gather(1, origins))
        self._append(origins, labels, new)
        rows = torch.arange(batch, device=origins.device).unsqueeze(1) * beams
        self.scorer.extend((origins + rows).flatten(), labels.flatten())

    def _last(self) -> Tensor:
        """Return the last label of each transcript; the blank for an empty one."""
        if self.tokens.shape[2] == 0:
            return self.lengths
        last = self.tokens.gather(2, (self.lengths - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return last.masked_fill(self.lengths == 0, BLANK)

    def _merged(self, taken: Tensor, last: Tensor, label: Tensor, extended: Tensor) -> tuple[Tensor, Tensor]:
        """Move the probability of an extension that is a transcript of the beam already to this transcript."""
        places = torch.arange(self.tokens.shape[2], device=last.device)
        shorter = self.tokens.masked_fill(places == (self.lengths - 1).unsqueeze(-1), _PADDING)
        parent = (self.tokens.unsqueeze(2) == shorter.unsqueeze(1)).all(-1)  # (batch, beams, their extensions)
        parent &= (self.lengths.unsqueeze(2) + 1 == self.lengths.unsqueeze(1)) & taken.unsqueeze(1) & taken.unsqueeze(2)
        reached = extended.gather(2, last.unsqueeze(1).expand_as(parent)).masked_fill(~parent, -torch.inf)
        label = torch.logaddexp(label, reached.logsumexp(1))
        there = torch.zeros_like(extended).scatter_add(2, last.unsqueeze(1).expand_as(parent), parent.to(extended))
        return label, extended.masked_fill(there > 0, -torch.inf)

    def _append(self, origins: Tensor, labels: Tensor, new: Tensor) -> None:
        self.lengths = self.lengths.gather(1, origins)
        self.tokens = self.tokens.take_along_dim(origins.unsqueeze(-1), 1)
        if self.lengths.numel() and int(self.lengths.max()) == self.tokens.shape[2]:
            self.tokens = torch.nn.functional.pad(self.tokens, (0, 1 + self.tokens.shape[2]), value=_PADDING)
        place = self.lengths.unsqueeze(-1)
        kept = torch.where(new, labels, self.tokens.gather(2, place).squeeze(-1))
        self.tokens = self.tokens.scatter(2, place, kept.unsqueeze(-1))
        self.lengths = self.lengths + new.long()

    def best(self, n_best: int) -> Hypotheses:
        """Return the transcripts with the highest scores."""
        total = torch.logaddexp(self.blank, self.label)
        scores, order = (total + self.bonus).sort(dim=1, descending=True, stable=True)
        if bool(scores.isnan().any()):
            raise ValueError("the language model's log probabilities are not finite; check its weights")
        scores, order = scores[:, :n_best], order[:, :n_best]
        lengths = self.lengths.gather(1, order).masked_fill(scores.isneginf(), 0)
        longest = int(lengths.max()) if lengths.numel() else 0
        tokens = self.tokens.take_along_dim(order.unsqueeze(-1), 1)[..., :longest]
        tokens = tokens.masked_fill(scores.isneginf().unsqueeze(-1), _PADDING)
        return Hypotheses(tokens, lengths, scores, total.gather(1, order), None)


def _checked_tokens(model: LanguageModel, like: Tensor) -> Tensor:
    decoder: Any = model.decoder
    if not isinstance(decoder, Decoder) or decoder.input_axes != "" or decoder.attends or decoder.condition_size:
        raise ValueError(
            f"the language model is {article(type(decoder).__name__)}, expected a decoder of tokens without a source"
        )
    if model.tokens.shape != (like.shape[-1],):
        raise ShapeError(
            f"the language model's tokens have the shape {tuple(model.tokens.shape)}, expected ({like.shape[-1]},): "
            "one for each class"
        )
    size = decoder.vocabulary_size
    tokens = model.tokens.to(like.device).long().clone()
    tokens[BLANK] = 0
    wrong = [token for token in [*tokens.tolist(), model.start] if not 0 <= token < size]
    if wrong:
        raise ValueError(f"the language model has the tokens 0 to {size - 1}, but a label or `start` is {wrong[0]}")
    if not abs(model.weight) < float("inf"):
        raise ValueError(f"the language model's weight is {model.weight}, expected a finite number")
    return tokens


def ctc_alignment(parameters: Tensor, labels: Tensor) -> Tensor:
    """Return the frame at which each label begins in the most probable alignment, (labels,) int64.

    Args:
        parameters: (time, num_classes), the logits of a `CTCHead`.
        labels: (labels,) int64, a transcript.

    Raises:
        ShapeError: tensors whose shapes don't match.
        ValueError: a transcript that is too long for the frames.
    """
    expect(parameters, "time classes", name="parameters")
    expect(labels, "labels", name="labels")
    time, count = len(parameters), len(labels)
    if count == 0:
        return labels
    path = labels.new_full((2 * count + 1,), BLANK)  # a blank before, between and after the labels
    path[1::2] = labels
    frames = widened(parameters).detach().log_softmax(-1)[:, path]
    # A blank may be left out between two different labels.
    skips = torch.zeros_like(path, dtype=torch.bool)
    skips[3::2] = labels[1:] != labels[:-1]
    best = frames.new_full((len(path),), -torch.inf)
    best[0] = 0.0  # before the first frame
    moves: list[Tensor] = []
    for number, frame in enumerate(frames):
        one, two = (torch.nn.functional.pad(best, (places, 0), value=-torch.inf)[: len(path)] for places in (1, 2))
        two = two.masked_fill(~skips, -torch.inf)
        if number == 0:
            two = two.fill_(-torch.inf)
        best, move = torch.stack([best, one, two]).max(0)
        best = best + frame
        moves.append(move)
    place = len(path) - 1 if time and best[-1] > best[-2] else len(path) - 2
    if not bool(best[place] > -torch.inf):
        raise ValueError(f"the transcript of {count} labels is too long for {time} frames")
    begins = torch.zeros_like(labels)
    for number in range(time - 1, -1, -1):
        if place % 2:
            begins[place // 2] = number
        place -= int(moves[number][place])
    return begins
