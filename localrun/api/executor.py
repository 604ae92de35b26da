"""``concurrent.futures`` over the queue: each call is a run, its future is fulfilled when the run has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

from localrun.api.function import Function
from localrun.api.run import Run
from localrun.engine.watch import REPLACED, Watch
from localrun.errors import LocalrunError

_LOOK_S = 1.0


class RunFuture(futures.Future[Any]):
    """The future of a call that is a run: ``run`` is its handle. Cancelling it withdraws a run that still waits."""

    run: Run

    def __init__(self) -> None:
        super().__init__()
        self.settling = threading.RLock()  # held while the run's end, or a cancellation, becomes the future's

    def cancel(self) -> bool:
        """Withdraw the run if it still waits; False if it has started (stop it with ``future.run.stop()``)."""
        with self.settling:
            if self.running() or self.done():
                return super().cancel()
            return self.run.withdraw("its future was cancelled") and super().cancel()


class Executor(futures.Executor):
    """A ``concurrent.futures.Executor`` whose calls are runs. Options are those of ``localrun.function``.

    Runs go on when the process ends; ``shutdown(wait=True)`` and leaving a ``with`` block wait for them.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._open: dict[RunFuture, Run] = {}
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._shut = False
        self._watch: Watch | None = None  # while a thread is there to be woken
        Function(len, options)  # refuses unknown options now rather than at the first call

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> RunFuture:
        """Queue a call as a run with a name of its own."""
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
        function = fn.options(**self._options) if isinstance(fn, Function) else Function(fn, self._options)
        future = RunFuture()
        future.run = function.run(*args, **kwargs)
        with self._lock:
            self._open[future] = future.run
            if self._watch is None:
                self._watch = Watch.borrow()
                threading.Thread(
                    target=self._fulfil, args=(self._watch,), name="localrun-executor", daemon=True
                ).start()
            self._watch.add(future.run.path, REPLACED)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those under way, after cancelling those that still wait if asked to."""
        with self._lock:
            self._shut = True
            waiting = list(self._open)
        if cancel_futures:
            for future in waiting:
                future.cancel()
        if wait:
            with self._lock:
                self._idle.wait_for(lambda: not self._open)

    def _fulfil(self, watch: Watch) -> None:
        """Look at the open runs whenever one of their records changes, until none is open."""
        with watch:
            while True:
                for future, run in self._snapshot():
                    if self._settle(future, run):
                        with self._lock:
                            del self._open[future]
                            watch.discard(run.path)
                with self._lock:
                    if not self._open:
                        self._watch = None
                        self._idle.notify_all()
                        return
                watch.wait(_LOOK_S)

    def _snapshot(self) -> list[tuple[RunFuture, Run]]:
        with self._lock:
            return list(self._open.items())

    @staticmethod
    def _settle(future: RunFuture, run: Run) -> bool:
        """Bring a future up to date with its run; True if it is done."""
        with future.settling:
            if future.cancelled():
                future.set_running_or_notify_cancel()
                return True
            return Executor._settle_from_run(future, run)

    @staticmethod
    def _settle_from_run(future: RunFuture, run: Run) -> bool:
        try:
            status = run.refresh().status
            if status.is_active() and not future.running():
                future.set_running_or_notify_cancel()
            if not status.is_terminal():
                return False
            if not future.running():
                future.set_running_or_notify_cancel()
            error = run.exception()
            if error is None:
                future.set_result(run.result())
            else:
                future.set_exception(error)
        except (LocalrunError, OSError) as error:
            future.set_exception(error)
        return True
