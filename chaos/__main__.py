"""`python -m chaos`: plays rounds and says whether anything was lost or counted twice."""

import logging
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.machine import facts
from chaos import report
from chaos.installation import Installation
from chaos.plan import KINDS, Drawing
from chaos.rounds import Rounds
from chaos.sabotage import SABOTAGES


@click.command()
@click.option("--rounds", default=10, show_default=True, help="How many.")
@click.option("--seed", default=1, show_default=True, help="What faults and traffic are drawn from.")
@click.option("--first", default=1, show_default=True, help="The number of the first round; each is drawn by its own.")
@click.option("--events", default=2500, show_default=True, help="Events a round, about.")
@click.option("--faults", default=",".join(KINDS), help="Kinds to draw from, or kind:target, with commas between.")
@click.option("--most", default=3, show_default=True, help="Faults a round at most.")
@click.option("--freeze", nargs=2, type=float, default=(5.0, 30.0), show_default=True, help="Seconds, from and to.")
@click.option("--sabotage", type=click.Choice(list(SABOTAGES)), help="Break the product so, to see that it is found.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the run as JSON here.")
@click.option("--keep", is_flag=True, help="Keep the folder with data and logs of a good run too.")
def main(
    rounds: int,
    seed: int,
    first: int,
    events: int,
    faults: str,
    most: int,
    freeze: tuple[float, float],
    sabotage: str | None,
    out: Path | None,
    keep: bool,
) -> None:
    """Kill, freeze, cut and fill a whole installation, and count what it counted. Exit code 1 where it is wrong."""
    drawing = Drawing(faults.split(","), freeze, most)
    try:
        drawing.targets()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--faults") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended in any case
    console = report.console()
    folder = Path(tempfile.mkdtemp(prefix="zenstep-chaos-"))
    folder.chmod(0o755)  # PostgreSQL does not run as root
    logging.basicConfig(filename=folder / "chaos.log", level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = {"events": events, "faults": faults, "most": most, "freeze": list(freeze), "sabotage": sabotage}
    run = report.Run(datetime.now(UTC).isoformat(timespec="seconds"), seed, settings, {})
    installation = Installation(folder, sabotage)
    try:
        run.machine = {**facts(), **installation.versions()}
        playing = Rounds(installation, seed, events, drawing)
        for number in range(first, first + rounds):
            one = playing.play(number)
            run.rounds.append(one)
            console.print("  ".join(cell.replace("\n", ", ") for cell in report.row(one)), markup=False, soft_wrap=True)
            for problem in one.problems:
                console.print(f"  {problem}", style="red", markup=False, soft_wrap=True)
            if out is not None:
                report.write(run, out)  # what was played stays, though the next round ends the run
    finally:
        installation.close()
    report.render(run, console)
    if run.good and not keep:
        shutil.rmtree(folder)
        return
    console.print(f"Data and logs are kept in {folder}.", soft_wrap=True)
    if not run.good:
        bad = next(one.number for one in run.rounds if not one.good)
        console.print(
            f"Once more: python -m chaos --seed {seed} --first {bad} --rounds 1 (and the options of this run)"
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
