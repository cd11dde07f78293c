"""The configuration of a classifier in training: the identity of its run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class ClassifierConfig(BaseModel):
    """A ReLU network that learns to classify a small part of a data set.

    Everything that decides the outcome of a run stands here and nowhere else. Two runs with equal
    configurations, on the same machine and versions, are equal bit for bit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: Literal["digits", "mnist"] = Field(description="Data set.")
    n_train: PositiveInt = Field(description="Training points.")
    n_test: PositiveInt | None = Field(None, description="Test points; all that remain if unset.")
    subset: Literal["stratified", "first"] = Field(
        "stratified", description="How training points are chosen: equally many a class, or first."
    )
    permuted_labels: bool = Field(
        False, description="Control: permute the training labels, so that nothing can be learnt."
    )
    hidden: tuple[PositiveInt, ...] = Field(description="Widths of the hidden layers.")
    init_scale: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Every parameter of the default initialisation is multiplied by this."
    )
    loss: Literal["mse", "cross-entropy"] = Field(
        "mse", description="Mean squared error on one-hot targets (mean over outputs too), or CE."
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="Optimiser.")
    lr: Annotated[float, Field(gt=0)] = Field(description="Learning rate, at its height.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant",
        description="Learning rate over the run; cosine would reach zero after the last step.",
    )
    warmup: Annotated[int, Field(ge=0)] = Field(
        0, description="Steps over which the learning rate rises linearly from zero."
    )
    momentum: Fraction = Field(0.0, description="Momentum, SGD only.")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam's decay rates.")
    eps: Annotated[float, Field(gt=0)] = Field(1e-8, description="Adam's epsilon.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Decoupled for adamw; coupled (added to the gradient) for adam and sgd."
    )
    norm_growth: Annotated[float, Field(ge=0)] = Field(
        0.0, description="delta of the norm-growing loss L - delta * sum of squared parameters."
    )
    batch_size: PositiveInt = Field(description="Training points a step.")
    replacement: bool = Field(
        False, description="Draw each batch independently, rather than reshuffle every epoch."
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="Precision of training.")
    steps: PositiveInt = Field(description="Optimiser steps.")
    observations: Annotated[int, Field(ge=2)] = Field(
        160, description="How often the run is observed, log-spaced over its steps."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="Root of all randomness: initialisation, subset, batches, measures."
    )

    @field_validator("hidden", mode="before")
    @classmethod
    def _one_width(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _fits_together(self) -> ClassifierConfig:
        if self.batch_size > self.n_train and not self.replacement:
            raise ValueError(
                f"batch_size {self.batch_size} exceeds n_train {self.n_train}; "
                "draw with replacement, or make the batch smaller."
            )
        if self.warmup > self.steps:
            raise ValueError(f"warmup {self.warmup} exceeds steps {self.steps}.")
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError(f"momentum is an option of sgd, not of {self.optimizer}.")
        return self
