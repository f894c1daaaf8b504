//! The metrics page.

mod health;
mod memory;
mod orders;
mod recent;
mod rings;
mod servers;
mod shards;
mod upstreams;

use std::sync::atomic::Ordering::Relaxed;

use super::sampler::Sampler;
use crate::health::overview::Overview;
use crate::telemetry::date::unix_seconds;
use crate::telemetry::process::Process;
use crate::telemetry::prometheus::Text;
use crate::telemetry::view::View;

/// Name, help and value of a family.
type Row<T> = (&'static str, &'static str, fn(&T) -> u64);

/// The present state as Prometheus text.
pub(super) fn render(sampler: &Sampler, overview: Option<&Overview>) -> String {
    let view = sampler.view();
    let mut text = Text::default();
    program(&mut text, view);
    process(&mut text, view);
    memory::render(&mut text, view);
    shards::render(&mut text, view);
    rings::render(&mut text, view);
    servers::render(&mut text, sampler, overview);
    upstreams::render(&mut text, view);
    recent::render(&mut text, sampler);
    if let Some(overview) = overview {
        health::render(&mut text, view, overview);
        orders::render(&mut text, view, overview);
    }
    text.finish()
}

fn program(text: &mut Text, view: &View) {
    text.gauge(
        "ringlane_build_info",
        "Always 1; the label has the version.",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let io = [("mode", view.io.mode.as_str()), ("flags", &view.io.flags)];
    text.gauge(
        "ringlane_io_info",
        "Always 1; the labels say how the shards talk to the kernel.",
    )
    .sample(&io, 1);
    let draining = u8::from(view.draining.load(Relaxed));
    text.gauge("ringlane_draining", "1 while no new connections are taken.")
        .sample(&[], draining);
    let restarts = view.shard_restarts();
    text.counter(
        "ringlane_shard_restarts_total",
        "Shards started again after they died.",
    )
    .sample(&[], restarts);
}

/// Under the names that Prometheus client libraries have for every process.
fn process(text: &mut Text, view: &View) {
    let process = Process::read();
    let cpu = process.cpu.map(|time| time.as_secs_f64());
    text.counter("process_cpu_seconds_total", "User and system time.")
        .maybe(cpu);
    text.gauge("process_resident_memory_bytes", "Resident memory.")
        .maybe(process.resident_bytes);
    text.gauge("process_virtual_memory_bytes", "Address space.")
        .maybe(process.virtual_bytes);
    text.gauge("process_open_fds", "Open descriptors.")
        .maybe(process.open_fds);
    text.gauge("process_max_fds", "Limit of descriptors.")
        .maybe(process.max_fds);
    text.gauge("process_threads", "Threads.")
        .maybe(process.threads);
    let started = unix_seconds(view.started);
    text.gauge(
        "process_start_time_seconds",
        "Start time since the Unix epoch.",
    )
    .sample(&[], started);
}
