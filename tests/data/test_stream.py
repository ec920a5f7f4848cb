import bz2
import gzip
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import open_codec, open_data
from swarmrt.data.batches import split
from swarmrt.data.sources import read_tokens
from swarmrt.data.text import PIECE_BYTES, pieces_of
from swarmrt.errors import DataError
from swarmrt.ids import MicrobatchId

SEQUENCE = 8
PROSE = "The cut is measured once, and the text is read as it is: line by line.\n"


def run(source: Path, seed: int = 0, vocab: int = 5000, **data: Any) -> RunConfig:
    return parse_config(
        {
            "run": {"seed": seed},
            "model": {"sequence": SEQUENCE, "vocab": vocab},
            "batch": {"microbatch": 3, "microbatches": 2},
            "data": {"source": str(source), **data},
            "evaluation": {"microbatches": 2},
        },
        "test",
    )


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """A token file in which every token tells its own place."""
    path = tmp_path / "counting.npy"
    np.save(path, np.arange(5000, dtype=np.uint16))
    return path


def test_microbatches_are_a_function_of_seed_step_and_index(counting: Path) -> None:
    first, again, other = (open_data(run(counting, seed)) for seed in (1, 1, 2))
    for microbatch in (MicrobatchId(3, 1), MicrobatchId(0, 0), MicrobatchId(500, 1)):
        inputs, targets = first.microbatch(microbatch)
        assert inputs.shape == targets.shape == (3, SEQUENCE)
        assert inputs.dtype == targets.dtype == np.int64
        assert (targets == inputs + 1).all()
        assert (again.microbatch(microbatch)[0] == inputs).all()
        assert (other.microbatch(microbatch)[0] != inputs).any()
    assert (
        first.microbatch(MicrobatchId(0, 0))[0] != first.microbatch(MicrobatchId(0, 1))[0]
    ).any()


def test_place_of_a_microbatch_is_told_by_its_tokens(counting: Path) -> None:
    data = open_data(run(counting))
    for microbatch in (MicrobatchId(3, 1), MicrobatchId(1, 0, held_out=True)):
        starts = data.microbatch(microbatch)[0][:, 0].tolist()
        windows = ", ".join(f"{start:,} to {start + SEQUENCE:,}" for start in starts)
        assert data.place_of(microbatch) == f"tokens {windows} of the data, counted from 0"


def test_an_epoch_has_every_training_window_once(counting: Path) -> None:
    data = open_data(run(counting))
    samples = len(data.training)
    starts = [
        int(row[0])
        for batch in range(samples // 3)
        for row in data.microbatch(MicrobatchId(*divmod(batch, 2)))[0]
    ]
    assert len(set(starts)) == len(starts) >= samples - 3


def test_training_and_held_out_text_share_no_token(counting: Path) -> None:
    data = open_data(run(counting))

    def tokens(held_out: bool, batches: int) -> set[int]:
        found: set[int] = set()
        for batch in range(batches):
            step, index = (0, batch) if held_out else divmod(batch, 2)
            for part in data.microbatch(MicrobatchId(step, index, held_out)):
                found |= set(part.ravel().tolist())
        return found

    trained = tokens(False, 1 + len(data.training) // 3)
    kept = tokens(True, 1 + len(data.held_out) // 3)
    assert trained and kept and not trained & kept


def test_held_out_microbatches_do_not_depend_on_step_or_seed(counting: Path) -> None:
    data, other = open_data(run(counting)), open_data(run(counting, seed=9))
    early, late = (data.microbatch(MicrobatchId(step, 1, True))[0] for step in (0, 70))
    assert (early == late).all()
    assert (early == other.microbatch(MicrobatchId(5, 1, True))[0]).all()


def test_held_out_text_comes_from_all_over() -> None:
    _, held_out = split(10_000, 0.05)
    assert len(held_out) == 500
    counts, _ = np.histogram(held_out, bins=8, range=(0, 10_000))
    assert counts.min() > 0


def test_unigram_loss_of_even_text_is_its_entropy(tmp_path: Path) -> None:
    path = tmp_path / "coins.npy"
    np.save(path, np.random.default_rng(0).integers(0, 2, 200_000))
    assert open_data(run(path, vocab=2)).unigram_loss() == pytest.approx(np.log(2), rel=1e-3)


def test_text_goes_to_bytes_and_back(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("naïve café " * 40, encoding="utf-8")
    data = open_data(run(path))
    assert data.decode(data.encode("naïve")) == "naïve"
    inputs, _ = data.microbatch(MicrobatchId(0, 0))
    assert bytes(inputs[0].tolist()) in path.read_bytes()


def test_a_folder_is_read_in_order_without_its_binary_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("b" * 100)
    (tmp_path / "a.txt").write_text("a" * 100)
    (tmp_path / "image.bin").write_bytes(b"\0" * 100)
    data = open_data(run(tmp_path))
    rows = [data.microbatch(MicrobatchId(step, 0))[0] for step in range(8)]
    seen = {int(token) for row in rows for token in row.ravel()}
    assert seen <= set(b"ab\n") and seen >= set(b"ab")


def test_a_tokenizer_file(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(["[UNK]", "one", "two", "three"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text("one two three " * 50)
    config = run(tmp_path / "text.txt", vocab=4, tokenizer=str(tmp_path / "tokenizer.json"))
    data = open_data(config)
    assert data.encode("two one") == [2, 1] and data.decode([3]) == "three"
    assert set(data.microbatch(MicrobatchId(0, 0))[0].ravel().tolist()) == {1, 2, 3}
    small = run(tmp_path / "text.txt", vocab=3, tokenizer=str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match=r"tokenizer\.json.*4 tokens.*model\.vocab is 3"):
        open_data(small)


def test_a_folder_says_how_many_files_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 100)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"b" * 100))
    (tmp_path / "image.bin").write_bytes(b"\0" * 100)
    assert "1 file (2 others are no text)" in open_data(run(tmp_path)).description


def test_separators_come_between_files_and_not_between_pieces(tmp_path: Path) -> None:
    first, second = b"a b\n" * (PIECE_BYTES // 3), b"c" * 100
    (tmp_path / "1.txt").write_bytes(first)
    (tmp_path / "2.txt").write_bytes(second)
    config = run(tmp_path)
    tokens, _ = read_tokens(config, open_codec(config))
    assert tokens.tobytes() == first + b"\n\n" + second


@given(
    st.lists(
        st.sampled_from(["a", " ", "\n", "\r\n", "é", "語", "𝄞", "x" * 900, " \n" * 50]),
        min_size=1, max_size=80,
    ),
    st.integers(1, 400),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_pieces_are_the_text_and_whole_characters(parts: list[str], times: int) -> None:
    text = ("".join(parts) * times)[: 3 * PIECE_BYTES]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_text(text, encoding="utf-8", newline="")
        pieces = list(pieces_of(file))
    assert b"".join(pieces) == text.encode()
    assert all(0 < len(piece) <= PIECE_BYTES and piece.decode() for piece in pieces)


def bpe(folder: Path, change: Callable[[Any], None] = lambda _: None) -> Path:
    """A byte-level tokenizer that has learned a few merges."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([PROSE], trainer)
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def truncates(tokenizer: Any) -> None:
    tokenizer.enable_truncation(max_length=50)


def pads(tokenizer: Any) -> None:
    tokenizer.enable_padding(length=5000)


def drops_merges(tokenizer: Any) -> None:
    tokenizer.model.dropout = 0.5


@pytest.mark.parametrize("change", [truncates, pads, drops_merges])
def test_settings_of_a_tokenizer_file_do_not_change_the_text(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    """A file that was made for batches of short sentences, or for training with regularisation."""
    (tmp_path / "text.txt").write_text(PROSE * 20)
    plain = run(tmp_path / "text.txt", tokenizer=str(bpe(tmp_path)))
    expected, _ = read_tokens(plain, open_codec(plain))
    changed = run(tmp_path / "text.txt", tokenizer=str(bpe(tmp_path, change)))
    tokens, _ = read_tokens(changed, open_codec(changed))
    assert (tokens == expected).all()
    assert open_codec(changed).decode(tokens) == PROSE * 20


def test_text_that_is_not_utf_8_is_no_text_for_a_tokenizer(tmp_path: Path) -> None:
    """It was read with a sign of replacement for each é."""
    (tmp_path / "latin.txt").write_bytes((PROSE * 9000 + "café").encode("latin-1"))
    place = len(PROSE * 9000) + 3
    config = run(tmp_path / "latin.txt", tokenizer=str(bpe(tmp_path)))
    with pytest.raises(DataError, match=rf"latin\.txt: byte 0xe9 at {place} is not UTF-8"):
        open_data(config)


def test_much_text_takes_little_memory(tmp_path: Path) -> None:
    """4 MB of it through a tokenizer; it took 200 bytes for each of them."""
    (tmp_path / "text.txt").write_text(PROSE * (4_000_000 // len(PROSE)))
    program = (
        "import resource, sys; from swarmrt.config_toml import parse_config\n"
        "from swarmrt.data.codec import open_codec; from swarmrt.data.sources import read_tokens\n"
        "import tokenizers; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = {'source': sys.argv[1], 'tokenizer': sys.argv[2]}; before = peak()\n"
        "config = parse_config({'model': {'vocab': 400}, 'data': data}, 'test')\n"
        "tokens, _ = read_tokens(config, open_codec(config)); print(peak() - before, len(tokens))"
    )
    arguments = [str(tmp_path / "text.txt"), str(bpe(tmp_path))]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    peak_kib, tokens = map(int, done.stdout.split())
    assert tokens > 500_000
    assert peak_kib < 150 << 10, peak_kib


def test_the_standard_library_is_text_enough() -> None:
    data = open_data(parse_config({}, "test"))
    assert len(data.training) > 10_000 and "sources" in data.description
    assert 2.5 < data.unigram_loss() < 4.0


def test_token_files_have_no_text(counting: Path) -> None:
    codec = open_codec(run(counting))
    with pytest.raises(DataError, match=r"counting\.npy.*data\.tokenizer"):
        codec.encode("hello")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("missing.txt", None, r"missing\.txt.*no such file"),
        ("missing.npy", None, r"missing\.npy.*no such file"),
        ("short.txt", b"too short", r"short\.txt.*9 tokens"),
        ("empty.txt", b"", r"empty\.txt.*no text"),
        ("binary.txt", b"\0" * 999, r"binary\.txt.*no text.*NUL byte at 0"),
        ("late.txt", b"a" * 999_999 + b"\0", r"late\.txt.*no text.*NUL byte at 999999"),
        ("text.gz", gzip.compress(b"text" * 999), r"text\.gz.*no text.*gzip; unpack it"),
        ("text.bz2", bz2.compress(b"text" * 999), r"text\.bz2.*no text.*bzip2; unpack it"),
        ("wide.txt", ("text" * 999).encode("utf-16"), r"wide\.txt.*no text.*UTF-16; convert"),
        ("broken.npy", b"not numpy", r"broken\.npy.*not a \.npy"),
        ("square.npy", np.zeros((9, 9), dtype=np.int64), r"square\.npy.*2 dimensions"),
        ("real.npy", np.zeros(99), r"real\.npy.*integers"),
        ("large.npy", np.full(99, 5000), r"large\.npy.*model\.vocab"),
        ("negative.npy", np.full(99, -1), r"negative\.npy.*model\.vocab"),
    ],
)
def test_unusable_data_is_named(tmp_path: Path, file: str, content: Any, message: str) -> None:
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(DataError, match=message) as caught:
        open_data(run(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "{}", "nonsense"])
def test_an_unusable_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        open_data(run(tmp_path, tokenizer=str(path)))


def test_bytes_need_a_vocabulary_of_256(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"256 tokens, but model\.vocab is 100"):
        open_data(run(tmp_path, vocab=100))
