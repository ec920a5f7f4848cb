from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmrt.config import RunConfig, parse_config
from swarmrt.data import open_codec, open_data
from swarmrt.data.batches import split
from swarmrt.errors import DataError
from swarmrt.ids import MicrobatchId

SEQUENCE = 8


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
        ("binary.txt", b"\0" * 999, r"binary\.txt.*no text"),
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
