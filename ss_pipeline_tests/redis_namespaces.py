"""Namespaces in the Redis of the tests: one for each test, and what tests look at and do behind the store's back."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import redis

from ss_pipeline_tests.servers import shared_redis

_AGE = """
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '/ss:*')) do
  local kind = string.match(key, '/ss:(%a+)')
  if kind == 'held' or kind == 'parked' then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      redis.call('ZINCRBY', key, -ARGV[2], member)
    end
  elseif kind == 'claim' and redis.call('HEXISTS', key, 'expires_at') == 1 then
    redis.call('HINCRBYFLOAT', key, 'expires_at', -ARGV[2])
  elseif kind == 'facets' and tonumber(redis.call('HGET', key, 'not_before')) > 0 then
    redis.call('HINCRBYFLOAT', key, 'not_before', -ARGV[2])
  end
end
"""


class RedisNamespace:
    """A part of a Redis database.

    Args:
        url: The server.
        name: As `RedisBackend(namespace=…)` takes it.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.client = redis.Redis.from_url(url)

    def age(self, seconds: float) -> None:
        """Makes every time that a store has written earlier by so many seconds."""
        self.client.eval(_AGE, 0, self.name, seconds)

    def names(self) -> set[str]:
        """The names of all keys, without the namespace."""
        return {key.decode().removeprefix(f"{self.name}/") for key in self.client.scan_iter(f"{self.name}/*")}

    def clear(self) -> None:
        """Removes all keys."""
        keys = list(self.client.scan_iter(f"{self.name}/*", count=1_000))
        for start in range(0, len(keys), 1_000):
            self.client.unlink(*keys[start : start + 1_000])
        self.client.close()


@contextmanager
def redis_namespace() -> Iterator[RedisNamespace]:
    """A new one on the server of this process; its keys are removed afterwards."""
    space = RedisNamespace(shared_redis().url, f"t_{uuid4().hex[:12]}")
    try:
        yield space
    finally:
        space.clear()
