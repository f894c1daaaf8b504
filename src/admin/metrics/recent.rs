//! What is gone over the last minute or so: shares, imbalance and quantiles. As in Prometheus' summaries, NaN says that there was
//! nothing to measure.

use crate::admin::sampler::Sampler;
use crate::telemetry::prometheus::Text;

const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)];

pub(super) fn render(text: &mut Text, sampler: &Sampler) {
    shares(text, sampler);
    server_quantiles(text, sampler);
}

fn shares(text: &mut Text, sampler: &Sampler) {
    let traffic = sampler.traffic();
    let view = sampler.view();
    let mut family = text.gauge(
        "ringlane_shard_share_ratio",
        "The shard's part of all requests of the last minute.",
    );
    for shard in 0..view.shards.len() {
        let share = traffic.shard_share(shard).unwrap_or(f64::NAN);
        family.sample(&[("shard", &shard.to_string())], share);
    }
    let imbalance = traffic.imbalance().unwrap_or(f64::NAN);
    text.gauge(
        "ringlane_shard_imbalance_ratio",
        "Requests of the busiest shard to those of the mean one in the last minute; 1 is even.",
    )
    .sample(&[], imbalance);
    let mut family = text.gauge(
        "ringlane_upstream_share_ratio",
        "The server's part of its upstream's attempts of the last minute.",
    );
    for (index, upstream, server) in view.servers() {
        let share = traffic.server_share(view.siblings(index), index);
        let labels = [("upstream", &*upstream.name), ("server", &*server.name)];
        family.sample(&labels, share.unwrap_or(f64::NAN));
    }
}

fn server_quantiles(text: &mut Text, sampler: &Sampler) {
    let mut family = text.gauge(
        "ringlane_upstream_recent_response_seconds",
        "Time to response head in the last minute, by quantile.",
    );
    for (index, upstream, server) in sampler.view().servers() {
        let latency = sampler.recent_latency(index);
        for (name, quantile) in QUANTILES {
            let labels = [
                ("upstream", &*upstream.name),
                ("server", &*server.name),
                ("quantile", name),
            ];
            let us = latency.quantile_us(quantile);
            family.sample(&labels, us.map_or(f64::NAN, |us| us as f64 / 1e6));
        }
    }
}
