"""A trace comes back exactly, is readable meanwhile, and survives what disks and people do."""

import contextlib
import inspect
import math
import os
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grokscope.errors import InputError, MissingResource
from grokscope.store.records import ArrayReading, Cost, Event, Reading, Verdict
from grokscope.store.trace_database import TraceDatabase


def observation(step, readings=10):
    numbers = [Reading(step, f"measure.{i}", "model", step + i / 8) for i in range(readings)]
    array = ArrayReading(step, "spectrum.eigenvalues", "fc1", np.arange(2000.0) + step)
    return {
        "readings": [*numbers, array],
        "verdicts": [Verdict(step, "observed", "fitting", 0, f"accuracy at {step}")],
        "events": [Event(step, "probe-failed", "why")],
        "costs": [Cost(step, "training", 0.25)],
    }


def create(path, steps=(0, 10, 20)):
    with TraceDatabase.create(path) as database:
        for step in steps:
            database.record(**observation(step))


def load(path):
    with TraceDatabase.open(path, readonly=True) as database:
        return database.load()


def all_series(trace):
    names = trace.keys()
    return {name: trace.series(*name) for name in names}


def content(trace):
    """Everything in a trace, comparable bit by bit."""
    series = {
        name: (s.steps.tobytes(), s.values.tobytes(), s.notes)
        for name, s in all_series(trace).items()
    }
    arrays = {
        (step, *key): (a.shape, a.tobytes())
        for key in [("spectrum.eigenvalues", "fc1")]
        for step in trace.array_steps(*key)
        for a in [trace.array(*key, step)]
    }
    return list(series.items()), arrays, trace.verdicts, trace.events, trace.costs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace.sqlite"


def test_everything_comes_back_in_order_and_one_file_is_left(path):
    create(path)
    assert os.listdir(path.parent) == ["trace.sqlite"]
    trace = load(path)
    assert trace.keys() == [(f"measure.{i}", "model") for i in range(10)]
    assert trace.steps().tolist() == [0, 10, 20]
    assert trace.series("measure.3").values.tolist() == [0.375, 10.375, 20.375]
    np.testing.assert_array_equal(
        trace.array("spectrum.eigenvalues", "fc1", 10), np.arange(2000.0) + 10
    )
    assert trace.verdicts[1] == Verdict(10, "observed", "fitting", 0, "accuracy at 10")
    assert trace.events[2] == Event(20, "probe-failed", "why")
    assert trace.costs[0] == Cost(0, "training", 0.25)
    assert os.listdir(path.parent) == ["trace.sqlite"]


def test_special_numbers_come_back_bit_by_bit(path):
    values = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1.0, 5e-324, 1.7976931348623157e308, 0.1]
    array = np.array(values).reshape(3, 3)
    with TraceDatabase.create(path) as database:
        database.record(
            [
                *(Reading(i, "m", "s", value, "why" * i) for i, value in enumerate(values)),
                ArrayReading(0, "a", "s", array),
                ArrayReading(1, "a", "s", np.array(-0.0)),
                ArrayReading(2, "a", "s", np.empty((0, 4))),
                ArrayReading(3, "a", "s", array.T),
            ]
        )
    trace = load(path)
    assert trace.series("m", "s").values.tobytes() == np.array(values).tobytes()
    assert trace.series("m", "s").notes == tuple("why" * i for i in range(len(values)))
    for step, expected in enumerate([array, np.array(-0.0), np.empty((0, 4)), array.T]):
        back = trace.array("a", "s", step)
        assert back.shape == expected.shape
        assert back.tobytes() == expected.tobytes()
        assert back.dtype == np.float64
        assert back.flags.writeable


TEXT = st.text(max_size=12)
READINGS = st.dictionaries(
    st.tuples(st.integers(0, 10**12), TEXT, TEXT), st.tuples(st.floats(), TEXT), max_size=20
)
ARRAYS = st.dictionaries(
    st.tuples(st.integers(0, 10**12), TEXT, TEXT),
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, min_side=0, max_side=3)),
    max_size=3,
)


@settings(max_examples=25, deadline=None)
@given(readings=READINGS, arrays=ARRAYS)
def test_any_reading_comes_back(readings, arrays):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.sqlite"
        with TraceDatabase.create(path) as database:
            database.record([Reading(*key, *value) for key, value in sorted(readings.items())])
            database.record([ArrayReading(*key, array) for key, array in sorted(arrays.items())])
        trace = load(path)
    assert sum(map(len, all_series(trace).values())) == len(readings)
    for (step, *name), (value, note) in readings.items():
        series = trace.series(*name)
        index = series.steps.tolist().index(step)
        back = float(series.values[index])
        assert series.notes[index] == note
        assert (math.isnan(back) and math.isnan(value)) or struct.pack("d", back) == struct.pack(
            "d", value
        )
    for (step, *name), array in arrays.items():
        assert trace.array(*name, step).tobytes() == array.tobytes()
        assert trace.array(*name, step).shape == array.shape


def test_numpy_numbers_are_numbers(path):
    with TraceDatabase.create(path) as database:
        database.record(
            [Reading(np.int64(3), "m", "s", np.float32(0.5))],
            costs=[Cost(np.int64(3), "training", np.float64(1))],
        )
    assert load(path).series("m", "s").values.tolist() == [0.5]


def test_the_writer_reads_what_it_wrote(path):
    with TraceDatabase.create(path) as database:
        database.record(**observation(0))
        live = content(database.load())
        database.record(**observation(1))
        assert database.load().steps().tolist() == [0, 1]
    with TraceDatabase.open(path, readonly=False) as database:
        database.record(**observation(2))
    trace = load(path)
    assert trace.steps().tolist() == [0, 1, 2]
    assert content(trace)[0][0][1][0][:8] == live[0][0][1][0]


def test_an_observation_is_recorded_whole_or_not_at_all(path):
    with TraceDatabase.create(path) as database:
        database.record(**observation(0))
        before = content(database.load())
        twice = [Reading(1, "new", "model", 1.0), Reading(0, "measure.3", "model", 2.0)]
        with pytest.raises(ValueError, match=r"expected one reading of each measure.*only grows"):
            database.record(twice, events=[Event(1, "kind", "message")])
        with pytest.raises(
            ValueError, match=r"eigenvalues of fc1: expected a float64.*got float32"
        ):
            database.record(
                [
                    Reading(1, "new", "model", 1.0),
                    ArrayReading(1, "spectrum.eigenvalues", "fc1", np.ones(2, np.float32)),
                ]
            )
        assert content(database.load()) == before
        database.record([Reading(1, "new", "model", 1.0)])
    assert load(path).series("new").values.tolist() == [1.0]


def test_a_reader_and_a_closed_writer_do_not_write(path):
    create(path)
    with (
        TraceDatabase.open(path, readonly=True) as reader,
        pytest.raises(ValueError, match=r"expected a trace open for writing"),
    ):
        reader.record(**observation(30))
    writer = TraceDatabase.open(path, readonly=False)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match=r"expected a trace open for writing"):
        writer.truncate_after(0)


def test_truncation_and_repetition_equal_an_undisturbed_run(tmp_path):
    def late(step):  # a series that begins late, and in another place
        seen = observation(step)
        if step >= 20:
            seen["readings"].insert(2, Reading(step, "late", "model", 1.0))
            seen["readings"].append(Reading(step, "later", "model", 1.0))
        return seen

    for name, steps in (("whole", (0, 10, 20, 30)), ("cut", (0, 10, 20))):
        with TraceDatabase.create(tmp_path / name) as database:
            for step in steps:
                database.record(**late(step))
    with TraceDatabase.open(tmp_path / "cut", readonly=False) as database:
        database.truncate_after(10)
        cut = database.load()
        assert cut.steps().tolist() == [0, 10]
        assert cut.array_steps("spectrum.eigenvalues", "fc1") == [0, 10]
        assert [v.step for v in cut.verdicts] == [0, 10]
        assert [c.step for c in cut.costs] == [0, 10]
        assert [e.step for e in cut.events] == [0, 10, 20]  # what happened, happened
        for step in (20, 30):
            database.record(**late(step))
    whole, again = content(load(tmp_path / "whole")), content(load(tmp_path / "cut"))
    assert whole[:3] == again[:3]
    assert whole[4] == again[4]
    with TraceDatabase.open(tmp_path / "cut", readonly=False) as database:
        database.truncate_after(-1)
        assert len(database.load().steps()) == 0
        database.record(**late(0))
        assert database.load().steps().tolist() == [0]


def test_truncation_of_steps_out_of_order_keeps_names_apart(path):
    with TraceDatabase.create(path) as database:
        database.record([Reading(100, "first", "s", 1.0)])
        database.record([Reading(50, "second", "s", 2.0)])
        database.truncate_after(60)
        database.record([Reading(70, "third", "s", 3.0)])
        trace = database.load()
    assert trace.keys() == [("second", "s"), ("third", "s")]
    assert trace.series("third", "s").values.tolist() == [3.0]


# --- while the run goes on, and after it was killed ---------------------------------------------

WRITER = """
import itertools, sys, time
from pathlib import Path
import numpy as np
from grokscope.store.records import ArrayReading, Cost, Event, Reading, Verdict
from grokscope.store.trace_database import TraceDatabase

{observation}

path, steps = Path(sys.argv[1]), int(sys.argv[2])
new = not path.exists()
with TraceDatabase.create(path) if new else TraceDatabase.open(path, readonly=False) as database:
    first = len(database.load().steps())
    for step in range(first, first + steps):
        database.record(**observation(step))
        print(step, flush=True)
        time.sleep(0.001)
"""


def start_writer(path, steps):
    program = WRITER.format(observation=inspect.getsource(observation))
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(steps)], stdout=subprocess.PIPE, text=True
    )


def test_a_reader_sees_whole_observations_while_another_process_writes(path):
    with start_writer(path, 150) as writer:
        writer.stdout.readline()
        seen = 0
        looks = 0
        while writer.poll() is None:
            trace = load(path)
            looks += 1
            steps = trace.steps()
            assert len(steps) >= seen
            seen = len(steps)
            assert steps.tolist() == list(range(seen))
            assert all(len(series) == seen for series in all_series(trace).values())
            assert len(trace.verdicts) == len(trace.costs) == seen
            assert len(trace.array_steps("spectrum.eigenvalues", "fc1")) == seen
            time.sleep(0.005)  # as a page that refreshes, or the writer could not tidy up
        assert writer.returncode == 0
    assert looks > 3
    assert load(path).steps().tolist() == list(range(150))
    # A reader that was there when the writer left keeps its log alive; the next writer tidies up.
    TraceDatabase.open(path, readonly=False).close()
    assert os.listdir(path.parent) == ["trace.sqlite"]


def test_what_record_returned_from_survives_kill_9(path):
    acknowledged = -1
    for _ in range(4):
        with start_writer(path, 10**6) as writer:
            for _ in range(25):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            acknowledged = int(([acknowledged, *writer.stdout.read().split()])[-1])
        trace = load(path)
        steps = trace.steps().tolist()
        assert steps == list(range(len(steps)))
        assert len(steps) > acknowledged
        assert all(len(series) == len(steps) for series in all_series(trace).values())


def kill_in_mid_run(path, beside=("-wal",)):
    """Leave what a killed process leaves: the log is not folded into the file."""
    with TraceDatabase.create(path) as database:
        database.record(**observation(0))
        keep = path.parent / "kept"
        keep.mkdir()
        for suffix in ("", *beside):
            shutil.copy(path.with_name(path.name + suffix), keep)
    for file in keep.iterdir():
        shutil.move(file, path.parent / file.name)
    keep.rmdir()
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def test_a_killed_run_is_continued_from_its_log(path):
    kill_in_mid_run(path)
    with TraceDatabase.open(path, readonly=False) as database:
        assert database.load().steps().tolist() == [0]
        database.record(**observation(1))
    assert load(path).steps().tolist() == [0, 1]
    assert os.listdir(path.parent) == ["trace.sqlite"]


def test_a_reader_in_the_same_process_does_not_break_the_writers_locks(path):
    """Closing any descriptor of a file drops this process's POSIX locks on it."""
    with TraceDatabase.create(path) as writer:
        writer.record(**observation(0))
        for _ in range(2):
            assert load(path).steps().tolist() == [0]
        program = (
            "import sqlite3, sys\n"
            "c = sqlite3.connect(sys.argv[1])\n"
            "c.execute('SELECT count(*) FROM reading').fetchone()\n"
            "c.close()\n"
        )  # another process that, believing itself the last, would remove the log
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)
        assert path.with_name(path.name + "-wal").exists()
        writer.record(**observation(1))
    assert load(path).steps().tolist() == [0, 1]


def test_a_stubborn_reader_only_delays_the_tidying(path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    database = TraceDatabase.create(path)
    database.record(**observation(0))
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT * FROM reading").fetchone()
        database.close()
        assert load(path).steps().tolist() == [0]
    assert load(path).steps().tolist() == [0]


def test_a_second_writer_is_refused(path, monkeypatch):
    monkeypatch.setattr("grokscope.store._sqlite._WAIT_SECONDS", 0.05)
    create(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MissingResource, match=r"being written by another process.*Wait"):
            TraceDatabase.open(path, readonly=False)
        other.execute("ROLLBACK")
    assert load(path).steps().tolist() == [0, 10, 20]


# --- read-only folders --------------------------------------------------------------------------


@pytest.fixture
def sealed():
    """A folder, and a context in which this process cannot write there, also when it is root."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()

    @contextlib.contextmanager
    def seal():
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        try:
            if user == 0:
                os.seteuid(65534)  # permissions do not bind root
            yield
        finally:
            os.seteuid(user)
            folder.chmod(0o755)

    yield folder, seal
    shutil.rmtree(folder)


def test_a_finished_run_is_read_from_a_read_only_folder(sealed):
    folder, seal = sealed
    create(folder / "trace.sqlite")
    with seal():
        assert load(folder / "trace.sqlite").steps().tolist() == [0, 10, 20]
    assert os.listdir(folder) == ["trace.sqlite"]


@pytest.mark.parametrize("beside", [["-wal"], ["-wal", "-shm"]])
def test_a_killed_run_is_read_from_a_read_only_folder_but_not_written(sealed, beside):
    folder, seal = sealed
    kill_in_mid_run(folder / "trace.sqlite", beside)
    names = sorted(os.listdir(folder))
    with seal():
        assert load(folder / "trace.sqlite").steps().tolist() == [0]
        with pytest.raises(MissingResource, match=r"trace\.sqlite cannot be written .*--out"):
            TraceDatabase.open(folder / "trace.sqlite", readonly=False)
    assert sorted(os.listdir(folder)) == names


@pytest.mark.parametrize("read_only", [False, True])
def test_a_log_that_is_gone_leaves_no_files_behind(sealed, read_only):
    """Some programs fold the log in but leave the mark that there is one."""
    folder, seal = sealed
    path = folder / "trace.sqlite"
    create(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
    assert path.read_bytes()[18] == 2
    with seal() if read_only else contextlib.nullcontext():
        assert load(path).steps().tolist() == [0, 10, 20]
    assert os.listdir(folder) == ["trace.sqlite"]


def test_writing_to_a_read_only_folder_is_refused(sealed):
    folder, seal = sealed
    create(folder / "trace.sqlite")
    before = (folder / "trace.sqlite").read_bytes()
    with seal():
        with pytest.raises(MissingResource, match=r"trace\.sqlite cannot be written .*--out"):
            TraceDatabase.open(folder / "trace.sqlite", readonly=False)
        with pytest.raises(MissingResource, match=r"new\.sqlite cannot be written .*--out"):
            TraceDatabase.create(folder / "new.sqlite")
    assert (folder / "trace.sqlite").read_bytes() == before
    assert os.listdir(folder) == ["trace.sqlite"]


def test_a_trace_that_may_not_be_read_is_told(sealed):
    folder, seal = sealed
    path = folder / "trace.sqlite"
    create(path)
    with seal():
        os.seteuid(os.getuid())
        path.chmod(0o000)
        if os.getuid() == 0:
            os.seteuid(65534)
        with pytest.raises(InputError, match=r"trace\.sqlite cannot be read .*permissions"):
            TraceDatabase.open(path, readonly=True)


# --- full disks ---------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_was_there(path):
    database = TraceDatabase.create(path)
    database.record(**observation(0))
    before = content(database.load())
    pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = ArrayReading(1, "spectrum.eigenvalues", "fc1", np.zeros(100_000))
    with pytest.raises(MissingResource, match=r"No room to write .*trace\.sqlite.*free some space"):
        database.record([Reading(1, "new", "model", 1.0), big])
    assert content(database.load()) == before
    database._connection.execute("PRAGMA max_page_count = 1000000")
    database.record([Reading(1, "new", "model", 1.0), big])
    database.close()
    assert load(path).series("new").values.tolist() == [1.0]
    assert os.listdir(path.parent) == ["trace.sqlite"]


def test_a_real_limit_of_the_system_keeps_what_was_there(path):
    database = TraceDatabase.create(path)
    database.record(**observation(0))
    before = content(database.load())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(
            MissingResource, match=r"Writing .*trace\.sqlite failed .*check the disk"
        ):
            database.record([ArrayReading(1, "big", "fc1", np.zeros(100_000))])
        assert content(database.load()) == before
        database.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(load(path)) == before


def test_a_file_system_without_shared_memory_is_refused(path, monkeypatch):
    create(path)
    real = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda name, **options: real(name + "&vfs=unix-none", **options)
    )
    with pytest.raises(MissingResource, match=r"cannot be shared between processes.*local disk"):
        TraceDatabase.open(path, readonly=False)
    monkeypatch.undo()
    assert load(path).steps().tolist() == [0, 10, 20]


# --- damaged and foreign files ------------------------------------------------------------------


def assert_refused_and_untouched(path, message):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    for readonly in (True, False):
        with pytest.raises(InputError, match=message):
            TraceDatabase.open(path, readonly=readonly).load()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_missing(path):
    with pytest.raises(InputError, match=r"There is no trace at .*Is .* the folder of a run"):
        TraceDatabase.open(path, readonly=False)
    path.mkdir()
    with pytest.raises(InputError, match=r"There is no trace at"):
        TraceDatabase.open(path, readonly=True)


def test_an_existing_file_is_not_made_anew(path):
    create(path)
    with pytest.raises(InputError, match=r"trace\.sqlite exists already.*--out"):
        TraceDatabase.create(path)
    assert load(path).steps().tolist() == [0, 10, 20]


def test_an_interrupted_creation_is_made_anew(path):
    path.with_name(".trace.sqlite.partial").write_bytes(b"half a database")
    create(path)
    assert os.listdir(path.parent) == ["trace.sqlite"]


def test_the_log_of_a_trace_that_is_gone_is_not_replayed(path):
    kill_in_mid_run(path)
    path.unlink()
    with TraceDatabase.create(path) as database:
        assert len(database.load().steps()) == 0
    assert os.listdir(path.parent) == ["trace.sqlite"]


@pytest.mark.parametrize("junk", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000, b"hello"])
def test_garbage(path, junk):
    path.write_bytes(junk)
    assert_refused_and_untouched(path, r"trace\.sqlite (is damaged|is not a trace).*--out")


def test_an_empty_file(path):
    path.write_bytes(b"")
    assert_refused_and_untouched(path, r"not a trace of grokscope: it is empty.*move it away")


@pytest.mark.parametrize("wal", [False, True])
def test_another_programs_database(path, wal):
    with contextlib.closing(sqlite3.connect(path)) as other:
        if wal:
            other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE reading (step)")
        other.commit()
    assert_refused_and_untouched(path, r"not a trace of grokscope.*another program's")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (99, r"schema version 99, .* reads 1\. Install a newer"),
        (0, r"version 0, .*run\.json names"),
    ],
)
def test_another_schema_version(path, version, message):
    create(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {version}")
    assert_refused_and_untouched(path, message)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.99])
def test_truncated(path, share):
    create(path, range(40))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert_refused_and_untouched(path, r"trace\.sqlite is damaged \(.*Restore it from a copy")


@pytest.mark.parametrize("junk", [bytes(4096), b"\xff" * 4096, None])
def test_any_overwritten_page(path, junk):
    with TraceDatabase.create(path) as database:
        for step in range(12):
            database.record(**observation(step))
        database.record(
            [ArrayReading(12, "long", "fc1", np.random.default_rng(0).normal(size=3000))]
        )
    whole = path.read_bytes()
    pages = len(whole) // 4096
    assert pages > 15
    junk = np.random.default_rng(1).bytes(4096) if junk is None else junk
    for page in range(pages):
        path.write_bytes(whole[: page * 4096] + junk + whole[(page + 1) * 4096 :])
        with pytest.raises(InputError, match=r"trace\.sqlite is (damaged|not a trace)"):
            load(path)


def test_a_flipped_bit_in_an_array(path):
    with TraceDatabase.create(path) as database:
        database.record([ArrayReading(0, "a", "s", np.full(10, 0.1))])
    whole = path.read_bytes()
    place = whole.index(struct.pack("<d", 0.1))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(InputError, match=r"is damaged \(an array does not match its checksum\)"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE cost",
        "DELETE FROM series",
        "UPDATE array SET shape = '[7, 7]'",
        "UPDATE reading SET value = x'00'",
        "UPDATE event SET message = CAST(x'ff' AS TEXT)",
    ],
)
def test_content_that_makes_no_sense(path, change):
    create(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(change)
        other.commit()
    with pytest.raises(InputError, match=r"trace\.sqlite is damaged"):
        load(path)


@pytest.mark.parametrize("name", ["a?b#c %41&mode=rw", "späte Phase", "'quoted\""])
def test_any_folder_name_works(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    create(folder / "trace.sqlite")
    assert load(folder / "trace.sqlite").steps().tolist() == [0, 10, 20]
    assert os.listdir(folder) == ["trace.sqlite"]
    assert os.listdir(tmp_path) == [name]


def test_a_relative_path_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create(Path("trace.sqlite"))
    assert load(Path("trace.sqlite")).steps().tolist() == [0, 10, 20]
