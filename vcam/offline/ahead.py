"""Work that runs ahead of whoever takes its results, bounded by their number and by their bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD = 8  # items
AHEAD_BYTES = 256 << 20


class _Shelf(Generic[T]):
    """What is made and not yet taken: `put` waits until there is room, `take` until there is something."""

    def __init__(self, bytes_of: Callable[[T], int], most: int, most_bytes: int) -> None:
        self._bytes_of, self._most, self._most_bytes = bytes_of, most, most_bytes
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._bytes = 0
        self._closed = self._ended = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Add an item once there is room, one always; False when nobody takes any more."""
        size = self._bytes_of(item)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(size))
            if self._closed:
                return False
            self._items.append(item)
            self._bytes += size
            self._changed.notify_all()
            return True

    def _has_room(self, size: int) -> bool:
        return not self._items or (len(self._items) < self._most and self._bytes + size <= self._most_bytes)

    def take(self) -> T:
        """Return the next item; raise the error that ended the work, or IndexError when there is none left."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended)
            if not self._items and self._error is not None:
                raise self._error
            item = self._items.popleft()
            self._bytes -= self._bytes_of(item)
            self._changed.notify_all()
            return item

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, and why."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def read_ahead(
    items: Iterable[T], bytes_of: Callable[[T], int], most: int = AHEAD, most_bytes: int = AHEAD_BYTES
) -> Generator[T, None, None]:
    """Yield `items`, made by a thread of their own up to `most` of them or `most_bytes` ahead; raise their errors."""
    shelf = _Shelf(bytes_of, most, most_bytes)

    def work() -> None:
        try:
            for item in items:
                if not shelf.put(item):
                    return
            shelf.end()
        except BaseException as error:  # noqa: BLE001  # raised again where the items are taken
            shelf.end(error)

    thread = threading.Thread(target=work, name="vcam-reader", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = shelf.take()
            except IndexError:
                return
            yield item
    finally:
        shelf.close()
        thread.join()
