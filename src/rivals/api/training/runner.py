"""Runs a training job: data, game, run folder, training, network, report; on one process or several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common import provenance
from rivals.api.common.alike import check_alike
from rivals.api.common.network_io import save_network
from rivals.api.common.resume import note_printer, reserve_folder, resolve_source
from rivals.api.training.job import TrainingJob
from rivals.api.training.micro_batches import check_same_game, check_share, fit_micro_batches
from rivals.base import devices, launcher, numerics, rng
from rivals.base.duration import Duration
from rivals.base.errors import Interrupted, UserError
from rivals.base.run_folder import Run

if TYPE_CHECKING:
    from torch import nn

    from rivals.console.training_progress import TrainingProgress
    from rivals.game.callbacks import Callback, Progress
    from rivals.game.game import Batches

CHECKPOINT_EVERY = "1 minutes"


def run_job(job: TrainingJob[Any]) -> Run:
    """Train: open or create the run folder, play the game, save the network, write the report.

    Returns:
        The run.

    Raises:
        UserError: the options or the data cannot work, and nothing was written; or training failed.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
        ProcessLost: another process died or cannot be reached.
    """
    with numerics.deterministic(job.run_options.deterministic):
        return _run_job(job)


def _run_job(job: TrainingJob[Any]) -> Run:
    processes = job.processes
    check_alike(processes, _given(job))
    with processes.one_per_node_first():
        job.load_data()
    with processes.together():
        if processes.first and not job.resuming:
            with devices.explain_out_of_memory():  # of games that are played to measure them
                _resolve(job)
    job.take_choices(processes.share(job.choices() if processes.first else None))
    check_share(processes, job.micro_batches)
    with processes.together(), devices.explain_out_of_memory():
        job.game = job.build_game()
        job.batches = job.make_batches()
    check_same_game(processes, job.game, job.loaded, job.images)
    processes.reduction = job.run_options.reduction
    with contextlib.ExitStack() as stack:
        with processes.together():
            callbacks = _begin(job, stack) if processes.first else []
        job.folder = Path(processes.share(str(job.folder) if processes.first else ""))
        processes.remedy = "continue from the last checkpoint with --resume"
        run = Run(job.folder)
        stack.callback(run.close_log)
        _play_together(job, run, callbacks)
    return run


def _given(job: TrainingJob[Any]) -> dict[str, str]:
    """What each process was told, by the names of the flags."""
    told = {"seed": job.seed, "recipe": job.request.recipe, **job.request.settings}
    flags = {f"--{name.replace('_', '-')}": str(value) for name, value in told.items()}
    return {flag: value for flag, value in flags.items() if flag != "--time-limit"}


def _play_together(job: TrainingJob[Any], run: Run, callbacks: Sequence[Callback]) -> None:
    from rivals.game.metric_buffer import TrainingFailure

    try:
        with job.processes.outlast_first(common=(TrainingFailure,)):
            if job.processes.first:
                _train(job, run, callbacks)
            else:
                _follow(job, run)
    except TrainingFailure as error:  # of a process that follows
        raise UserError(str(error)) from None
    except Exception as error:
        if job.processes.first:
            with contextlib.suppress(UserError, OSError):  # the disk may be full, or the folder gone
                if run.info["state"] == "running":
                    run.update(state="interrupted", message=str(error))
        raise


def _resolve(job: TrainingJob[Any]) -> None:
    job.resolve_config()
    if job.config.micro_batches == "auto":
        count = fit_micro_batches(job.config.batch_size, job.processes, partial(_try_micro_batches, job))
        job.config = job.config.changed(micro_batches=count)
    # In full, so that the run resumes from any folder.
    places = {name: resolve_source(place) for name in job.movable if (place := getattr(job.config, name))}
    job.config = job.config.changed(**places)


def _try_micro_batches(job: TrainingJob[Any], count: int) -> None:
    """Play the first round, in which all penalties are due, of a game like this one."""
    job.config = job.config.changed(micro_batches=count)
    with rng.fork(job.device):
        job.build_game().round(0, job.make_batches(), seed=job.seed)


def _begin(job: TrainingJob[Any], stack: contextlib.ExitStack) -> Sequence[Callback]:
    """Open or create the run folder, locked until the ``stack`` ends. Returns the callbacks."""
    name = f"{job.loaded.name}-{job.recipe}"
    job.folder = stack.enter_context(reserve_folder(job.request.out, name))
    callbacks = [*job.make_callbacks(), *_milestones(job), *_tracking(job, stack)]
    if job.time_left <= 0:
        raise UserError(f"--time-limit '{job.run_options.time_limit}' was over before training began: give more")
    run = job.open_run()
    if job.resuming and (changed := provenance.changes_since(job.stored, job.device)):
        note_printer(job.request.quiet)(changed)
    job.on_start()
    stack.enter_context(run.lock())
    run.update(
        state="running",
        config=job.config.written(),
        run_options=job.run_options.written(),
        processes=job.processes.size,
        numerics=job.numerics,
        source={"data": job.source},
        message="",
        **job.changeable_facts(),
    )
    return callbacks


def _milestones(job: TrainingJob[Any]) -> Sequence[Callback]:
    from rivals.api.training.callbacks import Milestones

    if job.run_options.keep_every is None:
        return []
    every, player = Duration.parse(job.run_options.keep_every), job.game.players[job.network]
    return [Milestones(every, Run(job.folder), player, partial(_facts, job))]


def _tracking(job: TrainingJob[Any], stack: contextlib.ExitStack) -> Sequence[Callback]:
    from rivals.api.training.tracking import Tracking

    if not job.run_options.trackers:
        return []
    tracking = Tracking(job.run_options.trackers, Run(job.folder))
    stack.callback(tracking.close)
    return [tracking]


def _facts(job: TrainingJob[Any], progress: Progress) -> dict[str, Any]:
    """What the .json beside a network of the run says of it."""
    facts = {"data": job.loaded.name, "classes": list(job.loaded.classes), **job.network_facts()}
    return facts | {"images": progress.images, "seed": job.seed, "white": job.white}


def _play(job: TrainingJob[Any], run: Run, callbacks: Sequence[Callback], stop: Callable[[], bool]) -> Progress:
    from rivals.game.loop import Saving, play

    with _prefetched(job) as batches:
        return play(
            job.game,
            batches,
            until=job.until,
            seed=job.seed,
            callbacks=callbacks,
            log=run,
            saving=Saving(
                job.checkpoints,
                Duration.parse(job.run_options.checkpoint_every or CHECKPOINT_EVERY),
                job.resuming,
                job.processes.share(job.rollback),
            ),
            stop=stop,
            processes=job.processes,
        )


@contextlib.contextmanager
def _prefetched(job: TrainingJob[Any]) -> Iterator[Batches]:
    """The batches; prepared by a thread where that pays, on a GPU or from a file.

    On a CPU, which would share its cores with the thread, batches of images in memory take less time than to hand them
    over.
    """
    from rivals.data.prefetch import prefetched
    from rivals.data.selection import in_memory

    if job.device.type == "cpu" and in_memory(job.images.images):
        yield job.batches
        return
    with prefetched(job.batches, pin=job.device.type == "cuda") as batches:
        yield batches


def _follow(job: TrainingJob[Any], run: Run) -> None:
    """Play the game with the first process, which does everything else."""
    from rivals.base.signals import stop_on_signal

    with stop_on_signal(job.time_left) as stop, devices.explain_out_of_memory():
        end = _play(job, run, [], stop)
    if end.fraction(job.until) < 1:
        raise Interrupted(f"stopped at {end.images:,} images")


def _train(job: TrainingJob[Any], run: Run, callbacks: Sequence[Callback]) -> None:
    """Play the game; save the network and write the report, however it ends."""
    from rivals.base.signals import stop_on_signal
    from rivals.console.training_progress import TrainingProgress
    from rivals.game.callbacks import OnLog, Progress
    from rivals.game.metric_buffer import TrainingFailure

    bar = TrainingProgress(
        job.until, job.batches.n, samples=partial(_latest_samples, callbacks), quiet=job.request.quiet
    )
    with stop_on_signal(job.time_left) as stop, bar, devices.explain_out_of_memory():
        try:
            end = _play(job, run, [*callbacks, OnLog(bar)], stop)
        except TrainingFailure as error:
            tensors, facts = job.checkpoints.load()
            job.game.restore(tensors)
            end = Progress(**facts["progress"])
            _save_network(job, end)
            _finish(job, run, end, callbacks, "stopped", message=str(error))
            # Classifiers have no such flag.
            can_roll_back = hasattr(job.run_options, "on_nonfinite") and not job.rollback
            fix = f"continue with {run.command_to_resume} --on-nonfinite rollback, or " if can_roll_back else ""
            raise UserError(
                f"{error}; the last good state, of step {facts['step']}, is saved: {fix}start a new run with lower "
                "learning rates"
            ) from None
        net = _save_network(job, end)
        early = end.fraction(job.until) < 1  # stopped, if only by another process
        if not (early or stop()):
            job.on_trained(net, end)
        stopped = early or stop() or not _evaluate(job, bar, end) or stop()
        shortfall = None if stopped else job.shortfall(end)
        if shortfall is not None:
            bar.print(shortfall)
        _finish(job, run, end, callbacks, "interrupted" if stopped else "finished", shortfall=shortfall)
    if stopped:
        raise Interrupted(f"stopped and saved at {end.images:,} images: continue with {run.command_to_resume}")


def _latest_samples(callbacks: Sequence[Callback]) -> Any:
    """The images of the last sample grid as an array; None before the first, or without any."""
    from rivals.api.training.callbacks import SampleGrid

    grids = (callback.samples for callback in callbacks if isinstance(callback, SampleGrid))
    return next((samples.numpy() for samples in grids if samples is not None), None)


def _save_network(job: TrainingJob[Any], end: Progress) -> nn.Module:
    """Save the network of the best state there is, or of the last one. Returns it."""
    facts = _facts(job, end)
    if job.best is not None and job.best.paths():
        tensors, stored = job.best.load()
        job.game.restore(tensors)
        facts |= {"images": stored["progress"]["images"], "step": stored["step"]}
    net = job.game.players[job.network].eval_net
    save_network(net, job.folder / f"{job.network}.safetensors", facts)
    return net


def _evaluate(job: TrainingJob[Any], bar: TrainingProgress, end: Progress) -> bool:
    """Evaluate the saved network; False if the user interrupted it."""
    try:
        with launcher.alone():
            message = job.final_evaluation(job.game.players[job.network].eval_net)
    except KeyboardInterrupt:  # the evaluation handles signals itself
        return False
    if message is not None:
        bar({"images": end.images, "message": message})
    return True


def _finish(
    job: TrainingJob[Any], run: Run, end: Progress, callbacks: Sequence[Callback], state: str, **facts: Any
) -> None:
    """Record where the run ended; draw its curves and write its report."""
    from rivals.reports.plots.training import save_curves
    from rivals.reports.report import write_report

    alarms = [alarm for callback in callbacks for alarm in callback.active.values()]
    run.update(
        state=state,
        images=end.images,
        step=end.step,
        epochs=round(end.epochs, 3),
        seconds=round(end.seconds, 1),
        alarms=[{key: alarm[key] for key in ("alarm", "message", "remedy")} for alarm in alarms],
        **facts,
    )
    save_curves(run)
    write_report([run], run.report)
