"""The command: what it prints, writes and exits with, and how it turns down what it cannot do."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import Answer, Refused, Run, read_result
from PIL import Image

import tinyleak
from tinyleak.attacks import Problem, Progress, Reconstruction, Settings, attack
from tinyleak.cli import COMMANDS, build_parser, main, options, progress
from tinyleak.cli.attack_result import FILES
from tinyleak.cli.simulated import simulated_client
from tinyleak.client import Outcome, Truth, simulate
from tinyleak.data import load_image, load_mnist
from tinyleak.data.glyphs import draw_digit
from tinyleak.defenses import Clip, Prune, protect
from tinyleak.nn import LeNet, ResNet

ROOT = Path(__file__).resolve().parents[1]
IMAGES_FILE, LABELS_FILE = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
COUNT = 6


def command(*arguments: object, **changes: str) -> subprocess.Popen[str]:
    """Start the command as a process of its own, with changes to its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "tinyleak", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **changes},
    )


def finish(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def idx(*shape: int, content: bytes = b"") -> bytes:
    """An IDX file of unsigned bytes, gzipped."""
    header = bytes([0, 0, 8, len(shape)])
    return gzip.compress(header + struct.pack(f">{len(shape)}I", *shape) + content)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few digits in MNIST's file format, which load faster than all the built-in ones."""
    folder = tmp_path_factory.mktemp("digits")
    pixels = np.stack([draw_digit(index) for index in range(COUNT)])
    content = np.rint(255 * pixels).astype(np.uint8).tobytes()
    (folder / IMAGES_FILE).write_bytes(idx(COUNT, 28, 28, content=content))
    (folder / LABELS_FILE).write_bytes(idx(COUNT, content=bytes(range(COUNT))))
    return folder


@pytest.fixture
def short(digits: Path) -> list[object]:
    """The arguments of an attack that ends at once, without success."""
    return ["attack", "--data", "mnist", "--data-dir", digits, "--iterations", 3]


# An attack that succeeds


@pytest.fixture(scope="module")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an attack that has succeeded."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    code = main(arguments_of_finished(digits, folder))
    assert code == 0
    return folder


def arguments_of_finished(digits: Path, out: Path) -> list[str]:
    arguments = ["attack", "--data", "mnist", "--data-dir", digits, "--index", 3, "--seed", 5]
    return [str(argument) for argument in [*arguments, "--quiet", "--out", out]]


def test_the_result_tells_all_there_is_to_know(finished: Path, digits: Path) -> None:
    result = read_result(finished)
    assert result["succeeded"] is True
    assert result["reason"] == "converged"
    assert result["labels_true"] == result["labels_recovered"] == [3]
    (mse,), (psnr,) = result["mse"], result["psnr"]
    assert mse < 1e-9
    assert psnr == pytest.approx(-10 * np.log10(mse))
    assert 0 <= result["gradient_distance"] < 1e-9
    assert result["evaluations"] > result["iterations"] > 100
    assert result["seconds"] > 0
    expected = {"data": "mnist", "data_dir": str(digits), "image": None, "index": 3, "batch": 1}
    expected |= {"label": None, "model": "lenet", "image_shape": [1, 28, 28], "classes": 10}
    expected |= {"activation": "sigmoid", "init": "U", "seed": 5, "recipe": "default"}
    expected |= {"iterations": 2000, "line_search": "strong-wolfe", "history": 100}
    expected |= {"dtype": "float64", "restarts": 1, "labels": "optimise", "device": "cpu"}
    expected |= {
        "method": "lbfgs",
        "start": "noise",
        "defenses": [],
        "aware": False,
        "direction": False,
        "smoothness": 0.0,
    }
    assert result["labels_inferred"] is None
    assert result["settings"] == result["settings"] | expected
    assert result["versions"]["tinyleak"] == tinyleak.__version__
    assert result["versions"]["numpy"] == np.__version__
    assert re.match(r"3\.\d+", result["versions"]["python"])


def test_the_arrays_are_the_reconstruction_and_the_truth(finished: Path, digits: Path) -> None:
    result = read_result(finished)
    with np.load(finished / "reconstruction.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (1, 1, 28, 28)
        np.testing.assert_array_equal(arrays["truth"], load_mnist(digits).images[3:4])
        error = np.mean((arrays["images"] - arrays["truth"]) ** 2)
        np.testing.assert_allclose(error, result["mse"][0])
        assert arrays["labels"].tolist() == arrays["labels_true"].tolist() == [3]
        assert arrays["soft_labels"].shape == (1, 10)
        assert np.argmax(arrays["soft_labels"]) == 3
        assert len(arrays["distances"]) == result["iterations"] + 1
        assert arrays["distances"][-1] == result["gradient_distance"]


def test_the_pictures_and_the_player_are_there(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == sorted(FILES)
    for name in ("progress.png", "loss.png"):
        with Image.open(finished / name) as picture:
            assert min(picture.size) > 300
    page = (finished / "player.html").read_text(encoding="utf-8")
    assert "An image out of a gradient" in page
    assert page.count("gradient distance") > 20
    assert "truth, label 3" in page
    assert len(page) < 200_000


def test_the_same_seed_gives_the_same_files_but_for_times(
    finished: Path, digits: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert main(arguments_of_finished(digits, again)) == 0
    for name in FILES[1:]:
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name
    one, other = read_result(finished), read_result(again)
    del one["seconds"], other["seconds"]
    assert one == other


def test_library_and_command_give_the_same_bytes(finished: Path, digits: Path) -> None:
    images, labels = load_mnist(digits).batch([3])
    client, _ = simulate(LeNet(), images, labels, seed=5)
    found = attack(client, seed=5)
    with np.load(finished / "reconstruction.npz", allow_pickle=False) as arrays:
        assert found.images.tobytes() == arrays["images"].tobytes()
        assert found.soft_labels.tobytes() == arrays["soft_labels"].tobytes()


def test_another_seed_gives_another_attack(
    short: list[object], tmp_path: Path, without_pictures: None
) -> None:
    distances = []
    for seed in ("0", "1"):
        main([*map(str, short), "--quiet", "--seed", seed, "--out", str(tmp_path / seed)])
        distances.append(read_result(tmp_path / seed)["gradient_distance"])
    assert distances[0] != distances[1]


def test_a_batch_is_judged_in_the_order_of_the_client_s_images(
    run: Run,
    digits: Path,
    tmp_path: Path,
    without_pictures: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reconstructions = []
    judge = Truth.judge

    def spy(truth: Truth, found: Reconstruction) -> Outcome:
        reconstructions.append(found)
        return judge(truth, found)

    monkeypatch.setattr(Truth, "judge", spy)
    arguments = ["attack", "--data", "mnist", "--data-dir", digits, "--batch", 2]
    arguments += ["--method", "lbfgs"]
    answer = run(*arguments, "--iterations", 500, "--out", tmp_path / "out")
    assert answer.code == 0
    assert "success, 2 of 2 images recovered" in answer.out
    assert "mnist images 0 to 1, 1x28x28" in answer.out
    assert re.search(r"^labels +0 1 \(right\)$", answer.out, re.MULTILINE)
    result = read_result(tmp_path / "out")
    assert result["labels_true"] == result["labels_recovered"] == [0, 1]
    with np.load(tmp_path / "out" / "reconstruction.npz", allow_pickle=False) as arrays:
        error = np.mean((arrays["images"] - arrays["truth"]) ** 2, axis=(1, 2, 3))
        np.testing.assert_allclose(error, result["mse"])
    # It is the command that puts them in order: the attack found them the other way round.
    assert reconstructions[0].labels.tolist() == [1, 0]


# What the options mean


@pytest.fixture
def called(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Problem]:
    """Call `main`, and return the problem that it called the library's `attack` with."""

    def call(*arguments: object) -> Problem:
        problems = []

        def spy(problem: Problem, **given: object) -> Reconstruction:
            problems.append(problem)
            return attack(problem, **given)

        monkeypatch.setattr("tinyleak.cli.attack.attack", spy)
        answer = run(*arguments)
        assert answer.code in (0, 1), answer.err
        return problems[0]

    return call


def test_options_reach_the_attack(called: Callable[..., Problem], short: list[object]) -> None:
    given = "--batch 2 --seed 7 --restarts 2 --labels known --index 3"
    problem = called(*short, *given.split())
    client, attacker = problem.client, problem.attacker
    assert client.model == LeNet()
    assert client.batch == 2
    assert (attacker.seed, attacker.restarts, attacker.device) == (7, 2, "cpu")
    assert attacker.labels.tolist() == [3, 4]
    assert attacker.settings == Settings(iterations=3)
    expected = LeNet().init(np.random.default_rng([7, 0]))
    np.testing.assert_array_equal(client.params["fc.0.weight"], expected["fc.0.weight"])


def test_a_resnet_is_attacked_to_a_goal_of_its_own(
    called: Callable[..., Problem], short: list[object]
) -> None:
    given = [*short, "--iterations", 0, "--model", "resnet"]
    problem = called(*given)
    assert problem.client.model == ResNet((1, 28, 28))
    assert problem.settings.goal == 1e-30
    for more, goal in ((["--goal", "1e-9"], 1e-9), (["--recipe", "paper"], -np.inf)):
        args = build_parser().parse_args([*map(str, given), *more])
        assert options.build_settings(args).goal == goal


def test_the_method_reaches_the_attack(
    called: Callable[..., Problem], short: list[object], run: Run
) -> None:
    problem = called(*short, "--iterations", 1, "--method", "levenberg-marquardt")
    assert problem.attacker.method == "levenberg-marquardt"
    answer = run(*short, "--smoothness", 3, "--method", "lbfgs+levenberg-marquardt")
    assert answer.code == 2
    assert "to prefer smooth images" in answer.err


def test_the_start_reaches_the_attack(
    called: Callable[..., Problem], short: list[object], run: Run
) -> None:
    given = [*short, "--iterations", 1, "--model", "mlp", "--labels", "infer"]
    noise = called(*given, "--start", "noise")
    assert noise.attacker.start == "noise"
    spoilt = called(*given, "--start", "recursion", "--defense", "gaussian:1e-2", "--aware")
    assert spoilt.starts.shape == noise.starts.shape == (1, 784)
    assert (spoilt.starts != noise.starts).any()
    # What pruning leaves is exact, so the image is read; from noise one iteration is not enough.
    pruned = [*given, "--defense", "prune:0.1", "--aware"]
    assert [run(*pruned, "--start", start).code for start in ("noise", "recursion")] == [1, 0]
    answer = run(*short, "--model", "resnet", "--labels", "infer", "--start", "recursion")
    assert answer.code == 2
    assert "through a LeNet or an MLP trained by cross-entropy, not through a ResNet" in answer.err


def test_options_reach_the_network(called: Callable[..., Problem], short: list[object]) -> None:
    given = "--model mlp --activation tanh --init default --dtype float32"
    client = called(*short, *given.split()).client
    assert type(client.model).__name__ == "MLP"
    assert client.model.activation == "tanh"
    assert client.dtype == client.gradients["0.weight"].dtype == np.float32
    expected = client.model.init(np.random.default_rng([0, 0]), "default", "float32")
    np.testing.assert_array_equal(client.params["0.weight"], expected["0.weight"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", Settings()),
        ("--recipe paper", Settings.paper()),
        ("--recipe paper --dtype float64", Settings.paper(dtype="float64")),
        ("--line-search none --history 7", Settings(line_search="none", history=7)),
        ("--iterations 0", Settings(iterations=0)),
    ],
)
def test_an_option_that_is_not_given_is_the_recipe_s(given: str, expected: Settings) -> None:
    args = build_parser().parse_args(["attack", *given.split()])
    assert options.build_settings(args) == expected


def test_defences_reach_the_client_and_knowledge_of_them_the_attack(
    called: Callable[..., Problem], short: list[object]
) -> None:
    given = "--defense clip:0.5 --defense prune:0.25 --seed 3"
    plain = called(*short, "--seed", 3)
    naive = called(*short, *given.split())
    rng = np.random.default_rng(0)
    expected = protect([Clip(0.5), Prune(0.25)], plain.client.gradients, rng)
    for name, gradient in naive.client.gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-12)
    assert naive.matching.precision is None
    assert naive.settings == Settings(iterations=3)
    aware = called(*short, *given.split(), "--aware", "--smoothness", "2.5")
    assert aware.settings == Settings(iterations=3, direction=True, smoothness=2.5)
    for name, gradient in aware.client.gradients.items():
        np.testing.assert_array_equal(gradient, naive.client.gradients[name])
        np.testing.assert_array_equal(aware.matching.precision[name], gradient != 0)


def test_labels_that_the_method_was_chosen_by_are_not_said(
    called: Callable[..., Problem], short: list[object], tmp_path: Path, without_pictures: None
) -> None:
    out = tmp_path / "out"
    problem = called(*short, "--iterations", 0, "--batch", 2, "--out", out)
    assert problem.attacker.method == "levenberg-marquardt"
    assert read_result(out)["knows"]["labels"]["source"] == "read off"


def test_inferred_labels_reach_the_attack_and_the_result(
    called: Callable[..., Problem], short: list[object], tmp_path: Path, without_pictures: None
) -> None:
    out = tmp_path / "out"
    given = ["--batch", 3, "--labels", "infer", "--defense", "int8", "--aware", "--out", out]
    targets = called(*short, *given).matching.targets
    assert np.argmax(targets, axis=-1).tolist() == [0, 1, 2]
    result = read_result(out)
    assert result["labels_inferred"] == [0, 1, 2]
    settings = result["settings"]
    assert (settings["labels"], settings["defenses"], settings["aware"]) == (
        "infer",
        ["int8"],
        True,
    )


def test_labels_that_are_a_guess_are_said_to_be(run: Run, short: list[object]) -> None:
    answer = run(*short, "--labels", "infer", "--defense", "gaussian:10")
    assert answer.code == 1
    assert re.fullmatch(r"tinyleak: label \d is a guess: .*\n", answer.err)
    assert re.search(
        "^defended +gaussian:10; the attacker does not know of it$", answer.out, re.MULTILINE
    )
    answer = run(*short, "--defense", "int8", "--aware")
    assert re.search("^defended +int8; the attacker knows of it$", answer.out, re.MULTILINE)


def test_a_label_takes_the_place_of_the_data_s(
    called: Callable[..., Problem], short: list[object]
) -> None:
    problem = called(*short, "--batch", 2, "--label", 8, "--labels", "known", "--method", "lbfgs")
    assert problem.attacker.labels.tolist() == [8, 8]


def test_the_network_is_made_for_the_data(tmp_path: Path) -> None:
    (tmp_path / "test.bin").write_bytes(bytes([0, 42]) + bytes(3072))
    given = ["attack", "--data", "cifar100", "--data-dir", str(tmp_path)]
    args = build_parser().parse_args(given)
    client, truth = simulated_client(args, dtype="float64", defenses=())
    assert client.model == LeNet((3, 32, 32), classes=100)
    assert truth.labels.tolist() == [42]


def test_an_image_file_is_attacked(run: Run, tmp_path: Path, without_pictures: None) -> None:
    path, out = tmp_path / "picture.png", tmp_path / "out"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    given = ["attack", "--image", path, "--iterations", 2, "--force", "--out", out]

    assert run(*given).code == 1
    with np.load(out / "reconstruction.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["truth"][0], load_image(path, (1, 28, 28)))
    result = read_result(out)
    assert result["settings"]["image"] == str(path)
    assert result["settings"]["data"] is None
    assert (result["labels_true"], result["settings"]["classes"]) == ([0], 10)

    answer = run(*given, "--shape", "3,16,12", "--classes", 4, "--label", 2)
    assert f"image {path}, 3x16x12" in " ".join(answer.out.split())
    with np.load(out / "reconstruction.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["truth"][0], load_image(path, (3, 16, 12)))
        assert arrays["soft_labels"].shape == (1, 4)
    assert read_result(out)["labels_true"] == [2]


# What is printed


def test_an_attack_without_success_exits_1_and_says_so(run: Run, short: list[object]) -> None:
    answer = run(*short)
    assert answer.code == 1
    assert answer.err == ""
    assert re.search(
        r"^result +NO success: out of iterations after 3 iterations$", answer.out, re.M
    )
    once = run("attack", "--iterations", 1)
    assert re.search(r"^result +NO success: out of iterations after 1 iteration$", once.out, re.M)
    assert re.search(r"^error +MSE \d\.\de[+-]\d\d, PSNR -?\d+\.\d dB$", answer.out, re.M)
    assert re.search(r"^files +none \(--out DIR", answer.out, re.M)


def test_wrong_labels_are_shown_beside_the_right_ones(run: Run, digits: Path) -> None:
    given = ["attack", "--data", "mnist", "--data-dir", digits, "--iterations", 0, "--batch", 3]
    answer = run(*given)
    assert re.search(r"^labels +\d \d \d \(in truth 0 1 2\)$", answer.out, re.M), answer.out


def test_quiet_prints_nothing(run: Run, short: list[object]) -> None:
    assert run(*short, "--quiet") == Answer(1, "", "")


def test_help_names_every_option_and_its_default(run: Run) -> None:
    answer = run("attack", "--help")
    assert answer.code == 0
    text = " ".join(answer.out.split())
    usage = (
        "--data {glyphs,portrait,mnist,cifar100} --data-dir --image FILE --shape --classes --label "
        "--index --batch --seed --model {lenet,mlp,resnet,NAME.pt2} --activation "
        "--init {U,default} --recipe {default,paper} --iterations --goal --line-search "
        "--history --dtype "
        "--method {lbfgs,levenberg-marquardt,lbfgs+levenberg-marquardt,records,auto} "
        "--weights --gradients --rename --weights-after --learning-rate --local-steps "
        "--epochs --local-batch --momentum "
        "--reduction {mean,sum} --restarts --defense --aware --smoothness "
        "--labels {optimise,infer,known} "
        "--device {cpu,cuda} --out --force --quiet --debug"
    )
    for option in re.findall("--[^-]+(?:-[^-]+)*", usage):
        assert option.strip() in text
    assert "(default: glyphs)" in text
    assert "iterations at most (default: 2000; paper: 300 outer steps of 20)" in text
    assert "exit codes: 0 the attack succeeded" in text


def test_help_lists_the_commands(run: Run) -> None:
    answer = run("--help")
    assert answer.code == 0
    for one in COMMANDS:
        assert one.NAME in answer.out
        assert one.SUMMARY.split(" and ")[0] in " ".join(answer.out.split())


def test_version(run: Run) -> None:
    assert run("--version") == Answer(0, f"tinyleak {tinyleak.__version__}\n", "")


def test_the_module_is_the_command() -> None:
    assert finish(command("--version")) == Answer(0, f"tinyleak {tinyleak.__version__}\n", "")


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, contextlib\n"
        "from tinyleak.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(sys.argv[1:])\n"
        "heavy = {'matplotlib', 'scipy', 'tqdm', 'pooch', 'PIL', 'cupy', 'torch'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    for arguments in (["--help"], ["attack", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert "usage: tinyleak" in done.stdout
        assert done.stdout.endswith("heavy: []\n")


def test_a_path_that_the_terminal_cannot_show_is_no_reason_to_fail(
    tmp_path: Path,
) -> None:
    path = tmp_path / "café.png"
    Image.new("L", (28, 28)).save(path)
    given = ["attack", "--image", path, "--iterations", 3]
    answer = finish(command(*given, PYTHONIOENCODING="ascii"))
    assert answer.code == 1
    assert r"caf\xe9.png, 1x28x28" in " ".join(answer.out.split())


# The progress bar


class FakeBar:
    """What `Meter` does to a tqdm bar, noted down."""

    def __init__(self) -> None:
        self.n = 0
        self.shown: list[tuple[int, str]] = []

    def set_description_str(self, text: str, refresh: bool) -> None:
        assert refresh
        self.shown.append((self.n, text))


def test_the_bar_shows_distance_and_error_ten_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
    bar, truth, looks = FakeBar(), np.zeros((1, 1, 2, 2)), []
    meter = progress.Meter(bar, truth)

    def images() -> np.ndarray:
        looks.append(clock.now)
        return truth + 0.5

    for iteration in range(2000):  # a second of iterations that take half a millisecond each
        meter(Progress(iteration, 1e-3, images))
        clock.now += 0.0005
    assert 9 <= len(bar.shown) == len(looks) <= 11
    assert bar.shown[0] == (0, "distance 1.0e-03, MSE 2.5e-01")
    assert bar.shown[-1][0] > 1700


def test_a_costly_bar_is_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
    bar, truth = FakeBar(), np.zeros((1, 1, 2, 2))
    meter = progress.Meter(bar, truth)

    def images() -> np.ndarray:
        clock.now += 0.01
        return truth

    for iteration in range(2000):
        meter(Progress(iteration, 1e-3, images))
        clock.now += 0.0005
    assert len(bar.shown) <= 3


def test_the_bar_shows_the_distance_alone_where_no_truth_is_known() -> None:
    bar = FakeBar()
    progress.Meter(bar, None)(Progress(7, 0.25, lambda: np.zeros((1, 1, 2, 2))))
    assert bar.shown == [(7, "distance 2.5e-01")]


def test_the_bar_s_error_is_that_of_the_order_that_fits_best() -> None:
    bar, truth = FakeBar(), np.stack([np.zeros((1, 2, 2)), np.ones((1, 2, 2))])
    progress.Meter(bar, truth)(Progress(7, 0.25, lambda: truth[::-1] + 0.1))
    assert bar.shown == [(7, "distance 2.5e-01, MSE 1.0e-02")]


def test_no_bar_where_nobody_watches(run: Run, short: list[object]) -> None:
    with progress.progress_bar(np.zeros((1, 1, 2, 2)), Settings()) as on_progress:
        assert on_progress is None
    assert run(*short).err == ""


def test_a_bar_where_somebody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    truth = np.zeros((1, 1, 2, 2))
    with progress.progress_bar(truth, Settings(iterations=50)) as on_progress:
        assert isinstance(on_progress, progress.Meter)
        assert on_progress.bar.total == 50
    with progress.progress_bar(truth, Settings.paper()) as on_progress:
        assert on_progress.bar.total == 300 * 20
    with progress.progress_bar(truth, Settings(), quiet=True) as on_progress:
        assert on_progress is None


# Interruptions


def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path, digits: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal, to see the bar begin")
    import termios

    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 100))
    out = tmp_path / "out"
    # Where the tests run in the background, Ctrl-C is ignored, and that would be inherited.
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tinyleak.cli import main\n"
        "sys.exit(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "attack", "--data", "mnist", "--data-dir", str(digits)]
        + ["--batch", "4", "--restarts", "8", "--iterations", "1000000", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
    )
    os.close(stderr)
    try:
        shown = b""
        while b"MSE" not in shown:
            assert select.select([terminal], [], [], 120)[0], "no bar was shown"
            shown += os.read(terminal, 4096)
        assert re.search(rb"iteration \d+/1000000 .*distance \d\.\de[+-]\d\d, MSE \d", shown)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while more := os.read(terminal, 4096):
                shown += more
        summary, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 1
    assert b"Traceback" not in shown
    assert f"tinyleak: interrupted; the best so far is in {out}" in shown.decode()
    assert "interrupted after" in summary
    result = read_result(out)
    assert result["reason"] == "interrupted"
    assert result["succeeded"] is False
    assert len(result["mse"]) == 4
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def interrupted_at_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the fourth iteration."""

    @contextlib.contextmanager
    def bar(*args: object, **kwargs: object) -> Iterator[Callable[[Progress], None]]:
        yield lambda now: interrupt() if now.iteration == 4 else None

    monkeypatch.setattr("tinyleak.cli.attack.progress_bar", bar)


def test_ctrl_c_is_no_success_however_far_the_attack_was(
    run: Run, digits: Path, interrupted_at_4: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyleak.client.outcome.RECOVERED_MSE", np.inf)
    given = ["attack", "--data", "mnist", "--data-dir", digits, "--labels", "known"]
    answer = run(*given)
    assert answer.code == 1
    assert "success: interrupted after 4 iterations" in answer.out
    assert answer.err == "tinyleak: interrupted; the best so far was not kept, for want of --out\n"


def test_ctrl_c_before_the_first_iterate(
    run: Run, short: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyleak.data.load", lambda *args, **given: interrupt())
    answer = run(*short, "--out", tmp_path / "out")
    assert answer == Answer(1, "", "tinyleak: interrupted before it was done\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["attack"], ["info"], ["attack", "--help"]])
def test_a_reader_that_has_left_is_no_error(arguments: list[str], digits: Path) -> None:
    if arguments == ["attack"]:
        arguments = [*arguments, "--data", "mnist", "--data-dir", str(digits), "--iterations", "3"]
    process = command(*arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=120) in (0, 1)  # argparse takes no note of it


# The command info


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "tinyleak"


def test_info_names_versions_and_places(run: Run, cache: Path) -> None:
    answer = run("info")
    assert answer.code == 0
    lines = dict(line.split(maxsplit=1) for line in answer.out.splitlines())
    assert lines["tinyleak"] == tinyleak.__version__
    assert lines["numpy"].startswith(f"{np.__version__}, BLAS ")
    assert {"python", "matplotlib", "scipy", "pillow", "pooch", "tqdm", "cpu", "cuda"} <= set(lines)
    assert f"data cache  {cache}\n" in answer.out
    assert lines["mnist"] == "not in the cache"
    cache.mkdir(parents=True)
    (cache / IMAGES_FILE).write_bytes(b"")
    assert "mnist       not in the cache" in run("info").out
    (cache / LABELS_FILE).write_bytes(b"")
    assert "mnist       in the cache" in run("info").out


def test_info_says_why_there_is_no_gpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert 'cuda        not usable: device "cuda" needs CuPy, which is not' in run("info").out


def fake_cupy(*names: str) -> SimpleNamespace:
    """As much of CuPy as is asked before anything is computed, with these GPUs."""
    runtime = SimpleNamespace(
        getDeviceCount=lambda: len(names),
        getDeviceProperties=lambda device: {"name": names[device].encode()},
        CUDARuntimeError=RuntimeError,
    )
    return SimpleNamespace(__version__="13.0", cuda=SimpleNamespace(runtime=runtime))


def test_info_names_the_gpus(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy("One", "Another"))
    assert "cuda        CuPy 13.0, One, Another\n" in run("info").out


# Requests that are turned down


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "the following arguments are required: COMMAND; see tinyleak --help"),
        ("attakc", "invalid choice: 'attakc' .choose from '?attack"),
        ("attack --data digits", "--data: invalid choice: 'digits' .*glyphs'?, '?portrait'?, '?mn"),
        (
            "attack --model vgg",
            "--model: invalid choice: 'vgg' .*lenet'?, '?mlp.*see tinyleak atta",
        ),
        ("attack --device tpu", "--device: invalid choice: 'tpu' .*cpu'?, '?cuda"),
        ("attack --dtype float16", "--dtype: invalid choice: 'float16' .*float64'?, '?float32"),
        ("attack --activation swish", "--activation: invalid choice: 'swish' .*sigmoid"),
        ("attack --init zeros", "--init: invalid choice: 'zeros' .*U'?, '?default"),
        ("attack --recipe mine", "--recipe: invalid choice: 'mine' .*default'?, '?paper"),
        ("attack --line-search armijo", "--line-search: invalid choice: 'armijo' .*strong-wolfe"),
        ("attack --labels guess", "--labels: invalid choice: 'guess' .*optimise'?, '?infer"),
        ("attack --batch 0", "--batch: '0' was given; a whole number of 1 or more"),
        ("attack --batch two", "--batch: 'two' was given; a whole number of 1 or more"),
        ("attack --iterations -3", "--iterations: '-3' was given; a whole number of 0 or more"),
        ("attack --history 0", "--history: '0' was given; a whole number of 1 or more"),
        ("attack --restarts 0", "--restarts: '0' was given; a whole number of 1 or more"),
        ("attack --seed -1", "--seed: '-1' was given; a whole number of 0 or more"),
        ("attack --index -1", "--index: '-1' was given; a whole number of 0 or more"),
        ("attack --index 1.5", "--index: '1.5' was given; a whole number of 0 or more"),
        ("attack --label -1", "--label: '-1' was given; a whole number of 0 or more"),
        ("attack --iter 5", "unrecognized arguments: --iter 5"),
        ("attack --image a.png --data mnist", "--data: not allowed with argument --image"),
        ("attack --shape 28", "--shape: '28' was given; write a shape as C,H,W"),
        ("attack --shape 1,28,28", "a shape and classes describe image files, but data 'glyphs'"),
        ("attack --classes 5 --data mnist", "describe image files, but data 'mnist' was chosen"),
        ("attack --image a.png --data-dir .", "data '.' was chosen, and image files besides"),
        ("attack --image a.png --shape 2,9,9", r"image of shape \(2, 9, 9\) cannot be made"),
        ("attack --image no.png", "image file 'no.png' is not there; give the path of a file"),
        ("attack --data-dir .", "data 'glyphs' is built in and reads no files"),
        ("attack --data portrait --index 1", "asks for image 1, but .* holds images 0 to 0; lower"),
        ("attack --defense fog:1", "defence 'fog:1' is unknown; choose from gaussian:VARIANCE, "),
        ("attack --defense prune:2", "defence 'prune:2' is out of range: the fraction must lie in"),
        ("attack --defense int8 --defense dpsgd:1,1", "clips each example's .* must come first"),
        ("attack --aware", "--aware is an attacker who knows .* give them with --defense"),
        ("attack --smoothness -1", "a smoothness of -1.0 was asked for; give 0 or more"),
        ("attack --smoothness soft", "--smoothness: invalid float value: 'soft'"),
        ("attack --data portrait --label 10", "label 10 .* out of range; .* labels are 0 to 9"),
    ],
)
def test_a_bad_request(given: str, message: str, refused: Refused) -> None:
    assert re.search(message, refused(*given.split()))


def test_a_batch_beyond_the_last_image(refused: Refused, short: list[object]) -> None:
    message = refused(*short, "--index", 4, "--batch", 3)
    assert message == (
        "tinyleak: image 4 with a batch of 3 asks for image 6, but data 'mnist' holds images "
        "0 to 5; lower one of them"
    )


def test_damaged_data_files(tmp_path: Path, refused: Refused) -> None:
    """One of the many ways that tests/test_data.py tries."""
    (tmp_path / IMAGES_FILE).write_bytes(b"no gzip file")
    (tmp_path / LABELS_FILE).write_bytes(idx(2, content=bytes(2)))
    message = f"{IMAGES_FILE} is not a gzip file, or a damaged one; get it again"
    assert message in refused("attack", "--data", "mnist", "--data-dir", tmp_path)


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("pooch.retrieve", no_network)
    message = refused("attack", "--data", "mnist")
    assert f"{IMAGES_FILE} could not be downloaded (" in message
    assert "Temporary failure in name resolution" in message
    assert "check the network, or put the file into a folder of yours" in message


def test_an_existing_output_directory_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr("tinyleak.data.load", lambda *args, **kwargs: pytest.fail("it was read"))
    (tmp_path / "mine").write_text("here before")
    message = refused("attack", "--out", tmp_path)
    assert message == (
        f"tinyleak: output directory {tmp_path} exists already; choose another --out, "
        "or replace the files in it with --force"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_force_writes_into_an_existing_directory(
    run: Run, short: list[object], tmp_path: Path, without_pictures: None
) -> None:
    (tmp_path / "mine").write_text("here before")
    (tmp_path / "result.json").write_text("an older one")
    assert run(*short, "--out", tmp_path, "--force").code == 1
    assert (tmp_path / "mine").read_text() == "here before"
    assert read_result(tmp_path)["iterations"] == 3


def test_a_bad_request_leaves_no_directory_behind(tmp_path: Path, refused: Refused) -> None:
    given = ["attack", "--data", "portrait", "--index", 5, "--out"]
    refused(*given, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    refused(*given, tmp_path / "mine", "--force")
    assert (tmp_path / "mine").is_dir()


def test_cuda_without_cupy(
    short: list[object], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    message = refused(*short, "--device", "cuda")
    assert message == (
        'tinyleak: device "cuda" needs CuPy, which is not installed; '
        "install tinyleak[cuda], or use --device cpu"
    )


def test_cuda_with_cupy_but_no_gpu(
    short: list[object], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    message = refused(*short, "--device", "cuda")
    assert "needs an NVIDIA GPU, and CuPy 13.0 finds none; check the driver, or use" in message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--data moon", "argument --data: invalid choice: 'moon'"),
        ("--data portrait --batch 2", "asks for image 1, but data 'portrait' holds images 0 to 0"),
    ],
)
def test_a_bad_request_of_the_real_command(given: str, message: str) -> None:
    answer = finish(command("attack", *given.split()))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("tinyleak: ")
    assert answer.err.count("\n") == 1
    assert message in answer.err


# Errors that nobody foresaw


def test_a_defect_is_one_line_and_names_its_kind(
    run: Run, short: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("tinyleak.cli.attack.attack", defect)
    line = "tinyleak: ZeroDivisionError: division by zero; --debug shows where\n"
    assert run(*short) == Answer(2, "", line)
    answer = run(*short, "--debug")
    assert answer.code == 2
    assert answer.err.startswith("Traceback (most recent call last):")
    assert answer.err.endswith(line)


def test_debug_shows_where_an_error_comes_from(run: Run) -> None:
    answer = run("attack", "--data", "portrait", "--index", 3, "--debug")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("tinyleak: image 3 with a batch of 1 asks for")
