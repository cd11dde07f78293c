"""The promises of the watch: no trace left, no fault passed on, no more than its budget."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grokscope.errors import InputError, MissingResource
from grokscope.probes import Norms, ProbeData, View
from grokscope.probes.probe import Cost, Need
from grokscope.store.records import Reading
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace
from grokscope.watch import Watch, log_spaced


class Net(nn.Module):
    """Everything that a careless observer disturbs: dropout, batch norm, frozen parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 55)
        )
        self.head = nn.Linear(55, 4)
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


def fixed_data() -> ProbeData:
    g = torch.Generator().manual_seed(1)
    inputs, labels = torch.rand(40, 16, generator=g), torch.randint(0, 4, (40,), generator=g)
    held_out = (torch.rand(30, 16, generator=g), torch.randint(0, 4, (30,), generator=g))
    return ProbeData(inputs, labels, held_out, image_shape=(4, 4))


def training(watched: bool, seen: list[Watch] | None = None) -> list[Tensor]:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    net, data = Net(), fixed_data()
    net.body[0].eval()  # a module that the user keeps in evaluation mode
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    watch = Watch(net, data=data, schedule=lambda step: step % 3 == 0, budget=None, strict=True)
    if seen is not None:
        seen.append(watch)
    for step in range(1, 13):
        batch = torch.randint(0, 40, (20,))
        loss = nn.functional.cross_entropy(net(data.inputs[batch]), data.labels[batch])
        loss.backward()
        if watched:  # at the worst place: between backward and step
            watch.step(step, loss=loss)
        optimizer.step()
        optimizer.zero_grad()
    modes = torch.tensor([m.training for m in net.modules()])
    hooks = torch.tensor([len(m._forward_pre_hooks) for m in net.modules()])
    frozen = torch.tensor([p.requires_grad for p in net.parameters()])
    drawn = torch.rand(5)
    other = torch.tensor([np.random.rand(), random.random()])
    grads = torch.tensor([p.grad is None for p in net.parameters()])
    state = [v.clone() for v in net.state_dict().values()]
    moments = [t for s in optimizer.state.values() for t in s.values()]
    return [*state, *moments, modes, hooks, frozen, drawn, other, grads]


def test_training_is_bit_identical_with_and_without_the_watch() -> None:
    seen: list[Watch] = []
    for with_watch, without in zip(training(True, seen), training(False), strict=True):
        assert torch.equal(with_watch, without)
    trace = seen[0].trace
    assert trace.steps().tolist() == [3, 6, 9, 12]
    assert len(trace.keys()) > 30  # and the watch did look
    assert {v.rule for v in trace.verdicts} == {"observed", "htsr", "neighbourhood"}


@dataclass(frozen=True)
class Broken:
    name: str = "broken"
    needs: frozenset[Need] = frozenset({"weights"})
    cost: Cost = "cheap"

    def observe(self, view: View) -> Iterable[Reading]:
        yield view.reading("half.done", "model", 1.0)
        raise RuntimeError("the measure gave up")


def test_a_failing_probe_is_recorded_rests_and_leaves_the_others_alone() -> None:
    watch = Watch(Net(), probes=[Broken(), Norms()], schedule=lambda _: True, budget=None)
    for step in range(6):
        watch.step(step)
    failures = [event for event in watch.trace.events if event.kind == "probe-failed"]
    assert [event.step for event in failures] == [0, 1, 2]
    assert "RuntimeError: the measure gave up" in failures[0].message
    assert "rests from now on" in failures[2].message
    assert "rests from now on" not in failures[1].message
    assert len(watch.trace.series("weights.l2_norm")) == 6
    assert len(watch.trace.series("half.done")) == 0
    with pytest.raises(RuntimeError, match="the measure gave up"):
        Watch(Net(), probes=[Broken()], schedule=lambda _: True, budget=None, strict=True).step(0)


def test_a_model_that_breaks_does_not_bring_training_down() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return self.layer(x), "a tuple"

    watch = Watch(Odd(), data=fixed_data(), schedule=lambda _: True, budget=None)
    watch.step(0)
    messages = [event.message for event in watch.trace.events]
    assert any("the model returned tuple; probes expect logits" in m for m in messages)
    assert len(watch.trace.series("weights.l2_norm")) == 1
    verdict = watch.verdict()
    assert verdict is not None
    assert verdict.phase == "not-determined"


def test_missing_data_is_said_at_once() -> None:
    from grokscope.probes import Neighbourhood

    with pytest.raises(ValueError, match="'neighbourhood' needs train inputs, train labels"):
        Watch(Net(), probes=[Neighbourhood()])


class Clock:
    """Time that passes only where the test says so, and a little at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-4
        return self.now


@dataclass(frozen=True)
class Costly:
    clock: Clock
    seconds: float
    name: str
    cost: Cost
    needs: frozenset[Need] = frozenset({"weights"})

    def observe(self, view: View) -> Iterable[Reading]:
        self.clock.now += self.seconds
        yield view.reading(f"{self.name}.value", "model", 1.0)


@pytest.mark.parametrize("step_seconds", [0.001, 0.01, 0.1])
def test_the_default_budget_is_kept_by_giving_up_the_dear_probes_first(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    probes = [Costly(clock, 0.05, "dear", "heavy"), Costly(clock, 0.001, "light", "cheap")]
    watch = Watch(Net(), probes=probes, schedule=lambda _: True)
    for step in range(int(60 / step_seconds)):
        clock.now += step_seconds
        watch.step(step)
    assert 0.01 < watch.cost <= 0.02
    dear, light = watch.trace.series("dear.value"), watch.trace.series("light.value")
    assert len(light) > 5 * len(dear)
    skipped = [event for event in watch.trace.events if event.kind == "skipped"]
    assert "over the budget" in skipped[0].message
    assert "dear" in skipped[0].message


def test_without_a_budget_everything_is_seen_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    watch = Watch(
        Net(), probes=[Costly(clock, 5.0, "dear", "heavy")], schedule=lambda _: True, budget=None
    )
    for step in range(10):
        watch.step(step)
    assert len(watch.trace.series("dear.value")) == 10
    assert watch.cost > 0.9


def test_default_schedule_is_log_spaced() -> None:
    watch = Watch(Net(), probes=[Norms()], budget=None)
    looked = [step for step in range(10_001) if watch.step(step)]
    assert looked[:4] == [0, 1, 2, 3]
    assert looked[-1] > 9000
    late = [b / a for a, b in itertools.pairwise(looked) if a > 100]
    assert max(late) < 1.1
    assert min(late) > 1.06


@pytest.mark.parametrize(("steps", "count"), [(1, 2), (10, 50), (1000, 40), (125_000, 160)])
def test_log_spaced_covers_the_run(steps: int, count: int) -> None:
    seen = log_spaced(steps, count)
    assert seen[0] == 0
    assert seen[-1] == steps
    assert seen == sorted(set(seen))
    assert len(seen) <= count


def test_log_spaced_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="steps >= 1 and observations >= 2, got 0, 5"):
        log_spaced(0, 5)


def test_compiled_and_wrapped_models_are_seen_under_their_own_names() -> None:
    net = Net()
    wrapped = nn.DataParallel(net)
    watch = Watch(wrapped, probes=[Norms()], schedule=lambda _: True, budget=None, strict=True)
    watch.step(0)
    subjects = watch.trace.subjects("weights.l2_norm")
    assert subjects == ["model", "body.0", "body.4", "head"]
    compiled = torch.compile(net)
    watch = Watch(compiled, probes=[Norms()], schedule=lambda _: True, budget=None, strict=True)
    watch.step(0)
    assert watch.trace.subjects("weights.l2_norm") == subjects


def test_the_same_seed_sees_the_same() -> None:
    torch.manual_seed(0)
    net, data = Net(), fixed_data()
    first = Watch(net, data=data, schedule=lambda _: True, budget=None, strict=True)
    first.step(5)
    second = Watch(net, data=data, schedule=lambda _: True, budget=None, strict=True)
    torch.rand(17)
    second.step(2)  # another observation first shifts nothing
    second.step(5)
    for measure, subject in first.trace.keys():  # noqa: SIM118
        a = first.trace.series(measure, subject).at(5)
        b = second.trace.series(measure, subject).at(5)
        assert a == b or (np.isnan(a) and np.isnan(b)), (measure, subject)


def quick(folder: Path | RunDirectory) -> Watch:
    return Watch(Net(), probes=[Norms()], run=folder, schedule=lambda _: True, budget=None)


def recorded(folder: Path) -> Trace:
    with RunDirectory.open(folder).trace(readonly=True) as database:
        return database.load()


def test_a_run_of_its_own_is_held_and_finished(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    watch = quick(folder)
    watch.step(3)
    watch.step(7)
    run = RunDirectory.open(folder)
    assert run.is_live()
    assert run.manifest["status"] == "running"
    watch.close()
    run = RunDirectory.open(folder)
    assert not run.is_live()
    assert run.manifest["status"] == "finished"
    assert run.manifest["reached_step"] == 7
    assert run.manifest["ended"] is not None
    assert sorted(file.name for file in folder.glob("trace*")) == ["trace.sqlite"]
    assert recorded(folder).steps().tolist() == [3, 7]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("loss went away"), "failed", "RuntimeError: loss went away"),
        (KeyboardInterrupt("Ctrl-C"), "interrupted", None),
    ],
)
def test_a_loop_that_breaks_off_says_so_in_its_run(
    tmp_path: Path, error: BaseException, status: str, message: str | None
) -> None:
    folder = tmp_path / "mine"

    def loop() -> None:
        with quick(folder) as watch:
            watch.step(2)
            raise error

    with pytest.raises(type(error), match=str(error)):
        loop()
    run = RunDirectory.open(folder)
    assert not run.is_live()
    assert run.manifest["status"] == status
    assert run.manifest["reached_step"] == 2
    assert run.manifest.get("message") == message


def test_a_run_that_is_handed_over_is_its_owners_business(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "mine", experiment="x", preset="", config={})
    with run.lock(), quick(run) as watch:  # a second lock would not be had
        watch.step(4)
    assert RunDirectory.open(run.path).manifest["status"] == "running"
    assert recorded(run.path).steps().tolist() == [4]


def test_an_occupied_folder_is_refused_with_words_for_a_loop_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    quick(folder).close()
    with pytest.raises(InputError, match=r"holds a run already.* Choose another folder") as caught:
        quick(folder)
    assert "resume" not in str(caught.value)
    assert "--out" not in str(caught.value)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    with pytest.raises(InputError, match=r"is not an empty folder.* Choose another folder"):
        quick(other)


def test_a_watch_that_cannot_begin_lets_go_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MissingResource("the disk is full")

    monkeypatch.setattr(RunDirectory, "trace", refuse)
    with pytest.raises(MissingResource, match="the disk is full") as caught:
        quick(tmp_path / "mine")
    assert caught.tb is not None  # which keeps the unborn watch from being collected
    assert not RunDirectory.open(tmp_path / "mine").is_live()


def test_a_status_that_cannot_be_written_is_contained_and_the_lock_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MissingResource("the disk is full")

    watch = quick(tmp_path / "mine")
    monkeypatch.setattr(RunDirectory, "update", refuse)
    watch.close()
    assert not RunDirectory.open(tmp_path / "mine").is_live()


def test_after_closing_nothing_happens(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    watch = quick(folder)
    watch.step(1)
    watch.close()
    assert watch.step(2) is False
    watch.observe(3, loss=1.0)
    watch.note(3, "mine", "too late")
    watch.close()
    assert watch.recording_error is None
    for trace in (watch.trace, recorded(folder)):
        assert trace.steps().tolist() == [1]
        assert trace.events == []
    assert RunDirectory.open(folder).manifest["reached_step"] == 1


def test_a_failed_observation_is_told_in_memory_and_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    watch = Watch(Net(), probes=[Broken(), Norms()], run=folder, budget=None)
    watch.observe(1)
    watch.observe(1)  # a second time at one step: the trace refuses
    watch.close()
    for trace in (watch.trace, recorded(folder)):
        kinds = [event.kind for event in trace.events]
        assert kinds == ["probe-failed", "probe-failed", "observation-failed"]
        assert "a trace only grows" in trace.events[-1].message
        assert len(trace.series("weights.l2_norm")) == 1


def test_readings_without_a_verdict_are_the_same_in_memory_and_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_trace: Trace) -> None:
        raise RuntimeError("no rule applies")

    monkeypatch.setattr("grokscope.watch.watch.judge", broken)
    with quick(tmp_path / "mine") as watch:
        watch.step(1)
    for trace in (watch.trace, recorded(tmp_path / "mine")):
        assert [event.kind for event in trace.events] == ["observation-failed"]
        assert len(trace.series("weights.l2_norm")) == 1


def test_looks_passed_over_at_the_end_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    probes = [Costly(clock, 5.0, "dear", "heavy")]
    watch = Watch(Net(), probes=probes, schedule=lambda _: True)
    for step in range(4):
        watch.step(step, loss=1.0)
    assert [event for event in watch.trace.events if event.kind == "skipped"] == []
    assert len(watch.trace.series("loss")) == 1
    watch.close()
    (told,) = watch.trace.events
    assert (told.step, told.kind) == (3, "skipped")
    assert "the last 3 observations were passed over" in told.message


@dataclass
class Warming:
    """A hundred times as dear the first time."""

    clock: Clock
    name: str = "warming"
    cost: Cost = "heavy"
    needs: frozenset[Need] = frozenset({"weights"})
    seconds: float = 1.0

    def observe(self, view: View) -> Iterable[Reading]:
        self.clock.now += self.seconds
        self.seconds = 0.01
        yield view.reading("warming.value", "model", 1.0)


def test_a_dear_first_look_does_not_starve_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    watch = Watch(Net(), probes=[Warming(clock)], schedule=lambda _: True)
    for step in range(400):
        clock.now += 1.0
        watch.step(step)
    steps = watch.trace.series("warming.value").steps
    # Two prices of 1 s, the one paid and the one expected, are 2 % of 100 s.
    assert 90 < steps[1] < 110
    assert len(steps) > 250
    assert watch.cost <= 0.02
