"""Former names of configuration keys, which are answered with the new ones."""

from collections.abc import Mapping

RENAMED: Mapping[str, str] = {
    "data.answer": "data.target",
    "data.batch_steps": "data.batch_tokens",
    "data.broken": "data.on_error",
    "data.cleaned": "data.clean",
    "data.cut": "data.split_fractions",
    "data.joined": "data.concatenate",
    "data.kept": "data.storage",
    "data.least_examples": "data.min_examples",
    "encoder.token.embedding_size": "encoder.token.embedding.size",
    "network.encoder.embedding_size": "network.encoder.embedding.size",
    "decoder.embedding_size": "decoder.embedding.size",
    "network.embedding_size": "network.embedding.size",
    "data.max_words": "data.vocabulary_size",
    "data.mirrored": "data.horizontal_flip",
    "data.modality.augmentation.equaliser": "data.modality.augmentation.equalizer",
    "data.modality.augmentation.least_snr": "data.modality.augmentation.min_snr",
    "data.modality.augmentation.least_trim": "data.modality.augmentation.min_trim",
    "data.modality.augmentation.most_snr": "data.modality.augmentation.max_snr",
    "data.modality.augmentation.most_trim": "data.modality.augmentation.max_trim",
    "data.modality.colour": "data.modality.color",
    "data.modality.features.emphasis": "data.modality.features.preemphasis",
    "data.modality.features.normalise": "data.modality.features.normalization",
    "data.modality.features.normalize": "data.modality.features.normalization",
    "data.modality.normalise": "data.modality.normalize",
    "data.reader": "data.modality",
    "data.windowed": "data.random_windows",
    "decoder.order": "decoder.wiring",
    "encoder.frame.band_filters": "encoder.frame.conv_channels",
    "encoder.frame.band_frames": "encoder.frame.conv_frames",
    "encoder.frame.band_norm": "encoder.frame.conv_norm",
    "task.mistakes": "task.num_mistakes",
    "task.own_inputs": "task.scheduled_sampling",
    "task.search.diversity": "task.search.diversity_penalty",
    "task.search.groups": "task.search.num_beam_groups",
    "task.search.no_repeat": "task.search.no_repeat_ngram_size",
    "task.search.width": "task.search.num_beams",
    "task.shares": "task.prefix_fractions",
    "task.shown": "task.num_samples",
    "task.trunk_from": "task.unfreeze_at_step",
    "task.validation_width": "task.validation_num_beams",
}


def renamed(path: str) -> str | None:
    """Returns "data.cut is called data.split_fractions" for a former key, or one below it, and None for any other."""
    parts = path.split(".")
    for length in range(len(parts), 1, -1):
        old = ".".join(parts[:length])
        if old in RENAMED:
            return f"{old} is called {RENAMED[old]}"
    return None
