"""Saving checkpoints: one snapshot a stage is collected on the disk, and a manifest written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from swarmrt.config import RunConfig
from swarmrt.errors import SwarmError
from swarmrt.model.layout import Layout, layout_from
from swarmrt.run_identity import fingerprint
from swarmrt.runtime.checkpoints.checkpoint import StageFile, checkpoints_in
from swarmrt.runtime.checkpoints.disk import Disk
from swarmrt.runtime.checkpoints.draft import Draft, describe_file
from swarmrt.runtime.state.fetching import Fetches, Wanted
from swarmrt.runtime.state.landing import OnDisk
from swarmrt.runtime.state.offering import LEASE_S
from swarmrt.scheduler.events import CheckpointFailed, CheckpointSaved
from swarmrt.scheduler.fetching.sharing import UNHURRIED
from swarmrt.scheduler.instructions import SaveCheckpoint

log = logging.getLogger("swarmrt.saving")

KEEP_S = LEASE_S / 4  # between words that keep a snapshot whose turn has not come
DROP_S = 10.0  # for the disk to let go of a draft; the next one does, otherwise


class Saves:
    """The saves of a trainer, one at a time. Each comes to an end, whatever the disk does."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        fetches: Fetches,
        disk: Disk,
        passing: Callable[[str], object] = str,
    ) -> None:
        """`passing(failpoint)` is told where a save is."""
        self._config, self._run_dir = config, run_dir
        self._fetches, self._disk, self._passing = fetches, disk, passing
        self._turn = asyncio.Lock()
        self._known_layouts: tuple[Layout, ...] = ()

    async def save(self, what: SaveCheckpoint) -> CheckpointSaved | CheckpointFailed:
        """Collect one snapshot a stage from its donors, and return what came of it."""
        async with self._turn:
            try:
                draft = await self._disk.call(partial(Draft, self._run_dir, what.version))
                try:
                    await self._collect(what, draft)
                finally:
                    await self._drop(draft)
            except SwarmError as error:
                return CheckpointFailed(what.version, str(error))
            except OSError as error:
                why = f"{checkpoints_in(self._run_dir)}: cannot be written: {error.strerror}"
                return CheckpointFailed(what.version, why)
            return CheckpointSaved(what.version)

    async def _collect(self, what: SaveCheckpoint, draft: Draft) -> None:
        """Get one stage after the other. Those whose turn has not come are kept meanwhile."""
        files: list[StageFile] = []
        keeping = asyncio.create_task(self._keep(what, files))
        try:
            await self._get_all(what, draft, files)
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
        await self._finish(what, draft, files)

    async def _keep(self, what: SaveCheckpoint, files: Sequence[StageFile]) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            for stage in range(len(files) + 1, len(what.donors)):
                self._fetches.keep(stage, what.version, what.donors[stage])

    async def _get_all(self, what: SaveCheckpoint, draft: Draft, files: list[StageFile]) -> None:
        for stage, layout in enumerate(await self._layouts()):
            wanted = Wanted(layout, what.version, what.digests[stage])
            beside = partial(self._disk.call, size_bytes=wanted.size_bytes)
            landing = partial(OnDisk, draft.file_of(stage), disk=self._disk)
            try:
                donors = what.donors[stage]
                snapshot = await self._fetches.get(wanted, donors, landing, beside, UNHURRIED)
            finally:
                self._fetches.let_go()
            files.append(describe_file(snapshot, what.digests[stage]))

    async def _finish(self, what: SaveCheckpoint, draft: Draft, files: Sequence[StageFile]) -> None:
        manifest = {
            "run": self._config.run.name,
            "epoch": what.epoch,
            "version": what.version,
            "seed": self._config.run.seed,
            "fingerprint": fingerprint(self._config),
            "config": self._config.model_dump(mode="json"),
        }
        keep = self._config.checkpoint.keep
        finish = partial(draft.finish, manifest, files, keep, self._passing)
        size_bytes = sum(file.size_bytes for file in files)
        await self._disk.call(finish, size_bytes=2 * size_bytes)  # to the disk, and read again

    async def _drop(self, draft: Draft) -> None:
        try:
            await self._disk.call(draft.drop, answer_s=DROP_S)
        except OSError as error:
            log.info("what was left of a save stays until the next one: %s", error)

    async def _layouts(self) -> tuple[Layout, ...]:
        """Return the layouts of all stages' states. They are worked out once, and beside the event
        loop."""
        if not self._known_layouts:
            stages = range(self._config.num_stages)
            self._known_layouts = await asyncio.to_thread(
                lambda: tuple(layout_from(self._config, stage) for stage in stages)
            )
        return self._known_layouts
