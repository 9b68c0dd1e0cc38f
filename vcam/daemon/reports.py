"""What a run says of itself: the status while it runs, the report at its end."""

from __future__ import annotations

from dataclasses import asdict

from vcam.commands import Status
from vcam.daemon.event_log import EventLog
from vcam.daemon.loops import Counts
from vcam.daemon.pipeline import Pipeline
from vcam.daemon.surfaces import Surfaces
from vcam.devices.readers import Audience
from vcam.frames import EngineFacts, EnginePhase
from vcam.settings.run_options import RunReport
from vcam.settings.selection import Choice

Described = tuple[str, str, float | None]
"""State, reason and progress, as Status has them."""


def status_of(
    described: Described,
    choice: Choice,
    pipeline: Pipeline,
    audience: Audience,
    surfaces: Surfaces,
    log: EventLog,
    preset_says: str,
    now: float,
    started_s: float,
) -> Status:
    """Return the state of everything; preset_says: of `auto`; now, started_s: seconds of the run's clock."""
    state, reason, progress = described
    engine, slots, sink, counts = (
        pipeline.translator.state,
        pipeline.slots,
        pipeline.publisher,
        pipeline.slots.counts,
    )
    facts = engine.facts or EngineFacts(choice.settings.model, str(choice.settings.runtime), choice.settings.device)
    notes = list(log.troubles())
    if state != "failed" and engine.phase is EnginePhase.RUNNING and engine.text:
        notes.append(engine.text)
    recorder = sink.recorder.state
    if recorder.sound_trouble:
        notes.append(f"the recording has no sound: {recorder.sound_trouble}")
    from core.models.prompt_reading import prompt_notes

    told = prompt_notes(choice.settings.model, choice.look.prompt)
    return Status(
        state=state,
        reason=reason,
        progress=progress,
        profile=choice.profile.id,
        profile_name=choice.profile.name,
        prompt=choice.look.prompt,
        model=facts.model,
        runtime=facts.runtime,
        device=facts.device,
        provider=facts.provider,
        preset="" if choice.preset is None else str(choice.taken),
        preset_asked=str(choice.preset or ""),
        preset_says=preset_says,
        source=pipeline.source.name,
        sink=sink.sink.name,
        width=sink.size[0],
        height=sink.size[1],
        mirror=choice.options.mirror,
        fps=round(counts.translated_rate.per_second(now), 2),
        published_fps=round(counts.published_rate.per_second(now), 2),
        longest_interval_ms=round(counts.interval.max_ms, 3),
        latency_ms=counts.latency.quantile_ms(0.5),
        latency_now_ms=counts.latency_now.median_ms(),
        captured=counts.captured,
        translated=counts.translated,
        published=counts.published,
        refused=counts.refused,
        dropped=slots.captured.dropped,
        engine_pid=facts.pid,
        restarts=engine.restarts,
        bank_bytes=facts.bank_bytes,
        refreshes=facts.refreshes,
        reader_count=audience.presence.count,
        readers=audience.presence.names,
        panel_port=surfaces.port,
        obs=surfaces.obs(),
        logged=log.count,
        uptime_s=round(now - started_s, 1),
        notes=(*notes, *told),
        server=engine.server,
        server_ms={part: [spread.p50_ms, spread.p95_ms] for part, spread in engine.times.items()},
        prompt_notes=told,
        **asdict(recorder),
    )


def report_of(status: Status, counts: Counts, seconds: float) -> RunReport:
    """Return what a run did; seconds: how long it took."""
    interval, latency = counts.interval, counts.latency
    return RunReport(
        captured=status.captured,
        translated=status.translated,
        published=status.published,
        dropped=status.dropped,
        publish_interval_ms={
            "p50": interval.quantile_ms(0.5),
            "p95": interval.quantile_ms(0.95),
            "max": status.longest_interval_ms,
        },
        latency_ms={"p50": latency.quantile_ms(0.5), "p95": latency.quantile_ms(0.95)},
        model=status.model,
        runtime=status.runtime,
        profile=status.profile,
        source=status.source,
        sink=status.sink,
        restarts=status.restarts,
        seconds=round(seconds, 2),
    )
