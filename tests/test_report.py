"""The output directory, result files, figures and the player."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from tinyleak.attacks import Snapshot
from tinyleak.report import (
    as_png,
    curves,
    emergence,
    pixel_range,
    player,
    prepare_directory,
    save,
    side_by_side,
    write_arrays,
    write_atomically,
    write_json,
)
from tinyleak.report.canvas import number, on_screen, pixels, tile
from tinyleak.report.snapshots import Shown, choose, prepare


def moments(
    images: int = 1, channels: int = 1, steps: int = 20, seed: int = 0
) -> tuple[list[Snapshot], np.ndarray]:
    """Moments of an attack, from noise to a bright square on black, and that truth."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((images, channels, 10, 10))
    for image in range(images):  # no two alike
        truth[image, :, 3:7, 3:7] = 1.0 - image / 100
    noise = rng.standard_normal(truth.shape)
    found = [truth + noise * 0.3 * 0.4**iteration for iteration in range(steps)]
    distances = [float(np.mean((images - truth) ** 2)) / 100 for images in found]
    return [Snapshot(*one) for one in zip(range(steps), found, distances, strict=True)], truth


def shown(snapshots: list[Snapshot], count: int) -> list[Shown]:
    return choose(prepare(snapshots)[0], count)


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# The output directory


def test_the_directory_is_created_with_its_parents(tmp_path: Path) -> None:
    directory = prepare_directory(tmp_path / "results" / "first")
    assert directory.is_dir()
    assert files_in(directory) == []


def test_an_existing_directory_is_refused_without_force(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("kept")
    with pytest.raises(FileExistsError, match=r"exists already; .* with --force$"):
        prepare_directory(tmp_path)
    assert prepare_directory(str(tmp_path), force=True) == tmp_path
    assert (tmp_path / "result.json").read_text() == "kept"


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_way_is_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file, not a directory; choose another"):
        prepare_directory(tmp_path / "out", force=force)
    with pytest.raises(OSError, match=r"cannot be written to \(Not a directory\); choose another"):
        prepare_directory(tmp_path / "out" / "below", force=force)
    assert (tmp_path / "out").read_text() == "a file"


def test_an_unwritable_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the refusal of the operating system is played.
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(PermissionError, match=r"cannot be written to \(Permission denied\);"):
            prepare_directory(tmp_path / "out")
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=r"cannot be written to \(Permission denied\);"):
        prepare_directory(tmp_path, force=True)


# Atomic files


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "result"

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")

    write_atomically(path, write)
    assert path.read_bytes() == b"half and half"
    assert files_in(tmp_path) == ["result"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failing_writer_leaves_what_was_there(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise failure("in the middle")

    with pytest.raises(failure, match="in the middle"):
        write_atomically(tmp_path / "new", fail)
    assert files_in(tmp_path) == []
    (tmp_path / "old").write_bytes(b"whole")
    with pytest.raises(failure):
        write_atomically(tmp_path / "old", fail)
    assert files_in(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"whole"


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"result cannot be written \(No such file or directory\);"):
        write_atomically(tmp_path / "nowhere" / "result", lambda file: file.write(b""))


def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "result", lambda file: file.write(b""))
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "plain").stat().st_mode


# JSON


def test_json_takes_numpy_and_writes_null_for_what_json_lacks(tmp_path: Path) -> None:
    result = {
        "seed": np.int64(3),
        "mse": np.array([1e-9, np.nan, np.inf]),
        "distance": np.float32(0.5),
        "psnr": float("-inf"),
        "succeeded": np.bool_(True),
        "image": None,
        "out": tmp_path,
        "shape": (1, 28),
        "versions": {"numpy": "2", 7: []},
        "note": "10⁻³",
    }
    write_json(tmp_path / "result.json", result)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(text, parse_constant=refuse)
    assert read == {
        "seed": 3,
        "mse": [1e-9, None, None],
        "distance": 0.5,
        "psnr": None,
        "succeeded": True,
        "image": None,
        "out": str(tmp_path),
        "shape": [1, 28],
        "versions": {"numpy": "2", "7": []},
        "note": "10⁻³",
    }
    assert read["succeeded"] is True
    assert list(read) == list(result), "keys stay in the order in which they were given"
    assert text.startswith('{\n  "seed": 3,\n')
    assert text.endswith("}\n")


def test_json_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"type complex \(1j\) has no form in JSON; give numbers"):
        write_json(tmp_path / "result.json", {"value": [1j]})
    assert files_in(tmp_path) == []


# Arrays


def test_arrays_load_without_pickle(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    names = ["7", "9"]
    write_arrays(tmp_path / "reconstruction.npz", images=images, names=names, seed=3)
    with np.load(tmp_path / "reconstruction.npz", allow_pickle=False) as loaded:
        assert set(loaded) == {"images", "names", "seed"}
        np.testing.assert_array_equal(loaded["images"], images)
        assert loaded["images"].dtype == np.float32
        assert loaded["names"].tolist() == names
        assert loaded["seed"].shape == ()


def test_arrays_write_the_same_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(6.0).reshape(2, 3)
    write_arrays(tmp_path / "first.npz", a=values, b=np.ones(3))
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    write_arrays(tmp_path / "second.npz", b=np.ones(3), a=np.asfortranarray(values))
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="array 'names' has dtype object, which needs a pickle"):
        write_arrays(tmp_path / "a.npz", names=np.array([None, "x"]))
    assert files_in(tmp_path) == []


# The choice of moments


def test_the_first_and_the_last_moment_are_always_chosen() -> None:
    snapshots, _ = moments(steps=50)
    for count in (2, 3, 8, 40):
        chosen = [one.iteration for one in shown(snapshots, count)]
        assert len(chosen) == count
        assert chosen == sorted(set(chosen))
        assert (chosen[0], chosen[-1]) == (0, 49)


def test_few_moments_are_all_chosen() -> None:
    snapshots, _ = moments(steps=5)
    assert [one.iteration for one in shown(snapshots, 8)] == [0, 1, 2, 3, 4]
    assert len(shown(snapshots[:1], 8)) == 1


def test_moments_are_chosen_where_the_image_emerges() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((1, 1, 10, 10))
    truth[:, :, 3:7, 3:7] = 1.0
    noise = rng.standard_normal(truth.shape)
    emerging = [truth + noise * 0.7**step for step in range(30)]
    # The image stands still for a hundred iterations, emerges, and stands still again.
    still = [emerging[0]] * 100 + emerging + [emerging[-1]] * 200
    chosen = shown([Snapshot(i, images, 1.0) for i, images in enumerate(still)], 8)
    assert len(chosen) == 8
    assert all(100 < one.iteration < 130 for one in chosen[1:-1])
    remaining = [np.mean((on_screen(one.images) - truth) ** 2) ** 0.25 for one in chosen]
    steps = -np.diff(remaining)
    assert steps.max() < 1.7 * steps.mean(), "each step shows about as much"
    assert steps.min() > 0.4 * steps.mean()


def test_moments_of_a_sudden_or_no_change_are_spread() -> None:
    black, white = np.zeros((1, 1, 4, 4)), np.ones((1, 1, 4, 4))
    for turn in (99, 1000):
        snapshots = [Snapshot(i, black if i < turn else white, 1.0) for i in range(100)]
        chosen = [one.iteration for one in shown(snapshots, 5)]
        assert np.diff(chosen).min() >= 20


def test_moments_that_are_not_finite_can_be_chosen() -> None:
    snapshots, _ = moments(steps=12)
    snapshots.append(Snapshot(12, np.full_like(snapshots[0].images, np.nan), float("nan")))
    assert shown(snapshots, 5)[-1].iteration == 12


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no snapshot to draw; give at least one"):
        prepare([])
    with pytest.raises(ValueError, match="1 moments were asked for; ask for at least 2"):
        shown(moments()[0], 1)


def test_a_batch_is_put_in_the_order_of_the_truth() -> None:
    snapshots, truth = moments(images=3)
    mixed = [replace(one, images=one.images[[2, 0, 1]]) for one in snapshots]
    ready, order, _ = prepare(mixed, truth)
    assert order.tolist() == [1, 2, 0]
    for one, snapshot in zip(ready, snapshots, strict=True):
        np.testing.assert_array_equal(one.images, snapshot.images)
        error = np.mean((snapshot.images - truth) ** 2, axis=(1, 2, 3))
        np.testing.assert_allclose(one.mse, error)


def test_pixels_that_were_normalised_are_drawn_from_black_to_white() -> None:
    usual, normalised = np.array([-0.2, 1.2]), np.array([-0.4, 2.8])
    assert pixel_range(usual) == (0, 1)
    assert pixel_range(normalised) == (-0.4, 2.8)
    assert pixel_range(np.array([0, np.inf])) == pixel_range(np.array([np.nan, 1])) == (0, 1)
    assert pixel_range(np.array([7.0, 7.0])) == (0, 1)


def test_a_normalised_truth_and_what_was_found_are_drawn_on_one_scale() -> None:
    snapshots, truth = moments()
    normalised = [replace(one, images=(one.images - 0.2) / 0.1) for one in snapshots]
    usual, _, shown = prepare(snapshots, truth)
    ready, _, scaled = prepare(normalised, (truth - 0.2) / 0.1)
    low, high = truth.min(), truth.max()
    np.testing.assert_allclose(scaled, (truth - low) / (high - low), atol=1e-12)
    np.testing.assert_allclose(ready[-1].images, (usual[-1].images - low) / (high - low), atol=1e-9)
    np.testing.assert_array_equal(shown, truth)


# How an image and a number look


def test_an_image_is_clipped_to_the_screen() -> None:
    image = np.array([[[-1.0, 0.25], [2.0, np.nan]]])
    np.testing.assert_array_equal(pixels(image), [[0, 0.25], [1, 0.5]])
    assert pixels(np.zeros((3, 4, 5))).shape == (4, 5, 3)
    np.testing.assert_array_equal(on_screen(np.array([np.inf, -np.inf])), [1, 0])


def test_tiles_stand_apart_in_the_batch_order() -> None:
    grid = tile(np.arange(3.0).reshape(3, 1, 1, 1) / 10)
    np.testing.assert_allclose(grid, [[[0, 1, 0.1], [1, 1, 1], [0.2, 1, 1]]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0534, "0.053"),
        (1.12, "1.1"),
        (99.7, "10²"),
        (3.21e-5, "3.2×10⁻⁵"),
        (1e-3, "10⁻³"),
        (9.4e-10, "9.4×10⁻¹⁰"),
        (1234.0, "1.2×10³"),
        (float("nan"), "not finite"),
    ],
)
def test_a_number_is_written_as_a_person_would(value: float, text: str) -> None:
    assert number(value) == text


# Figures


def draw_emergence(path: Path) -> None:
    snapshots, truth = moments(images=2)
    save(emergence(snapshots, truth, labels_true=[7, 1], labels=[7, 2]), path)


def draw_side_by_side(path: Path) -> None:
    snapshots, truth = moments(images=2)
    save(side_by_side(snapshots[-1].images, truth, [7, 2], [7, 1], np.array([0.1, 0.2])), path)


def draw_curves(path: Path) -> None:
    save(curves(*moments(), success_below=1e-3), path)


def draw_player(path: Path) -> None:
    player(path, *moments(images=2), count=4)


@pytest.mark.parametrize("draw", [draw_emergence, draw_side_by_side, draw_curves, draw_player])
def test_drawing_twice_gives_the_same_bytes_and_changes_no_setting(
    tmp_path: Path, draw: Callable[[Path], None]
) -> None:
    import matplotlib as mpl

    draw(tmp_path / "first")
    with mpl.rc_context({"font.size": 31, "image.cmap": "jet", "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        draw(tmp_path / "second")
        assert dict(mpl.rcParams) == before
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert files_in(tmp_path) == ["first", "second"]


def test_a_figure_shows_itself_and_is_written_by_the_same_bytes(tmp_path: Path) -> None:
    figure = curves(*moments())
    save(figure, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes() == as_png(figure) == figure._repr_png_()
    assert len(as_png(figure, dots_per_inch=50)) < len(as_png(figure))


def test_importing_the_room_loads_no_matplotlib_and_drawing_no_pyplot(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np, tinyleak.report as report\n"
        "from tinyleak.attacks import Snapshot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "snapshots = [Snapshot(i, np.full((1, 1, 4, 4), i / 2), 1.0) for i in range(3)]\n"
        f"report.player({str(tmp_path / 'b')!r}, snapshots)\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"report.save(report.emergence(snapshots), {str(tmp_path / 'a')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("images", "channels"), [(1, 1), (4, 3), (6, 1)])
def test_emergence_has_a_column_for_each_iteration_and_a_row_for_each_image(
    tmp_path: Path, images: int, channels: int
) -> None:
    save(emergence(*moments(images, channels), count=6), tmp_path / "progress.png")
    with Image.open(tmp_path / "progress.png") as figure:
        width, height = figure.size
        assert "Software" not in figure.info
    assert width == 7 * 290
    assert 280 * images < height < 380 * images + 80


def test_more_images_than_iterations_stand_beside_each_other() -> None:
    width, height = emergence(*moments(images=12), count=3).get_size_inches()
    assert 8 * 1.45 < width < 9 * 1.45
    assert 4 * 1.4 < height < 5 * 1.9


def greys(figure: object, columns: int) -> list[int]:
    """The greys at the middle height of a figure's columns."""
    with Image.open(io.BytesIO(as_png(figure))) as picture:
        grey = np.asarray(picture.convert("L"))
    middle = grey[grey.shape[0] // 2]
    return [int(middle[int((column + 0.5) * 290)]) for column in range(columns)]


def test_emergence_shows_the_truth_and_the_last_reconstruction() -> None:
    """White images on black truth: the two ends of the picture tell which is where."""
    black, white = np.zeros((1, 1, 4, 4)), np.ones((1, 1, 4, 4))
    snapshots = [Snapshot(i, white if i else black + 0.5, 1.0) for i in range(3)]
    found = greys(emergence(snapshots, black), 4)
    np.testing.assert_allclose(found, [0, 127, 255, 255], atol=1)


def test_one_image_stands_beside_its_truth() -> None:
    black, white = np.zeros((1, 1, 4, 4)), np.ones((1, 1, 4, 4))
    np.testing.assert_allclose(greys(side_by_side(white, black), 2), [0, 255], atol=1)
    np.testing.assert_allclose(greys(side_by_side(white), 1), [255], atol=1)


def test_a_batch_stands_below_its_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_drawn(monkeypatch)
    snapshots, truth = moments(images=9)
    figure = side_by_side(snapshots[-1].images, truth, range(9), range(9), np.full(9, 1e-3))
    width, height = figure.get_size_inches()
    figure.draw_without_rendering()
    assert width > height
    inside = figure.bbox
    for text in (text for axes in figure.axes for text in (axes.yaxis.label, axes.xaxis.label)):
        box = text.get_window_extent(figure.canvas.get_renderer())
        assert box.x0 >= inside.x0 and box.y0 >= inside.y0 and box.y1 <= inside.y1, (
            f"{text.get_text()} is cut"
        )
    assert {"truth", "found"} <= set(texts)
    assert "MSE 10⁻³\nlabel 7" in texts
    assert "the first 8 of the batch's 9 images" in texts


def test_emergence_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_drawn(monkeypatch)
    snapshots, truth = moments(images=9)
    labels = list("abcdefghi")
    as_png(emergence(snapshots, truth, labels_true=labels, labels=labels, count=2))
    assert "the first 8 of the batch's 9 images" in texts
    assert {"truth", "iteration 0", "iteration 19"} <= set(texts)
    assert "label h" in {text.strip() for text in texts}, "under the truth"
    last = np.mean((snapshots[-1].images - truth) ** 2, axis=(1, 2, 3))
    assert f"MSE {number(last[7])}\nlabel h" in texts, "under the reconstruction"
    assert not any("label i" in text for text in texts)


def test_a_label_goes_with_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_drawn(monkeypatch)
    snapshots, truth = moments(images=2)
    mixed = [replace(one, images=one.images[::-1]) for one in snapshots]
    as_png(emergence(mixed, truth, labels=["second", "first"], count=2))
    found = [text for text in texts if "label" in text]
    assert [text.split()[-1] for text in found[:2]] == ["first", "second"]


def texts_drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that fills with each text of the figures drawn from now on."""
    from matplotlib.text import Text

    texts: list[str] = []
    draw = Text.draw

    def record(self: Text, *args: object, **kwargs: object) -> None:
        texts.append(self.get_text())
        draw(self, *args, **kwargs)

    monkeypatch.setattr(Text, "draw", record)
    return texts


@pytest.mark.parametrize(
    ("distances", "offsets"),
    [
        ([1.0, 0.1, 0.0], [1.0, 0.5, 0.0]),
        ([0.0, 0.0, 0.0], None),
        ([1.0, np.nan, np.inf], [np.nan] * 3),
        ([1.0, 0.5, 0.1], [1, 0.1, 1e-3]),
    ],
)
@pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")
def test_curves_of_an_attack_are_drawn_whatever_the_values(
    tmp_path: Path, distances: list[float], offsets: list[float] | None
) -> None:
    truth = np.zeros((2, 1, 4, 4))
    pictures = [truth + offset for offset in offsets or [0.0] * 3]
    snapshots = [Snapshot(*one) for one in zip(range(3), pictures, distances, strict=True)]
    figure = curves(snapshots, None if offsets is None else truth, success_below=1e-3)
    save(figure, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (1600, 900)


def test_curves_are_labelled_where_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_drawn(monkeypatch)
    snapshots, truth = moments(images=2)
    as_png(curves(snapshots[4:5], truth, success_below=1e-3))
    assert {"gradient distance", "MSE of each image", "recovered: MSE < 10⁻³"} <= set(texts)


def test_curves_count_iterations_in_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_drawn(monkeypatch)
    as_png(curves(moments(steps=3)[0]))
    assert {text for text in texts if text.replace(".", "").isdigit()} == {"0", "1", "2"}


# The player


def test_the_player_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    snapshots, truth = moments()
    player(tmp_path / "player.html", snapshots, truth, title="Digits & <b>", count=5)
    page = (tmp_path / "player.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<link|@import|url\(|<script[^>]*src|<img[^>]*src", page)
    assert page.startswith("<!DOCTYPE html>")
    assert "<h1>Digits &amp; &lt;b&gt;</h1>" in page
    assert 'type="range"' in page
    assert not re.search(r"\beval\b|new Function|innerHTML|document\.write", page)


def told_by(path: Path) -> dict[str, Any]:
    """What the player's script works with."""
    page = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def test_the_player_holds_each_chosen_frame_as_numbers(tmp_path: Path) -> None:
    snapshots, truth = moments(images=4, channels=3)
    player(tmp_path / "player.html", snapshots, truth, count=5)
    told = told_by(tmp_path / "player.html")
    assert told["shape"] == [3, 21, 21]
    assert len(set(told["frames"])) == len(told["captions"]) == len(told["iterations"]) == 5
    pixels = np.frombuffer(base64.b64decode(told["frames"][-1]), np.uint8).reshape(3, 21, 21)
    _, order, _ = prepare(snapshots, truth)
    np.testing.assert_allclose(pixels / 255, tile(truth), atol=0.5 / 255 + 1e-6)
    assert order.tolist() == [0, 1, 2, 3]
    assert told["captions"][0].startswith("iteration 0: gradient distance ")
    distance, error = told["curves"]
    assert [at for at, _ in distance["points"]] == list(range(20))
    assert (distance["name"], error["name"]) == ("gradient distance", "mean MSE")
    np.testing.assert_allclose(error["points"][0][1], np.mean((snapshots[0].images - truth) ** 2))


def test_the_player_is_small_and_soon_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for images, size in ((1, 28), (16, 28), (9, 96), (2, 300)):
        noise = rng.random((images, 3, size, size))
        snapshots = [Snapshot(k, noise * k / 200, 1.0 / (k + 1)) for k in range(60)]
        began = time.process_time()
        player(tmp_path / "player.html", snapshots, noise)
        assert time.process_time() - began < 4
        largest = 200_000 if 3 * size * size * 9 < 130_000 else 10 * 3 * size * size * 4 / 3
        assert (tmp_path / "player.html").stat().st_size < largest


def test_what_is_not_finite_is_a_gap_and_text_is_no_markup(tmp_path: Path) -> None:
    snapshots, truth = moments(steps=3)
    broken = [replace(snapshots[0], distance=float("nan")), *snapshots[1:]]
    names = {"labels": ["</script><b>"], "labels_true": [3]}
    player(tmp_path / "player.html", broken, truth, **names)
    assert told_by(tmp_path / "player.html")["curves"][0]["points"][0] == [0, None]
    page = (tmp_path / "player.html").read_text(encoding="utf-8")
    assert "reconstruction, label &lt;/script&gt;&lt;b&gt;" in page
    assert "truth, label 3" in page
    assert page.count("</script>") == 2


def test_the_player_says_what_it_shows(tmp_path: Path) -> None:
    snapshots, truth = moments(images=17, steps=2)
    player(tmp_path / "with.html", snapshots, truth)
    player(tmp_path / "without.html", snapshots)
    page = (tmp_path / "with.html").read_text(encoding="utf-8")
    assert "<p>Left the truth, right the reconstruction from the shared gradient" in page
    assert "The first 16 of the batch&#x27;s 17 images are shown.</p>" in page
    page = (tmp_path / "without.html").read_text(encoding="utf-8")
    assert "<p>The reconstruction from the shared gradient" in page
    assert told_by(tmp_path / "without.html")["truth"] is None


# What is no picture


@pytest.mark.parametrize("shape", [(3, 1, 20), (12, 1, 20), (2, 5, 20)], ids=str)
def test_channels_of_what_is_no_picture_stand_below_each_other(shape: tuple[int, ...]) -> None:
    inputs = np.arange(2 * math.prod(shape)).reshape(2, *shape) / (2 * math.prod(shape) - 1)
    moments, _, truth = prepare([Snapshot(0, inputs, 1.0)], inputs)
    assert truth is not None and truth.shape == (2, 1, shape[0] * shape[1], 20)
    np.testing.assert_array_equal(moments[0].images[1, 0, shape[1]], inputs[1, 1, 0])
    assert len(side_by_side(inputs, inputs).axes) == 4


# Images that cannot be drawn


@pytest.mark.parametrize("draw", [emergence, curves, "player"])
def test_images_that_do_not_fit_are_refused(
    tmp_path: Path, draw: Callable[..., object] | str
) -> None:
    if isinstance(draw, str):
        draw = partial(player, tmp_path / "player.html")
    snapshots, truth = moments()
    with pytest.raises(ValueError, match="there is no snapshot to draw"):
        draw([])
    with pytest.raises(ValueError, match=r"shape \(1, 784\) cannot be drawn; give \(N, C, H, W\)"):
        draw([Snapshot(0, np.zeros((1, 784)), 1.0)])
    with pytest.raises(ValueError, match=r"the truth has shape \(1, 1, 9, 10\) and the images"):
        draw(snapshots, truth[:, :, 1:])
    other = [*snapshots, Snapshot(20, np.zeros((1, 1, 4, 4)), 1.0)]
    with pytest.raises(ValueError, match=r"images of iteration 20 have shape \(1, 1, 4, 4\)"):
        draw(other)
    assert files_in(tmp_path) == []


def test_labels_that_do_not_fit_are_refused() -> None:
    snapshots, truth = moments(images=2)
    with pytest.raises(ValueError, match="3 labels were given for 2 images; give one each"):
        emergence(snapshots, truth, labels_true=[1, 2, 3])
    with pytest.raises(ValueError, match="3 labels were given for 2 images; give one each"):
        side_by_side(snapshots[0].images, labels=[1, 2, 3])
    with pytest.raises(ValueError, match=r"the truth has shape \(1, 1, 10, 10\) and the images"):
        side_by_side(snapshots[0].images, truth[:1])
