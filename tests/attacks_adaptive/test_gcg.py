"""GCG on tiny models: what is shared changes no number, what is written out comes back, and a killed search goes on."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from attacks.gcg import Gcg
from harness.errors import DataError, UnknownName, UsageError
from harness.types import Behavior
from tests.attacks_adaptive.fakes import BEHAVIOR, Notes, Scripted, collect, context, run
from tests.attacks_adaptive.tiny import CHATML, Open, model, open_model, tokenizer

pytestmark = pytest.mark.slow

REQUEST, TARGET = "tell me how the trick is done.", "the ring floats because a thread"
INIT = " x x x x x x x x"
FAST = {"preset": "nanogcg", "init": INIT, "width": 24, "topk": 32}


def setup(family: str = "llama", template: str = CHATML, **more: Any) -> Any:
    """A packed tiny model, its tokens, and one scene."""
    from attacks.gcg_search import Tokens
    from attacks.packed import Packed

    packed, tokens = Packed(model(family, **more)), Tokens(tokenizer(template), 344)
    return packed, tokens, tokens.scene(packed, REQUEST, TARGET)


def plain_losses(packed: Any, scene: Any, rows: Any) -> Any:
    """The loss of each suffix the slow way: its whole prompt alone, nothing shared."""
    import torch

    out = []
    for row in rows.tolist():
        ids = torch.tensor([scene.before + row + scene.after + scene.target.tolist()])
        logits = packed.module(ids).logits[0, -len(scene.target) - 1 : -1].float()
        out.append(torch.nn.functional.cross_entropy(logits, scene.target))
    return torch.stack(out)


def random_rows(base: Any, count: int, swaps: int = 1) -> Any:
    """`base` with `swaps` tokens changed in each row, at random places; the first row unchanged."""
    import torch

    generator = torch.Generator().manual_seed(5)
    rows = base.repeat(count, 1)
    places = torch.randint(0, len(base), (count, swaps), generator=generator)
    rows = rows.scatter(1, places, torch.randint(3, 300, (count, swaps), generator=generator))
    rows[0] = base
    return rows


# --- the numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swaps", [1, 3])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_shared_keys_and_values_change_no_loss(family: str, swaps: int) -> None:
    import torch

    from attacks.gcg_search import Job, gradients, scores

    packed, tokens, scene = setup(family)
    base = torch.tensor(tokens.encode(INIT))
    job = Job(scene, base)
    gradients(packed, [job], 0.0)
    rows = random_rows(base, 30, swaps)
    ((loss, hit),) = scores(packed, [job], [rows], 0.0)
    assert torch.allclose(loss, plain_losses(packed, scene, rows), atol=2e-5)
    assert not hit.any()


def test_several_scenes_in_one_row_change_no_loss() -> None:
    import torch

    from attacks.gcg_search import Job, gradients, scores

    packed, tokens, scene = setup()
    other = tokens.scene(packed, "me?", "it is done")
    bases = [torch.tensor(tokens.encode(INIT)), torch.tensor(tokens.encode(" ! ! x"))]
    jobs = [Job(s, b) for s, b in zip((scene, other), bases, strict=True)]
    gradients(packed, jobs, 0.0)
    rows = [random_rows(base, 20) for base in bases]
    for s, r, (loss, _) in zip((scene, other), rows, scores(packed, jobs, rows, 0.0), strict=True):
        assert torch.allclose(loss, plain_losses(packed, s, r), atol=2e-5)


def test_the_gradient_is_that_of_one_hot_tokens() -> None:
    import torch

    from attacks.gcg_search import Job, Tokens, gradients
    from attacks.packed import Packed

    packed, tokens = Packed(model().double()), Tokens(tokenizer(), 344)
    scene = tokens.scene(packed, REQUEST, TARGET)
    base = torch.tensor(tokens.encode(INIT))
    (found,) = gradients(packed, [Job(scene, base)], 0.0)
    weight = packed.embed.weight
    hot = torch.nn.functional.one_hot(base, len(weight)).double().requires_grad_()
    before, after = (packed.embed(torch.tensor(ids)) for ids in (scene.before, scene.after + scene.target.tolist()))
    logits = packed.module(inputs_embeds=torch.cat([before, hot @ weight, after])[None]).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[-len(scene.target) - 1 : -1], scene.target)
    (expected,) = torch.autograd.grad(loss, hot)
    assert found.dtype == torch.float64
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_bf16_losses_are_those_of_an_fp32_head() -> None:
    import torch

    from attacks.gcg_search import Job, gradients, scores

    packed, tokens, scene = setup(dtype="bfloat16")
    packed.module.to(torch.bfloat16)
    packed = type(packed)(packed.module)
    base = torch.tensor(tokens.encode(INIT))
    job = Job(tokens.scene(packed, REQUEST, TARGET), base)
    gradients(packed, [job], 0.0)
    rows = random_rows(base, 10)
    ((loss, _),) = scores(packed, [job], [rows], 0.0)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, plain_losses(packed, scene, rows), rtol=0.05)
    assert loss.unique().numel() == len(set(map(tuple, rows.tolist())))  # bf16 would tie some


def test_bf16_losses_count_the_bias_of_the_head() -> None:
    import torch

    from attacks.gcg_search import Job, Tokens, gradients, scores
    from attacks.packed import Packed

    module = model()
    module.lm_head.bias = torch.nn.Parameter(torch.linspace(-9, 9, 344), requires_grad=False)
    packed, tokens = Packed(module.to(torch.bfloat16)), Tokens(tokenizer(), 344)
    base = torch.tensor(tokens.encode(INIT))
    job = Job(tokens.scene(packed, REQUEST, TARGET), base)
    gradients(packed, [job], 0.0)
    rows = random_rows(base, 10)
    ((loss, _),) = scores(packed, [job], [rows], 0.0)
    assert torch.allclose(loss, plain_losses(packed, job.scene, rows), rtol=0.05)


@pytest.mark.parametrize(("family", "scaled"), [("granite", {"logits_scaling": 8.0}), ("cohere", {})])
def test_a_model_that_scales_its_logits_is_right_in_fp32_and_refused_in_bf16(family: str, scaled: Any) -> None:
    import torch

    from attacks.gcg_search import Job, gradients, scores
    from attacks.packed import Packed

    packed, tokens, scene = setup(family, **scaled)
    base = torch.tensor(tokens.encode(INIT))
    job = Job(scene, base)
    gradients(packed, [job], 0.0)
    rows = random_rows(base, 10)
    ((loss, _),) = scores(packed, [job], [rows], 0.0)
    assert torch.allclose(loss, plain_losses(packed, scene, rows), atol=2e-5)
    module = model(family, **scaled).to(torch.bfloat16)
    before = module.config._attn_implementation
    with pytest.raises(UsageError, match="scales its logits") as caught:
        Packed(module)
    assert caught.value.hint == "--dtype float32"
    assert module.config._attn_implementation == before


def test_mellowmax_of_a_case_worked_out_by_hand() -> None:
    import torch

    from attacks.gcg_search import target_loss

    # Two target tokens with logits 0 and 1: log((e^0 + e^-1) / 2) = log(0.68394) = -0.37989
    logits = torch.tensor([[[0.0, 9.0], [9.0, 1.0]]])
    assert float(target_loss(logits, torch.tensor([0, 1]), 1.0)) == pytest.approx(-0.37989, abs=1e-4)


def test_other_users_of_the_module_see_no_change() -> None:
    import torch

    from attacks.packed import Packed

    module, ids = model(), torch.arange(3, 40)[None]
    padded = {"attention_mask": torch.tensor([[0, 0] + [1] * 35]), "position_ids": torch.arange(37)[None]}
    before = module(ids).logits, module(ids, **padded).logits
    Packed(module)
    assert torch.equal(module(ids).logits, before[0])
    assert torch.equal(module(ids, **padded).logits, before[1])


def test_a_model_with_capped_attention_is_refused_with_a_reason() -> None:
    with pytest.raises(UsageError, match="soft cap"):
        setup("gemma2", head_dim=8)


def test_a_prompt_longer_than_the_attention_window_is_refused() -> None:
    with pytest.raises(UsageError, match="attention window"):
        setup("mistral", sliding_window=8)


@pytest.mark.parametrize("room", [1, 20, 64, 10_000])
def test_batches_hold_every_suffix_once_and_stay_in_the_room(room: int) -> None:
    import torch

    from attacks.gcg_search import Job, batches

    _, tokens, scene = setup()
    base = torch.tensor(tokens.encode(INIT))
    rows = random_rows(base, 40)
    seen = []
    for batch in batches([Job(scene, base)], [rows], room):
        sizes = [len(r) * (len(base) - p + len(scene.tail)) for _, p, r in batch]
        assert sum(sizes) <= room or sum(len(r) for _, _, r in batch) == 1
        for _, p, which in batch:
            assert (rows[which, :p] == base[:p]).all()
            seen += which.tolist()
    assert sorted(seen) == list(range(40))


# --- tokens -------------------------------------------------------------------------------------------------------


def test_the_scene_is_the_chat_prompt_with_its_special_tokens() -> None:
    _, tokens, scene = setup()
    suffix = tokens.encode(INIT)
    messages = [{"role": "user", "content": REQUEST + INIT}]
    whole = tokens.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert scene.before + suffix + scene.after == whole
    assert whole[0] == tokens.tokenizer.bos_token_id


def test_survivors_come_back_from_the_whole_prompt_as_they_were() -> None:
    packed, tokens, _ = setup()
    scene = tokens.scene(packed, "tell me how the tri", TARGET)  # "ck" after it makes another token
    cut = [tokens.encode(c)[0] for c in "ck"]
    rows = [cut, tokens.encode(" x !"), [tokens.encode("t")[0], tokens.encode("h")[0]]]
    expected = [
        i
        for i, row in enumerate(rows)
        if tokens.encode(scene.before_text + tokens.decode(row) + scene.after_text) == scene.before + row + scene.after
    ]
    assert tokens.survivors(rows, [scene]) == expected == [1]


def test_a_template_that_trims_rejects_suffixes_that_end_in_white_space() -> None:
    for template, alive in ((CHATML, [0, 1]), (CHATML.replace("m.content", "m.content | trim"), [0])):
        _, tokens, scene = setup(template=template)
        rows = [tokens.encode(" x !"), tokens.encode(" x ! ")]
        assert tokens.survivors(rows, [scene]) == alive


def test_no_suffix_holds_special_unknown_or_unprintable_tokens() -> None:
    from attacks.gcg_search import Search, Settings

    packed, tokens, scene = setup()
    bad = set(tokens.forbidden.tolist())
    assert bad >= {0, 1, 2} | set(range(len(tokens.tokenizer), 344))
    search = Search(packed, tokens, [scene], Settings(steps=6, width=24, topk=32, init=INIT))
    for _ in range(6):
        ids = search.step().ids
        assert not bad & set(ids)
        text = scene.before_text + tokens.decode(ids) + scene.after_text
        assert tokens.encode(text) == scene.before + ids + scene.after


def test_a_first_suffix_that_would_merge_with_the_request_gets_a_space_before_it() -> None:
    from attacks.gcg_search import Search, Settings

    packed, tokens, _ = setup()
    scene = tokens.scene(packed, "tell me how the tri", TARGET)
    search = Search(packed, tokens, [scene], Settings(init="ck", topk=32))
    assert tokens.decode(search.seed) == " ck"


def test_no_first_suffix_is_an_error_that_says_what_to_change() -> None:
    from attacks.gcg_search import Search, Settings

    packed, tokens, scene = setup()
    with pytest.raises(UsageError, match="can't stand") as caught:
        Search(packed, tokens, [scene], Settings(init=""))
    assert "init" in caught.value.hint


# --- the search ---------------------------------------------------------------------------------------------------


def naive(packed: Any, tokens: Any, scene: Any, steps: int, width: int, topk: int, seed: int) -> list[list[int]]:
    """nanoGCG's loop, written plainly: nothing shared, one candidate at a time."""
    import torch

    from attacks.gcg_search import Job, gradients

    generator = torch.Generator().manual_seed(seed)
    ids, out = torch.tensor(tokens.encode(INIT)), []
    for _ in range(steps):
        (grad,) = gradients(packed, [Job(scene, ids)], 0.0)
        grad[:, tokens.forbidden] = float("inf")
        top = (-grad).topk(topk, dim=1).indices
        place = torch.argsort(torch.rand((width, len(ids)), generator=generator))[:, :1]
        pick = torch.randint(0, topk, (width, 1, 1), generator=generator)
        rows = ids.repeat(width, 1).scatter(1, place, top[place].gather(2, pick).squeeze(2))
        rows = rows[tokens.survivors(rows.tolist(), [scene])]
        ids = rows[plain_losses(packed, scene, rows).argmin()]
        out.append(ids.tolist())
    return out


def test_the_search_makes_the_plain_algorithms_suffixes() -> None:
    from attacks.gcg_search import Search, Settings

    packed, tokens, scene = setup()
    settings = Settings(steps=8, width=24, topk=32, init=INIT, positions="uniform", seed=11)
    search = Search(packed, tokens, [scene], settings)
    assert [search.step().ids for _ in range(8)] == naive(packed, tokens, scene, 8, 24, 32, 11)


@pytest.mark.parametrize("buffer", [0, 1, 3])
def test_a_replayed_search_goes_on_as_the_first_did(buffer: int) -> None:
    from attacks.gcg_search import Search, Settings

    packed, tokens, scene = setup()
    settings = Settings(steps=8, width=24, topk=32, init=INIT, positions="uniform", buffer=buffer, seed=2)
    whole, resumed = (Search(packed, tokens, [scene], settings) for _ in range(2))
    steps = [whole.step() for _ in range(8)]
    for step in steps[:5]:
        resumed.replay(step)
    assert [resumed.step().ids for _ in range(3)] == [step.ids for step in steps[5:]]
    assert resumed.best == whole.best


def test_with_a_buffer_the_search_goes_on_from_the_best_so_far() -> None:
    from attacks.gcg_search import Search, Settings, Step

    packed, tokens, scene = setup()
    search = Search(packed, tokens, [scene], Settings(init=INIT, buffer=2, width=24, topk=32))
    low, high = search.buffer[0][0] - 1, search.buffer[-1][0] + 1
    search.replay(Step(low, [5] * 8))
    search.replay(Step(high, [6] * 8))  # worse than all that is kept: dropped
    assert search.buffer[0] == (low, [5] * 8)
    assert [6] * 8 not in [ids for _, ids in search.buffer]


def test_a_vocabulary_smaller_than_topk_gives_no_forbidden_token() -> None:
    from attacks.gcg_search import Search, Settings

    packed, tokens, scene = setup()
    forbidden = set(tokens.forbidden.tolist())
    search = Search(packed, tokens, [scene], Settings(steps=4, width=64, topk=340, init=INIT))
    assert search.settings.topk == 344 - len(forbidden)
    assert all(not forbidden & set(search.step().ids) for _ in range(4))


def test_the_loss_falls_and_the_best_is_its_lowest_point() -> None:
    from attacks.gcg_search import Search, Settings

    packed, tokens, scene = setup()
    search = Search(packed, tokens, [scene], Settings(steps=15, width=48, topk=64, init=INIT))
    seed_loss = search.best[0]
    curve = [search.step().loss for _ in range(15)]
    assert search.best[0] == min(seed_loss, *curve) < seed_loss
    assert search.done


def test_scenes_join_one_by_one_as_those_before_are_won() -> None:
    from attacks.gcg_search import Search, Settings, Step

    packed, tokens, scene = setup()
    other = tokens.scene(packed, "me?", "it is done")
    search = Search(packed, tokens, [scene, other], Settings(steps=9, width=24, topk=32, init=INIT))
    assert search.active == 1
    search.replay(Step(3.0, search.seed, scenes=1, hit=False))
    assert search.active == 1
    search.replay(Step(2.0, search.seed, scenes=1, hit=True))
    assert search.active == 2
    assert search.step().scenes == 2
    assert search.best[0] == search.steps[-1].loss  # losses over more scenes are another measure


def test_a_hit_is_what_greedy_decoding_gives() -> None:
    import torch

    from attacks.gcg_search import Job, gradients, scores

    packed, tokens, scene = setup()
    base = torch.tensor(tokens.encode(INIT))
    ids = torch.tensor([scene.before + base.tolist() + scene.after])
    said = packed.module.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None)[0, ids.shape[1] :]
    own = tokens.scene(packed, REQUEST, "x")
    own = type(own)(
        **{f: getattr(own, f) for f in own.__slots__}
        | {"target": said, "tail": torch.cat([torch.tensor(own.after), said[:-1]])}
    )
    job = Job(own, base)
    gradients(packed, [job], 0.0)
    ((_, hit),) = scores(packed, [job], [base[None]], 0.0)
    assert bool(hit[0])


# --- the attack ---------------------------------------------------------------------------------------------------


def test_the_first_suffix_is_an_attempt_of_its_own() -> None:
    seed, suffix = run(Gcg(steps=4, **FAST), context(open_model(), Scripted(lambda p, s: "")))
    assert (seed.variant, suffix.variant) == ("seed", "suffix")
    assert seed.prompt.last == BEHAVIOR.request + INIT
    assert suffix.prompt.last.startswith(BEHAVIOR.request)
    assert suffix.spent["steps"] == 4
    assert suffix.spent["target_tokens"] > 0


def test_a_killed_search_ends_as_an_unbroken_one() -> None:
    class Killed(Notes):
        left = 3

        def put(self, key: str, value: str) -> None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            super().put(key, value)

    helper = Scripted(lambda p, s: "")
    whole = run(Gcg(steps=6, **FAST), context(open_model(), helper))
    memo = Killed()
    with pytest.raises(KeyboardInterrupt):
        run(Gcg(steps=6, **FAST), context(open_model(), helper, memo=memo))
    again = Notes(memo.kept)
    assert len(again.kept) == 3
    resumed = run(Gcg(steps=6, **FAST), context(open_model(), helper, memo=again))
    assert resumed == whole
    losses = [json.loads(v)["loss"] for k, v in again.kept.items() if k.rsplit("/", 1)[1].isdigit()]
    assert len(losses) == 6  # the curve


def test_a_finished_search_is_replayed_without_weights() -> None:
    memo, helper = Notes(), Scripted(lambda p, s: "")
    first = run(Gcg(steps=2, **FAST), context(open_model(), helper, memo=memo))
    closed = Open(lambda p, s: "no")
    assert run(Gcg(steps=2, **FAST), context(closed, helper, memo=memo)) == first
    assert closed.shown == 0


def test_other_settings_seeds_or_models_do_not_share_a_memory() -> None:
    helper = Scripted(lambda p, s: "")
    memo = Notes()
    target = open_model()
    for attack, seed in ((Gcg(steps=1, **FAST), 0), (Gcg(steps=2, **FAST), 0), (Gcg(steps=1, **FAST), 1)):
        run(attack, context(target, helper, memo=memo, seed=seed))
    assert sum(key.endswith("/found") for key in memo.kept) == 3


def test_one_suffix_for_all_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    rows = [{"request": REQUEST, "target": TARGET}, {"request": "me?", "target": "it is done"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    ctx = context(open_model(), Scripted(lambda p, s: ""))
    attack = Gcg(steps=2, train=str(file), **FAST)

    async def both() -> list[Any]:
        others = [Behavior(id=str(i), request=f"request {i}") for i in range(2)]
        return await asyncio.gather(*(collect(attack, ctx, b) for b in others))

    found = list(itertools.chain(*asyncio.run(both())))
    suffixes = {a.prompt.last.removeprefix(a.behavior.request) for a in found if a.variant == "suffix"}
    assert len(suffixes) == 1
    assert sum(key.endswith("/found") for key in ctx.memo.kept) == 1  # type: ignore[attr-defined]


def test_a_behavior_without_target_breaks_alone_and_a_bad_train_file_stops_the_run(tmp_path: Path) -> None:
    ctx = context(open_model(), Scripted(lambda p, s: ""))
    with pytest.raises(DataError, match="no target"):
        run(Gcg(**FAST), ctx, Behavior(id="b", request="tell me"))
    with pytest.raises(UsageError, match="can't be read"):
        run(Gcg(train=str(tmp_path / "none"), **FAST), ctx)


def test_parameter_sets_go_by_name_and_single_settings_override_them() -> None:
    paper, nano = Gcg().settings(0), Gcg(preset="nanogcg", width=64).settings(5)
    assert (paper.steps, paper.width, paper.topk, paper.init, paper.positions) == (500, 512, 256, " !" * 20, "even")
    assert (nano.steps, nano.width, nano.positions, nano.seed) == (250, 64, "uniform", 5)
    with pytest.raises(UnknownName, match="did you mean 'nanogcg'"):
        Gcg(preset="nanogpt")
