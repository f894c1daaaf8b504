//! What operators ordered.

use crate::health::overview::Overview;
use crate::health::{Order, Steer};
use crate::telemetry::prometheus::Text;
use crate::telemetry::view::View;

pub(super) fn render(text: &mut Text, view: &View, overview: &Overview) {
    let mut orders = text.counter(
        "ringlane_upstream_orders_total",
        "Operators' orders for the server, by their kind.",
    );
    for (index, upstream, server) in view.servers() {
        for (kind, count) in Steer::KINDS.into_iter().zip(overview.history.orders(index)) {
            let labels = [
                ("upstream", &*upstream.name),
                ("server", &*server.name),
                ("order", kind),
            ];
            orders.sample(&labels, count);
        }
    }
    let mut out = text.gauge(
        "ringlane_upstream_taken_out",
        "1 while an operator has the server drained or down.",
    );
    for (index, upstream, server) in view.servers() {
        if let Some(entry) = overview.entry(index) {
            let labels = [("upstream", &*upstream.name), ("server", &*server.name)];
            out.sample(&labels, u8::from(entry.order != Order::Serve));
        }
    }
}
