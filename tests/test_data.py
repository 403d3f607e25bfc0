"""Data: what is read is what was written, and bad files are refused in one clear sentence.

No test reaches for the network: downloads go through `pooch.retrieve`, which is replaced.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyleak.data import (
    NAMES,
    Dataset,
    cifar,
    files,
    glyphs,
    load,
    load_cifar100,
    load_glyphs,
    load_image,
    load_mnist,
    load_portrait,
    mnist,
)

IMAGES_FILE = "t10k-images-idx3-ubyte"
LABELS_FILE = "t10k-labels-idx1-ubyte"


# The data set itself


def small_dataset() -> Dataset:
    images = np.arange(12, dtype=np.float64).reshape(3, 1, 2, 2) / 12
    return Dataset("small", images, np.array([2, 0, 1]), classes=3)


def test_batch_keeps_the_order_that_was_asked_for():
    data = small_dataset()
    images, labels = data.batch([2, 0, 2])
    np.testing.assert_array_equal(images, data.images[[2, 0, 2]])
    np.testing.assert_array_equal(labels, [1, 2, 1])
    assert len(data) == 3


def test_batch_is_a_copy():
    data = small_dataset()
    before = data.images.copy()
    images, labels = data.batch(range(3))
    images += 1
    labels += 1
    np.testing.assert_array_equal(data.images, before)
    np.testing.assert_array_equal(data.labels, [2, 0, 1])


@pytest.mark.parametrize("index", [3, -1])
def test_index_out_of_range(index):
    with pytest.raises(ValueError, match=rf"index {index} is out of range; it holds 3 images"):
        small_dataset().batch([0, index])


def test_batch_of_no_images():
    with pytest.raises(ValueError, match="no image was chosen; give an index or more"):
        small_dataset().batch([])


@pytest.mark.parametrize("indices", [[0.0, 1.0], [True, False], [[0, 1]], 1])
def test_batch_of_indices_that_are_none(indices):
    with pytest.raises(TypeError, match="flat sequence of integer indices"):
        small_dataset().batch(indices)


@pytest.mark.parametrize("label", [3, -1])
def test_label_out_of_range(label):
    with pytest.raises(ValueError, match=rf"label {label} of image 1 .* labels are 0 to 2"):
        Dataset("small", np.zeros((2, 1, 4, 4)), np.array([0, label]), classes=3)


def test_labels_that_do_not_fit_the_images():
    with pytest.raises(ValueError, match="give one label an image"):
        Dataset("small", np.zeros((2, 1, 4, 4)), np.array([0]), classes=3)


def test_images_without_a_channel_axis():
    with pytest.raises(ValueError, match=r"\(n, C, H, W\) is expected"):
        Dataset("small", np.zeros((2, 4, 4)), np.array([0, 1]), classes=3)


# Choosing data by name


def test_unknown_data_names_what_is_known():
    with pytest.raises(ValueError, match="data 'digits' is unknown; choose one of glyphs, "):
        load("digits")
    assert set(NAMES) == {"glyphs", "portrait", "mnist", "cifar100"}


@pytest.mark.parametrize("name", ["glyphs", "portrait"])
def test_built_in_data_takes_no_folder(name, tmp_path):
    with pytest.raises(ValueError, match=f"data '{name}' is built in and reads no files"):
        load(name, data_dir=tmp_path)


def test_load_finds_each_kind(tmp_path, rng):
    write_mnist(tmp_path, *mnist_arrays(rng))
    assert load("mnist", data_dir=tmp_path).name == "mnist"
    assert load("mnist", data_dir=str(tmp_path)).images.shape == (5, 1, 28, 28)
    assert load("portrait").name == "portrait"


# MNIST: the IDX format


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_arrays(rng: np.random.Generator, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, rng.integers(0, 10, count, dtype=np.uint8)


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "t10k") -> None:
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))


def test_mnist_reads_what_was_written(tmp_path, rng):
    images, labels = mnist_arrays(rng)
    write_mnist(tmp_path, images, labels)
    data = load_mnist(tmp_path)
    assert data.images.dtype == np.float64
    assert data.labels.dtype == np.int64
    assert data.classes == 10
    np.testing.assert_array_equal(data.images, images[:, np.newaxis] / 255)
    np.testing.assert_array_equal(data.labels, labels)


def test_mnist_splits_are_different_files(tmp_path, rng):
    write_mnist(tmp_path, *mnist_arrays(rng, 5))
    write_mnist(tmp_path, *mnist_arrays(rng, 7), prefix="train")
    assert len(load_mnist(tmp_path)) == 5
    assert len(load_mnist(tmp_path, split="train")) == 7
    with pytest.raises(ValueError, match="split 'validation' of MNIST is unknown"):
        load_mnist(tmp_path, split="validation")


def test_mnist_takes_uncompressed_files(tmp_path, rng):
    images, labels = mnist_arrays(rng)
    (tmp_path / IMAGES_FILE).write_bytes(idx_bytes(images))
    (tmp_path / LABELS_FILE).write_bytes(idx_bytes(labels))
    np.testing.assert_array_equal(load_mnist(tmp_path).labels, labels)


def test_real_mnist(mnist_directory):
    data = load_mnist(mnist_directory)
    assert data.images.shape == (10_000, 1, 28, 28)
    np.testing.assert_array_equal(data.labels[:10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])
    assert (data.images.min(), data.images.max()) == (0.0, 1.0)
    assert data.images.mean() == pytest.approx(0.1325, abs=1e-4)
    # The published sum of the content is what a cached copy is compared with.
    assert mnist._is_published(mnist_directory / f"{IMAGES_FILE}.gz")
    assert mnist._is_published(mnist_directory / f"{LABELS_FILE}.gz")


GOOD = idx_bytes(np.ones((2, 28, 28), np.uint8))


BAD_IDX_FILES = {
    "empty": (b"", "is empty"),
    "empty in gzip": (gzip.compress(b""), "is empty"),
    "gzip cut short": (gzip.compress(GOOD)[:30], "is truncated"),
    "gzip without its end": (gzip.compress(GOOD)[:-4], "is truncated"),
    "values missing": (
        gzip.compress(GOOD[:-1]),
        r"promises 1,568 values, shape \(2, 28, 28\), but 1,567 follow",
    ),
    "sizes missing": (gzip.compress(GOOD[:9]), "ends within its header"),
    "magic cut short": (gzip.compress(GOOD[:3]), "begins with the bytes 00 00 08, but"),
    "header alone": (gzip.compress(GOOD[:16]), "is truncated"),
    "a byte too many": (gzip.compress(GOOD + b"\0"), "is too long"),
    "not compressed": (GOOD, "is not a gzip file"),
    "a web page": (b"<html>Not found</html>", "is not a gzip file"),
    "bytes after the gzip": (gzip.compress(GOOD) + b"more", "is not a gzip file, or a damaged one"),
    "impossible block": (gzip.compress(GOOD)[:10] + b"\xff" * 50, "is a damaged gzip file"),
    "wrong CRC": (gzip.compress(GOOD)[:-8] + bytes(8), "is not a gzip file, or a damaged one"),
    "floats": (gzip.compress(b"\0\0\x0d" + GOOD[3:]), "begins with the bytes 00 00 0d 03, but"),
    "labels": (gzip.compress(idx_bytes(np.ones(9, np.uint8))), "00 00 08 01, .* 00 00 08 03"),
    "no images": (gzip.compress(idx_bytes(np.ones((0, 28, 28), np.uint8))), "holds nothing"),
}


@pytest.mark.parametrize(("content", "message"), BAD_IDX_FILES.values(), ids=list(BAD_IDX_FILES))
def test_bad_idx_file(tmp_path, rng, content, message):
    write_mnist(tmp_path, *mnist_arrays(rng))
    path = tmp_path / f"{IMAGES_FILE}.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_mnist(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mnist_with_other_counts_of_images_and_labels(tmp_path, rng):
    images, labels = mnist_arrays(rng)
    write_mnist(tmp_path, images, labels[:4])
    with pytest.raises(ValueError, match="has 5 images but 4 labels"):
        load_mnist(tmp_path)


def test_mnist_with_a_label_over_nine(tmp_path, rng):
    images, _ = mnist_arrays(rng, 2)
    write_mnist(tmp_path, images, np.array([3, 10], np.uint8))
    with pytest.raises(ValueError, match="label 10 of image 1 is out of range"):
        load_mnist(tmp_path)


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    path = tmp_path / "images.gz"
    header = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    path.write_bytes(gzip.compress(header + bytes(100)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="is truncated: its header promises"):
        mnist.read_idx(path, dimensions=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * files.CHUNK_BYTES


def test_a_file_that_decompresses_without_end_is_given_up(tmp_path):
    path = tmp_path / "images.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(">HBB3I", 0, 8, 3, 2**17, 28, 28))
        for _ in range(2**7):
            file.write(bytes(2**10 * 28 * 28))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"more than the 67,108,864 bytes that are possible"):
        mnist.read_idx(path, dimensions=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * mnist.MAX_BYTES


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotADirectoryError, match=f"is not there; give a folder .*{IMAGES_FILE}"):
        load_mnist(tmp_path / "nowhere")


def test_folder_without_the_files(tmp_path, rng):
    with pytest.raises(FileNotFoundError, match=rf"does not hold {IMAGES_FILE}.gz or"):
        load_mnist(tmp_path)
    write_mnist(tmp_path, *mnist_arrays(rng))
    (tmp_path / f"{LABELS_FILE}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"does not hold {LABELS_FILE}.gz or"):
        load_mnist(tmp_path)


# Downloads


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """An empty cache instead of the user's, and no network."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("pooch.os_cache", lambda project: folder)

    def no_network(url, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("pooch.retrieve", no_network)
    return folder


def test_no_network_names_every_mirror_and_the_way_out(cache_folder):
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        load("mnist")
    message = str(caught.value)
    for part in (f"{IMAGES_FILE}.gz", "ossci-datasets", "storage.googleapis.com", "data folder"):
        assert part in message
    assert "\n" not in message


def test_mirrors_are_tried_in_order_with_the_published_checksum(cache_folder, monkeypatch):
    asked = []

    def second_answers(url, known_hash, fname, path, progressbar):
        asked.append((url, known_hash))
        if url.startswith(mnist.MIRRORS[0]):
            raise ValueError("MD5 hash of downloaded file does not match")
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", second_answers)
    name = f"{IMAGES_FILE}.gz"
    path = files.download(name, mnist.MIRRORS, mnist.PUBLISHED[IMAGES_FILE].archive)
    assert path == cache_folder / name
    assert len(mnist.MIRRORS) >= 2
    assert asked == [
        (mirror + name, "md5:9fb629c4189551a2d022fa330f9573f3") for mirror in mnist.MIRRORS
    ]


def test_a_file_with_another_checksum_is_not_used(cache_folder, monkeypatch):
    def every_mirror_is_corrupt(url, **options):
        raise ValueError("MD5 hash of downloaded file does not match")

    monkeypatch.setattr("pooch.retrieve", every_mirror_is_corrupt)
    with pytest.raises(OSError, match="ossci-datasets.s3.amazonaws.com: wrong checksum"):
        load("mnist")


def test_pooch_itself_refuses_a_file_with_another_checksum(tmp_path):
    # The retriever is replaced elsewhere; here the real one meets a local file, and no network.
    import pooch

    source = tmp_path / "source.gz"
    source.write_bytes(b"not what was published")

    def copy(url, output_file, pooch_object):
        Path(output_file).write_bytes(source.read_bytes())

    with pytest.raises(ValueError, match="does not match the known hash"):
        pooch.retrieve(
            "https://example.org/source.gz",
            known_hash=f"md5:{'0' * 32}",
            fname="copy.gz",
            path=tmp_path / "cache",
            downloader=copy,
        )
    assert not (tmp_path / "cache" / "copy.gz").exists()


def test_cached_files_are_used_without_a_network(cache_folder, monkeypatch, rng):
    images, labels = mnist_arrays(rng)
    cache_folder.mkdir()
    write_mnist(cache_folder, images, labels)
    for name, array in ((IMAGES_FILE, images), (LABELS_FILE, labels)):
        content = hashlib.md5(idx_bytes(array)).hexdigest()
        monkeypatch.setitem(mnist.PUBLISHED, name, mnist.Checksums("0" * 32, content))
    np.testing.assert_array_equal(load("mnist").labels, labels)


@pytest.mark.parametrize("content", [b"", gzip.compress(GOOD)], ids=["empty", "another file"])
def test_cached_files_that_are_not_the_published_ones_are_not_used(cache_folder, content):
    cache_folder.mkdir()
    (cache_folder / f"{IMAGES_FILE}.gz").write_bytes(content)
    with pytest.raises(OSError, match="could not be downloaded"):
        load("mnist")


def test_cache_that_cannot_be_made(cache_folder):
    cache_folder.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="download cache .* cannot be made .*; put .* into a folder"):
        load("mnist")


# CIFAR-100


def cifar_records(rng: np.random.Generator, count: int) -> np.ndarray:
    records = rng.integers(0, 256, (count, cifar.RECORD_BYTES), dtype=np.uint8)
    records[:, 0] = rng.integers(0, 20, count)
    records[:, 1] = rng.integers(0, 100, count)
    return records


def write_archive(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / cifar.ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_cifar100_reads_what_was_written(tmp_path, rng):
    test, train = cifar_records(rng, 3), cifar_records(rng, 4)
    write_archive(tmp_path, {"test.bin": test.tobytes(), "train.bin": train.tobytes()})
    for split, records in (("test", test), ("train", train)):
        data = load_cifar100(tmp_path, split)
        assert data.classes == 100
        np.testing.assert_array_equal(data.labels, records[:, 1])
        # Pixel (row 2, column 5) of channel c comes after 2 labels and c whole channels.
        for channel in range(3):
            byte = records[:, 2 + channel * 1024 + 2 * 32 + 5]
            np.testing.assert_array_equal(data.images[:, channel, 2, 5], byte / 255)


@pytest.mark.parametrize("place", [".", cifar.FOLDER])
def test_cifar100_takes_unpacked_files(tmp_path, rng, place):
    records = cifar_records(rng, 3)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "test.bin").write_bytes(records.tobytes())
    np.testing.assert_array_equal(load("cifar100", data_dir=tmp_path).labels, records[:, 1])


def test_cifar100_archive_without_the_split(tmp_path, rng):
    write_archive(tmp_path, {"test.bin": cifar_records(rng, 3).tobytes()})
    with pytest.raises(ValueError, match=r"does not hold cifar-100-binary/train\.bin"):
        load_cifar100(tmp_path, "train")


@pytest.mark.parametrize("content", [b"", bytes(cifar.RECORD_BYTES - 1)])
def test_cifar100_truncated_records(tmp_path, content):
    (tmp_path / "test.bin").write_bytes(content)
    with pytest.raises(ValueError, match="not a whole number of records of 3,074 bytes"):
        load_cifar100(tmp_path)


def test_cifar100_truncated_archive(tmp_path, rng):
    path = write_archive(tmp_path, {"test.bin": cifar_records(rng, 3).tobytes()})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="is a damaged archive"):
        load_cifar100(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive at all"])
def test_cifar100_archive_that_is_none(tmp_path, content):
    (tmp_path / cifar.ARCHIVE).write_bytes(content)
    with pytest.raises(ValueError, match="is a damaged archive"):
        load_cifar100(tmp_path)


def test_cifar100_too_long(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(cifar, "MAX_BYTES", 2 * cifar.RECORD_BYTES)
    (tmp_path / "test.bin").write_bytes(cifar_records(rng, 3).tobytes())
    with pytest.raises(ValueError, match="is not a CIFAR-100 file: it holds more than"):
        load_cifar100(tmp_path)


def test_cifar100_bad_label_and_split(tmp_path, rng):
    records = cifar_records(rng, 3)
    records[2, 1] = 100
    (tmp_path / "test.bin").write_bytes(records.tobytes())
    with pytest.raises(ValueError, match="label 100 of image 2 is out of range"):
        load_cifar100(tmp_path)
    with pytest.raises(ValueError, match="split 'all' of CIFAR-100 is unknown"):
        load_cifar100(tmp_path, "all")


def test_cifar100_without_a_network(cache_folder):
    with pytest.raises(OSError, match="cifar-100-binary.tar.gz could not be downloaded"):
        load("cifar100")


# Built-in digits


def test_glyphs_are_a_hundred_of_each_digit():
    data = load("glyphs")
    assert data.images.shape == (1000, 1, 28, 28)
    assert data.images.dtype == np.float64
    assert data.classes == 10
    np.testing.assert_array_equal(data.labels, np.tile(np.arange(10), 100))
    assert len(np.unique(data.images.reshape(1000, -1), axis=0)) == 1000


def test_a_glyph_depends_on_its_index_and_seed_alone():
    few, many = load_glyphs(5), load_glyphs(20)
    np.testing.assert_array_equal(few.images, many.images[:5])
    np.testing.assert_array_equal(glyphs.draw_digit(17), many.images[17, 0])
    assert not np.array_equal(load_glyphs(5, seed=1).images, few.images)


def test_glyphs_do_not_depend_on_matplotlib_settings():
    import matplotlib

    plain = load_glyphs(20).images
    glyphs._outline.cache_clear()
    settings = {"path.simplify": False, "font.size": 30, "text.hinting": "force_autohint"}
    with matplotlib.rc_context(settings):
        np.testing.assert_array_equal(load_glyphs(20).images, plain)
    glyphs._outline.cache_clear()


def test_glyphs_fill_the_image_as_mnist_does():
    images = load_glyphs(200).images[:, 0]
    assert images.max(axis=(1, 2)).min() == 1.0
    frame = np.concatenate([images[:, [0, -1], :].ravel(), images[:, :, [0, -1]].ravel()])
    assert frame.max() == 0.0
    # MNIST's mean pixel is 0.13, and one in ten pixels lies between black and white.
    assert 0.10 < images.mean() < 0.16
    assert 0.05 < np.mean((images > 0.05) & (images < 0.95)) < 0.20
    mass = images.sum(axis=(1, 2))
    centres = np.arange(28) + 0.5
    across = (images.sum(axis=1) @ centres) / mass
    down = (images.sum(axis=2) @ centres) / mass
    assert np.abs(across - 14).max() < 2.5
    assert np.abs(down - 14).max() < 2.5


def count_holes(image: np.ndarray) -> int:
    """Count the dark regions that ink encloses."""
    from scipy.ndimage import label

    return int(label(np.pad(image, 1) < 0.35)[1]) - 1


def test_glyphs_have_the_holes_of_their_digits():
    # A hand may close or open a loop here and there, but not as a rule.
    images = load_glyphs(500).images[:, 0]
    holes = np.array([count_holes(image) for image in images]).reshape(-1, 10)
    typical = np.median(holes, axis=0)
    np.testing.assert_array_equal(typical[[0, 1, 2, 3, 5, 6, 7, 8, 9]], [1, 0, 0, 0, 0, 1, 0, 2, 1])
    assert np.mean(np.delete(holes == typical, 4, axis=1)) > 0.9


def test_glyphs_are_told_apart_by_the_nearest_mean():
    # Each digit's mean image, from half of them, is nearest to most of the other half.
    images = load_glyphs(600).images.reshape(60, 10, -1)
    means = images[:30].mean(axis=0)
    distances = ((images[30:, :, np.newaxis] - means) ** 2).sum(axis=-1)
    right = distances.argmin(axis=-1) == np.arange(10)
    assert right.mean() > 0.75


@pytest.mark.parametrize("count", [0, -3])
def test_no_glyphs(count):
    with pytest.raises(ValueError, match=f"{count} digits cannot be drawn; ask for 1 or more"):
        load_glyphs(count)


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_negative_glyph(index, seed):
    with pytest.raises(ValueError, match=f"index {index} and seed {seed} .* not be negative"):
        glyphs.draw_digit(index, seed)


# Image files


def save(tmp_path: Path, pixels: np.ndarray, name: str = "image.png", **options: object) -> Path:
    path = tmp_path / name
    Image.fromarray(pixels).save(path, **options)
    return path


def test_image_of_the_right_size_is_unchanged(tmp_path, rng):
    rgb = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    image = load_image(save(tmp_path, rgb), (3, 8, 6))
    assert image.dtype == np.float64
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, rgb.transpose(2, 0, 1) / 255)
    grey = rng.integers(0, 256, (8, 6), dtype=np.uint8)
    np.testing.assert_array_equal(load_image(save(tmp_path, grey), (1, 8, 6))[0], grey / 255)


def test_grey_and_colour_turn_into_each_other(tmp_path):
    grey = np.full((4, 4), 51, np.uint8)
    np.testing.assert_array_equal(load_image(save(tmp_path, grey), (3, 4, 4)), 0.2)
    green = np.zeros((4, 4, 3), np.uint8)
    green[..., 1] = 255
    found = load_image(save(tmp_path, green), (1, 4, 4))
    np.testing.assert_allclose(found, 0.587, atol=1 / 255)


def test_image_is_cropped_around_its_centre(tmp_path):
    # Grey in the middle square, white left and right of it.
    wide = np.full((10, 30), 255, np.uint8)
    wide[:, 10:20] = 102
    np.testing.assert_array_equal(load_image(save(tmp_path, wide), (1, 10, 10)), 0.4)
    np.testing.assert_array_equal(load_image(save(tmp_path, wide.T), (1, 10, 10)), 0.4)
    np.testing.assert_array_equal(load_image(save(tmp_path, wide), (1, 10, 30))[0], wide / 255)


def test_resizing_averages_and_does_not_alias(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    found = load_image(save(tmp_path, stripes), (1, 8, 8))
    np.testing.assert_allclose(found, 0.5, atol=0.03)


def test_small_image_is_enlarged(tmp_path):
    found = load_image(save(tmp_path, np.full((1, 1), 255, np.uint8)), (3, 28, 28))
    np.testing.assert_array_equal(found, np.ones((3, 28, 28)))


def test_exif_orientation_is_respected(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 4:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # To be shown turned a quarter to the right.
    found = load_image(save(tmp_path, pixels, exif=exif), (1, 8, 4))
    np.testing.assert_array_equal(found[0], np.rot90(pixels, -1) / 255)


def test_transparency_is_laid_on_white(tmp_path):
    black = np.zeros((2, 2, 4), np.uint8)
    black[0, 0, 3] = 255
    black[1, 1, 3] = 51
    found = load_image(save(tmp_path, black), (3, 2, 2))
    np.testing.assert_allclose(found[0], [[0.0, 1.0], [1.0, 0.8]])
    np.testing.assert_allclose(load_image(tmp_path / "image.png", (1, 2, 2))[0], found[0])


def test_transparent_colour_of_a_palette_is_laid_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "image.gif", transparency=0)
    found = load_image(tmp_path / "image.gif", (3, 1, 2))
    np.testing.assert_array_equal(found[:, 0].T, [[1, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_16_bit_grey_keeps_its_range(tmp_path, name):
    values = np.array([[0, 13107], [32768, 65535]], np.uint16)
    path = save(tmp_path, values, name)
    np.testing.assert_allclose(load_image(path, (1, 2, 2))[0], values / 65535, atol=1e-6)
    np.testing.assert_allclose(load_image(path, (3, 2, 2))[2], values / 65535, atol=1e-6)


def test_16_bit_grey_stays_in_range_when_resized(tmp_path):
    edge = np.zeros((40, 40), np.uint16)
    edge[:, 20:] = 65535
    found = load_image(save(tmp_path, edge), (1, 28, 28))
    assert found.min() == 0.0
    assert found.max() == 1.0


@pytest.mark.parametrize("value", [-1.0, 2.5])
def test_pixels_of_unknown_range_are_refused(tmp_path, value):
    floats = save(tmp_path, np.full((2, 2), value, np.float32), "float.tif")
    with pytest.raises(ValueError, match="mode F, whose range is not known"):
        load_image(floats, (1, 2, 2))
    integers = save(tmp_path, np.full((2, 2), value * 100_000, np.int32), "integer.tif")
    with pytest.raises(ValueError, match="mode I, whose range is not known"):
        load_image(integers, (1, 2, 2))


def test_whole_numbers_of_32_bits_need_a_range_that_is_told(tmp_path):
    image = Image.fromarray(np.array([[0, 51], [102, 255]], np.int32))
    image.save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="mode I, whose range is not known"):
        load_image(tmp_path / "a.tif", (1, 2, 2))
    image.save(tmp_path / "a.tif", tiffinfo={281: 255})  # MaxSampleValue
    found = load_image(tmp_path / "a.tif", (1, 2, 2))
    np.testing.assert_allclose(found[0], [[0.0, 0.2], [0.4, 1.0]], atol=1e-6)


def test_a_transparent_grey_of_16_bits_is_laid_on_white(tmp_path):
    values = np.array([[300, 13107], [301, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=300)
    found = load_image(tmp_path / "a.png", (1, 2, 2))
    np.testing.assert_allclose(found[0], [[1.0, 0.2], [301 / 65535, 1.0]], atol=1e-6)


def test_a_large_image_is_reduced_to_what_it_shows(tmp_path):
    # Four fields, one of them transparent, turned a quarter by its EXIF.
    fields = np.zeros((4, 4, 4), np.uint8)
    fields[..., 3], fields[:2, :2, 0], fields[:2, 2:, 1] = 255, 255, 255
    fields[2:, 2:, 3] = 0
    image, exif = Image.fromarray(fields).resize((2200, 2200), 0), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    expected = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255], [0, 255, 0]])
    found = load_image(tmp_path / "a.png", (3, 28, 28))[:, 7::14, 7::14]
    np.testing.assert_allclose(found.reshape(3, 4).T, expected / 255, atol=0.01)
    image.convert("RGB").save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = load_image(tmp_path / "a.jpg", (3, 28, 28))[:, 7::14, 7::14].reshape(3, 4).T
    np.testing.assert_allclose(found[[0, 1, 3]], expected[[0, 1, 3]] / 255, atol=0.02)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "LAB", "RGBX"])
def test_other_kinds_of_pixels_become_grey_or_colour(tmp_path, mode):
    # Pillow turns no RGB into LAB, where the lightness 255 and the middle of both axes are white.
    white = Image.new("LAB", (2, 2), (255, 128, 128))
    if mode != "LAB":
        white = Image.new("RGB", (2, 2), "white").convert(mode)
    white.save(tmp_path / "image.tif")
    for channels in (1, 3):
        found = load_image(tmp_path / "image.tif", (channels, 2, 2))
        np.testing.assert_allclose(found, np.ones((channels, 2, 2)), atol=1 / 255)


def test_image_that_is_not_there(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(FileNotFoundError, match="is not there; give the path of a file"):
            load_image(path, (1, 28, 28))


@pytest.mark.parametrize("content", [b"", b"just text"])
def test_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not an image file that Pillow can read"):
        load_image(path, (1, 28, 28))


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.bmp", "image.gif"])
def test_truncated_image(tmp_path, rng, name):
    path = save(tmp_path, rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is truncated or damaged") as caught:
        load_image(path, (3, 28, 28))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("limit", [300, 100], ids=["Pillow warns", "Pillow refuses"])
def test_decompression_bomb(tmp_path, monkeypatch, limit):
    path = save(tmp_path, np.zeros((20, 20), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=f"has more than {limit} pixels"):
        load_image(path, (1, 28, 28))


@pytest.mark.parametrize("shape", [(2, 28, 28), (1, 0, 28), (3, 28, -1)])
def test_shape_that_no_image_has(tmp_path, shape):
    with pytest.raises(ValueError, match="needs 1 or 3 channels and positive sizes"):
        load_image(tmp_path / "image.png", shape)


def test_portrait():
    data = load_portrait()
    assert data.images.shape == (1, 3, 32, 32)
    assert data.classes == 10
    # A blue wall is behind the shoulder on the right.
    red, green, blue = data.images[0, :, 10, 29]
    assert blue > green > red


def test_only_the_glyphs_that_are_asked_for_are_drawn_and_each_once() -> None:
    before = glyphs._greys.cache_info().misses
    digits = load_glyphs(30, seed=77)
    images, labels = digits.consecutive(12, 2)
    assert (len(digits), labels.tolist()) == (30, [2, 3])
    assert glyphs._greys.cache_info().misses == before + len({0, 12, 13})
    again, _ = digits.batch([12, 13])
    np.testing.assert_array_equal(again, images)
    again[...] = 0
    np.testing.assert_array_equal(images, digits.images[12:14])
    np.testing.assert_array_equal(digits.relabelled(4).batch([12])[0], images[:1])
    np.testing.assert_array_equal(load_glyphs(15, seed=77).images, digits.images[:15])
    assert glyphs._greys.cache_info().misses == before + 30
