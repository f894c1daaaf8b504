//! An origin whose health check can be told what to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{Origin, Served, ok};

/// Answers with its name, and `/health` with the status that it is told; 200 at first.
pub(crate) struct Patient {
    pub(crate) served: Served,
    health: Arc<AtomicU16>,
}

impl Patient {
    pub(crate) fn new(name: &'static str) -> Self {
        let health = Arc::new(AtomicU16::new(200));
        let told = Arc::clone(&health);
        let served = Origin::bind().serve(move |request| {
            if request.target != "/health" {
                return ok(name);
            }
            let status = told.load(Ordering::Relaxed);
            format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .into_bytes()
        });
        Self { served, health }
    }

    pub(crate) fn set(&self, status: u16) {
        self.health.store(status, Ordering::Relaxed);
    }
}
