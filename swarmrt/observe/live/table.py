"""Progress as a live table in a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from swarmrt.foreign import for_terminal, printable
from swarmrt.ids import peer_of
from swarmrt.observe.live.plain import move_text, trouble_text, waiting_text
from swarmrt.observe.live.progress import Progress
from swarmrt.scheduler.instructions import Report, ReportMove, ReportPeer

SPARKS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 48
REFRESH_PER_S = 4


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

    def _local(self, stage: int) -> tuple[str, ...]:
        """Return what a stage's replicas have done by themselves."""
        steps, late, drift = self._progress.local[stage]
        return str(steps), f"{late:.0%}", f"{drift:.2g}"

    def _row(self, peer: ReportPeer, *, first: bool) -> tuple[RenderableType, ...]:
        style = {"ready": "green", "spare": "blue", "yielding": "blue"}.get(peer.state, "yellow")
        return (
            str(peer.stage) if first else "",
            Text(f"…{printable(peer_of(peer.peer)[-8:])}"),
            Text(peer.state, style=style),
            str(peer.version),
            str(peer.queued),
            str(peer.done),
            f"{1000 * peer.service_s:.0f} ms" if peer.service_s else "–",
        )


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
