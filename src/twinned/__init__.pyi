from . import cli as cli
from . import data as data
from . import distances as distances
from . import errors as errors
from . import evaluation as evaluation
from . import gallery as gallery
from . import inference as inference
from . import losses as losses
from . import metrics as metrics
from . import nn as nn
from . import server as server
from . import training as training
from . import utils as utils
from . import visualization as visualization
from .data import faces as faces
from .data.checks.checker import check_data as check_data
from .data.datasets import ImageSet as ImageSet
from .data.datasets import PairSet as PairSet
from .data.readers import load_images as load_images
from .data.readers import load_pairs as load_pairs
from .errors import TwinnedError as TwinnedError
from .evaluation.calibration import Verdict as Verdict
from .evaluation.comparison import Comparison as Comparison
from .evaluation.comparison import compare as compare
from .evaluation.results import Evaluation as Evaluation
from .gallery.gallery import Gallery as Gallery
from .inference.model import Model as Model
from .inference.model import load as load
from .inference.wrap import wrap as wrap
from .losses import miners as miners
from .losses.miners import register_miner as register_miner
from .losses.registry import register_loss as register_loss
from .nn import encoders as encoders
from .nn import heads as heads
from .nn.encoders.registry import register_encoder as register_encoder
from .nn.siamese import SiameseNetwork as SiameseNetwork
from .training import recipes as recipes
from .training.api import train as train
from .training.callbacks import Callback as Callback
from .training.config import TrainConfig as TrainConfig
from .training.finetune import finetune as finetune

plots = visualization

__all__: list[str]
__version__: str
