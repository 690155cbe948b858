from .catalog.convert import digits as digits
from .catalog.convert import load_digits as load_digits
from .catalog.download import fetch as fetch
from .catalog.download import find as find
from .catalog.download import get as get
from .catalog.registry import DATA_SETS as DATA_SETS
from .datasets import ImageSet as ImageSet
from .datasets import PairSet as PairSet
from .decoded import Decoded as Decoded
from .decoded import DecodedSet as DecodedSet
from .decoded import decode as decode
from .letters import load_letters as load_letters
from .pairs import make_pairs as make_pairs
from .pairs import make_triplets as make_triplets
from .preprocessing import ImageSpec as ImageSpec
from .readers import find_images as find_images
from .readers import load as load
from .readers import load_images as load_images
from .readers import load_pairs as load_pairs
from .readers import references_of as references_of
from .samplers import Batch as Batch
from .samplers import ClassBatches as ClassBatches
from .samplers import PairBatches as PairBatches
from .torch_data import ClassSampler as ClassSampler
from .torch_data import ImageDataset as ImageDataset

__all__: list[str]
