"""CIFAR-10 and CIFAR-100 from every published layout: the right pixels in the right places, or a refusal."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.cifar_files import HUNDRED, TEN, Batch, binary_batch, python_batch
from tests.realdata import DATA, needs, python2_pickle

from smoothcert.datasets import cifar10, load
from smoothcert.errors import DataError, SmoothcertError, UnknownName
from smoothcert.protocols import Dataset

LAYOUTS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}
EVERY = [(data, layout + how) for data in LAYOUTS for layout in LAYOUTS[data] for how in ("", "-packed")]


def pixels(dataset: Dataset) -> bytes:
    return b"".join(dataset[k].image.tobytes() for k in range(len(dataset)))


@pytest.mark.parametrize(("data", "layout"), EVERY)
def test_every_layout_gives_the_same_images(data: str, layout: str, packed: Path, batch: Batch) -> None:
    found = load(f"{data}:test[::100]", root=packed / layout)
    assert (found.levels, found.shape, found.name) == (255, (3, 32, 32), f"{data}:test[::100]")
    assert list(found.classes) == (TEN if data == "cifar10" else HUNDRED)
    labels = batch.ten if data == "cifar10" else batch.hundred
    for k in range(len(found)):
        example = found[k]
        assert (example.index, example.label) == (100 * k, labels[100 * k])
        assert example.image.dtype == np.uint8
        assert example.image.tobytes() == batch.rows[100 * k].tobytes()


def test_a_row_is_three_planes_of_rows_and_columns(cifar: Path, batch: Batch) -> None:
    image = load("cifar10:test", root=cifar / "cifar-10-batches-py")[7].image
    for channel, row, column in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (2, 31, 30), (1, 3, 17)]:
        assert image[channel, row, column] == batch.rows[7, channel * 1024 + row * 32 + column]


@pytest.mark.parametrize("below", ["", "cifar10", "cifar-10-batches-py"])
def test_the_folder_may_be_the_root_or_the_folder_itself(below: str, cifar: Path, tmp_path: Path) -> None:
    source = cifar / "cifar-10-batches-py" / "cifar-10-batches-py"
    if below == "cifar10":
        (tmp_path / below).mkdir()
        (tmp_path / below / source.name).symlink_to(source)
        assert len(load("cifar10", root=tmp_path)) == 10_000
    else:
        assert len(load("cifar10", root=source.parent / below)) == 10_000


def test_arrays_stored_by_columns_are_read_as_they_were(tmp_path: Path, batch: Batch, cifar: Path) -> None:
    content = python_batch(batch, data=np.asfortranarray(batch.rows))
    folder = copied(cifar, tmp_path, test_batch=content)
    assert load("cifar10", root=folder)[9].image.tobytes() == batch.rows[9].tobytes()


def test_is_read_once_and_cannot_be_changed(cifar: Path) -> None:
    root = cifar / "cifar-10-batches-bin"
    assert cifar10(root=root) is cifar10("test", root=str(root))
    sliced = load("cifar10:test[5:8]", root=root)
    assert np.shares_memory(sliced[0].image, cifar10(root=root)[5].image)
    with pytest.raises(ValueError, match="read-only"):
        sliced[0].image[0, 0, 0] = 1


def test_files_that_changed_are_read_again(cifar: Path, tmp_path: Path, batch: Batch) -> None:
    folder = copied(cifar, tmp_path)
    assert load("cifar10", root=folder)[0].label == batch.ten[0]
    moved = (batch.ten + 1) % 10
    (folder / "test_batch").write_bytes(python_batch(batch, labels=moved.tolist(), batch_label="again"))
    assert load("cifar10", root=folder)[0].label == moved[0]


def copied(cifar: Path, where: Path, **changes: bytes | None) -> Path:
    """The python layout of CIFAR-10 with some files changed (``batches_meta`` for ``batches.meta``)."""
    folder = where / "cifar-10-batches-py"
    shutil.copytree(cifar / folder.name / folder.name, folder, dirs_exist_ok=True)
    for name, content in changes.items():
        path = folder / name.replace("batches_meta", "batches.meta")
        path.unlink() if content is None else path.write_bytes(content)
    return folder


def changed(batch: Batch, what: str) -> bytes:
    """A test batch with one thing wrong."""
    whole = python_batch(batch)
    labels = batch.ten.tolist()
    contents = {
        "truncated": whole[:-5],
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "no pickle": b"PNG" * 1000,
        "a list": python2_pickle([1, 2]),
        "no data": python2_pickle({"labels": [1]}),
        "label out of range": python_batch(batch, labels=[*labels[:-1], 10]),
        "negative label": python_batch(batch, labels=[-1, *labels[1:]]),
        "text label": python_batch(batch, labels=["1", *labels[1:]]),
        "too few labels": python_batch(batch, labels=labels[1:]),
        "too few images": python_batch(Batch(batch.rows[:99], batch.ten[:99], batch.hundred[:99])),
        "short rows": python_batch(batch, data=batch.rows[:, 1:].copy()),
        "uint16": whole.replace(b"U\x02u1", b"U\x02u2"),
        "object array": whole.replace(b"U\x02u1", b"U\x01O\x00"),
        "bytes missing in the array": python_batch(batch, data=batch.rows[:-1]).replace(
            b"J\x0f'\x00\x00", b"J\x10'\x00\x00"
        ),
    }
    return contents[what]


WRONG = {
    "truncated": "cannot be read",
    "half": "cannot be read",
    "empty": "cannot be read",
    "no pickle": "cannot be read",
    "a list": "dictionary",
    "no data": "no array 'data'",
    "label out of range": "label 10",
    "negative label": "label -1",
    "text label": "not a whole number",
    "too few labels": "a label for each",
    "too few images": "99 images",
    "short rows": "3072",
    "uint16": "not uint8",
    "object array": "does not add up|cannot be read",
    "bytes missing in the array": "does not add up",
}


@pytest.mark.parametrize(("what", "message"), WRONG.items())
def test_a_damaged_batch_is_refused_by_name(
    what: str, message: str, cifar: Path, tmp_path: Path, batch: Batch
) -> None:
    folder = copied(cifar, tmp_path, test_batch=changed(batch, what))
    with pytest.raises(DataError, match=message) as error:
        load("cifar10", root=tmp_path)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'touch WITNESS'\ntR",
        b"cposix\nsystem\n(S'touch WITNESS'\ntR",
        b'c__builtin__\neval\n(S\'open("WITNESS", "w")\'\ntR',
        b'cbuiltins\nexec\n(S\'open("WITNESS", "w")\'\ntR',
        b"\x8c\x02os\x8c\x06system\x93(S'touch WITNESS'\ntR",
        b"\x8c\x05numpy\x8c\x10load.__globals__\x93",
        b"cnumpy\nload\n(S'WITNESS'\ntR",
        b"cnumpy.core.multiarray\nscalar\n",
        b"(S'touch WITNESS'\nios\nsystem\n",
    ],
)
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    attack: bytes, cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: Batch
) -> None:
    monkeypatch.chdir(tmp_path)
    witness = tmp_path / "witness"
    planted = attack.replace(b"WITNESS", str(witness).encode())
    good = python_batch(batch)
    folder = copied(cifar, tmp_path, test_batch=good[:3] + b"(" + b"U\x04evil" + planted + b"u}(" + good[4:])
    with pytest.raises(DataError, match="could run code; nothing in it was executed"):
        load("cifar10", root=folder)
    assert not witness.exists()


def test_the_attacks_above_would_leave_their_witness(tmp_path: Path) -> None:
    import pickle

    witness = tmp_path / "witness"
    pickle.loads(b"cos\nsystem\n(S'touch " + str(witness).encode() + b"'\ntR.")
    assert witness.exists()


@pytest.mark.parametrize("lost", [1, 3073, 3072])
def test_a_truncated_binary_batch_is_refused(lost: int, cifar: Path, tmp_path: Path, batch: Batch) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    shutil.copytree(cifar / folder.name / folder.name, folder)
    (folder / "test_batch.bin").write_bytes(binary_batch(batch)[:-lost])
    with pytest.raises(DataError, match=r"records of 3073|9999 images"):
        load("cifar10", root=tmp_path)


def test_a_binary_label_out_of_range_is_refused(cifar: Path, tmp_path: Path, batch: Batch) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    shutil.copytree(cifar / folder.name / folder.name, folder)
    (folder / "test_batch.bin").write_bytes(b"\x0a" + binary_batch(batch)[1:])
    with pytest.raises(DataError, match=r"test_batch\.bin.*label 10 is none of the 10"):
        load("cifar10", root=tmp_path)


@pytest.mark.parametrize("meta", [python2_pickle({"label_names": TEN[1:]}), python2_pickle({}), b"x"])
def test_class_names_that_do_not_fit_are_refused(meta: bytes, cifar: Path, tmp_path: Path) -> None:
    copied(cifar, tmp_path, batches_meta=meta)
    with pytest.raises(DataError, match=r"batches\.meta"):
        load("cifar10", root=tmp_path)


@pytest.mark.parametrize("how", ["truncated", "one byte", "no gzip", "without the batch"])
def test_a_damaged_archive_is_refused(how: str, packed: Path, tmp_path: Path) -> None:
    source = packed / "cifar-10-batches-bin-packed" / "cifar-10-binary.tar.gz"
    content = bytearray(source.read_bytes())
    if how == "one byte":
        content[len(content) // 2] ^= 1
    archive = tmp_path / source.name
    archive.write_bytes(content[:-1000] if how == "truncated" else content)
    if how == "no gzip":
        archive.write_bytes(b"<html>not found</html>")
    if how == "without the batch":
        archive.write_bytes((packed / "cifar-100-binary-packed" / "cifar-100-binary.tar.gz").read_bytes())
    with pytest.raises(DataError, match=r"cannot be read|does not hold"):
        load("cifar10", root=tmp_path)


def test_links_and_other_places_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    import tarfile

    link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.addfile(link)
    with pytest.raises(DataError, match="no plain file"):
        load("cifar10", root=tmp_path)


def test_missing_files_say_where_they_were_looked_for_and_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load("cifar10", root=tmp_path / "nowhere")
    for words in ("cifar-10-batches-py", "cifar-10-python.tar.gz", "--data-dir DIR", "--download"):
        assert words in str(error.value)
    assert str(tmp_path / "nowhere") in str(error.value)


def test_an_incomplete_folder_says_what_is_missing(cifar: Path) -> None:
    with pytest.raises(
        DataError, match=r"cifar-10-batches-py lacks data_batch_1, data_batch_2.*data_batch_5"
    ):
        load("cifar10:train", root=cifar / "cifar-10-batches-py")


def test_the_environment_names_the_folder(
    cifar: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SMOOTHCERT_DATA", str(cifar / "cifar-10-batches-py"))
    assert len(load("cifar10")) == 10_000
    with pytest.raises(SmoothcertError):
        load("cifar10", root=tmp_path)
    monkeypatch.delenv("SMOOTHCERT_DATA")
    (tmp_path / "cache" / "smoothcert").mkdir(parents=True)
    (tmp_path / "cache" / "smoothcert" / "data").symlink_to(cifar / "cifar-10-batches-py")
    assert len(load("cifar10")) == 10_000


def test_remembers_the_folder_that_must_be_named_again(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = cifar / "cifar-10-batches-py"
    assert getattr(load("cifar10:test[:3]", root=root), "data_dir", None) == root
    monkeypatch.setenv("SMOOTHCERT_DATA", str(root))
    assert getattr(load("cifar10:test[:3]"), "data_dir", None) is None


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(UnknownName, match=r"'val'.*Known: test, train"):
        load("cifar10:val")


TEST_PIXELS = "ac91a5aa2e3be4731e61951be9d8ad850e0cb18986f1e34c19fefcec95ee1763"
TRAIN_PIXELS = "ab0df3e66f541a31c0e719243b9edc7b0e42d844972229a04216cfb0704456dc"


@needs("cifar10")
@pytest.mark.parametrize(
    ("split", "digest", "first"),
    [("test", TEST_PIXELS, [3, 8, 8, 0, 6]), ("train", TRAIN_PIXELS, [6, 9, 9, 4, 1])],
)
def test_the_real_images_in_their_order(
    split: str, digest: str, first: list[int], real_cifar10: Path
) -> None:
    found = load(f"cifar10:{split}", root=real_cifar10)
    assert hashlib.sha256(pixels(found)).hexdigest() == digest
    labels = [found[k].label for k in range(len(found))]
    assert labels[:5] == first
    assert np.bincount(labels).tolist() == [len(found) // 10] * 10
    assert found.classes[:4] == ("airplane", "automobile", "bird", "cat")


@needs("cifar10")
def test_every_twentieth_is_the_protocol_of_the_field(real_cifar10: Path) -> None:
    found = load("cifar10:test[::20]", root=real_cifar10)
    with np.load(DATA / "cifar10/cifar10_test_every20.npz", allow_pickle=False) as stored:
        assert [found[k].index for k in range(500)] == stored["index"].tolist() == list(range(0, 10_000, 20))
        assert [found[k].label for k in range(500)] == stored["labels"].tolist()
        assert pixels(found) == stored["images"].tobytes()
