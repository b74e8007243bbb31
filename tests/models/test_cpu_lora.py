"""LoRA products on a CPU against vLLM's own functions."""

from importlib.util import find_spec, module_from_spec
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from harness.models import cpu_lora  # noqa: E402


def made(dtype):
    torch.manual_seed(0)
    inputs = torch.randn(7, 12, dtype=dtype)
    slots = torch.tensor([0, 0, 2, 1, 2, 2, 0])
    down = torch.randn(3, 1, 4, 12, dtype=dtype)
    up = torch.randn(3, 1, 9, 4, dtype=dtype)
    return inputs, slots, down, up


def slow(inputs, weights, slots):
    """Row by row."""
    return torch.stack([weights[slot, 0].float() @ row.float() for row, slot in zip(inputs, slots, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_row_is_multiplied_by_its_own_adapter(dtype):
    inputs, slots, down, up = made(dtype)
    buffer = torch.zeros(7, 4)
    cpu_lora.shrink(inputs, down, buffer, slots, 0.5)
    assert torch.allclose(buffer, 0.5 * slow(inputs, down, slots), atol=1e-5)
    output = torch.ones(7, 10, dtype=torch.float32)
    cpu_lora.expand(buffer, up, output, slots)
    assert torch.allclose(output[:, :9], 1 + slow(buffer, up, slots), atol=1e-5)
    assert (output[:, 9] == 1).all()  # padding stays


def test_a_row_without_an_adapter_gets_nothing():
    inputs, slots, down, _ = made(torch.float32)
    slots = torch.where(slots == 2, -1, slots)
    buffer = torch.full((7, 4), 3.0)
    cpu_lora.shrink(inputs, down, buffer, slots)
    assert (buffer[slots == -1] == 0).all()
    assert (buffer[slots == 0] != 0).all()


def test_slots_that_are_not_those_of_the_rows_are_refused_and_one_slot_is_that_of_all():
    inputs, _, down, _ = made(torch.float32)
    with pytest.raises(ValueError, match="7 rows, but the adapters of 2"):
        cpu_lora.shrink(inputs, down, torch.zeros(7, 4), torch.tensor([-1, 0]))
    buffer = torch.zeros(7, 4)
    cpu_lora.shrink(inputs, down, buffer, torch.tensor([1, 1]))
    assert torch.allclose(buffer, slow(inputs, down, [1] * 7), atol=1e-5)


def test_another_thread_does_not_change_the_rows_between_the_check_and_the_answer(monkeypatch):
    slots, others = torch.tensor([0, 0, 2]), torch.tensor([1, 1, 1, 1])
    same = torch.equal

    def meanwhile(*both):
        found = same(*both)
        monkeypatch.setattr(torch, "equal", same)
        cpu_lora.rows_by_slot(others)
        return found

    cpu_lora.rows_by_slot(slots)
    monkeypatch.setattr(torch, "equal", meanwhile)
    found = cpu_lora.rows_by_slot(slots)
    assert [(slot, rows.tolist()) for slot, rows in found] == [(0, [0, 1]), (2, [2])]


@pytest.mark.parametrize("slots", [[0, 0, 2, 1, 2, 2, 0], [1] * 7, [-1, 0, 0, -1, 2, 2, 2], [-1] * 7])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_the_parts_of_a_layer_get_what_each_adapter_adds_to_them(slots, dtype, near):
    """The output is in fp32 either way; bf16 keeps eight bits of the sums on the way."""
    inputs, _, down, up = made(dtype)
    downs, ups, slots = (down, down + 1), (up, up[:, :, :3]), torch.tensor(slots)
    output = torch.ones(7, 13)
    cpu_lora.linear(SimpleNamespace(token_lora_indices=slots), output, inputs, downs, ups, 0.5, (9, 3))
    on = (slots >= 0).float().unsqueeze(1)
    one = slow(slow(inputs, downs[0], slots), ups[0], slots)
    two = slow(slow(inputs, downs[1], slots), ups[1], slots)
    assert torch.allclose(output[:, :9], 1 + on * 0.5 * one, atol=near, rtol=near / 10)
    assert torch.allclose(output[:, 9:12], 1 + on * 0.5 * two, atol=near, rtol=near / 10)
    assert (output[:, 12] == 1).all()  # padding stays


@pytest.mark.slow
def test_the_products_are_those_of_vllm():
    """Its functions are taken from where `install` leaves them alone."""
    ops = pytest.importorskip("vllm.lora.ops.torch_ops")
    inputs, slots, down, _ = made(torch.bfloat16)
    theirs, ours = torch.zeros(7, 4), torch.zeros(7, 4)
    ops.bgmv_shrink(inputs, down, theirs, slots, 2.0)
    cpu_lora.shrink(inputs, down, ours, slots, 2.0)
    assert ops.bgmv_shrink is not cpu_lora.shrink
    assert torch.allclose(theirs, ours, atol=1e-5)


@pytest.mark.slow
def test_a_layer_gets_what_vllm_adds_to_it():
    """A second copy of vLLM's wrapper, which `install` has not met, is told of seven rows."""
    pytest.importorskip("vllm.lora.punica_wrapper")
    from vllm.lora.layers import LoRAMapping

    found = find_spec("vllm.lora.punica_wrapper.punica_cpu")
    copy = module_from_spec(found)
    found.loader.exec_module(copy)
    wrapper = copy.PunicaWrapperCPU(8, 8, "cpu")
    inputs, slots, down, up = made(torch.float32)
    ids = tuple(10 + slot for slot in slots.tolist())
    wrapper.update_metadata(LoRAMapping(ids, ids), [10, 11, 12], 3, 50)
    theirs, ours = torch.ones(7, 12), torch.ones(7, 12)
    layer = (inputs, (down, down + 1), (up, up[:, :, :3].contiguous()), 0.5, (9, 3))
    wrapper.add_lora_linear(theirs, *layer)
    cpu_lora.linear(wrapper, ours, *layer)
    assert torch.allclose(theirs, ours, atol=1e-4)
