"""Prompts as people write them, for a style and an attribute; the vocabulary and the tokenizer."""

from __future__ import annotations

import re

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from training.data import Random
from training.parts import PreTrainedTokenizerFast, Words

LENGTH = 24  # tokens in a prompt, the marks at its ends included
UNKNOWN = "[UNK]"

STYLES: dict[str, tuple[str, ...]] = {
    "claymation": ("claymation", "clay", "clay figure", "plasticine", "stop motion clay animation", "made of clay"),
    "pencil sketch": ("pencil sketch", "pencil drawing", "sketch", "graphite drawing", "hand drawn sketch", "charcoal"),
    "crayon": ("crayon", "crayon drawing", "crayon doodle", "wax crayons", "doodle", "child's drawing"),
    "oil painting": ("oil painting", "oil on canvas", "painting", "oil paint", "classical oil portrait", "impasto"),
    "watercolour": ("watercolour", "watercolor", "watercolour painting", "watercolor painting", "aquarelle"),
    "cartoon": ("cartoon", "comic book", "comic", "cartoon character", "cel shaded cartoon"),
    "anime": ("anime", "manga", "anime character", "japanese animation", "anime screenshot"),
    "neon": ("neon", "neon lights", "neon glow", "glowing neon lines", "neon sign"),
    "ink": ("ink", "ink drawing", "black ink", "ink wash", "brush and ink", "pen and ink"),
    "vintage photograph": (
        "vintage photograph",
        "vintage photo",
        "sepia",
        "old photograph",
        "antique photo",
        "retro sepia",
    ),
    "low poly": ("low poly", "lowpoly", "polygons", "low polygon", "triangles", "geometric facets", "mosaic"),
    "pop art": ("pop art", "popart", "screen print", "silkscreen poster", "warhol"),
    "gold statue": ("gold statue", "gold", "golden statue", "bronze statue", "made of gold", "golden", "bronze"),
    "marble statue": ("marble statue", "marble", "stone statue", "statue", "sculpture", "marble bust", "plaster"),
    "pixel art": ("pixel art", "pixelart", "pixels", "8 bit game", "pixelated", "16 bit"),
    "woodblock print": ("woodblock print", "woodblock", "ukiyo-e", "woodcut", "japanese print", "hokusai"),
    "van gogh": ("van gogh", "vincent van gogh", "starry night", "swirling brush strokes", "post-impressionist"),
    "blueprint": ("blueprint", "technical drawing", "white lines on blue", "architect plan", "chalk on blue"),
    "thermal": ("thermal", "thermal camera", "infrared", "heat map", "thermal imaging", "predator vision"),
    "cyberpunk": ("cyberpunk", "synthwave", "vaporwave", "futuristic cyberpunk", "cyberpunk city lights"),
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "warm": ("warm", "warm colours", "warm colors", "warm light", "sunset", "autumn"),
    "cold": ("cold", "cold colours", "cool colors", "cool", "winter", "icy"),
    "night": ("night", "at night", "dark", "moonlight", "midnight", "gloomy"),
    "day": ("day", "bright", "daylight", "sunny", "bright light", "noon"),
    "monochrome": ("monochrome", "black and white", "greyscale", "grayscale", "colourless", "noir"),
    "vivid": ("vivid", "colourful", "colorful", "saturated", "vibrant", "vivid colours"),
    "pastel": ("pastel", "pastel colours", "soft colours", "pale", "soft colors", "faded"),
    "red": ("red", "crimson", "red tones", "in red"),
    "green": ("green", "emerald", "green tones", "in green"),
    "blue": ("blue", "azure", "blue tones", "in blue"),
    "purple": ("purple", "violet", "purple tones", "in purple"),
    "yellow": ("yellow", "amber", "yellow tones", "in yellow"),
    "pink": ("pink", "rose", "pink tones", "in pink"),
    "thick": ("thick lines", "bold lines", "thick outlines", "heavy lines", "thick"),
    "thin": ("thin lines", "fine lines", "thin outlines", "delicate lines", "thin"),
}
WHO = (
    "a person",
    "a man",
    "a woman",
    "a face",
    "somebody",
    "people",
    "a girl",
    "a boy",
    "a portrait",
    "a room",
    "a street",
    "a car",
    "a cat",
    "a dog",
    "a house",
    "a city",
    "a landscape",
    "a head",
    "friends",
    "a child",
    "hands",
    "a park",
    "food",
)
DOING = (
    "talking",
    "smiling",
    "looking at the camera",
    "in a room",
    "on a video call",
    "with glasses",
    "waving",
    "laughing",
    "sitting",
    "standing",
    "walking",
    "at home",
    "in an office",
    "juggling",
    "dancing",
    "with a hat",
    "outside",
    "speaking",
    "in front of a webcam",
    "driving",
    "playing",
    "singing",
)
PRAISE = (
    "high quality",
    "detailed",
    "masterpiece",
    "best quality",
    "beautiful",
    "highly detailed",
    "4k",
    "8k",
    "professional",
    "sharp",
    "intricate",
    "award winning",
    "trending",
    "cinematic",
    "studio lighting",
    "realistic",
    "good",
    "nice",
    "very",
)
JOINS = (
    "{style}, {rest}",
    "{style} of {rest}",
    "{rest}, {style}",
    "{rest} in the style of {style}",
    "{rest} as {style}",
    "{style} style, {rest}",
    "{rest} in {style} style",
    "{rest} made of {style}",
    "{rest} made into {style}",
    "{rest} like {style}",
    "{style}: {rest}",
    "{style} {rest}",
    "{style} portrait of {rest}",
    "turn {rest} into {style}",
    "{style} art, {rest}",
    "{style} picture of {rest}",
    "{style} render of {rest}",
    "{rest} is {style}",
    "{rest} drawn with {style}",
    "{rest} by {style}",
)
ALONE = (
    "{style}",
    "{style} style",
    "a {style}",
    "{style} picture",
    "{style} image",
    "in {style} style",
    "{style} art",
    "the {style}",
)
EMPTY = (
    "",
    "",
    "photo",
    "photograph",
    "a photo of {rest}",
    "{rest}",
    "a photograph of {rest}",
    "picture of {rest}",
    "photo, {rest}",
)


def pick(random: Random, choices: tuple[str, ...]) -> str:
    return choices[random.integers(len(choices))]


def prompt(random: Random, style: str, attribute: str) -> str:
    """One of many ways to ask for a style with an attribute (either may be "")."""
    rest = pick(random, WHO)
    if random.random() < 0.6:
        rest += " " + pick(random, DOING)
    if style == "":
        text = pick(random, EMPTY).format(rest=rest)
    else:
        name = style if random.random() < 0.5 else pick(random, STYLES[style])
        text = pick(random, JOINS if random.random() < 0.65 else ALONE).format(style=name, rest=rest)
    if attribute:
        asked = pick(random, ATTRIBUTES[attribute])
        text = (f"{text}, {asked}", f"{asked} {text}", f"{asked}, {text}", f"{text} {asked}", f"{text} with {asked}")[
            random.integers(5)
        ]
    if style and random.random() < 0.25:
        text = f"{text}, {pick(random, PRAISE)}" if random.random() < 0.7 else f"{pick(random, PRAISE)} {text}"
    words = text.split()
    for at in range(len(words), -1, -1):  # unknown words do nothing: learn that
        if random.random() < 0.04:
            words.insert(at, UNKNOWN)
    return " ".join(words)


def split(text: str) -> list[str]:
    """Return the words of a text, as the tokenizer sees them."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))


def vocabulary() -> list[str]:
    """All words that prompts are made of, sorted."""
    texts = [*WHO, *DOING, *PRAISE, *EMPTY, *JOINS, *ALONE]
    texts += [text for table in (STYLES, ATTRIBUTES) for name, ways in table.items() for text in (name, *ways)]
    return sorted({word for text in texts for word in split(re.sub(r"\{\w+\}", " ", text))})


def tokenizer() -> Words:
    """Return a word-level tokenizer: case and punctuation do not matter, an unknown word is [UNK]."""
    marks = ["[PAD]", "[BOS]", "[EOS]", UNKNOWN]
    table = {word: number for number, word in enumerate([*marks, *vocabulary()])}
    made = Tokenizer(models.WordLevel(table, unk_token=UNKNOWN))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("'", "")])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("removed"),
        ]
    )
    made.post_processor = processors.TemplateProcessing("[BOS] $A [EOS]", None, [("[BOS]", 1), ("[EOS]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=LENGTH,
        padding_side="right",
        truncation_side="right",
        pad_token="[PAD]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        unk_token=UNKNOWN,
    )
