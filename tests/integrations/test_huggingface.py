"""The mixin for transformers' Trainer: the paths of a plain loop, and a run that it changes in nothing."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers", reason="pip install -r requirements-dev.txt")
pytest.importorskip("accelerate", reason="pip install -r requirements-dev.txt")

from transformers import (  # noqa: E402
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from integrations.huggingface import LearningPaths  # noqa: E402
from integrations.indexed import IndexedDataset  # noqa: E402
from paths.recorder import PathRecorder  # noqa: E402
from supervision.losses import distillation_loss  # noqa: E402
from supervision.table import PredictionTable  # noqa: E402
from supervision.targets import sharpen  # noqa: E402

from .conftest import EPOCHS, Images, K, N, Texts  # noqa: E402


class RecordingTrainer(LearningPaths, Trainer):
    pass


def bert(kind=BertForSequenceClassification, dropout=0.0, **settings):
    torch.manual_seed(0)
    sizes = dict(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    drop = dict(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return kind(BertConfig(**sizes, **drop, max_position_embeddings=8, num_labels=K, **settings))


def resnet():
    torch.manual_seed(0)
    sizes = dict(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=K))


def mean_loss(outputs, labels, num_items_in_batch=None):
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    return F.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch


@pytest.fixture
def settings(tmp_path):
    """settings(**more): TrainingArguments of a quick run on the CPU."""

    def make(**more):
        quiet = dict(
            output_dir=str(tmp_path / "out"),
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
        )
        sizes = dict(num_train_epochs=EPOCHS, per_device_train_batch_size=8, learning_rate=0.5, max_grad_norm=0)
        plain = dict(optim="sgd", lr_scheduler_type="constant")
        return TrainingArguments(**{**quiet, **sizes, **plain, **more})

    return make


# ------------------------------------------------------------------------------------- beside a plain loop


@pytest.mark.parametrize("model, data", [(bert, Texts), (resnet, Images)])
def test_the_path_and_the_table_are_those_of_a_plain_loop_and_evaluations_are_not_in_them(
    model, data, plain_loop, observers, read, settings
):
    expected, average = plain_loop(model(), data())
    recorder, table = observers("trainer")
    args = settings(train_sampling_strategy="sequential", eval_strategy="steps", eval_steps=3)
    sets = dict(train_dataset=IndexedDataset(data()), eval_dataset=IndexedDataset(data(20, seed=1)))
    RecordingTrainer(model(), args, **sets, recorder=recorder, table=table).train()
    recorder.close()
    assert expected.any(2).all() and np.abs(np.diff(expected, axis=1)).max() > 0.05
    np.testing.assert_array_equal(read("trainer"), expected)
    assert torch.equal(table.values, average.values)


def test_gradient_accumulation_records_each_part_of_a_batch(plain_loop, observers, read, settings):
    expected, average = plain_loop(bert(), Texts(), batch_size=8)
    recorder, table = observers("trainer")
    parts = dict(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    args, data = settings(train_sampling_strategy="sequential", **parts), IndexedDataset(Texts())
    # with a loss of its own: this model's is not divided by the number of parts
    RecordingTrainer(bert(), args, None, data, compute_loss_func=mean_loss, recorder=recorder, table=table).train()
    recorder.close()
    np.testing.assert_allclose(read("trainer"), expected, atol=1e-3)
    torch.testing.assert_close(table.values, average.values, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------- with and without it


@pytest.mark.parametrize(
    "model, more",
    [
        ({}, {}),
        ({"return_dict": False}, {"weight_decay": 0.1, "max_grad_norm": 1.0}),
        ({}, {"gradient_accumulation_steps": 3, "remove_unused_columns": False}),
        ({}, {"label_smoothing_factor": 0.2, "gradient_accumulation_steps": 3}),
        ({}, {"compute_loss_func": mean_loss, "gradient_accumulation_steps": 3}),
        pytest.param({}, {"torch_compile": True, "torch_compile_backend": "eager"}, marks=pytest.mark.long),
        ({}, {"train_sampling_strategy": "group_by_length", "bf16": True}),
    ],
    ids=lambda v: "-".join(v) or "plain",
)
def test_a_run_with_it_is_the_run_without_it(model, more, observers, read, settings):
    recorder, table = observers("trainer")
    loss = {"compute_loss_func": more.pop("compute_loss_func", None)}
    args = settings(eval_strategy="epoch", **more)
    runs = []
    for kind, wrap, extra in (
        (Trainer, lambda data: data, {}),
        (RecordingTrainer, IndexedDataset, {"recorder": recorder, "table": table}),
    ):
        network = bert(dropout=0.1, **model)
        sets = dict(train_dataset=wrap(Texts()), eval_dataset=wrap(Texts(20, seed=1)))
        trainer = kind(network, copy.deepcopy(args), **sets, **loss, **extra)
        trainer.train()
        predicted = trainer.predict(wrap(Texts(20, seed=1))).predictions
        said = [
            {k: v for k, v in row.items() if "runtime" not in k and "per_second" not in k}
            for row in trainer.state.log_history
        ]
        runs.append((network.state_dict(), predicted, said))
    recorder.close()
    (weights, predicted, said), (theirs, predicted_too, said_too) = runs
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)
    np.testing.assert_array_equal(predicted, predicted_too)
    assert said == said_too and any("eval_loss" in row for row in said)
    path = read("trainer")
    np.testing.assert_allclose(path.astype(np.float32).sum(2), 1, atol=2e-3)
    assert table.visited.all()


# ---------------------------------------------------------------------------------------------- what is left out


def test_samples_without_a_label_are_left_out(observers, read, settings):
    data = Texts()
    data.labels[::4] = -100
    recorder, table = observers("trainer")
    RecordingTrainer(bert(), settings(), train_dataset=IndexedDataset(data), recorder=recorder, table=table).train()
    recorder.close()
    labelled = data.labels >= 0
    assert read("trainer")[labelled].any(2).all() and not read("trainer")[~labelled].any()
    np.testing.assert_array_equal(table.visited.numpy(), labelled)


class Tokens(Texts):
    """A row for each token that has a label: the first four of a text."""

    def __getitem__(self, i):
        rows, labels = np.full(6, -1), np.full(6, -100)
        rows[:5], labels[:4] = 5 * i + np.arange(5), self.tokens[i, :4] % K
        return {"input_ids": self.tokens[i], "labels": labels, "idx": rows}


def test_tokens_have_a_row_each_and_padding_has_none(tmp_path, settings):
    table, model = PredictionTable(5 * N, K, 0.5), bert(BertForTokenClassification)
    with PathRecorder(tmp_path / "p.npy", 5 * N, 1, K, dtype="float32") as recorder:
        args = settings(num_train_epochs=1, learning_rate=0.0)
        RecordingTrainer(model, args, train_dataset=Tokens(), recorder=recorder, table=table).train()
    expected = model(torch.tensor(Tokens().tokens)).logits.softmax(2).detach()[:, :5]
    expected[:, 4] = 0  # which has a row and no label
    np.testing.assert_allclose(np.load(tmp_path / "p.npy")[:, 0], expected.flatten(0, 1), atol=1e-6)
    assert table.visited.view(N, 5).all(0).tolist() == [True] * 4 + [False]


def test_a_training_set_without_rows_is_told(observers, settings):
    recorder, _ = observers("trainer")
    with pytest.raises(KeyError, match="IndexedDataset"):
        RecordingTrainer(bert(), settings(), train_dataset=Texts(), recorder=recorder).train()


# ---------------------------------------------------------------------------------------------------- to be resumed


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **more):
        if state.global_step == self.step:
            raise InterruptedError


@pytest.mark.parametrize("save_steps", [5, 7])  # 7 steps an epoch
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(save_steps, observers, read, settings, tmp_path):
    def run(name, resume=False, callbacks=()):
        recorder, table = observers(name, resume)
        args = settings(output_dir=str(tmp_path / name), save_strategy="steps", save_steps=save_steps)
        trained = bert(dropout=0.1)
        sets = dict(train_dataset=IndexedDataset(Texts()), callbacks=list(callbacks))
        trainer = RecordingTrainer(trained, args, **sets, recorder=recorder, table=table)
        trainer.train(resume_from_checkpoint=resume)
        recorder.close()
        return trained.state_dict(), table

    weights, table = run("whole")
    with pytest.raises(InterruptedError):
        run("cut", callbacks=[Stop(save_steps + 3)])
    resumed, table_too = run("cut", resume=True)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    np.testing.assert_array_equal(read("cut"), read("whole"))
    assert torch.equal(table.values, table_too.values)


# ------------------------------------------------------------------------------------------------------- a student


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_student_is_taught_by_the_tables_rows_and_evaluated_by_labels(accumulation, settings):
    generator = torch.Generator().manual_seed(0)
    table = PredictionTable(N, K, 0.5)
    table.update(torch.arange(N), torch.rand(N, K, generator=generator).softmax(1))

    def loss(outputs, labels, num_items_in_batch=None):
        target = labels if trainer.idx is None else table.values[trainer.idx]
        return F.cross_entropy(outputs.logits, target, reduction="sum") / num_items_in_batch

    args = settings(
        train_sampling_strategy="sequential",
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        eval_strategy="epoch",
    )
    sets = dict(train_dataset=IndexedDataset(Texts()), eval_dataset=IndexedDataset(Texts(20, seed=1)))
    trainer = RecordingTrainer(bert(), args, **sets, compute_loss_func=loss)
    trainer.train()

    student, data = bert(), Texts()
    optimizer = torch.optim.SGD(student.parameters(), 0.5)
    for _ in range(EPOCHS):
        for idx in torch.arange(N).split(8):
            logits = student(torch.tensor(data.tokens[idx])).logits
            optimizer.zero_grad()
            (distillation_loss(logits, sharpen(table.values[idx], 1.0), 1.0) / 2).backward()  # the 2 is the paper's
            optimizer.step()
    for mine, theirs in zip(trainer.model.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    others = Texts(20, seed=1)
    logits = trainer.model.eval()(torch.tensor(others.tokens)).logits
    expected = F.cross_entropy(logits, torch.tensor(others.labels)).item()
    assert trainer.state.log_history[-2]["eval_loss"] == pytest.approx(expected, rel=1e-4)
