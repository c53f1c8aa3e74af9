"""What each TensorRT-LLM release has: flags, fields, models, formats, names, as data.

Rendering, building and checking read these tables instead of knowing versions; a new release is
a new folder below ``tables``.
"""

from toolkit.releases.entries import Runtime as Runtime
from toolkit.releases.flags import BuildFlag as BuildFlag
from toolkit.releases.formats import Combination as Combination
from toolkit.releases.formats import Verdict as Verdict
from toolkit.releases.llm_api import ConfigClass as ConfigClass
from toolkit.releases.llm_api import Field as Field
from toolkit.releases.llm_api import LlmApi as LlmApi
from toolkit.releases.loading import default_release as default_release
from toolkit.releases.loading import known_releases as known_releases
from toolkit.releases.loading import known_versions as known_versions
from toolkit.releases.loading import newest as newest
from toolkit.releases.loading import release as release
from toolkit.releases.model import Container as Container
from toolkit.releases.model import MetricFamily as MetricFamily
from toolkit.releases.model import Release as Release
from toolkit.releases.model import Source as Source
from toolkit.releases.model import SpeculationMethod as SpeculationMethod
from toolkit.releases.model import Term as Term
from toolkit.releases.triton import Parameter as Parameter
from toolkit.releases.triton import Step as Step
from toolkit.releases.triton import Tensor as Tensor
from toolkit.releases.triton import TritonModel as TritonModel
