"""Training: the tasks are what they say, runs repeat, stop, go on, and split over processes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from acmix_edu import ACmix, shift_kernels
from acmix_edu.examples import colour_features
from acmix_edu.explorers import attention as attention_explorer
from acmix_edu.training import (
    ARMS,
    Network,
    Plan,
    denoise,
    denoiser_of,
    film,
    load,
    loop,
    released,
    runs,
    train,
    trained_acmix,
    trained_denoiser,
)
from acmix_edu.training.__main__ import main
from acmix_edu.training.data import Data
from acmix_edu.training.network import CONTROLS, OnePath
from acmix_edu.training.released import command, export

ROOT = Path(__file__).parent.parent
SMALL = Plan(data="digits", epochs=2, batch_size=8)


def few(train: int = 40) -> Data:
    """The first digits."""
    d = load("digits")
    return Data(d.train_x[:train], d.train_y[:train], d.test_x[:16], d.test_y[:16], d.classes)


def same(one: torch.nn.Module, other: torch.nn.Module, **tolerance) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), **tolerance)


# the tasks


@pytest.mark.parametrize("name", ["texture", "match", "mixture", "digits", "rotation"])
def test_data_are_pictures_and_the_same_every_time(name):
    d, again = load(name), load(name)
    assert torch.equal(d.train_x, again.train_x) and torch.equal(d.test_y, again.test_y)
    for x, y in ((d.train_x, d.train_y), (d.test_x, d.test_y)):
        assert x.shape == (len(y), 3, 32, 32) and 0 <= x.min() and x.max() <= 1
        assert set(y.tolist()) == set(range(len(d.classes)))
    seen = {x.numpy().tobytes() for x in d.train_x}
    assert not any(x.numpy().tobytes() in seen for x in d.test_x)


def test_match_is_decided_by_like_patches_at_a_distance_and_by_nothing_nearer():
    d = load("match")
    light = d.test_x[:20].numpy().reshape(20, 3, 16, 2, 16, 2).transpose(0, 2, 4, 1, 3, 5) > 0.5
    i, j = np.indices((16, 16)).reshape(2, 256)
    white = (i + j) % 2 == 0
    distance = np.maximum(abs(i[white, None] - i[~white]), abs(j[white, None] - j[~white]))
    far, elsewhere = (distance >= 2) & (distance <= 3), []
    for cells, y in zip(light.reshape(20, 256, 3, 4), d.test_y.numpy(), strict=False):
        patch, agrees = cells[:, :2].reshape(256, 8), cells[~white, 2, 0] == y
        like = (patch[white, None] == patch[~white]).all(-1)
        assert (like & far & agrees).any(1).all()  # every white field has its match
        assert (like & far & ~agrees).sum() < 20  # of 128
        elsewhere += list(np.broadcast_to(agrees, like.shape)[like & ~far])
    assert np.mean(elsewhere) == pytest.approx(0.5, abs=0.05)  # there, a like patch is chance


def test_texture_rows_and_columns_differ_as_said():
    d = load("texture")
    light = d.test_x[:, 0, ::2, ::2] > 0.5
    along_rows = (light[:, :, 1:] != light[:, :, :-1]).float().mean((1, 2))
    assert ((along_rows < 0.625) == (d.test_y == 1)).float().mean() > 0.99


def test_rotation_keeps_training_and_test_pixels_apart():
    d = load("rotation")
    back = [[x.rot90(-int(y), (1, 2)) for x, y in zip(*part, strict=True)]
            for part in ((d.train_x, d.train_y), (d.test_x, d.test_y))]  # fmt: skip
    rows = {row.numpy().tobytes() for x in back[0] for row in x[:, :, :8].unbind(1)}
    assert not any(row.numpy().tobytes() in rows for x in back[1] for row in x[:, :, 24:].unbind(1))


def test_cifar10_binary_files_are_read_and_others_refused(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (4, 3073), dtype=np.uint8)
    rows[:, 0] = [3, 1, 0, 9]
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]:
        rows.tofile(tmp_path / f"{name}.bin")
    d = load("cifar10", tmp_path)
    assert d.train_x.shape == (20, 3, 32, 32) and d.test_y.tolist() == [3, 1, 0, 9]
    assert d.test_x[2, 1, 4, 5] == torch.tensor(rows[2, 1 + 1024 + 4 * 32 + 5] / 255).float()
    (tmp_path / "data_batch_3.bin").write_bytes(b"\x80" * 3000)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is not a CIFAR-10 binary file"):
        load("cifar10", tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold data_batch_3\.bin"):
        load("cifar10", tmp_path)


def test_a_folder_of_pictures_is_read(tmp_path):
    from PIL import Image

    for part in ("train", "test"):
        for n, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (50, 40), 255 * n).save(tmp_path / part / name / "a.png")
    d = load("folder", tmp_path)
    assert d.classes == ("cat", "dog") and d.test_y.tolist() == [0, 1]
    assert d.train_x.shape == (2, 3, 32, 32) and d.train_x.mean((1, 2, 3)).tolist() == [0, 1]
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "cow")
    with pytest.raises(ValueError, match="must hold the classes of train/"):
        load("folder", tmp_path)


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [("imagenet", None, "texture, match"), ("cifar10", None, "need"), ("digits", "x", "path is")],
)
def test_other_data_are_refused(name, path, said):
    with pytest.raises(ValueError, match=said):
        load(name, path)


# the network


@pytest.mark.parametrize("arm", [*ARMS, *CONTROLS])
def test_every_arm_learns_what_it_should_and_keeps_the_rest(arm):
    network, records = train(replace(SMALL, arm=arm, lr=0.01), data=few())
    start = Network(arm, 10, SMALL.seed)
    assert records[2]["loss"] < records[1]["loss"]
    frozen = {
        "attention": ("rate2", "fc.", "dep_conv"), "convolution": ("rate1", "conv_p"),
        "fixed-shift": ("dep_conv",), "half-half": ("rate1", "rate2"),
        "quiet-held": ("rate1", "rate2"),
    }.get(arm, ())  # fmt: skip
    for name, value in network.state_dict().items():
        still = any(f"operator.{part}" in name for part in frozen)
        dead = name.endswith("conv_p.bias")  # it cancels in the softmax
        assert dead or torch.equal(value, start.state_dict()[name]) == still, name


def test_one_path_is_acmix_with_the_other_rate_zero():
    x = torch.rand(2, 3, 32, 32)
    for arm, rate in (("attention", "rate2"), ("convolution", "rate1")):
        network, whole = Network(arm, 2), Network("acmix", 2)
        whole.load_state_dict(network.state_dict())
        for module in whole.modules():
            if isinstance(module, ACmix):
                getattr(module, rate).data.zero_()
        torch.testing.assert_close(network(x), whole(x))


@pytest.mark.parametrize("path", ["attention", "convolution"])
def test_one_path_has_the_dtype_of_acmix_under_autocast(path):
    module, x = OnePath(16, 16, 3, path), torch.rand(1, 16, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x).dtype == ACmix(16, 16, head=4)(x).dtype == torch.bfloat16


def test_the_controls_begin_with_the_ratio_and_the_function_of_small_beta():
    x = torch.rand(2, 3, 32, 32)
    wanted, begins = Network("small-beta", 2)(x), {}
    for arm in ("loud-alpha", "quiet-held"):
        torch.testing.assert_close(Network(arm, 2)(x), wanted, atol=1e-4, rtol=1e-4)
        operator = Network(arm, 2).stages[0][1].operator
        begins[arm] = (operator.rate1.item(), operator.rate2.item(), operator.rate2.requires_grad)
    assert begins == {"loud-alpha": (2, 0.5, True), "quiet-held": (0.5, 0.125, False)}


def test_a_path_of_random_kernels_is_as_loud_as_one_of_shifts():
    x = load("match").test_x[:32]
    shares = [Network(arm, 2).observe(x)[0]["share"] for arm in ("loud-random", "acmix")]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)
    lost, loud = (Network(arm, 2).stages[0][1].operator for arm in ("lost-init", "loud-random"))
    assert torch.equal(lost.dep_conv.weight, loud.dep_conv.weight)


def test_making_a_network_leaves_every_generator_alone(monkeypatch):
    """torch.manual_seed would set those of all devices."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("CUDA is seeded"))
    before = torch.get_rng_state()
    Network("acmix", 2)
    denoise._start("acmix", 0)
    attention_explorer._examples()
    assert torch.equal(torch.get_rng_state(), before)


def test_observations_at_the_start():
    x = torch.rand(4, 3, 32, 32)
    for layer in Network("acmix", 2).observe(x):
        assert layer["alpha"] == layer["beta"] == 0.5 and layer["drift"] == 0
        assert 0 < layer["share"] < 1 and 0 < layer["entropy"] <= 1
    for layer, usual in zip(Network("small-beta", 2).observe(x), Network("acmix", 2).observe(x),
                            strict=True):  # fmt: skip
        assert layer["alpha"] == 0.5 and layer["beta"] == 0.125 and layer["drift"] == 0
        assert layer["share"] > usual["share"]
    assert all(layer["drift"] > 0.5 for layer in Network("lost-init", 2).observe(x))
    assert [x["share"] for x in Network("attention", 2).observe(x)] == [1, 1, 1]
    assert Network("conv3x3", 2).observe(x) == []


# the loop


@pytest.mark.parametrize("amp", [False, True])
def test_a_run_that_was_stopped_ends_where_it_would_have(tmp_path, amp):
    plan, data, file = replace(SMALL, amp=amp, epochs=3), few(), tmp_path / "run.pt"
    whole, records = train(plan, data=data)

    def stop(records):
        if records[-1]["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, file, stop, data)
    torch.manual_seed(99)  # the caller's generator plays no part
    resumed, again = train(plan, file, data=data)
    assert again == records
    same(resumed, whole, rtol=0, atol=0)
    once_more, _ = train(plan, file, data=data)  # nothing is left to do
    same(once_more, whole, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_the_learning_rate_is_half_a_cosine():
    run, rates = loop._Run(SMALL, few(train=16), 0, 1, torch.device("cpu")), []
    run.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    run.epoch(1), run.epoch(2)
    expected = SMALL.lr * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose(rates, expected)


def test_seeds_differ():
    plans = [replace(SMALL, seed=seed, arm="conv3x3") for seed in (0, 1)]
    assert len({train(plan, data=few())[1][1]["loss"] for plan in plans}) == 2


def test_a_kill_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    file, data = tmp_path / "run.pt", few(train=16)
    train(replace(SMALL, epochs=1), file, data=data)
    before = file.read_bytes()

    def dies_halfway(target, raw):
        with target.open("wb") as f:
            f.write(raw[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", dies_halfway)
    run = loop._Run(SMALL, data, 0, 1, torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        run.save(file, [])
    assert file.read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    run = loop._Run(SMALL, few(train=16), 0, 1, torch.device("cpu"))
    with pytest.raises(FileNotFoundError):
        run.save(tmp_path / "no" / "run.pt", [])


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    file, data = tmp_path / "run.pt", few(train=16)
    train(replace(SMALL, epochs=1), file, data=data)
    with pytest.raises(ValueError, match=r"belongs to another run: .*lr was 0.004"):
        train(replace(SMALL, epochs=1, lr=0.1), file, data=data)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        train(SMALL, file, data=data)
    torch.save({"weights": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="not written by this program"):
        train(SMALL, file, data=data)
    torch.save(Trap(tmp_path / "sprung"), file)
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        train(SMALL, file, data=data)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


# the command


def test_the_command_trains_logs_and_exports(tmp_path, capsys):
    arguments = ["--data", "texture", "--arm", "conv3x3", "--epochs", "1", "--batch-size", "64"]
    files = ["--log", tmp_path / "log.jsonl", "--export", tmp_path / "w.safetensors"]
    main([*arguments, *map(str, files), "--checkpoint", str(tmp_path / "run.pt")])
    said = capsys.readouterr().out
    assert "epoch 1/1" in said and "%" in said
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in log] == [0, 1]
    network = released("w", tmp_path)
    again, _ = train(Plan(data="texture", arm="conv3x3", epochs=1, batch_size=64))
    same(network, again, rtol=0, atol=0)
    about = json.loads((tmp_path / "w.json").read_text())
    assert about["command"].startswith("python -m acmix_edu.training " + " ".join(arguments[:4]))
    with pytest.raises(SystemExit, match=r"error: checkpoint .* belongs to another run"):
        main([*arguments, "--seed", "5", "--checkpoint", str(tmp_path / "run.pt")])
    (tmp_path / "w.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(ValueError, match="SHA-256"):
        released("w", tmp_path)


def test_an_export_that_fails_leaves_the_weights_and_what_is_said_of_them(tmp_path, monkeypatch):
    one, other = (Network("conv3x3", 2, seed) for seed in (0, 1))
    export(tmp_path / "w.safetensors", one, Plan(arm="conv3x3"), [{}])

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        export(tmp_path / "w.safetensors", other, Plan(arm="conv3x3"), [{}])
    same(released("w", tmp_path), one)
    assert len([*tmp_path.iterdir()]) == 2


def test_a_finished_checkpoint_still_gives_its_log(tmp_path):
    arguments = ["--data", "texture", "--arm", "conv3x3", "--epochs", "1", "--batch-size", "64",
                 "--checkpoint", str(tmp_path / "run.pt"), "--log-file"]  # fmt: skip
    for name in ("first.jsonl", "second.jsonl"):
        main([*arguments, str(tmp_path / name)])
    first, second = ((tmp_path / f"{name}.jsonl").read_text() for name in ("first", "second"))
    assert first == second and len(first.splitlines()) == 2


@pytest.mark.parametrize(("option", "name", "said"), [
    ("--export", "lr0.01", r"--export must end in \.safetensors"),
    *((option, "", "is a folder") for option in ("--checkpoint", "--log-file")),
    *((option, "no/w.safetensors", "make the folder first")
      for option in ("--export", "--checkpoint")),
])  # fmt: skip
def test_files_that_cannot_be_written_are_refused_before_the_training(
    tmp_path, monkeypatch, option, name, said
):
    monkeypatch.setattr(sys.modules[main.__module__], "train", lambda *_: pytest.fail("it trains"))
    with pytest.raises(SystemExit, match=said):
        main([option, str(tmp_path / name)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, how: folder != tmp_path)
    monkeypatch.setattr(sys.modules[main.__module__], "train", lambda *_: pytest.fail("it trains"))
    with pytest.raises(SystemExit, match="--log-file must be a file in a folder that can be"):
        main(["--log-file", str(tmp_path / "log.jsonl")])


@pytest.mark.parametrize(("one", "other"), [
    ("--checkpoint w.safetensors", "--export w.safetensors"),
    ("--checkpoint w.json", "--export w.safetensors"),
    ("--log-file w.json", "--export link/w.safetensors"),
    ("--checkpoint w", "--log-file w"),
])  # fmt: skip
def test_one_name_for_two_files_is_refused(tmp_path, monkeypatch, one, other):
    monkeypatch.setattr(sys.modules[main.__module__], "train", lambda *_: pytest.fail("it trains"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SystemExit, match="must be two files"):
        main([*one.split(), *other.split()])


def test_the_command_of_a_plan_is_one_for_a_shell():
    plan = Plan(data="folder", path=Path("/my pictures/a'b"))
    assert shlex.split(command(plan))[5:7] == ["--path", "/my pictures/a'b"]
    assert command(Plan()).endswith("--batch-size 16 --lr 0.004")


def test_a_plan_is_made_of_plain_numbers_and_names(tmp_path):
    plan = replace(SMALL, path=tmp_path, epochs=np.int64(0), batch_size=np.int64(8))
    assert plan.path == str(tmp_path) and type(plan.epochs) is type(plan.batch_size) is int
    file, data = tmp_path / "run.pt", few(train=16)
    _, records = train(plan, file, data=data)
    assert train(plan, file, data=data)[1] == records  # it is read again
    for name, bad, error in (("epochs", -1, ValueError), ("epochs", 1.5, TypeError),
                             ("batch_size", 0, ValueError)):  # fmt: skip
        with pytest.raises(error, match=f"{name} must be"):
            replace(SMALL, **{name: bad})


def test_a_seed_that_cannot_be_used_is_named():
    with pytest.raises(SystemExit, match="error: seed must be at least 0, but -1 came"):
        main(["--seed", "-1"])
    with pytest.raises(SystemExit, match=f"error: seed must be below 2⁶⁴, but {2**64} came"):
        main(["--seed", str(2**64)])


def test_a_large_seed_is_a_seed():
    train(replace(SMALL, seed=2**64 - 1, epochs=1), data=few(train=16))


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--lr", "nan"], ["--arm", "swin"]])
def test_bad_arguments_end_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


# many processes


@pytest.fixture
def tiny(tmp_path) -> tuple[Plan, list[str]]:
    """A plan on 64 pictures in a folder, long enough to be killed, and its command line."""
    from PIL import Image

    pictures = (few(train=64).train_x * 255).byte().permute(0, 2, 3, 1).numpy()
    for n, picture in enumerate(pictures):
        place = tmp_path / "pictures" / ("test" if n % 4 == 0 else "train") / str(n % 3)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{n}.png")
    plan = Plan(data="folder", path=str(tmp_path / "pictures"), epochs=12)
    return plan, ["--data", "folder", "--path", plan.path, "--epochs", "12"]


def torchrun(*arguments: str) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    launcher += ["-m", "acmix_edu.training"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([*launcher, *arguments], cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def workers(launcher: subprocess.Popen) -> list[int]:
    """The training processes that a launcher started."""
    children = psutil.Process(launcher.pid).children()
    return [child.pid for child in children if "acmix_edu.training" in child.cmdline()]


def test_two_processes_one_killed_then_resumed_agree_with_one_process(tiny, tmp_path):
    plan, arguments = tiny
    log = tmp_path / "log.jsonl"
    arguments += ["--checkpoint", str(tmp_path / "run.pt"), "--log-file", str(log)]
    first = torchrun(*arguments)
    while first.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 4):
        time.sleep(0.02)
    assert first.poll() is None, first.communicate()[1]
    os.kill(workers(first)[-1], signal.SIGKILL)
    out, said = first.communicate(timeout=120)  # no hang
    assert first.returncode != 0 and "SIGKILL" in said and "epoch 12/12" not in out

    second = torchrun(*arguments, "--export", str(tmp_path / "w.safetensors"))
    out, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert out.count("epoch 12/12") == 1 and "epoch 0/12" not in out  # one writer; it went on

    network, records = train(plan)
    written = [json.loads(line) for line in log.read_text().splitlines()]
    for one, two in zip(records[1:], written[1:], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    ends = [torch.nn.utils.parameters_to_vector(n.parameters()) for n in
            (Network(plan.arm, 3, plan.seed), network, released("w", tmp_path))]  # fmt: skip
    # Adam divides by the gradient's size, so that a gradient of rounding errors moves a weight
    assert (ends[2] - ends[1]).norm() < 0.05 * (ends[1] - ends[0]).norm()


def test_an_uneven_split_is_refused(monkeypatch):
    monkeypatch.setattr(loop, "_process", lambda: (0, 3, torch.device("cpu")))
    with pytest.raises(ValueError, match=r"divisible by the 3 processes.*pass 18"):
        train(Plan(batch_size=16), data=few())


# what is recorded and released


def test_the_released_network_reads_digits():
    network, d = released("digits"), load("digits")
    with torch.no_grad():
        right = (network(d.test_x).argmax(1) == d.test_y).float().mean().item()
    about = json.loads((ROOT / "acmix_edu/weights/digits.json").read_text())
    assert right == pytest.approx(about["last_record"]["test_accuracy"], abs=0.005)
    assert about["bytes"] <= 500_000


@pytest.mark.parametrize("record", runs.SERIES)
def test_every_arm_and_seed_is_recorded(record):
    recorded, series = runs.records(record), runs.SERIES[record]
    task, epochs, arms, seeds, curves, lr = series
    made = {(r["arm"], r["seed"]): r for r in recorded["runs"]}
    assert set(made) == {(arm, seed) for arm in arms for seed in seeds}
    assert set(recorded["summary"]) == set(arms)
    for (arm, _), run in made.items():
        assert [r["epoch"] for r in run["records"]] == list(range(epochs + 1))
        assert f"--data {task} --arm {arm} --epochs {epochs} " in run["command"]
        assert run["command"].endswith(f" --lr {lr}")
        assert all(("layers" in r) is not curves for r in run["records"])
    last = [made["acmix", seed]["records"][-1]["test_accuracy"] for seed in seeds]
    assert recorded["summary"]["acmix"]["mean"] == pytest.approx(np.mean(last), abs=1e-4)


def test_fresh_seeds_are_none_that_raised_the_question():
    for again, first in (("match-again", "match"), ("mixture-again", "mixture-longer")):
        assert not set(runs.SERIES[again].seeds) & set(runs.SERIES[first].seeds)
        assert runs.SERIES[again].epochs == runs.SERIES[first].epochs
    assert runs.TASKS == ("match", "mixture", "texture", "digits", "rotation")


# the denoiser, and the film of its training


def reached(denoiser: torch.nn.Module) -> float:
    clean, noisy = denoise.held_out()
    with torch.no_grad():
        error = (denoiser(colour_features(noisy)).clamp(0, 1) - clean).square().mean().item()
    return 10 * np.log10(1 / error)


def test_the_trained_denoiser_reaches_what_is_recorded():
    about = json.loads((ROOT / "acmix_edu/weights/denoise.json").read_text())
    run = next(r for r in about["runs"] if (r["arm"], r["seed"]) == (about["arm"], 0))
    denoiser = trained_denoiser()
    assert not denoiser.training
    assert reached(denoiser) == pytest.approx(run["psnr"], abs=0.01) and run["psnr"] > 26
    assert denoise.psnr(*reversed(denoise.held_out())) == pytest.approx(about["noisy"], abs=0.01)
    for name in ("alpha", "beta"):
        rate = {"alpha": "rate1", "beta": "rate2"}[name]
        assert getattr(trained_acmix(), rate).item() == pytest.approx(run[name], abs=1e-4)
    assert {(r["arm"], r["seed"]) for r in about["runs"]} == {
        (arm, seed) for arm in denoise.COMPARED for seed in denoise.SEEDS
    }
    with pytest.raises(ValueError, match=r"use trained_denoiser\(\)"):
        released("denoise")


def test_the_comparison_of_denoisers_is_whole_and_of_the_released_one_true():
    compared = json.loads((ROOT / "acmix_edu/weights/denoise.json").read_text())["compared"]
    made = [(run["arm"], run["rate"], run["seed"]) for run in compared]
    assert made == list(denoise.to_train(compared)) and len(made) == 9 * (4 * 3 + 10)
    assert denoise.best_rate(compared, denoise.RELEASED) == denoise.RATE
    place = {"arm": denoise.RELEASED, "rate": denoise.RATE, "seed": 0}
    (told,) = (run for run in compared if place.items() <= run.items())
    denoiser = trained_denoiser()
    for held, name in ((True, "flower"), (False, "known")):
        with torch.no_grad():
            values = [denoise.psnr(denoiser(colour_features(seen)), clean)
                      for clean, seen in denoise.trials(held)]  # fmt: skip
        assert sum(values) / len(values) == pytest.approx(told[name], abs=0.01)


def test_damaged_denoiser_weights_are_refused(tmp_path, monkeypatch):
    for name in ("denoise.safetensors", "denoise.json"):
        shutil.copy(ROOT / "acmix_edu/weights" / name, tmp_path)
    raw = bytearray((tmp_path / "denoise.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "denoise.safetensors").write_bytes(raw)
    monkeypatch.setattr(sys.modules[trained_acmix.__module__], "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="SHA-256"):
        trained_acmix()


@pytest.mark.parametrize("arm", denoise.FILMED)
def test_the_film_begins_at_the_start_and_moves(arm):
    moments = film(arm)
    assert len(moments) == 40 and moments[0]["step"] == 0 and moments[0]["loss"] is None
    assert moments[-1]["step"] == denoise.STEPS
    kernels = moments[0]["state"]["operator.dep_conv.weight"]
    one_hot = torch.equal(kernels, shift_kernels(3).expand_as(kernels))
    assert one_hot == (arm != "lost-init")
    assert moments[0]["beta"] == (0.125 if arm == "small-beta" else 0.5)
    assert moments[-1]["psnr"] > moments[0]["psnr"] + 10
    for moment in (moments[0], moments[20], moments[-1]):
        denoiser = denoiser_of(moment["state"])
        seen = denoise.observe(denoiser.operator, colour_features(denoise.held_out()[1]))
        for name, value in seen.items():
            assert value == pytest.approx(moment[name], abs=2e-3), name
        assert reached(denoiser) == pytest.approx(moment["psnr"], abs=0.02)


def test_the_film_ends_with_the_released_weights():
    end, denoiser = film()[-1]["state"], trained_denoiser()
    for name, value in denoiser.state_dict().items():
        assert torch.equal(end[name], value.half().float() if "dep_conv" in name else value), name
    with pytest.raises(ValueError, match="acmix, lost-init, small-beta, but 'half-half' came"):
        film("half-half")


def test_noise_has_the_dtype_of_the_picture():
    torch.set_default_dtype(torch.float64)
    try:
        clean, noisy = denoise.held_out(torch.full((1, 3, 8, 8), 0.5, dtype=torch.float32))
    finally:
        torch.set_default_dtype(torch.float32)
    assert noisy.dtype == clean.dtype == torch.float32
    assert noisy.sub(0.5).std() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("arm", ["conv3x3", "small-beta"])
def test_a_denoiser_learns_and_its_training_repeats(arm):
    losses = []
    first = denoise.train_denoiser(arm, steps=12, watch=lambda *now: losses.append(now[2]))
    torch.manual_seed(99)  # the caller's generator plays no part
    second = denoise.train_denoiser(arm, steps=12)
    same(first, second, rtol=0, atol=0)
    assert len(losses) == 13 and np.mean(losses[-3:]) < np.mean(losses[1:4])
    one, other = (denoise.train_denoiser(arm, seed=seed, steps=1) for seed in (0, 1))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_folding_and_filming_keep_the_result():
    camera = denoise._Camera(steps=6)
    denoiser, x = denoise.train_denoiser("acmix", steps=6, watch=camera), torch.rand(1, 3, 9, 11)
    x = colour_features(x)
    folded = denoise.fold(denoiser)
    torch.testing.assert_close(folded(x), denoiser(denoise._scaled(x)))
    torch.testing.assert_close(camera.states[-1], dict(folded.state_dict()))
    assert camera.records[-1]["psnr"] == pytest.approx(reached(folded), abs=0.01)
