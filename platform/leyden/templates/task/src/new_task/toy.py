"""Toy signals: sines, squares, sawtooths and noise. They stand in until the data is yours, and serve the tests."""

import wave
from pathlib import Path

import numpy as np

KINDS = ("noise", "sawtooth", "sine", "square")
SAMPLE_RATE, LENGTH = 8000, 512  # Hz, samples


def write_folders(root: Path, count: int, seed: int = 0) -> None:
    """Write `count` signals of each kind: root/<kind>/<number>.wav."""
    generator = np.random.default_rng(seed)
    for kind in KINDS:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_wave(root / kind / f"{number:03d}.wav", make_signal(kind, generator))


def make_signal(kind: str, generator: np.random.Generator) -> np.ndarray:
    """A signal of random pitch, phase and loudness in a little noise: (LENGTH,) float64 in [-1, 1]."""
    cycles, phase = generator.uniform(6, 30), generator.uniform()
    place = (np.linspace(0, cycles, LENGTH) + phase) % 1  # in the cycle, from 0 to 1
    shapes = {
        "noise": generator.uniform(-1, 1, LENGTH),
        "sawtooth": 2 * place - 1,
        "sine": np.sin(2 * np.pi * place),
        "square": np.where(place < 0.5, 1.0, -1.0),
    }
    signal = generator.uniform(0.2, 0.8) * shapes[kind] + generator.normal(0, 0.05, LENGTH)
    return signal.clip(-1, 1)


def write_wave(path: Path, signal: np.ndarray) -> None:
    """Write a signal (L,) in [-1, 1] as a WAV file: 16 bits, mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((signal * 32767).astype("<i2").tobytes())
