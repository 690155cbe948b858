"""Sections of `twinned.training.config.TrainConfig`: options with their types, defaults and descriptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _as_int(value: Any) -> Any:
    """Convert digits from a command line, for options with a few allowed numbers."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Section(BaseModel):
    """Base class: immutable, refuses unknown options."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(Section):
    """Size and preparation of the images; see `twinned.data.preprocessing.ImageSpec`."""

    height: int = Field(96, ge=8, le=2048, description="Height of the network's input, in pixels")
    width: int = Field(96, ge=8, le=2048, description="Width of the network's input, in pixels")
    channels: Annotated[Literal[1, 3], BeforeValidator(_as_int)] = Field(
        3, description="1 for gray images, 3 for color images"
    )
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch", description="Handling of images with another aspect ratio"
    )
    ink: Literal["none", "binary", "grey"] = Field(
        "none", description="Extraction of dark ink from its background, for handwriting"
    )


class EncoderConfig(Section):
    """The network that maps an image to an embedding."""

    name: str = Field("conv4", description="Name of the encoder")
    embedding_size: int | None = Field(
        None, ge=2, le=8192, description="Number of values of an embedding; none for the encoder's own"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the last feature map in training")
    symmetric: bool = Field(False, description="Average the features of an image and of its mirror image")
    weights: str | None = Field(None, description="File of weights (safetensors) to start from")


class Transfer(Section):
    """Adaptation of an encoder that has been trained before."""

    freeze: str = Field(
        "none", description="Number of stages to freeze, counted from the input; or all, or none"
    )
    freeze_batchnorm: bool = Field(False, description="Keep the running statistics of batch normalization")
    projection: Literal["gradient", "lda"] = Field(
        "gradient", description="Fit of the embedding layer: by gradient descent, or in closed form (LDA)"
    )
    shrinkage: float = Field(1.0, gt=0, description="Regularization of the closed-form projection")
    n_augmentations: int = Field(
        6, ge=0, le=1000, description="Augmented copies of each image in the cache of frozen features"
    )


class Comparison(Section):
    """The distance between two embeddings."""

    head: str = Field("distance", description="Plain distance or a learned head")
    distance: Literal["euclidean", "squared_euclidean", "manhattan", "cosine"] = Field(
        "cosine", description="Distance between embeddings"
    )
    normalize: bool = Field(True, description="Scale embeddings to length 1")
    cohort: int = Field(
        0, ge=0, le=4096, description="Number of training images for score normalization; 0 for none"
    )

    @model_validator(mode="after")
    def _check_cohort(self) -> Comparison:
        if self.cohort == 1:
            raise ValueError("a cohort has at least 2 images, or 0 for none")
        return self


class Contrastive(Section):
    """`twinned.losses.ContrastiveLoss`."""

    name: Literal["contrastive"] = "contrastive"
    margin: float = Field(1.0, gt=0, description="Distance beyond which different pairs cost nothing")


class Chopra(Section):
    """`twinned.losses.ChopraLoss`."""

    name: Literal["chopra"] = "chopra"
    bound: float = Field(1.0, gt=0, description="Upper bound of the distance")


class PairCrossEntropy(Section):
    """`twinned.losses.PairCrossEntropy`, for learned heads."""

    name: Literal["cross-entropy"] = "cross-entropy"


class Triplet(Section):
    """`twinned.losses.TripletLoss`."""

    name: Literal["triplet"] = "triplet"
    margin: float = Field(0.2, gt=0, description="Required gap between negative and positive distance")


class SoftTriplet(Section):
    """`twinned.losses.SoftTripletLoss`."""

    name: Literal["triplet-soft"] = "triplet-soft"


class SupCon(Section):
    """`twinned.losses.SupConLoss`."""

    name: Literal["supcon"] = "supcon"
    temperature: float = Field(
        0.1, gt=0, description="Temperature of the softmax; lower weighs hard pairs more"
    )


class InfoNCE(Section):
    """`twinned.losses.InfoNCELoss`."""

    name: Literal["infonce"] = "infonce"
    temperature: float = Field(
        0.07, gt=0, description="Temperature of the softmax; lower weighs hard pairs more"
    )


class MultiSimilarity(Section):
    """`twinned.losses.MultiSimilarityLoss`."""

    name: Literal["multi-similarity"] = "multi-similarity"


class Circle(Section):
    """`twinned.losses.CircleLoss`."""

    name: Literal["circle"] = "circle"
    margin: float = Field(0.4, gt=0, description="Relaxation of the circular decision boundary")
    scale: float = Field(80.0, gt=0, description="Scale of the logits")


class ArcFace(Section):
    """`twinned.losses.ArcFaceLoss`."""

    name: Literal["arcface"] = "arcface"
    margin: float = Field(0.5, gt=0, description="Angular margin, in radians")
    scale: float = Field(64.0, gt=0, description="Scale of the logits")


class ProxyAnchor(Section):
    """`twinned.losses.ProxyAnchorLoss`."""

    name: Literal["proxy-anchor"] = "proxy-anchor"
    margin: float = Field(0.1, gt=0, description="Margin of the cosine similarity")


class Mining(Section):
    """Selection of the comparisons that a loss sees."""

    miner: str | None = Field(None, description="Name of the miner; none for all comparisons of the batch")
    memory: int = Field(0, ge=0, description="Size of the cross-batch memory, in embeddings; 0 for none")


class Sampler(Section):
    """Composition of a batch; see `twinned.data.samplers.ClassBatches`."""

    classes_per_batch: int = Field(48, ge=2, description="Classes per batch")
    images_per_class: int = Field(4, ge=2, description="Images of each class in a batch")
    same_group_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of batches whose classes come from one group, such as an alphabet"
    )
    rotate_classes: bool = Field(
        False, description="Use each class rotated by 90, 180 and 270 degrees as further classes"
    )
    flip_classes: bool = Field(False, description="Use each class mirrored as a further class")

    @property
    def variants(self) -> int:
        """Number of classes that each class of the data counts as."""
        return (4 if self.rotate_classes else 1) * (2 if self.flip_classes else 1)


class Augment(Section):
    """Random changes of the training images; see `twinned.data.augmentation.Augmentation`."""

    rotation: float = Field(0.0, ge=0, le=180, description="Largest rotation, in degrees")
    shear: float = Field(0.0, ge=0, le=1, description="Largest shear")
    scale: float = Field(0.0, ge=0, le=2, description="Largest change of scale, as a share")
    shift: float = Field(0.0, ge=0, le=0.5, description="Largest shift, as a share of the image")
    probability: float = Field(1.0, gt=0, le=1, description="Share of the images that are warped")
    elastic: float = Field(0.0, ge=0, le=0.5, description="Strength of the elastic deformation")
    flip: bool = Field(False, description="Mirror images at random")
    brightness: float = Field(0.0, ge=0, le=1, description="Largest change of brightness")
    contrast: float = Field(0.0, ge=0, le=1, description="Largest change of contrast")
    saturation: float = Field(0.0, ge=0, le=1, description="Largest change of saturation")
    erase: float = Field(0.0, ge=0, lt=1, description="Share of images with an erased rectangle")


class Length(Section):
    """Length of the run: exactly one of minutes, steps and epochs."""

    minutes: float | None = Field(None, gt=0, description="Time from start to saved model, in minutes")
    steps: int | None = Field(None, ge=0, description="Number of training steps (instead of --minutes)")
    epochs: float | None = Field(None, gt=0, description="Number of epochs (instead of --minutes)")
    max_epochs: float | None = Field(
        None, gt=0, description="Epochs after which training stops although minutes are left"
    )


class AdamW(Section):
    """AdamW (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay")
    proxy_lr_scale: float = Field(
        10.0, gt=0, description="Learning rate of a loss's proxies, relative to the network's"
    )


class Muon(Section):
    """Muon (Jordan et al. 2024) for matrices, Adam for the other parameters."""

    name: Literal["muon"] = "muon"
    learning_rate: float = Field(0.01, gt=0, description="Peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay")
    proxy_lr_scale: float = Field(
        3.0, gt=0, description="Learning rate of a loss's proxies, relative to the network's"
    )


class SGD(Section):
    """Stochastic gradient descent with Nesterov momentum."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay")
    proxy_lr_scale: float = Field(
        10.0, gt=0, description="Learning rate of a loss's proxies, relative to the network's"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum")


class ScheduleConfig(Section):
    """Course of the learning rate, and evaluation on the way."""

    warmup: int = Field(30, ge=0, description="Steps over which the learning rate rises")
    decay_start: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Fraction of the steps after which the learning rate falls along a cosine",
    )
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="Decay of the running average of the weights; 0 for none"
    )
    evaluations: int = Field(10, ge=1, description="Number of evaluations during training")


class Run(Section):
    """Execution of the run."""

    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Precision of the network")
    checkpoint_seconds: float = Field(15.0, ge=0, description="Time between two checkpoints, in seconds")


class CalibrationConfig(Section):
    """Choice of the threshold after training."""

    validation_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Fraction of the classes held out to choose the threshold"
    )
    far: float | None = Field(
        None, gt=0, lt=1, description="False accept rate of the threshold (default: equal error rate)"
    )


Loss = Annotated[
    Contrastive
    | Chopra
    | PairCrossEntropy
    | Triplet
    | SoftTriplet
    | SupCon
    | InfoNCE
    | MultiSimilarity
    | Circle
    | ArcFace
    | ProxyAnchor,
    Field(discriminator="name"),
]
Optimizer = Annotated[AdamW | Muon | SGD, Field(discriminator="name")]
