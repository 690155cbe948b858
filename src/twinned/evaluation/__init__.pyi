from ..metrics.comparisons import Comparisons as Comparisons
from .calibration import Calibration as Calibration
from .comparison import Comparison as Comparison
from .comparison import compare_evaluations as compare_evaluations
from .results import Evaluation as Evaluation
from .verification import VerificationResult as VerificationResult
from .verification import evaluate_verification as evaluate_verification
from .verification import reliability as reliability

__all__: list[str]
