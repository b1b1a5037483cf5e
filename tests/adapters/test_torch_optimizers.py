"""fastgd's optimizers as PyTorch's own: the same results through every feature of the host."""

from __future__ import annotations

import copy
import io
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.specs import SPECS

torch = pytest.importorskip("torch")
import fastgd.adapters.torch as adapter  # noqa: E402

pytestmark = pytest.mark.usefixtures("numbers_in_double")
nn = torch.nn
STEPS = 50
# The optimizers of both, with options of each.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.5, "maximize": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01, "betas": (0.8, 0.95)}),
    ("NAdam", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.1}),
    ("Adadelta", {"lr": 0.5}),
    ("Adamax", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True}),
    ("Rprop", {"lr": 0.001}),
    ("ASGD", {"lr": 0.01}),
]
cases = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{name}-{'-'.join(o)}" for name, o in CASES]
)
every = pytest.mark.parametrize("name", sorted(SPECS))


def model(dtype: Any = None, seed: int = 0) -> Any:
    """A convolution in channels_last, a matrix in the order of Fortran, vectors and a scalar."""
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
    ).to(dtype or torch.float64)
    made[3].weight.data = made[3].weight.data.t().contiguous().t()
    return made


def batches(dtype: Any = None) -> list[tuple[Any, Any]]:
    torch.manual_seed(1)
    return [
        (torch.randn(8, 2, 8, 8, dtype=dtype or torch.float64), torch.randint(0, 5, (8,)))
        for _ in range(STEPS)
    ]


def backward(module: Any, optimizer: Any, batch: tuple[Any, Any]) -> Any:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(module(batch[0]), batch[1])
    loss.backward()
    return loss


def vector(module: Any) -> Any:
    return np.concatenate([p.detach().double().numpy().ravel() for p in module.parameters()])


def both(name: str, options: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """A model and PyTorch's optimizer, a copy and ours."""
    one = model()
    other = copy.deepcopy(one)
    return (
        one,
        getattr(torch.optim, name)(one.parameters(), **options),
        other,
        getattr(adapter, name)(other.parameters(), **options),
    )


# --- the same results ---


@cases
def test_as_pytorchs_own(name: str, options: dict[str, Any]) -> None:
    """With a scheduler, and gradients of some steps set to None and of others to zero in place."""
    one, theirs, other, ours = both(name, options)
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS) for o in (theirs, ours)]
    for i, batch in enumerate(batches()):
        for module, optimizer, scheduler in zip(
            (one, other), (theirs, ours), schedulers, strict=True
        ):
            backward(module, optimizer, batch)
            if i % 10 == 3:
                module[1].weight.grad = None
            optimizer.step()
            optimizer.zero_grad(set_to_none=i % 20 < 10)
            scheduler.step()
    assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    np.testing.assert_allclose(vector(other), vector(one), rtol=0, atol=1e-12)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)


@every
def test_every_optimizer_of_fastgd(name: str) -> None:
    """The bits of fastgd over arrays, where the tensors' order of axes is one that arrays have."""
    kind = fastgd.optimizers.find(name)
    assert issubclass(getattr(adapter, name), torch.optim.Optimizer)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((6, 4), (3, 5))]
    tensors = [nn.Parameter(torch.tensor(array)) for array in arrays]
    optimizer = kind([{"params": [arrays[0]]}, {"params": [arrays[1]], "lr": 0.02}])
    ours = getattr(adapter, name)([{"params": [tensors[0]]}, {"params": [tensors[1]], "lr": 0.02}])
    for _ in range(5):
        grads = [rng.standard_normal(array.shape).astype(np.float32) for array in arrays]
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        optimizer.step([[grads[0]], [grads[1]]], loss=1.5)
        assert ours.step(lambda: torch.tensor(1.5)) == 1.5
    for tensor, array in zip(tensors, arrays, strict=True):
        assert tensor.detach().numpy().tobytes() == array.tobytes()
    restored = getattr(adapter, name)(
        [{"params": [copy.deepcopy(tensors[0])]}, {"params": [copy.deepcopy(tensors[1])]}]
    )
    restored.load_state_dict(copy.deepcopy(ours.state_dict()))
    saved, again = ours.state_dict(), restored.state_dict()
    assert saved["param_groups"] == again["param_groups"]
    torch.testing.assert_close(saved["state"], again["state"], rtol=0, atol=0)


def test_clipping_is_fused_and_equals_clip_grad_norm() -> None:
    one, theirs, other, _ = both("AdamW", {"lr": 0.01})
    ours = adapter.AdamW(other.parameters(), lr=0.01, clip_norm=0.1)
    for batch in batches():
        backward(one, theirs, batch)
        norm = nn.utils.clip_grad_norm_(one.parameters(), 0.1)
        theirs.step()
        backward(other, ours, batch)
        ours.step()
        assert ours.grad_norm == pytest.approx(float(norm), rel=1e-5)
    np.testing.assert_allclose(vector(other), vector(one), rtol=0, atol=1e-5)  # its + 1e-6
    ours.clip_norm = 0.2
    assert copy.deepcopy(ours).clip_norm == 0.2


def test_sparse_gradients_as_sparse_adam() -> None:
    torch.manual_seed(0)
    tables = [nn.Embedding(50, 6, sparse=True, dtype=torch.float64) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    theirs = torch.optim.SparseAdam(list(tables[0].parameters()), lr=0.1)
    ours = adapter.Adam(tables[1].parameters(), lr=0.1, eps_hat=True)
    for i in range(STEPS):
        indices = torch.randint(0, 50, (7,), generator=torch.Generator().manual_seed(i))
        for table, optimizer in zip(tables, (theirs, ours), strict=True):
            optimizer.zero_grad()
            (table(indices) ** 2).sum().backward()
            optimizer.step()
    np.testing.assert_allclose(vector(tables[1]), vector(tables[0]), rtol=0, atol=1e-12)


def test_grad_scaler_hooks_and_closures() -> None:
    one, theirs, other, ours = both("SGD", {"lr": 0.05, "momentum": 0.9})
    seen: list[str] = []
    ours.register_step_pre_hook(lambda *_: seen.append("before"))
    ours.register_step_post_hook(lambda *_: seen.append("after"))
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) for _ in range(2)]
    for i, (x, y) in enumerate(batches()[:10]):
        for module, optimizer, scaler in zip((one, other), (theirs, ours), scalers, strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(x), y)
            scaler.scale(loss * float("inf") if i == 4 else loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale()
    assert seen == ["before", "after"] * 9
    np.testing.assert_allclose(vector(other), vector(one), rtol=0, atol=1e-12)
    assert ours.step(lambda: backward(other, ours, batches()[0])).item() > 0


def test_a_rate_that_is_a_tensor_or_a_schedule() -> None:
    rate = torch.tensor(0.5, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = adapter.SGD([weight], lr=rate)
    for value in (0.5, 0.25):
        rate.fill_(value)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.item() == -0.75
    optimizer = adapter.SGD([weight], lr=lambda step: 0.5**step)
    optimizer.step()
    optimizer.step()
    assert weight.item() == -2.25


# --- state that passes from one to the other ---


@cases
def test_a_run_passes_back_and_forth(name: str, options: dict[str, Any]) -> None:
    """Torch's state into ours and ours into torch's, in the middle of a run."""
    one, theirs, other, ours = both(name, options)
    kept = 1e-12 if name not in ("NAdam", "ASGD") else 1e-6  # their numbers are float32 in torch
    for i, batch in enumerate(batches()[:20]):
        for module, optimizer in ((one, theirs), (other, ours)):
            backward(module, optimizer, batch)
            optimizer.step()
        if i == 6:
            ours.load_state_dict(theirs.state_dict())
        if i == 13:
            theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    np.testing.assert_allclose(vector(other), vector(one), rtol=0, atol=kept)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save", "state_dict"])
@pytest.mark.parametrize("name", ["AdamW", "SGD", "ScheduleFreeAdamW", "Adafactor", "Prodigy"])
def test_a_copy_continues_with_the_same_bits(name: str, way: str) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    module = nn.Linear(4, 3)
    optimizer = getattr(adapter, name)(module.parameters(), lr=0.1, clip_norm=2.0, **options)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))

    def steps(module: Any, optimizer: Any) -> bytes:
        for _ in range(3):
            optimizer.zero_grad()
            (module(x) ** 2).sum().backward()
            optimizer.step()
        return vector(module).tobytes()  # type: ignore[no-any-return]

    steps(module, optimizer)
    if way == "deepcopy":
        other, again = copy.deepcopy((module, optimizer))
    elif way == "pickle":
        other, again = pickle.loads(pickle.dumps((module, optimizer)))
    else:
        other = copy.deepcopy(module)
        again = getattr(adapter, name)(other.parameters(), lr=0.5, clip_norm=2.0, **options)
        state = optimizer.state_dict()
        if way == "torch.save":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file)
        again.load_state_dict(state)
    assert again.clip_norm == 2.0
    assert steps(other, again) == steps(module, optimizer)


def test_the_state_is_tensors_over_fastgds_arrays() -> None:
    module = model()
    optimizer = adapter.AdamW(module.parameters())
    assert len(optimizer.state) == 0
    backward(module, optimizer, batches()[0])
    module[1].weight.grad = None
    optimizer.step()
    weight = module[0].weight
    assert set(optimizer.state) == {*module.parameters()} - {module[1].weight}
    assert list(optimizer.state[weight]) == ["step", "exp_avg", "exp_avg_sq"]
    assert optimizer.state[weight]["step"].item() == 1
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()
    torch.testing.assert_close(optimizer.state[weight]["exp_avg"], 0.1 * weight.grad)
    optimizer.state[weight]["exp_avg"].zero_()
    assert not optimizer.state[weight]["exp_avg"].any()
    optimizer.state = {}
    assert len(optimizer.state) == 0


def test_a_group_is_added_and_its_state_begins() -> None:
    module = model()
    optimizer = adapter.AdamW(module[0].parameters(), lr=0.01)
    backward(module, optimizer, batches()[0])
    optimizer.step()
    before = optimizer.state[module[0].weight]["exp_avg"].clone()
    optimizer.add_param_group({"params": module[3].parameters(), "lr": 0.1})
    assert torch.equal(optimizer.state[module[0].weight]["exp_avg"], before)
    backward(module, optimizer, batches()[1])
    optimizer.step()
    assert optimizer.state[module[0].weight]["step"].item() == 2
    assert optimizer.state[module[3].weight]["step"].item() == 1
    with pytest.raises(TypeError, match=r"parameter 0 of group 2 is a tensor of torch\.complex64"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, dtype=torch.complex64))]})
    assert len(optimizer.param_groups) == 2
    optimizer.step()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    module = model()
    optimizer = adapter.AdamW(module.parameters(), lr=0.01)
    backward(module, optimizer, batches()[0])
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    for break_it, message in (
        (lambda s: s["state"][0].pop("exp_avg"), "exp_avg"),
        (lambda s: s["state"][0].update(exp_avg=torch.zeros(3)), "shape"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), "lr"),
        (lambda s: s["param_groups"][0].update(decoupled_weight_decay=False), "is of Adam,"),
    ):
        broken = copy.deepcopy(saved)
        broken["param_groups"][0].setdefault("decoupled_weight_decay", True)
        break_it(broken)
        with pytest.raises((ValueError, KeyError), match=message):
            optimizer.load_state_dict(broken)
        assert optimizer.param_groups[0]["lr"] == 0.01
        torch.testing.assert_close(optimizer.state_dict()["state"], saved["state"], rtol=0, atol=0)
        optimizer.load_state_dict(copy.deepcopy(saved))


# --- memory that the host moves ---


def moves() -> dict[str, Any]:
    def by_vector(module: Any) -> None:
        module.to(memory_format=torch.contiguous_format)
        module[3].weight.data = module[3].weight.data.contiguous()
        flat = nn.utils.parameters_to_vector(module.parameters()).detach()
        nn.utils.vector_to_parameters(flat, module.parameters())

    def data(module: Any) -> None:
        for p in module.parameters():
            p.data = p.data.clone()

    return {
        "data": data,
        "share_memory": lambda module: module.share_memory(),
        "vector_to_parameters": by_vector,
        "memory_format": lambda module: module.to(memory_format=torch.contiguous_format),
        "transposed": lambda module: setattr(
            module[3].weight, "data", module[3].weight.data.contiguous()
        ),
        "load_state_dict": lambda module: module.load_state_dict(
            copy.deepcopy(module.state_dict())
        ),
    }


@pytest.mark.parametrize("how", moves())
def test_parameters_that_lie_elsewhere_are_trained_on(how: str) -> None:
    one, theirs, other, ours = both("AdamW", {"lr": 0.01})
    for i, batch in enumerate(batches()[:12]):
        for module, optimizer in ((one, theirs), (other, ours)):
            if i % 3 == 2:
                moves()[how](module)
            backward(module, optimizer, batch)
            optimizer.step()
    np.testing.assert_allclose(vector(other), vector(one), rtol=0, atol=1e-12)


def test_another_dtype_takes_the_state_along() -> None:
    module = model()
    optimizer = adapter.AdamW(module.parameters(), lr=0.01)
    backward(module, optimizer, batches()[0])
    optimizer.step()
    module.float()
    backward(module, optimizer, batches(torch.float32)[1])
    optimizer.step()
    assert optimizer.state[module[3].bias]["exp_avg"].dtype is torch.float32
    assert optimizer.state[module[3].bias]["step"].item() == 2
    module[3].bias.data = torch.zeros(7)
    module[3].bias.grad = torch.zeros(7)
    with pytest.raises(
        ValueError, match=r"parameter 4 of group 0 has shape \(7,\), and had \(5,\)"
    ):
        optimizer.step()


def test_a_stale_graph_is_an_error_as_with_pytorchs_own() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = adapter.SGD([weight], lr=0.1)
    loss = (weight**3).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_are_not_kept() -> None:
    weight = nn.Parameter(torch.ones(1000))
    optimizer = adapter.AdamW([weight])
    weight.grad = torch.ones(1000)
    for _ in range(4):
        optimizer.step()
    alive = weakref.ref(weight.grad)
    storage = weakref.ref(weight.grad.untyped_storage())
    optimizer.zero_grad()
    assert alive() is None
    assert storage() is None


def test_a_gradient_that_is_a_view_with_its_sign_turned() -> None:
    weight = nn.Parameter(torch.zeros(4))
    turned = torch.view_as_complex(torch.arange(8.0).reshape(4, 2)).conj().imag
    assert turned.is_neg()
    weight.grad = turned
    adapter.SGD([weight], lr=1.0).step()
    assert weight.tolist() == [1.0, 3.0, 5.0, 7.0]


def test_gradients_at_the_same_address_in_another_order() -> None:
    square = torch.arange(16.0).reshape(4, 4)
    weight = nn.Parameter(torch.zeros(4, 4))
    optimizer = adapter.SGD([weight], lr=1.0)
    for _ in range(3):
        weight.grad = square
        optimizer.step()
    weight.grad = square.t()
    optimizer.step()
    assert torch.equal(weight.detach(), -3 * square - square.t())


# --- tensors that lie elsewhere, or are narrower ---


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_masters_of_narrow_parameters(dtype: str) -> None:
    """The bits of training masters by hand; a saved run goes on with them."""
    narrow = getattr(torch, dtype)
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(40, 30).to(narrow))
    optimizer = adapter.AdamW([weight], lr=1e-4, offload=True)
    master = weight.detach().float().numpy()
    by_hand = fastgd.AdamW(master, lr=1e-4)
    for i in range(30):
        weight.grad = torch.randn(40, 30, generator=torch.Generator().manual_seed(i)).to(narrow)
        by_hand.step(weight.grad.float().numpy())
        optimizer.step()
        assert torch.equal(weight.detach(), torch.tensor(master).to(narrow))
        if i == 12:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = adapter.AdamW([weight], offload=True)
            optimizer.load_state_dict(saved)
    assert optimizer.state[weight]["exp_avg"].dtype is torch.float32
    assert optimizer.state[weight]["master"].numpy().tobytes() == master.tobytes()
    with torch.no_grad():
        weight.fill_(0.5)  # the host's own change goes to the master
    optimizer.step()
    assert (optimizer.state[weight]["master"] - 0.5).abs().max() < 1e-3


def test_what_no_step_can_update_is_refused_with_the_way_out() -> None:
    meta = nn.Linear(3, 2, device="meta")
    for offload in (False, True):
        with pytest.raises(ValueError, match="to_empty"):
            adapter.AdamW(meta.parameters(), offload=offload)
    with pytest.raises(ValueError, match="offload=True"):
        adapter.AdamW([nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))])
    with pytest.raises(TypeError, match="complex64"):
        adapter.AdamW([nn.Parameter(torch.zeros(3, dtype=torch.complex64))])


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6), reason="PyTorch has no names yet"
)
def test_messages_have_the_names_of_parameters() -> None:
    with pytest.raises(ValueError, match=r"parameter 'layer' is of torch\.float16"):
        adapter.AdamW([("layer", nn.Parameter(torch.zeros(3, dtype=torch.float16)))])


def test_arguments() -> None:
    weight = nn.Parameter(torch.zeros(3))
    adapter.AdamW([weight], foreach=True, fused=False)
    with pytest.raises(ValueError, match="capturable"):
        adapter.AdamW([weight], capturable=True)
    with pytest.raises(TypeError, match="did you mean"):
        adapter.AdamW([weight], weight_deca=0.1)
    with pytest.raises(TypeError, match="use one of them"):
        adapter.Optimizer([weight])
    with pytest.raises(ValueError, match="empty"):
        adapter.AdamW([])
    with pytest.raises(ValueError, match="lr"):
        adapter.AdamW([weight], lr=-1.0)
    optimizer = adapter.AdamW([weight])
    weight.grad = torch.ones(3)
    optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="lr"):
        optimizer.step()
    assert not weight.detach().any()
    with pytest.raises(TypeError, match="needs the loss"):
        adapter.PolyakSGD([weight]).step()
    optimizer = adapter.SGD([weight], lr=1.0, nonfinite="skip")
    weight.grad = torch.tensor([1.0, float("nan"), 1.0])
    optimizer.step()
    assert not weight.detach().any()


def test_schedule_free_goes_to_its_average_and_back() -> None:
    module = model()
    optimizer = adapter.ScheduleFreeSGD(module.parameters(), lr=0.1)
    for batch in batches()[:5]:
        backward(module, optimizer, batch)
        optimizer.step()
    before, version = vector(module), module[0].weight._version
    moves()["data"](module)
    with optimizer.evaluation():
        assert not np.array_equal(vector(module), before)
        assert module[0].weight._version > 0
        with pytest.raises(RuntimeError, match="evaluating"):
            optimizer.step()
        again = copy.deepcopy((module, optimizer))
    np.testing.assert_allclose(vector(module), before, atol=1e-14)
    again[1].train()
    np.testing.assert_allclose(vector(again[0]), before, atol=1e-14)
    assert version >= 0


@pytest.mark.parametrize(
    ("state_dtype", "stored"), [("bfloat16", torch.bfloat16), ("8bit", torch.uint8)]
)
@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_state_in_fewer_bits(state_dtype: str, stored: Any, way: str) -> None:
    """The host's own checkpoints carry it, and a run goes on with the same bits."""
    torch.manual_seed(0)
    net, x = nn.Linear(100, 100).float(), torch.randn(8, 100).float()
    opt = adapter.AdamW(net.parameters(), lr=1e-3, state_dtype=state_dtype)

    def step(net: Any, opt: Any) -> None:
        net(x).square().mean().backward()
        opt.step()
        opt.zero_grad()

    for _ in range(3):
        step(net, opt)
    assert opt.state[net.weight]["exp_avg"].dtype == stored
    if way == "state_dict":
        file = io.BytesIO()
        torch.save((net.state_dict(), opt.state_dict()), file)
        file.seek(0)
        params, state = torch.load(file)
        other_net = nn.Linear(100, 100).float()
        other_net.load_state_dict(params)
        other = adapter.AdamW(other_net.parameters(), state_dtype=state_dtype)
        other.load_state_dict(state)
    elif way == "pickle":
        other_net, other = pickle.loads(pickle.dumps((net, opt)))
    else:
        other_net, other = copy.deepcopy((net, opt))
    for _ in range(2):
        step(net, opt)
        step(other_net, other)
    assert torch.equal(other_net.weight, net.weight)
    for ours, theirs in zip(opt.state.values(), other.state.values(), strict=True):
        for slot in ours:
            assert torch.equal(ours[slot], theirs[slot])


def test_state_in_fewer_bits_becomes_pytorchs_own() -> None:
    torch.manual_seed(0)
    net = nn.Linear(100, 100).float()
    params = {name: p.detach().numpy() for name, p in net.named_parameters()}
    ours = fastgd.AdamW(params, state_dtype="8bit")
    ours.step({name: np.ones_like(p) for name, p in params.items()})
    theirs = torch.optim.AdamW(net.parameters())
    adapter.to_torch(ours, theirs)
    decoded = ours.state_dict(decoded=True)["state"]["weight"]["exp_avg"]
    np.testing.assert_array_equal(theirs.state[net.weight]["exp_avg"].numpy(), decoded)
