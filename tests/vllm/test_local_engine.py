"""An engine in the trainer's process, around a stand-in for `vllm.LLM`: how it starts, sleeps, wakes and is left."""

import gc
import os
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import cuda

from mgpo.errors import UserError
from mgpo.vllm import VLLMSampler, sampler
from mgpo.vllm.engine import LocalEngine, Settings, empty_leftovers, read_weights
from mgpo.vllm.sampler import process_as_it_was

SETTINGS = Settings("folder", "bfloat16", 1, (2,))


@pytest.fixture
def vllm(monkeypatch):
    """What looks like vLLM on a GPU, with the list of what is asked of it: `workers` and `full` say how it is."""
    asked: list[Any] = []
    stand_in = SimpleNamespace(asked=asked, workers=1, full=True, unseen=0)

    class LLM:
        def __init__(self, **options):
            self.asleep = False
            asked.append("start")
            executor = SimpleNamespace(shutdown=lambda: asked.append("end of workers"))
            core = SimpleNamespace(
                shutdown=lambda: asked.append("shutdown"), engine_core=SimpleNamespace(model_executor=executor),
                _finalizer=SimpleNamespace(detach=lambda: asked.append("detach")),
            )  # fmt: skip
            self.llm_engine = SimpleNamespace(
                is_sleeping=lambda: self.asleep, reset_encoder_cache=lambda: asked.append("encoder"), engine_core=core,
                abort_request=lambda ids: asked.extend(("abort", each) for each in ids),
                vllm_config=SimpleNamespace(parallel_config=SimpleNamespace(world_size=stand_in.workers)),
            )  # fmt: skip

        def sleep(self, level):
            self.asleep, stand_in.unseen = True, gc.get_freeze_count()
            asked.append(("sleep", level))

        def wake_up(self, tags):
            self.asleep, stand_in.unseen = tags == ["weights"], gc.get_freeze_count()  # the cache still sleeps
            asked.append(("wake", *tags))

        def collective_rpc(self, method, args=(), kwargs=None):
            if method is read_weights:
                method(
                    SimpleNamespace(reload_weights=lambda weights_iterator: asked.append(dict(weights_iterator))), *args
                )
            else:
                asked.append((method, [name for name, _ in kwargs["weights_iterator"]]) if kwargs else method.__name__)

        def reset_prefix_cache(self):
            asked.append("prefix")
            return stand_in.full

    stand_in.LLM = LLM
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("give back"))
    return stand_in


@pytest.fixture
def engine(vllm):
    """A local engine around a stand-in for `vllm.LLM` on what looks like a GPU, and the list of what is asked of it."""
    return LocalEngine(SETTINGS), vllm.asked


def test_it_starts_on_the_trainers_gpu(vllm, monkeypatch):
    """Of several processes vLLM takes the number on the node for that of the GPU, and only from the environment; under
    SLURM nobody sets it."""
    seen: list[Any] = []
    names = ("RANK", "LOCAL_RANK")
    start = vllm.LLM
    vllm.LLM = lambda **options: seen.append([os.environ.get(name) for name in names]) or start(**options)
    with pytest.raises(UserError, match=r"the trainer is on number 1; hide the others with CUDA_VISIBLE_DEVICES"):
        LocalEngine(SETTINGS, 1)
    for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": 5}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    for name in names:
        monkeypatch.setenv(name, "0")  # so that both are back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_LOCALID", "3")
    LocalEngine(SETTINGS, 2)
    assert "LOCAL_RANK" not in os.environ
    LocalEngine(SETTINGS)
    monkeypatch.setenv("LOCAL_RANK", "1")
    LocalEngine(SETTINGS, 7)
    assert seen == [["5", "2"], ["5", "3"], ["5", "7"]] and os.environ["LOCAL_RANK"] == "1"


def test_it_wakes_into_memory_that_the_trainer_gave_back(engine):
    """Level 2 drops the weights, so they are pushed before the cache is there again; nothing that was cached stays."""
    engine, asked = engine
    push = ("reload_weights", ["a"])
    assert asked == ["give back", "start"]
    engine.load([("a", torch.zeros(1))])
    assert asked[2:] == [push, "empty_leftovers", "prefix", "encoder"]
    engine.sleep()
    engine.load([("a", torch.zeros(1))])
    woken = ["give back", ("wake", "weights"), push, "empty_leftovers", "give back", ("wake", "kv_cache")]
    assert asked[6:] == [("sleep", 2), *woken, "prefix", "encoder"]
    engine.close()
    assert asked[-1] == "shutdown"


def test_sleeping_and_waking_collect_young_garbage_alone(vllm, engine):
    """vLLM collects all that there is in each, which takes half a second; a policy can be freed again behind it."""
    engine, _ = engine
    for act in (engine.sleep, lambda: engine.load([])):
        vllm.unseen = 0
        gc.freeze()  # as vLLM does somewhere
        act()
        assert vllm.unseen > 10_000 and gc.get_freeze_count() == 0


def test_weights_for_several_workers_lie_in_files(vllm):
    vllm.workers = 2
    weights = {"a.weight": torch.rand(3, 2), "b": torch.rand(4).bfloat16()}
    LocalEngine(SETTINGS).load(iter(weights.items()))
    (taken,) = [each for each in vllm.asked if isinstance(each, dict)]
    assert taken.keys() == weights.keys() and all(torch.equal(taken[name], weights[name]) for name in weights)


def test_a_cache_that_stays_is_an_error(vllm, engine):
    vllm.full = False
    with pytest.raises(RuntimeError, match="computed under other weights"):
        engine[0].load([])


def test_the_groups_of_several_trainers_outlive_it(vllm, monkeypatch):
    for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": 1}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="ServedVLLMSampler"):
        LocalEngine(replace(SETTINGS, options={"tensor_parallel_size": 2}))
    engine = LocalEngine(SETTINGS)
    engine.close()
    assert vllm.asked[-2:] == ["detach", "end of workers"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("Free memory on device cuda:0 (3.1/79.2 GiB) is less\nthan desired"), "Free .* less than desired"),
        (AssertionError("CuMem allocator can only be used for one instance per process"), "CuMem .* per process"),
        (Exception("WorkerProc initialization failed"), "WorkerProc .* failed"),
        (AssertionError(), "AssertionError"),
    ],
)  # fmt: skip
def test_what_vllm_refuses_to_start_with_is_told(vllm, error, said):
    def refuse(**options):
        raise error

    vllm.LLM = refuse
    with pytest.raises(UserError, match=rf"does not start \({said}\); see model.sampler.options") as told:
        LocalEngine(SETTINGS)
    assert told.value.__cause__ is error  # for whoever wants its traceback
    with pytest.raises(UserError, match=r"can keep 1,024 ids .* this policy bans 1,025"):
        LocalEngine(replace(SETTINGS, banned=tuple(range(1025))))


def test_requests_of_a_reply_that_nobody_took_are_ended(engine):
    """As where a rollout failed amid one, and a traceback holds it."""
    engine, asked = engine
    engine.asked |= {"3", "4"}
    engine.sleep()
    assert sorted(asked[2:-1]) == [("abort", "3"), ("abort", "4")] and asked[-1] == ("sleep", 2)
    engine.sleep()
    assert asked[-1] == ("sleep", 2) and len(asked) == 6


def test_what_nobody_brings_back_from_sleep_is_emptied():
    with torch.inference_mode():
        positions, embeddings = torch.ones(3, 5, dtype=torch.int64), torch.full((2, 2), torch.nan)
    added = [torch.ones(4, 2), torch.ones(4, 2)]
    models = [SimpleNamespace(deepstack_input_embeds=added), SimpleNamespace(deepstack_input_embeds=None), object()]
    state = SimpleNamespace(
        rope_state=SimpleNamespace(positions=positions), encoder_runner=SimpleNamespace(inputs_embeds=embeddings)
    )
    states: list[Any] = [state, SimpleNamespace(rope_state=None), None]
    for model, state in zip(models, states):
        runner = SimpleNamespace(model_state=state) if state else SimpleNamespace()
        empty_leftovers(SimpleNamespace(get_model=lambda model=model: model, model_runner=runner))
    assert not any(part.any() for part in (*added, positions, embeddings))


def test_a_process_stays_as_it_was_where_an_engine_starts():
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with process_as_it_was():
        torch.set_num_threads(threads + 1)
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(0)
        gc.freeze()
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, precision)
    assert torch.equal(torch.rand(1), expected) and gc.get_freeze_count() == 0


def test_trainers_that_begin_and_end_leave_the_memory_into_which_its_graphs_write(monkeypatch):
    freed: list[bool] = []
    monkeypatch.setattr(cuda, "_clear_cuda_memory", lambda: freed.append(True))  # an engine before may have changed it
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as Lightning sets it
    monkeypatch.setattr(sampler, "LocalEngine", lambda settings, device: None)
    monkeypatch.setattr(VLLMSampler, "settings", lambda self, policy, folder: None)

    def begin_and_end():
        cuda.CUDAAccelerator().setup(SimpleNamespace(local_rank=0))
        cuda.CUDAAccelerator().teardown()

    begin_and_end()
    assert len(freed) == 2
    VLLMSampler().start(SimpleNamespace(device=torch.device("cpu")))
    begin_and_end()
    assert len(freed) == 2
