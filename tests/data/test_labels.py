"""data/labels.py: noise, subset and validation split, and the loaders of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInput
from data.datasets import Dataset, Split
from data.labels import check_data, load_data
from data.seeds import generator
from utils import experiment_parser, get_loaders


def parse(flags="", **defaults):
    return experiment_parser("test", **defaults).parse_args(flags.split())


def toy(labels=None, num_classes=4, valid=None, num=100):
    """A Dataset of 8x8 images whose pixels say the row; labels 0 1 2 3 0 1 ... unless given."""
    labels = np.arange(num) % num_classes if labels is None else np.asarray(labels)
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 1)
    test = Split(torch.zeros(6, 8, 8, 1, dtype=torch.uint8), np.arange(6) % num_classes)
    valid = None if valid is None else Split(torch.zeros(valid, 8, 8, 1, dtype=torch.uint8), np.zeros(valid, int))
    names = [f"class {k}" for k in range(num_classes)]
    return Dataset("toy", len(labels), names, 1, 8, Split(pixels, labels), test, valid, (0.5,), (0.25,))


def refused(flags, dataset, *texts):
    """check_data raises BadInput; each text occurs in it."""
    with pytest.raises(BadInput) as found:
        check_data(parse(flags), dataset)
    for text in texts:
        assert text in str(found.value)


def test_order_and_augmentation_follow_the_seed_each_by_a_generator_of_its_own():
    for seed in (1, 2):
        args = parse(f"--seed {seed} --data_seed 1 --batch_size 90")
        state = get_loaders(args, load_data(args, toy()))[0].state_dict()
        assert state.keys() == {"order", "augmentation"}
        for role in state:
            assert torch.equal(state[role], generator(seed, role).get_state())


# ------------------------------------------------------------------------------------------------ noise


def ny_of(flags, dataset=None):
    return load_data(parse(flags), dataset or toy()).ny


@pytest.mark.parametrize("kind", ["symmetric", "symmetric_exclusive", "pair"])
def test_noise_of_a_sample_does_not_depend_on_the_split(kind):
    noise = f"--ny_ratio .4 --ny_kind {kind} "
    whole = ny_of(noise)
    for others in ("--valid_size 0", "--valid_size 30", "--train_size 40", "--train_size 60 --valid_size .5"):
        assert np.array_equal(whole, ny_of(noise + others))


def test_teacher_and_student_see_the_same_noise_and_split_whatever_the_students_seed():
    teacher = load_data(parse("--ny_ratio .4 --train_size 80 --seed 1"), toy())
    for seed in (2, 3):  # a student's data seed is its teacher's
        student = load_data(parse(f"--ny_ratio .4 --train_size 80 --data_seed 1 --seed {seed}"), toy())
        for name in ("y", "ny", "train_idx", "valid_idx"):
            assert np.array_equal(getattr(teacher, name), getattr(student, name))
        assert teacher.fingerprints() == student.fingerprints()


def test_another_data_seed_is_other_noise_and_another_split():
    one, other = (load_data(parse(f"--ny_ratio .4 --data_seed {s}"), toy()) for s in (1, 2))
    assert not np.array_equal(one.ny, other.ny) and not np.array_equal(one.valid_idx, other.valid_idx)
    assert one.fingerprints()["y_sha256"] == other.fingerprints()["y_sha256"]
    assert one.fingerprints()["ny_sha256"] != other.fingerprints()["ny_sha256"]


def test_the_split_does_not_depend_on_the_noise():
    clean, noisy = (load_data(parse(f"--train_size 80 --ny_ratio {r}"), toy()) for r in (0, 0.9))
    assert np.array_equal(clean.train_idx, noisy.train_idx) and np.array_equal(clean.valid_idx, noisy.valid_idx)


def test_realised_noise_is_that_of_all_rows():
    assert load_data(parse("--ny_ratio .4 --ny_kind pair --train_size 20"), toy()).noise_realised == 0.4
    assert load_data(parse(), toy()).noise_realised == 0


def test_noise_is_really_trained_on_and_validated_with_but_never_tested_on():
    data = load_data(parse("--ny_ratio 1 --ny_kind pair --valid_size 20"), toy())
    train, valid, test = get_loaders(parse("--batch_size 80"), data)
    for loader in (train, valid):
        for _, y, ny, _ in loader:
            assert torch.equal(ny, (y + 1) % 4)
    for _, y, ny, _ in test:
        assert torch.equal(y, ny)


def test_labels_of_a_file_are_the_noise(tmp_path):
    labels = (np.arange(100) + 1) % 4
    np.save(tmp_path / "human.npy", labels)
    data = load_data(parse(f"--ny_file {tmp_path}/human.npy --train_size 40"), toy())
    assert np.array_equal(data.ny, labels) and np.array_equal(data.y, np.arange(100) % 4)
    assert data.noise_realised == 1


def write_marks(file, given, label, mark=None, original=None):
    """marks.csv, or with no original labels its earlier form."""
    columns = {"original_label": original, "given_label": given, "label": label, "mark": mark}
    columns = {"idx": range(len(given))} | {name: values for name, values in columns.items() if values is not None}
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    file.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("form", ["this", "earlier"])
def test_marks_are_corrections_whatever_they_were_made_from_but_not_on_other_data(tmp_path, form):
    def marks(before, label):
        write_marks(tmp_path / "marks.csv", before, label, original=y if form == "this" else None)
        return load_data(parse(f"--ny_file {tmp_path}/marks.csv"), toy(num=400))

    y = np.arange(400) % 4
    once = np.where(np.arange(400) % 10, y, (y + 1) % 4)
    twice = np.where(np.arange(400) % 7, once, (y + 2) % 4)
    for before, label in ((y, once), (once, twice), (once, once)):
        data = marks(before, label)
        assert np.array_equal(data.ny, label) and data.corrected and data.noise_realised == 0
        assert data.marks.mark.tolist() == ["right" if a != b else "" for a, b in zip(before, label, strict=True)]
        assert all(torch.equal(y, ny) for _, y, ny, _ in get_loaders(parse("--batch_size 80"), data)[0])
    assert not load_data(parse("--ny_ratio 0.5"), toy()).corrected
    y = y if form == "earlier" else np.roll(y, 1)
    with pytest.raises(BadInput, match="marks.csv"):
        marks(np.random.default_rng(0).permutation(y), twice)


def test_dropped_samples_leave_after_subset_and_validation_rows_are_drawn(tmp_path):
    y, mark = np.arange(100) % 4, np.where(np.arange(100) % 3, "", "drop")
    flags = "--train_size 60 --valid_size 20 --batch_size 10"
    before = load_data(parse(flags), toy())
    write_marks(tmp_path / "marks.csv", y, y, mark, y)
    data = load_data(parse(f"{flags} --ny_file {tmp_path}/marks.csv"), toy())
    for rows, kept in ((before.train_idx, data.train_idx), (before.valid_idx, data.valid_idx)):
        assert kept.tolist() == [i for i in rows if i % 3] and len(kept) < len(rows)
    write_marks(tmp_path / "marks.csv", y, y, ["drop"] * 95 + [""] * 5, y)
    with pytest.raises(BadInput, match="marks.csv"):
        load_data(parse(f"{flags} --ny_file {tmp_path}/marks.csv"), toy())


def test_a_ratio_and_a_file_together_are_an_error(tmp_path):
    np.save(tmp_path / "human.npy", np.arange(100) % 4)
    refused(f"--ny_file {tmp_path}/human.npy --ny_ratio .4", toy(), "--ny_file", "--ny_ratio 0.4")
    with pytest.raises(BadInput, match="--ny_ratio"):
        load_data(parse(f"--dataset digits --ny_file {tmp_path}/human.npy --ny_ratio .4"))


def test_a_label_file_that_does_not_fit_is_refused(tmp_path):
    np.save(tmp_path / "human.npy", np.arange(99) % 4)
    with pytest.raises(BadInput, match="human.npy.* 99 .* 100 "):
        load_data(parse(f"--ny_file {tmp_path}/human.npy --batch_size 50"), toy())
    with pytest.raises(BadInput, match="human.npy.* 99 .* 100 "):  # before anything is downloaded
        check_data(parse(f"--ny_file {tmp_path}/human.npy --batch_size 50"), replace(toy(), train=None, test=None))


# ----------------------------------------------------------------------------------- subset and validation split


@settings(deadline=None)
@given(
    num=st.integers(30, 120),
    train_size=st.one_of(st.none(), st.integers(4, 30)),
    valid_size=st.one_of(st.just(0), st.floats(0.3, 0.7), st.integers(1, 3)),
    seed=st.integers(0, 9),
)
def test_training_and_validation_rows_share_the_subset_between_them(num, train_size, valid_size, seed):
    size = f"--train_size {train_size} " if train_size else ""
    data = load_data(parse(f"{size}--valid_size {valid_size} --seed {seed}"), toy(num=num))
    in_use = train_size or num
    held_out = int(valid_size * in_use + 1e-9) if valid_size < 1 else valid_size
    assert (len(data.train_idx), len(data.valid_idx)) == (in_use - held_out, held_out)
    assert len(set(data.train_idx) | set(data.valid_idx)) == in_use
    for rows in (data.train_idx, data.valid_idx):
        assert rows.tolist() == sorted(rows.tolist())
    assert len(data.y) == len(data.ny) == num  # of all rows, visited or not


def test_a_tenth_is_held_out_unless_asked_otherwise():
    data = load_data(parse(), toy())
    assert len(data.valid_idx) == 10
    train, valid, _ = get_loaders(parse("--batch_size 90"), data)
    assert (train.num_samples, valid.num_samples) == (90, 10)


def test_a_share_that_is_a_whole_number_is_not_rounded_down():
    assert len(load_data(parse("--valid_size .29"), toy()).valid_idx) == 29  # .29 * 100 is 28.999999999999996


def test_classes_that_are_not_trained_on_are_known():
    labels = [0, 1, 2] * 8 + [3]
    assert load_data(parse("--valid_size 1", valid_rows="last"), toy(labels)).not_trained_on == ["class 3"]
    assert load_data(parse("--valid_size 0"), toy(labels)).not_trained_on == []
    assert load_data(parse("--valid_size 0"), toy([0, 1] * 8)).not_trained_on == ["class 2", "class 3"]


def test_valid_size_0_is_the_published_protocol():
    data = load_data(parse("--valid_size 0"), toy())
    assert len(data.valid_idx) == 0 and len(data.train_idx) == 100
    assert get_loaders(parse("--valid_size 0"), data)[1] is None


def test_validation_rows_are_random_unless_they_are_the_last_ones():
    assert load_data(parse(), toy()).valid_idx.tolist() != list(range(90, 100))
    last = load_data(parse("--valid_size 25", valid_rows="last"), toy())  # as published for CIFAR-100: the last 5,000
    assert last.valid_idx.tolist() == list(range(75, 100)) and last.train_idx.tolist() == list(range(75))


def test_a_validation_split_that_the_set_brings_is_used_instead():
    dataset = toy(valid=7)
    data = load_data(parse("--valid_size .3"), dataset)
    assert len(data.train_idx) == 100 and len(data.valid_idx) == 0
    _, valid, _ = get_loaders(parse("--valid_size .3"), data)
    assert valid.num_samples == 7
    _, y, ny, idx = next(iter(valid))
    assert torch.equal(y, ny) and idx.tolist() == list(range(7))
    assert get_loaders(parse("--valid_size 0"), data)[1] is None


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 3), min_size=8, max_size=80).map(lambda some: [0, 1, 2, 3, *some]), data=st.data()
)
def test_a_subset_has_as_equally_many_of_each_class_as_there_are(labels, data):
    size = data.draw(st.integers(4, len(labels)))
    rows = load_data(parse(f"--train_size {size} --valid_size 0"), toy(labels)).train_idx
    there, taken = np.bincount(labels), np.bincount(np.array(labels)[rows], minlength=4)
    assert len(set(rows)) == taken.sum() == size
    used_up = taken == there
    if not used_up.all():  # whoever gives fewer than the others, by more than one, gives all it has
        assert taken.max() - taken[~used_up].min() <= 1


def test_the_subset_is_balanced_by_clean_labels():
    data = load_data(parse("--train_size 40 --valid_size 0 --ny_ratio .8"), toy())
    assert np.bincount(data.y[data.train_idx]).tolist() == [10, 10, 10, 10]
    assert np.bincount(data.ny[data.train_idx], minlength=4).tolist() != [10, 10, 10, 10]


BAD_SIZES = {
    "--train_size 101": ["--train_size 101", "100"],
    "--train_size 3": ["--train_size 3", "4"],
    "--valid_size 100": ["--valid_size 100", "100"],
    "--valid_size .001": ["--valid_size 0.001"],
    "--valid_size 1.5": ["--valid_size 1.5"],
    "--batch_size 91": ["--batch_size 91", "90"],
    "--batch_size 51 --train_size 50 --valid_size 0": ["--batch_size 51", "50"],
    "--batch_size 1 --valid_size 99": ["--valid_size 99", "1"],
    "--batch_size 10 --train_size 8 --valid_size 8": ["--valid_size 8"],
}


@pytest.mark.parametrize(("flags", "texts"), BAD_SIZES.items())
def test_sizes_that_do_not_fit_are_refused(flags, texts):
    refused(flags, toy(), *texts)


def test_one_class_is_not_enough():
    refused("--batch_size 5", toy([0] * 20, num_classes=1), "--dataset")


def test_few_samples_of_many_classes_are_not_blamed_on_a_flag_that_was_not_given():
    check_data(parse("--batch_size 2"), toy([0, 1, 5] * 5, num_classes=20))
