"""`liftgate agent`: makes this serving host serve what the newest release says, once or for ever."""

from __future__ import annotations

import logging

import click

from artifact_sync.clock import SystemClock
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say


@click.command("agent")
@click.option("--once", is_flag=True, help="One look at the bucket; the exit code says how it went.")
@click.option("--back", metavar="WHY", help="Return this host to its version before, without the bucket, at once.")
@json_option
@click.pass_context
def command(context: click.Context, once: bool, back: str | None, as_json: bool) -> None:
    """Close the difference between the newest release and what this host serves.

    Runs until SIGTERM; SIGHUP makes it look at once. One agent a models_dir. --back works beside an
    agent that runs: it obeys within seconds, or is ended if it hangs.
    """
    from serving.agent import Agent
    from serving.agent_loop import Wakeup, only_agent, run_agent
    from serving.agent_takeover import return_now
    from serving.tick_report import TickReport

    site = Site.load(context.obj)
    wakeup = Wakeup()
    last = ""

    def report(tick: TickReport) -> None:
        nonlocal last
        # A log of the same sentence every half minute hides the one that matters.
        if str(tick) != last:
            say(f"{tick.at:%Y-%m-%dT%H:%M:%SZ} {tick}")
            last = str(tick)

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with site.model_server() as server:
        agent = Agent(
            site.registry,
            trust=site.trusted,
            server=server,
            settings=site.settings.agent,
            clock=SystemClock(),
            should_stop=wakeup.should_stop,
        )
        if back is not None:
            tick = return_now(agent, reason=back)
        else:
            with only_agent(site.settings.agent.models_dir):
                if not once:
                    with wakeup.installed():
                        run_agent(agent, wakeup=wakeup, on_report=report)
                    return
                tick = agent.tick()
    if tick is None:
        done = "The agent of this host has returned it to the version before."
        print_result(done, {"outcome": "returned", "detail": done}, as_json=as_json)
        return
    print_result(str(tick), tick.as_dict(), as_json=as_json)
    context.exit(tick.exit_code)
