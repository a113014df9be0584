"""The engines that recorded cases run against: the local ones, or real ones that record them anew."""

from recorded.cluster import cluster, recorded_cluster  # noqa: F401 - fixtures
from recorded.engine import engine, recorded  # noqa: F401
from recorded.master import master, noted, t  # noqa: F401
