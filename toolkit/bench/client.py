"""A target under measurement, from this process or from several, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import threading

from toolkit.bench.connections import allow_connections
from toolkit.bench.load import Load
from toolkit.bench.measuring import Job, Options, measure
from toolkit.bench.summary import Measurement
from toolkit.bench.target import Target, TargetInfo
from toolkit.bench.workers import Fleet
from toolkit.bench.workload import Workload
from toolkit.errors import EnvironmentError_
from toolkit.progress import Progress


class Client:
    """Opens the target for its block (``async with``) and measures it under one load at a time.

    ``ended`` tells that nothing more is to be measured: after Ctrl-C (``interrupted``), or
    because one of several processes died (``broken`` says how). What was measured stays good.
    """

    info: TargetInfo

    def __init__(
        self, target: Target, workload: Workload, options: Options, progress: Progress
    ) -> None:
        self._target, self._workload = target, workload
        self._options, self._progress = options, progress
        self._fleet = Fleet(target, options.processes) if options.processes > 1 else None
        self.interrupted = False
        self.broken: EnvironmentError_ | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be measured."""
        return self.interrupted or self.broken is not None

    async def __aenter__(self) -> Client:
        allow_connections()
        self.info = await self._target.open()
        try:
            if self._fleet:
                await self._fleet.open()
        except BaseException:
            await self._target.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._fleet:
            await self._fleet.close()
        await self._target.close()

    async def measure(
        self, load: Load, label: str, options: Options | None = None
    ) -> Measurement | None:
        """Run one load once; None if nothing came of it.

        Args:
            load: The load.
            label: Makes its prompts its own.
            options: In place of the client's.
        """
        options = options or self._options
        task = asyncio.create_task(self._measure(load, label, options))
        with _Interruptible(self, task):
            try:
                return await task
            except EnvironmentError_ as error:
                if not self._fleet:
                    raise
                self.broken = error
                return None

    def interrupt(self, task: asyncio.Task[Measurement | None]) -> None:
        """Ctrl-C: end the running measurement, keep what it has."""
        if not self.interrupted:
            self.interrupted = True
            self._progress.note("interrupted: writing what was measured")
            task.cancel()

    async def _measure(self, load: Load, label: str, options: Options) -> Measurement | None:
        if self._fleet:
            job = Job(self._workload, load, options, label)
            return await self._fleet.measure(job, self._progress)
        return await measure(
            self._target, self._workload, load, options, label=label, progress=self._progress
        )


class _Interruptible:
    """While it is entered, SIGINT ends the measurement instead of the program."""

    def __init__(self, client: Client, task: asyncio.Task[Measurement | None]) -> None:
        self._client, self._task = client, task
        self._installed = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, self._client.interrupt, self._task)
            self._installed = True

    def __exit__(self, *_: object) -> None:
        if self._installed:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
