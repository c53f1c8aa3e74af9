"""What this machine has and lacks for a deployment, and how to mend it."""

from toolkit.doctor.check import Check as Check
from toolkit.doctor.check import Finding as Finding
from toolkit.doctor.check import Report as Report
from toolkit.doctor.examination import CHECKS as CHECKS
from toolkit.doctor.examination import examine as examine
from toolkit.doctor.gpus import FoundGpu as FoundGpu
from toolkit.doctor.gpus import read_gpus as read_gpus
