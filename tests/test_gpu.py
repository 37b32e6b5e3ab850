"""On a GPU: augmentation, losses, resume and process groups as on the CPU. Skipped, with the reason, without a GPU.

ANIMALCLF_GPU_TESTS=cpu runs all tests but that of the Ray worker on the CPU, to check the tests themselves.
"""

import contextlib
import os
import socket
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import tiny_config, tiny_prepared, without_times
from test_device import SPECS, photographs

from animalclf import config as configuration
from animalclf.data import augment
from animalclf.data.augment import torch_form
from animalclf.data.device_loader import DeviceLoader, DeviceLoaders
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.resize import stored_image
from animalclf.data.sampler import sampling_plan
from animalclf.models import build
from animalclf.models.classifier import Classifier
from animalclf.runs import Run
from animalclf.training import checkpoint, loop
from animalclf.training import train as training
from animalclf.training.distributed import RankContext
from animalclf.training.optim import make_optimizer

ON_CPU = os.environ.get("ANIMALCLF_GPU_TESTS") == "cpu"
DEVICE = torch.device("cpu" if ON_CPU else "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not ON_CPU and not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("prepared"), (40, 32, 16), size=92)


@SPECS
@pytest.mark.parametrize("stored, size", [(72, 64), (64, 64), (252, 224)])
def test_augmentation_equals_that_of_the_cpu(spec, maximum, mean, stored, size):
    images, index = photographs(size=stored), np.arange(1000, 1048)
    expected = augment.augment_batch(images, index, spec, 5, 3, size)
    on_device = torch_form.augment_batch(torch.from_numpy(images).to(DEVICE), index, spec, 5, 3, size)
    assert on_device.device.type == DEVICE.type and on_device.dtype == torch.uint8
    distance = np.abs(on_device.cpu().numpy().astype(int) - expected)
    assert distance.max() <= maximum and distance.mean() < mean


@pytest.mark.parametrize("stored, size", [(72, 64), (252, 224), (100, 41)])
def test_the_evaluation_view_equals_that_of_the_cpu(stored, size):
    images = photographs(8, stored)
    on_device = torch_form.evaluation_view(torch.from_numpy(images).to(DEVICE), size).cpu().numpy()
    assert np.abs(augment.evaluation_view(images, size).astype(int) - on_device).max() <= 1


@pytest.mark.parametrize("world", [1, 2])
def test_a_device_loader_equals_the_memory_loader(prepared, world):
    config = tiny_config(1, data__stored_size=92, model__input_size=80)
    plan, images = sampling_plan(prepared, config), load_images(prepared)
    device_plan = replace(plan, augment_on_device=True)
    for rank in range(world):
        on_device = DeviceLoader(device_plan, images, DEVICE, rank, world)
        in_memory = MemoryLoader(plan, images, rank, world)
        for phase in ("train", "val"):
            for batch, expected in zip(on_device.batches(phase, 1), in_memory.batches(phase, 1), strict=True):
                assert np.array_equal(batch["index"], expected["index"])
                assert np.array_equal(torch.as_tensor(batch["label"]).cpu().numpy(), expected["label"])
                image = batch["image"]
                if phase == "train":
                    image = torch_form.augment_batch(image, batch["index"], config.augment, config.seed, 1, 80)
                assert np.abs(image.cpu().numpy().astype(int) - expected["image"]).mean() < 0.1


def losses(prepared, steps, **sets):
    """Training loss of each step of the big CNN on noisy squares, a fifth of them with a wrong label, so that the loss
    stays above 0."""
    config = tiny_config(1, train__batch_size=64, model__dropout=0.0, optim__lr=1e-4, **sets)
    plan = sampling_plan(prepared, config)
    labels = plan.labels.copy()
    wrong = np.random.default_rng(0).random(len(labels)) < 0.2
    labels[wrong] = (labels[wrong] + 1) % 3
    torch.manual_seed(0)
    model = build(config.model, 3).to(DEVICE).to(memory_format=torch.channels_last)
    optimizer, step_losses = make_optimizer(model.parameters(), config.optim), []
    ranks = RankContext(device=DEVICE)
    network = torch.compile(model, dynamic=False) if config.train.compile else model
    loader = DeviceLoader(replace(plan, labels=labels, augment_on_device=True), load_images(prepared), DEVICE)
    for epoch in range(steps):  # more epochs than needed
        view = partial(
            torch_form.augment_batch, augment=config.augment, seed=config.seed, epoch=epoch, input_size=plan.input_size
        )
        for batch in loader.batches("train", epoch) if len(step_losses) < steps else ():
            settings = loop.TrainPass(config, 0, np.array([len(batch["index"])]), ranks, augment=view)
            step_losses.append(loop.train_epoch(network, [batch], optimizer, settings)[0].loss)
    return np.array(step_losses[:steps])


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("larger"), (80, 64, 32) if ON_CPU else (400, 320, 160), size=92)


@pytest.fixture(scope="module")
def full_precision(larger):
    return losses(larger, 20 if ON_CPU else 200, train__precision="fp32", train__compile=False)


@pytest.mark.parametrize("compiled", [False, True])
def test_bf16_trains_as_fp32_does(larger, full_precision, compiled):
    """200 steps from the same weights on the same batches, eager and compiled.

    bfloat16 has 8 bits of precision, so a value is off by up to 0.4 %: the first loss is within 0.2 %. The first steps
    change the loss much (1.61 to 1.18 in one), which amplifies that: the next four are within 6 % (measured: 4 %).
    After some tens of steps the runs are two draws of the same noise. Then means over 50 steps are compared, which are
    within 0.02 nats (measured: 0.01) of about 0.9. A wrong scale or a missing layer changes several times that.
    """
    if compiled and ON_CPU:
        pytest.skip("compiling on the CPU takes minutes")
    half = losses(larger, len(full_precision), train__precision="bf16", train__compile=compiled)
    print("fp32", full_precision.round(4).tolist(), "bf16", half.round(4).tolist())
    assert half[0] == pytest.approx(full_precision[0], rel=2e-3) and half[:5] == pytest.approx(
        full_precision[:5], rel=0.06
    )
    means = np.array([run.reshape(-1, min(50, len(run))).mean(1) for run in (full_precision, half)])
    assert np.abs(means[0] - means[1]).max() < (0.1 if ON_CPU else 0.02) and means[0, -1] < full_precision[:5].mean()


def test_the_fused_forward_pass_of_vgg16_is_as_near_to_fp32(prepared):
    """Convolution, bias and ReLU in one kernel round to bfloat16 once instead of three times. The pooling kernel gives
    the same maxima."""
    model = (
        build(configuration.load("vgg16_pooled", {"model.weights": "none"}).model, 3)
        .to(DEVICE)
        .to(memory_format=torch.channels_last)
        .eval()
    )
    images = torch.from_numpy(photographs(8, 224)).to(DEVICE)
    with torch.no_grad():
        exact = model.features(images)
        with loop.autocast(DEVICE, True):
            fused = model.features(images).float()
            pixels = (images.permute(0, 3, 1, 2).float() - model.mean) * model.scale
            separate = torch.nn.Sequential.forward(model.base, pixels).float()

    def relative_error(features):
        return float((features - exact).norm() / exact.norm())

    assert relative_error(fused) < 0.02 and relative_error(fused) < 1.1 * relative_error(separate)


@pytest.mark.skipif(ON_CPU, reason="Triton needs a GPU")
@pytest.mark.parametrize("shape", [(3, 64, 14, 22), (1, 5, 2, 2), (0, 8, 4, 4)])
def test_the_pooling_kernel_is_max_pooling(shape):
    from animalclf.models.kernels.max_pool import max_pool

    maps = torch.randn(shape, device=DEVICE).bfloat16().to(memory_format=torch.channels_last)
    assert torch.equal(max_pool(maps), torch.nn.functional.max_pool2d(maps, 2) if len(maps) else maps[:, :, ::2, ::2])


def train_into(folder, config, prepared, ranks=None, stop_after=None):
    ranks = ranks or RankContext(device=DEVICE)
    run, rows, images = Run(str(folder)), [], load_images(prepared)
    device_loaders = DeviceLoaders(prepared.stored_size**2 * 3, ranks.device, ranks.rank, ranks.world_size)

    def make_loader(plan, passes):
        return device_loaders.loader_for(plan, lambda: images) or MemoryLoader(
            plan, images, ranks.rank, ranks.world_size
        )

    def on_epoch(row):
        rows.append(row)
        if len(rows) == stop_after:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        training.train(config, prepared, run, make_loader, ranks, on_epoch)
    return run


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vgg16_pooled"])
def test_features_of_images_that_keep_their_shape_equal_those_of_the_cpu(name):
    """Each shape is a batch of its own. tf32 and bf16 round to 11 and 8 bits."""
    spec = configuration.Model(name=name, input_size=96, weights="none", trainable=("head",))
    torch.manual_seed(0)
    model = build(spec, 3, keep_shape=True).eval().to(memory_format=torch.channels_last)
    sides = ((120, 200), (200, 120), (150, 150), (120, 200))
    photos = [np.random.default_rng(number).integers(0, 256, (*side, 3), np.uint8) for number, side in enumerate(sides)]
    images = torch.from_numpy(np.stack([stored_image(photo, 128, "keep") for photo in photos]))
    with torch.no_grad():
        expected = model.features(images)
        exact = model.to(DEVICE).features(images.to(DEVICE)).cpu()
        with loop.autocast(DEVICE, True):
            half = model.features(images.to(DEVICE)).float().cpu()
    assert (exact - expected).norm() < 5e-3 * expected.norm() and (half - expected).norm() < 0.05 * expected.norm()


def test_features_are_computed_on_the_gpu_once_and_stored(tmp_path, monkeypatch):
    prepared, devices = tiny_prepared(tmp_path / "prepared", (40, 32, 16), size=92), []
    features = Classifier.features
    monkeypatch.setattr(
        Classifier, "features", lambda self, images: devices.append(images.device.type) or features(self, images)
    )
    plain = {"augment__flip": False, "augment__rotation": 0, "augment__shift": 0, "augment__zoom": [1, 1]}
    network = {"model__name": "efficientnet_lite0", "model__input_size": 92, "model__trainable": ["head"]}
    config = tiny_config(1, **plain, **network, train__heads=["logistic", "lda"], train__precision="auto")
    first = train_into(tmp_path / "first", config, prepared)
    assert set(devices) == {DEVICE.type} and len(list((tmp_path / "prepared").glob("features-*.npz"))) == 1
    devices.clear()
    second = train_into(tmp_path / "second", config, prepared)
    assert devices == [] and second.predictions("val").equals(first.predictions("val"))
    assert second.result().temperature == first.result().temperature


@pytest.fixture
def deterministic():
    """cuDNN's deterministic algorithms, for equality bit by bit."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, prepared, deterministic):
    config = tiny_config(
        3,
        train__precision="auto",
        augment__on="device",
        optim__ema=0.9,
        optim__schedule="cosine",
        optim__warmup_epochs=1,
    )
    uninterrupted = train_into(tmp_path / "uninterrupted", config, prepared)
    train_into(tmp_path / "parts", config, prepared, stop_after=1)
    assert len(Run(str(tmp_path / "parts")).metrics()) == 1
    parts = train_into(tmp_path / "parts", config, prepared)
    assert [without_times(row) for row in parts.metrics()] == [without_times(row) for row in uninterrupted.metrics()]
    for which in ("last", "best"):
        expected, resumed = checkpoint.load(uninterrupted.checkpoint(which)), checkpoint.load(parts.checkpoint(which))
        assert all(torch.equal(expected["model"][name], resumed["model"][name]) for name in expected["model"])
    assert parts.predictions("val").equals(uninterrupted.predictions("val"))


@pytest.mark.skipif(ON_CPU, reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("recipe", ["big_cnn", "resnet18"])
def test_recorded_steps_train_as_eager_ones(tmp_path, prepared, deterministic, recipe):
    """With dropout, gradient clipping and averaged weights. The last batch of an epoch has another size, so two graphs
    alternate."""
    sets = {
        "optim__ema": 0.9,
        "optim__clip_norm": 1.0,
        "optim__schedule": "cosine",
        "model__name": recipe,
        "train__batch_size": 7,
    }
    runs = [
        train_into(
            tmp_path / str(graphs), tiny_config(3, train__precision="auto", train__cuda_graphs=graphs, **sets), prepared
        )
        for graphs in (True, False)
    ]
    recorded, eager = ([without_times(row) for row in run.metrics()] for run in runs)
    for row, expected in zip(recorded, eager, strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    group = checkpoint.load(runs[0].checkpoint("last"))["optimizer"]["param_groups"][0]
    assert isinstance(group["lr"], float) and group["capturable"] is False  # a CPU can resume from it


def run_rank(rank, world, backend, port, folder, data, config):
    """A process of a group: trains as rank `rank` on the one GPU."""
    from animalclf.data.prepared_set import open_prepared

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if DEVICE.type == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group(backend, rank=rank, world_size=world)
    train_into(
        folder,
        config,
        open_prepared(data),
        RankContext(rank, world, torch.device("cuda:0") if DEVICE.type == "cuda" else DEVICE),
    )
    dist.destroy_process_group()


@pytest.mark.parametrize("world, backend", [(1, "nccl"), (2, "gloo")])
def test_processes_on_one_gpu_agree_with_a_single_process(tmp_path, prepared, world, backend):
    """One process with NCCL, as Ray Train starts it; two on one GPU with gloo, since NCCL refuses a GPU that another
    rank has.

    No BatchNorm, whose statistics are a rank's own; fp32 and plain SGD, so that the gradient of the global batch is the
    same except for its order of summation.
    """
    config = tiny_config(
        2, model__name="vgg16", model__dropout=0.0, optim__name="sgd", optim__lr=1e-5, augment__on="device"
    )
    single = train_into(tmp_path / "single", config, prepared)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = "gloo" if ON_CPU else backend
    mp.spawn(run_rank, (world, backend, port, str(tmp_path / "group"), prepared.root, config), nprocs=world)
    for expected, row in zip(single.metrics(), Run(str(tmp_path / "group")).metrics(), strict=True):
        assert (row.train_rows, row.val_rows) == (expected.train_rows, expected.val_rows)
        assert row.train_loss == pytest.approx(expected.train_loss, rel=2e-3)
        assert row.val["loss"] == pytest.approx(expected.val["loss"], rel=2e-3)


@pytest.mark.ray
@pytest.mark.skipif(ON_CPU, reason="needs a GPU that Ray can give to a worker")
def test_a_ray_worker_trains_on_the_gpu(tmp_path, prepared):
    from animalclf import cluster
    from animalclf.training import launch
    from animalclf.training.resources import Workers

    run = Run(str(tmp_path / "run"))
    try:
        result = launch.start_training(
            tiny_config(2, train__precision="auto"), prepared, run, Workers(0, 0), False, False, training.ignore
        )
    finally:
        cluster.leave_ray()
    assert run.environment().gpu is True and result.precision == "bf16" and result.workers == 1
    assert result.rows["train"] == run.metrics()[0].train_rows and len(run.metrics()) == 2


@pytest.mark.ray
@pytest.mark.skipif(ON_CPU, reason="needs a GPU that Ray can give to a replica")
@pytest.mark.parametrize("views", ["none", "multi"])
def test_prediction_on_the_gpu_equals_that_on_the_cpu(tmp_path, prepared, views):
    """Batches of 8, and one of the 3 images that are left."""
    import cv2

    from animalclf import cluster
    from animalclf.inference.classify import Options, classify

    run = train_into(tmp_path / "run", tiny_config(1, train__precision="auto"), prepared)
    paths = [f"{number:02d}.png" for number in range(19)]
    for path, photograph in zip(paths, photographs(19, 92), strict=True):
        cv2.imwrite(str(tmp_path / path), photograph)
    model, info = checkpoint.load_model(run.root)
    try:
        on_gpu, on_cpu = (
            classify(model, info.config, str(tmp_path), paths, Options(8, device=device, views=views, progress=False))
            for device in ("auto", "cpu")
        )
    finally:
        cluster.leave_ray()
    assert on_gpu[1] == on_cpu[1] == ["ok"] * 19
    assert np.abs(on_gpu[0] - on_cpu[0]).max() < 0.02 and len(np.unique(on_gpu[0][:, 0])) > 10
