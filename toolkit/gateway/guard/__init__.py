"""Who may ask, and for how much: API keys, rate limits, the access log."""

from toolkit.gateway.guard.admission import Admission as Admission
from toolkit.gateway.guard.admission import Caller as Caller
from toolkit.gateway.guard.admission import Grant as Grant
from toolkit.gateway.guard.admission import KeyedAdmission as KeyedAdmission
from toolkit.gateway.guard.admission import OpenAdmission as OpenAdmission
