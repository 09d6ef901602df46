"""Counts visits in Redis, of all replicas and of this one, where the app is given a Redis."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

PATIENCE_S = 0.8
"""How long a page waits for the numbers, whatever hangs: the network, the server, or the look-up of its name."""

STEP_S = 0.4
"""How long one step may take: to connect, or to get an answer."""

PAUSE_S = 5
"""How long nobody asks after that, so that a database that is away costs one page in many its patience."""

KEPT_S = 30 * 24 * 3600
"""How long the number of a replica outlives its last visit."""

THREADS = 4

logger = logging.getLogger(__name__)


class Visits:
    """The counter of one replica."""

    def __init__(self, host: str, password: str | None, container: str) -> None:
        """Remember where the numbers are; nothing is asked yet.

        :param host: name of the Redis server
        :param password: of its user `default`
        :param container: id of this replica
        """
        self._host = host
        self._password = password
        self._own = f"visits:{container}"
        self._ask_again_at = 0.0

    def count(self, more: int) -> dict[str, int] | None:
        """Add visits, and read how many there were.

        :param more: how many to add; 0 only reads
        :return: the numbers of all replicas and of this one, or None while they cannot be reached
        """
        if time.monotonic() < self._ask_again_at:
            return None
        try:
            return self._threads.submit(self._ask, more).result(timeout=PATIENCE_S)
        except (RedisError, TimeoutError) as error:
            self._ask_again_at = time.monotonic() + PAUSE_S
            logger.warning("visits cannot be counted at %s: %s %s", self._host, type(error).__name__, error)
            return None

    # Made with the first visit, which is after the server has forked its workers.
    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS, thread_name_prefix="visits")

    @cached_property
    def _redis(self) -> Redis:
        # Once more at once, because a kept connection is dead after the server was replaced.
        again = Retry(NoBackoff(), retries=1)
        return Redis(
            self._host,
            password=self._password,
            max_connections=THREADS,
            protocol=2,
            retry=again,
            socket_connect_timeout=STEP_S,
            socket_timeout=STEP_S,
        )

    def _ask(self, more: int) -> dict[str, int]:
        with self._redis.pipeline() as together:
            together.incrby("visits", more)
            together.incrby(self._own, more)
            together.expire(self._own, KEPT_S)
            total, own, _ = together.execute()
        return {"total": total, "replica": own}
