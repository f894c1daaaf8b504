//! An answer that was put aside while other servers are asked for a better one.

use std::time::Instant;

use super::client::{After, Client};
use super::conclusion;
use super::lane::{Held, Lane};
use super::request::Request;
use super::response::{Answering, Start};
use super::retry::{Course, Fault};
use crate::upstream::group::Group;
use crate::upstream::pool::Connection;

/// An answer that the client gets if no other server gives a better one. Nothing of it has left.
#[derive(Debug)]
pub(super) struct Spare {
    /// The server, by index in the group.
    pub(super) index: usize,
    /// The beginning of the answer; the rest is still to be read.
    pub(super) start: Start,
    /// Where the rest comes from.
    pub(super) connection: Box<Connection>,
    /// The server has reset that connection.
    pub(super) reset: bool,
}

impl Spare {
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
        let _running = Held::new(&lane.server(server.id).active);
        let answering = Answering::new(lane, client, request, index, Instant::now());
        answering.reset.set(self.reset);
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
        group.release();
    }
}
