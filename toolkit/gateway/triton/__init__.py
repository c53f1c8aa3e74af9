"""One Triton as the gateway sees it: ask it for an answer, see how it is."""

from toolkit.gateway.triton.capacity import Capacity as Capacity
from toolkit.gateway.triton.failure import ReplicaFailure as ReplicaFailure
from toolkit.gateway.triton.replica import TritonReplica as TritonReplica
