"""Every order in which a few actors can take their steps: a small model checker for code that calls a store.

An actor is a plain function in a thread of its own. It stops before each call of a `SteppedBackend` until it is its
turn; between two such calls it runs alone.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Semaphore
from typing import Final, TypeAlias, TypeVar

from ss_pipeline.store.base import Backend
from ss_pipeline_tests.flaky_store import FlakyBackend

Answer = TypeVar("Answer")

_ENDED: Final = -1


@dataclass
class Actor:
    """Somebody who takes steps when told."""

    number: int
    stops: "SimpleQueue[int]"
    turn: Semaphore = field(default_factory=lambda: Semaphore(0))

    def step(self) -> None:
        """Waits until it is this actor's turn."""
        self.stops.put(self.number)
        self.turn.acquire()


class SteppedBackend(FlakyBackend):
    """A back end as one actor sees it: each call is a step."""

    def __init__(self, inner: Backend, actor: Actor) -> None:
        super().__init__(inner)
        self._actor = actor

    def _call(self, name: str, act: Callable[[], Answer]) -> Answer:
        self._actor.step()
        return super()._call(name, act)


Play: TypeAlias = Sequence[Callable[[Actor], None]]
"""What each actor does."""


def every_order(
    new_play: Callable[[], tuple[Play, Answer]], *, interruptions: int = 5
) -> Iterator[tuple[list[int], Answer]]:
    """Plays every order of steps once; gives the order, as numbers of actors, and what the play is about.

    Args:
        new_play: Makes the actors anew, and the thing to judge when all are done.
        interruptions: How often at most an actor that could go on is stopped for another; bounds the number of orders.
    """
    pending: list[list[int]] = [[]]
    with ThreadPoolExecutor(8) as pool:
        while pending:
            begin = pending.pop()
            play, about = new_play()
            order, ready = _played(play, begin, pool)
            for at in range(len(begin), len(order)):
                others = ([*order[:at], other] for other in ready[at] - {order[at]})
                pending += [other for other in others if _interruptions(other, ready) <= interruptions]
            yield order, about


def _interruptions(order: list[int], ready: list[set[int]]) -> int:
    return sum(order[at] != order[at - 1] and order[at - 1] in ready[at] for at in range(1, len(order)))


def _played(play: Play, begin: list[int], pool: ThreadPoolExecutor) -> tuple[list[int], list[set[int]]]:
    """The order played, which begins as told and then lets actors go on, and who was ready at each step of it."""
    stops: SimpleQueue[int] = SimpleQueue()
    actors = [Actor(number, stops) for number in range(len(play))]

    def perform(actor: Actor, act: Callable[[Actor], None]) -> None:
        try:
            act(actor)
        finally:
            stops.put(_ENDED)

    futures = [pool.submit(perform, actor, act) for actor, act in zip(actors, play, strict=True)]
    order: list[int] = []
    ready: list[set[int]] = []
    waiting = {stops.get() for _ in actors} - {_ENDED}
    while waiting:
        ready.append(set(waiting))
        goes_on = order[-1] if order and order[-1] in waiting else min(waiting)
        chosen = begin[len(order)] if len(order) < len(begin) else goes_on
        order.append(chosen)
        waiting.remove(chosen)
        actors[chosen].turn.release()
        waiting |= {stops.get()} - {_ENDED}
    for future in futures:
        future.result()
    return order, ready
