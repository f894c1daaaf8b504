//! An answer that was put aside while other servers are asked for a better one.

use std::time::Instant;

use super::client::{After, Client};
use super::conclusion;
use super::lane::Lane;
use super::request::Request;
use super::response::{Answering, Start};
use super::retry::{Course, Fault};
use crate::telemetry::counters::Tally;
use crate::upstream::group::Group;
use crate::upstream::pool::Connection;

/// An answer that the client gets if no other server gives a better one. Nothing of it has left.
#[derive(Debug)]
pub(super) struct Spare {
    /// The server, by index in the group.
    index: usize,
    /// The beginning of the answer; the rest is still to be read.
    start: Start,
    /// Where the rest comes from.
    connection: Box<Connection>,
    /// The server has reset that connection.
    reset: bool,
    /// The tick from which on it was not read.
    since: u32,
    /// While the rest of it is still to come.
    running: Option<Tally>,
}

impl Spare {
    /// What `answering` has read of an answer.
    pub(super) fn new(
        answering: &Answering<'_>,
        start: Start,
        connection: Box<Connection>,
    ) -> Self {
        let is_under_way = !start.reader.ended();
        Self {
            index: answering.index,
            start,
            connection,
            reset: answering.reset.get(),
            since: answering.client.deadline.now(),
            running: is_under_way.then(|| {
                let counters = &answering.lane.counters;
                Tally::new(counters, answering.server.id, |server| &server.active)
            }),
        }
    }

    /// Passes the answer on after all.
    pub(super) async fn deliver(
        mut self,
        lane: &Lane,
        client: &Client,
        request: &Request<'_>,
        course: &mut Course,
    ) -> After {
        let (group, index) = (request.group, self.index);
        let server = &group.servers[index];
        let answering = Answering::new(lane, client, request, index, Instant::now());
        answering.reset.set(self.reset);
        answering.uptake.waited(self.since, client.deadline.now());
        client.presence.begin(lane, client);
        match answering
            .run(&self.connection.socket, &mut self.start, &mut course.spare)
            .await
        {
            Ok(()) => conclusion::finished(
                lane,
                client,
                request,
                server,
                &self.start.finish,
                self.connection,
                course,
            ),
            Err(failure) => {
                course.partial = Some(Box::new(self.start.finish));
                let fault = Fault::Answer(failure);
                conclusion::count(lane, client, request, index, &fault, course);
                let after = fault.end().unwrap_or(After::Close);
                conclusion::ended(lane, request, server, after, course)
            }
        }
    }

    /// Drops the answer. Its connection goes on when it was read to its end; either way the server has room again.
    #[cold]
    pub(super) fn discard(self, lane: &Lane, group: &Group) {
        if self.start.leaves_connection() && !lane.deadlines.draining() {
            let pool = &group.servers[self.index].pool;
            pool.put(self.connection, lane.deadlines.now());
        } else {
            drop(self.connection);
        }
        lane.give(self.start.into_buffer());
        drop(self.running);
        group.release();
    }
}
