//! Clients under which servers are steered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::support::{Proxy, eventually};

/// Clients that ask without a pause until stopped: how many answers there were, and every one that was not 200.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    bad: Arc<Mutex<Vec<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(proxy: &Proxy, clients: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answers: Arc::default(),
            bad: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..clients {
            let (stop, answers, bad) = (
                Arc::clone(&load.stop),
                Arc::clone(&load.answers),
                Arc::clone(&load.bad),
            );
            let mut wire = proxy.connect();
            load.threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    wire.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
                    let response = wire.response("GET");
                    answers.fetch_add(1, Ordering::Relaxed);
                    if response.status != 200 {
                        let line = format!("{} {}", response.status, response.text());
                        bad.lock().expect("whole").push(line);
                    }
                }
            }));
        }
        load
    }

    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub(crate) fn await_more(&self, more: usize) {
        let before = self.answers();
        eventually("more answers", || self.answers() >= before + more);
    }

    #[track_caller]
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("each request is answered");
        }
        let bad = self.bad.lock().expect("whole");
        assert!(bad.is_empty(), "clients saw: {bad:?}");
    }
}
