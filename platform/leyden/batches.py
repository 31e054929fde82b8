"""What a task and its data share: typed batches, and the facts about the data that a network is built from.

A batch is a NamedTuple of tensors. Its `facts_class` names a frozen dataclass of primitives: what the task must know
before the network exists and what prediction needs later. The facts travel in every checkpoint.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, Self, get_args, get_origin

import torch
from torch import Tensor


@dataclass(frozen=True)
class Facts:
    """Base of the facts of every batch type. Fields hold primitives, and tuples of them."""

    def to_primitives(self) -> dict[str, Any]:
        """A dict of primitives, which `weights_only` loading accepts."""
        return asdict(self)

    def conflicts(self, other: "Facts") -> list[str]:
        """Where other data differs so much that a network trained with these facts cannot serve it, a line each."""
        mine, theirs = self.to_primitives(), other.to_primitives()
        return [f"{name}: {mine[name]} -> {theirs[name]}" for name in mine if mine[name] != theirs[name]]

    @classmethod
    def from_primitives(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_primitives`, also where a file format has turned tuples into lists."""
        return cls(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    """A value with all its lists, also nested ones, made tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class ImageFacts(Facts):
    """Facts about labelled images.

    channels: 1 for grey, 3 for RGB. image_size: (height, width) in pixels of the images that enter the network.
    class_names: one for each label, in label order.
    """

    channels: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...]

    def conflicts(self, other: Facts) -> list[str]:
        """Images of another size may do."""
        return [line for line in super().conflicts(other) if not line.startswith("image_size")]


class LabelledImages(NamedTuple):
    """Images, each with one class.

    images: (B, C, H, W); uint8 as stored, float32 once scaled and normalised.
    labels: (B,) int64 class indices, -1 where unknown; or (B, num_classes) float32 probabilities where images were
        mixed.
    """

    images: Tensor
    labels: Tensor

    @staticmethod
    def facts_class() -> type[ImageFacts]:
        """What is known about such data before the first batch."""
        return ImageFacts


@dataclass(frozen=True)
class TableFacts(Facts):
    """Facts about rows of a table with one number to learn.

    feature_names: one for each feature that enters the network, in order ("LotArea", "LotArea is missing",
        "MSZoning=RL").
    target_name, id_name: the columns of the target and, where there is one, of the rows' names.
    log_target: what the network learns is the logarithm of the target.
    target_mean, target_std: of the target, or of its logarithm, over the training rows; what the network learns is
        (target - target_mean) / target_std, dimensionless.
    positive_target: all known targets are above 0, so that their logarithms exist.
    numeric_columns: how a column of numbers becomes features: (name, mean, std, lambda of the Yeo-Johnson transform
        that comes before both or None, whether a feature says where it is missing).
    categorical_columns: the same of a column of categories: (name, categories with a feature each, whether all others
        share one, whether a feature says where it is missing).
    """

    feature_names: tuple[str, ...]
    target_name: str
    id_name: str | None
    log_target: bool
    target_mean: float
    target_std: float
    positive_target: bool
    numeric_columns: tuple[tuple[str, float, float, float | None, bool], ...]
    categorical_columns: tuple[tuple[str, tuple[str, ...], bool, bool], ...]

    def conflicts(self, other: Facts) -> list[str]:
        """Other features or another scale of the target; other statistics of the same features will do."""
        assert isinstance(other, TableFacts)
        found = []
        if lost := [name for name in self.feature_names if name not in other.feature_names]:
            found.append(f"features that it lacks: {_some(lost)}")
        if new := [name for name in other.feature_names if name not in self.feature_names]:
            found.append(f"features that the network does not know: {_some(new)}")
        if not found and self.feature_names != other.feature_names:
            found.append("its features are in another order")
        if self.log_target != other.log_target:
            found.append(f"log_target: {self.log_target} -> {other.log_target}")
        return found


def _some(names: list[str]) -> str:
    """A list for a message, the first few of a long one."""
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")


class LabelledRows(NamedTuple):
    """Rows of a table, each with one number to learn.

    features: (B, F) float32, numbers standardised and categories as indicators.
    targets: (B,) float32 in the target's own unit; NaN where unknown.
    """

    features: Tensor
    targets: Tensor

    @staticmethod
    def facts_class() -> type[TableFacts]:
        """What is known about such data before the first batch."""
        return TableFacts


UNKNOWN = "<unk>"  # the symbol that stands for all that training has not seen
IGNORED = -100  # the target of a place that is only padding; torch's cross-entropy leaves it out


@dataclass(frozen=True)
class TextFacts(Facts):
    """Facts about a text.

    symbols: the vocabulary; a token is an index into it. The first is UNKNOWN.
    level: what a symbol is, `char` or `word`.
    clean: all but the letters A to Z was made a space, and these small.
    """

    symbols: tuple[str, ...]
    level: str
    clean: bool

    def conflicts(self, other: Facts) -> list[str]:
        """Another vocabulary, by both sizes and the first symbol that differs."""
        assert isinstance(other, TextFacts)
        found = [line for line in super().conflicts(other) if not line.startswith("symbols")]
        return found + vocabulary_conflicts(self.symbols, other.symbols, "vocabulary")


def vocabulary_conflicts(mine: Sequence[str], theirs: Sequence[str], name: str) -> list[str]:
    """How another vocabulary differs, in one line: both sizes and the first symbol that differs."""
    if mine == theirs:
        return []
    pairs = enumerate(zip_longest(mine, theirs))
    token, different = next((token, pair) for token, pair in pairs if pair[0] != pair[1])
    what = " -> ".join("nothing" if symbol is None else repr(symbol) for symbol in different)
    return [f"{name}: {len(mine)} symbols -> {len(theirs)}; the first difference is symbol {token}: {what}"]


class TokenWindows(NamedTuple):
    """Pieces of a text, each token with the one that comes next.

    tokens: (B, T) int64 indices into the vocabulary; 0 where padded.
    targets: (B, T) int64 the next token; IGNORED where padded, and where nobody knows it, as in prompts.
    starts: (B,) bool; a row that starts begins with no memory, each other goes on where the row in its place in the
        batch before ended. A batch may have fewer rows than the one before: those left out have ended.
    lengths: (B,) int64 from 1 to T, the tokens of each row before its padding.
    """

    tokens: Tensor
    targets: Tensor
    starts: Tensor
    lengths: Tensor

    @staticmethod
    def facts_class() -> type[TextFacts]:
        """What is known about such data before the first batch."""
        return TextFacts


UNKNOWN_TOKEN, PAD, BOS, EOS = range(4)  # in both vocabularies of a translation
SPECIALS = (UNKNOWN, "<pad>", "<bos>", "<eos>")
SPACE = "\u2581"  # what stands for a space within a symbol of level `bpe` or `char`
CHINESE = "zh"  # the language without spaces between words


@dataclass(frozen=True)
class Side:
    """One language of a translation, and how its sentences become tokens.

    language: an ISO 639-1 code ("en", "fr", "zh").
    level: what a token is: `word`, `char`, or `bpe`, a piece of a word by byte-pair encoding.
    symbols: the vocabulary; a token is an index into it. It begins with SPECIALS.
    merges: of byte-pair encoding, in order, the two pieces with a space between them; empty for other levels.
    lower: letters are made small. simplified: traditional Chinese characters are made simplified ones.
    """

    language: str
    level: str
    symbols: tuple[str, ...]
    merges: tuple[str, ...] = ()
    lower: bool = True
    simplified: bool = False


@dataclass(frozen=True)
class TranslationFacts(Facts):
    """Facts about pairs of sentences.

    source, target: the two languages. num_steps: tokens of every sentence of a batch, padded or cut; None where
        batches are as long as their longest sentence.
    """

    source: Side
    target: Side
    num_steps: int | None = None

    @classmethod
    def from_primitives(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_primitives`."""
        sides = {
            name: Side(**{key: _tuples(value) for key, value in values[name].items()}) for name in ("source", "target")
        }
        return cls(**{**values, **sides})

    def conflicts(self, other: Facts) -> list[str]:
        """Other languages, or other vocabularies. Sentences of another length will do."""
        assert isinstance(other, TranslationFacts)
        mine, theirs = ((facts.source.language, facts.target.language) for facts in (self, other))
        if mine != theirs:
            return ["languages: " + " -> ".join(" to ".join(pair) for pair in (mine, theirs))]
        return [
            line
            for name, one, two in (("source", self.source, other.source), ("target", self.target, other.target))
            for line in _side_conflicts(name, one, two)
        ]


def _side_conflicts(name: str, mine: Side, theirs: Side) -> list[str]:
    values = ((key, getattr(mine, key), getattr(theirs, key)) for key in ("level", "lower", "simplified"))
    found = [f"{name} {key}: {one} -> {two}" for key, one, two in values if one != two]
    found += vocabulary_conflicts(mine.symbols, theirs.symbols, f"{name} vocabulary")
    if not found and mine.merges != theirs.merges:
        found.append(f"{name}: other byte-pair merges")
    return found


class SentencePairs(NamedTuple):
    """Sentences, each with its translation.

    source: (B, S) int64 tokens, padded with PAD; a sentence ends with EOS unless it was cut to num_steps. In `predict`
        a row may hold several sentences, one behind the other, or none.
    source_lengths: (B,) int64, tokens of each row before its padding.
    target: (B, T) int64 tokens of the translation, of the same kind; all PAD where nobody knows it.
    target_lengths: (B,) int64; 0 where nobody knows the translation.
    words: (B, W) uint8, 0 where padded: UTF-8 of the source's tokens as they stand in the text, with a space between
        them, without EOS; W is 0 in training.
    references: (B, R) uint8, of the same kind: all known translations as they stand in the text, a line each; R is 0
        in training.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    words: Tensor
    references: Tensor

    @staticmethod
    def facts_class() -> type[TranslationFacts]:
        """What is known about such data before the first batch."""
        return TranslationFacts


def bytes_of(texts: Sequence[str]) -> Tensor:
    """Texts as UTF-8, (N, L) uint8, padded with 0 to the longest."""
    encoded = [text.encode() for text in texts]
    longest = max(map(len, encoded), default=0)
    if not longest:  # torch makes no tensor of an empty buffer
        return torch.zeros(len(texts), 0, dtype=torch.uint8)
    joined = b"".join(each.ljust(longest, b"\0") for each in encoded)
    return torch.frombuffer(bytearray(joined), dtype=torch.uint8).view(len(texts), longest)


def texts_of(rows: Tensor) -> list[str]:
    """The inverse of `bytes_of`."""
    return [row.numpy().tobytes().rstrip(b"\0").decode() for row in rows.cpu()]


VOID = 255  # in a mask: a pixel that belongs to no class, or of which nobody knows to which


@dataclass(frozen=True)
class SegmentationFacts(Facts):
    """Facts about images with a class for each pixel.

    channels: of an image; 3 for RGB.
    class_names: one for each class index, in order.
    palette: the colour (red, green, blue), each 0 to 255, in which each class is shown; as many as class names.
    """

    channels: int
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def conflicts(self, other: Facts) -> list[str]:
        """Other colours will do."""
        return [line for line in super().conflicts(other) if not line.startswith("palette")]


class SegmentedImages(NamedTuple):
    """Images, each with the class of each of its pixels.

    images: (B, C, H, W); uint8 as stored, float32 once scaled and normalised. H and W are those of the largest image:
        each lies in the upper left corner, and is 0 beyond its own size.
    masks: (B, H, W) uint8 class indices, VOID where unknown and beyond the image.
    sizes: (B, 2) int64 height and width of each image, in pixels.
    """

    images: Tensor
    masks: Tensor
    sizes: Tensor

    @staticmethod
    def facts_class() -> type[SegmentationFacts]:
        """What is known about such data before the first batch."""
        return SegmentationFacts


@dataclass(frozen=True)
class DetectionFacts(Facts):
    """Facts about images with a box around each thing.

    channels: of an image; 3 for RGB.
    class_names: one for each class index, in order. No class is the background.
    """

    channels: int
    class_names: tuple[str, ...]


class BoxedImages(NamedTuple):
    """Images, each with a box around each thing that it shows.

    images: (B, C, H, W); uint8 as stored, float32 once scaled and normalised. Each image lies in the upper left corner,
        and is 0 beyond its own size.
    boxes: (B, M, 4) float32, left, top, right, bottom (xyxy) in pixels of `images`; M is at least 1, and as many as the
        image with most things has. 0 where there is no thing.
    labels: (B, M) int64 class indices, -1 where there is no thing; the things come first.
    difficult: (B, M) bool, things that need not be found: they count neither as found nor as missed.
    sizes: (B, 2) int64 height and width of each image within `images`, in pixels.
    original_sizes: (B, 2) int64 height and width of the picture that an image was resized from, in pixels.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    sizes: Tensor
    original_sizes: Tensor

    @staticmethod
    def facts_class() -> type[DetectionFacts]:
        """What is known about such data before the first batch."""
        return DetectionFacts


@dataclass(frozen=True)
class StyleFacts(Facts):
    """Facts about pairs of a content and a style picture.

    pairs: of each pair (name of the content, name of the style, height and width in pixels at which the content is
        given), by the index that a batch has for it. Where contents are many and the style is one, there is one pair:
        its name of the content is that of the folder.
    """

    pairs: tuple[tuple[str, str, int, int], ...]

    def conflicts(self, other: Facts) -> list[str]:
        """Other pairs, by both numbers and the first pair that differs."""
        assert isinstance(other, StyleFacts)
        for number, (mine, theirs) in enumerate(zip_longest(self.pairs, other.pairs)):
            if mine != theirs:
                counts = f"{len(self.pairs)} pairs -> {len(other.pairs)}"
                return [f"{counts}; the first difference is pair {number}: {mine or 'none'} -> {theirs or 'none'}"]
        return []


class StylePairs(NamedTuple):
    """Content pictures, each with the style picture in whose manner it is to be painted. Three channels, RGB.

    All contents of a batch have one size, and all styles have one.

    contents: (B, 3, H, W); uint8 as stored, float32 in [0, 1] once scaled.
    styles: (B, 3, h, w) of the same dtype and range; may be an expanded view of one style. In `predict` nobody knows
        the style: h and w are 0.
    pairs: (B,) int64, the index of the pair in the facts; -1 where it is none of them.
    """

    contents: Tensor
    styles: Tensor
    pairs: Tensor

    @staticmethod
    def facts_class() -> type[StyleFacts]:
        """What is known about such data before the first batch."""
        return StyleFacts


def declared_batch(cls: type, base: type) -> type | None:
    """The batch type that a class declares by deriving from `base[Batch]`; None where it declares none."""
    for ancestor in cls.__mro__:
        for generic in vars(ancestor).get("__orig_bases__", ()):
            origin = get_origin(generic)
            if isinstance(origin, type) and issubclass(origin, base):
                argument = get_args(generic)[0]
                if isinstance(argument, type):
                    return argument
    return None
