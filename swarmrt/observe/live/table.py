"""Progress as a live table in a terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from swarmrt.foreign import for_terminal, printable
from swarmrt.ids import PeerId, peer_of
from swarmrt.observe.live.plain import move_text, trouble_text, waiting_text
from swarmrt.observe.live.progress import Progress
from swarmrt.scheduler.instructions import Report, ReportArranged, ReportMove, ReportPeer

SPARKS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 48
REFRESH_PER_S = 4
MOST_MOVES, MOST_NAMED = 6, 4  # that are shown; and peers that stand by for a stage
MOVE_STYLES = {
    "loading": "yellow",
    "switching": "cyan",
    "serving both": "green",
    "draining": "blue",
}


class LiveView:
    """A context: the table is drawn while it is open, and its last state stays."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._live = Live(
            console=console, refresh_per_second=REFRESH_PER_S, get_renderable=self.render
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        shown = for_terminal(text)
        self._console.print(shown, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def update(self, report: Report) -> None:
        """Say what went wrong, and who moves; the table itself is drawn at its own pace."""
        text = move_text(report) if isinstance(report, ReportMove) else trouble_text(report)
        if text:
            self.note(text)

    def render(self) -> RenderableType:
        progress = self._progress
        title = f"[bold]{progress.config.run.name}[/]"
        parts = [self._headline(), self._bar(), self._stages()]
        if progress.arranged:
            parts.append(self._arranged())
        return Panel(Group(*parts), title=title, title_align="left", border_style="blue")

    def _headline(self) -> Text:
        progress = self._progress
        if progress.waiting is not None:
            return Text(waiting_text(progress.waiting), style="yellow")
        if not progress.losses:
            return Text("starting", style="yellow")
        losses = [loss for _, loss in progress.losses]
        text = Text.assemble(
            ("loss ", "dim"), (f"{losses[-1]:.4f}", "bold green"), ("  held-out ", "dim"),
            (f"{progress.evaluations[-1][1]:.4f}" if progress.evaluations else "–", "bold"),
        )  # fmt: skip
        if progress.unigram_loss is not None:
            text.append("  unigram ", "dim").append(f"{progress.unigram_loss:.4f}")
        text.append("  tokens/s ", "dim").append(f"{progress.recent_tokens_per_s:,.0f}", "bold")
        text.append("\n").append(sparkline(losses), "green")
        return text

    def _bar(self) -> RenderableType:
        progress = self._progress
        total = progress.config.run.steps
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            f"step {progress.version} / {total}",
            ProgressBar(total=total, completed=progress.version, width=40),
            "replicas equal" if progress.digests_equal else "[red]replicas differ[/]",
        )
        return grid

    def _stages(self) -> Table:
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for name in ("stage", "replica", "state", "step"):
            table.add_column(name)
        is_local = bool(self._progress.local)
        own = ("own steps", "late", "drift") if is_local else ()
        for name in ("queue", "done", "per microbatch", *own):
            table.add_column(name, justify="right")
        previous = -1
        peers = sorted(self._progress.peers.values(), key=lambda peer: (peer.stage, peer.peer))
        for peer in peers:
            is_first = peer.stage != previous
            cells = self._local(peer.stage) if is_first and is_local else ()
            table.add_row(*self._row(peer, first=is_first), *cells)
            previous = peer.stage
        return table

    def _arranged(self) -> Table:
        """Return who moves, and how far that is; and who stands by for which stages."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim")
        grid.add_column()
        known = sorted(self._progress.arranged.values(), key=lambda one: one.peer)
        moving = [one for one in known if one.phase]
        for number, one in enumerate(moving[:MOST_MOVES]):
            grid.add_row("" if number else "moves", _move_row(one))
        if len(moving) > MOST_MOVES:
            grid.add_row("", f"and {len(moving) - MOST_MOVES} more")
        if standing := _standing_by(known):
            grid.add_row("stand by", standing)
        return grid

    def _local(self, stage: int) -> tuple[str, ...]:
        """Return what a stage's replicas have done by themselves."""
        steps, late, drift = self._progress.local[stage]
        return str(steps), f"{late:.0%}", f"{drift:.2g}"

    def _row(self, peer: ReportPeer, *, first: bool) -> tuple[RenderableType, ...]:
        style = {"ready": "green", "spare": "blue", "yielding": "blue"}.get(peer.state, "yellow")
        return (
            str(peer.stage) if first else "",
            Text(_short(peer_of(peer.peer))),
            Text(peer.state, style=style),
            str(peer.version),
            str(peer.queued),
            str(peer.done),
            f"{1000 * peer.service_s:.0f} ms" if peer.service_s else "–",
        )


def _move_row(one: ReportArranged) -> Text:
    """Return a line like: …4bd1234  stage 0 → 1  loading."""
    left = ",".join(str(stage) for stage in one.serves if stage != one.to) or "–"
    return Text.assemble(
        f"{_short(one.peer)}  stage {left} → {one.to}  ", (one.phase, MOVE_STYLES[one.phase])
    )


def _standing_by(known: Sequence[ReportArranged]) -> Text | None:
    """Return who stands by, by stage; those who still load that state are marked."""
    by_stage: defaultdict[int, list[str]] = defaultdict(list)
    for one in known:
        for stage in one.stands_by:
            by_stage[stage].append(_short(one.peer))
        for stage in one.loads:
            by_stage[stage].append(f"{_short(one.peer)} (loading)")
    lines = []
    for stage, names in sorted(by_stage.items()):
        others = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        lines.append(f"for stage {stage}: {', '.join(names[:MOST_NAMED])}{others}")
    return Text("\n".join(lines)) if lines else None


def _short(peer: PeerId) -> str:
    return f"…{printable(peer[-8:])}"


def sparkline(values: list[float], width: int = SPARKLINE_WIDTH) -> str:
    """The course of a series in one line of text."""
    if not values:
        return ""
    bucket = max(1, -(-len(values) // width))
    means = [
        sum(values[start : start + bucket]) / len(values[start : start + bucket])
        for start in range(0, len(values), bucket)
    ]
    low, high = min(means), max(means)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0
    return "".join(SPARKS[round((mean - low) * scale)] for mean in means)
