//! Whether a request may be tried again after an attempt that failed (RFC 9110 section 9.2.2).

use super::client::After;
use super::request::Request;
use super::response::{Failure, Finish};
use super::spare::Spare;
use super::upload::UploadError;
use crate::balance::NoServer;
use crate::http1::answer::Answer;
use crate::telemetry::counters::{FailureKind, RetryKind, TimeoutKind};

/// Why an attempt did not end with a whole answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// On the answering side.
    Answer(Failure),
    /// The server answered with a status that another server may do better than.
    Status(Box<Spare>),
    /// On the side of the request's body, before the final head had come; `begun` when the client had got a part of an interim response.
    Upload { error: UploadError, begun: bool },
}

/// What the attempts at one request have in common and add up to.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Servers that failed it, by index in the group.
    pub(super) tried: Vec<usize>,
    /// Attempts after the first.
    pub(super) retries: u32,
    /// Attempts that may still follow one whose request a server may have seen.
    pub(super) retries_left: u16,
    /// There was no server for it at first.
    pub(super) queued: bool,
    /// The next attempt takes a new connection.
    pub(super) fresh: bool,
    /// The last attempt went over a pooled connection.
    pub(super) reused: bool,
    /// What the client got of an answer that did not come whole.
    pub(super) partial: Option<Box<Finish>>,
    /// The last answer that was not good enough.
    pub(super) spare: Option<Box<Spare>>,
}

impl Fault {
    /// How the server failed, when it was the server.
    pub(super) fn of_server(&self) -> Option<FailureKind> {
        match self {
            Self::Answer(Failure::Connect(kind) | Failure::Server(kind)) => Some(*kind),
            Self::Answer(Failure::NoAnswer | Failure::Refused) => Some(FailureKind::Closed),
            Self::Answer(Failure::Truncated { .. }) => Some(FailureKind::Truncated),
            Self::Upload {
                error: UploadError::ServerOverdue,
                ..
            } => Some(FailureKind::ResponseTimeout),
            Self::Answer(
                Failure::Unwanted
                | Failure::ClientGone
                | Failure::ClientStalled
                | Failure::ClientSlow,
            )
            | Self::Status(_)
            | Self::Upload { .. } => None,
        }
    }

    /// The timeout that was over, when it was one.
    pub(super) fn timeout(&self) -> Option<TimeoutKind> {
        match self {
            Self::Answer(Failure::Connect(FailureKind::ConnectTimeout)) => {
                Some(TimeoutKind::Connect)
            }
            Self::Answer(Failure::Server(FailureKind::ResponseTimeout)) => {
                Some(TimeoutKind::ResponseHeader)
            }
            Self::Answer(Failure::ClientStalled)
            | Self::Upload {
                error: UploadError::ServerOverdue,
                ..
            } => Some(TimeoutKind::Write),
            Self::Upload {
                error: UploadError::ClientOverdue,
                ..
            } => Some(TimeoutKind::ClientBody),
            Self::Upload {
                error: UploadError::ClientSlow,
                ..
            } => Some(TimeoutKind::ClientBodyRate),
            Self::Answer(Failure::ClientSlow) => Some(TimeoutKind::ResponseRate),
            Self::Answer(_) | Self::Status(_) | Self::Upload { .. } => None,
        }
    }

    /// What becomes of the client's connection where no answer can tell of the fault.
    pub(super) fn end(&self) -> Option<After> {
        match self {
            // What a slow client has not taken yet would else stay with the kernel.
            Self::Answer(
                Failure::Truncated {
                    until_close: true, ..
                }
                | Failure::ClientSlow
                | Failure::ClientStalled,
            )
            | Self::Upload { begun: true, .. } => Some(After::Reset),
            // Not a plain close: bytes that the client has sent meanwhile would make a reset of it, which can take what it has not read yet.
            Self::Answer(Failure::Truncated { .. }) => Some(After::Linger),
            Self::Answer(Failure::ClientGone)
            | Self::Upload {
                error: UploadError::ClientGone,
                ..
            } => Some(After::Close),
            Self::Answer(_) | Self::Status(_) | Self::Upload { .. } => None,
        }
    }

    /// The answer that tells a client of it.
    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::Answer(Failure::Connect(FailureKind::ConnectTimeout)) => {
                Answer::new(504, "upstream cannot be reached in time")
            }
            Self::Answer(Failure::Connect(FailureKind::NoPort)) => NO_PORT,
            Self::Answer(Failure::Connect(FailureKind::Shortage)) => SHORTAGE,
            Self::Answer(Failure::Connect(_)) => UNREACHABLE,
            Self::Answer(Failure::Server(FailureKind::ResponseTimeout))
            | Self::Upload {
                error: UploadError::ServerOverdue,
                ..
            } => Answer::new(504, "upstream did not answer in time"),
            Self::Answer(Failure::Server(FailureKind::BadResponse)) => {
                Answer::new(502, "upstream sent an invalid response")
            }
            Self::Upload {
                error: UploadError::ClientOverdue,
                ..
            } => Answer::new(408, "request body did not come in time"),
            Self::Upload {
                error: UploadError::ClientSlow,
                ..
            } => Answer::new(408, "request body came too slowly"),
            Self::Upload {
                error: UploadError::Refused(refusal),
                ..
            } => Answer::new(refusal.status(), refusal.as_str()),
            Self::Answer(_) | Self::Status(_) | Self::Upload { .. } => {
                Answer::new(502, "upstream closed the connection without an answer")
            }
        }
    }
}

/// Whether a server may get a request that another one may have acted on, as far as its method is concerned.
pub(super) fn may_act_twice(request: &Request<'_>) -> bool {
    request.traits.idempotent || request.group.retry_non_idempotent
}

impl Course {
    /// Why the request may be tried again after this; `None` when it may not. The budget is not asked.
    pub(super) fn retry(&mut self, fault: &Fault, request: &Request<'_>) -> Option<RetryKind> {
        // A head that the kernel has not taken in time is lost with its buffer.
        if !request.upload.is_repeatable() || request.outgoing.is_empty() {
            return None;
        }
        match fault {
            // Nothing was sent, so nothing can happen twice.
            Fault::Answer(Failure::Connect(_)) if request.group.retries > 0 => {
                Some(RetryKind::Connect)
            }
            Fault::Answer(Failure::NoAnswer) if may_act_twice(request) => {
                if self.reused {
                    return Some(RetryKind::Reused);
                }
                self.take_one(RetryKind::Closed)
            }
            // The client has got nothing, so a request that may be acted on twice can be.
            Fault::Answer(Failure::Server(kind)) if may_act_twice(request) => {
                self.take_one(match kind {
                    FailureKind::ResponseTimeout => RetryKind::Timeout,
                    _ => RetryKind::Invalid,
                })
            }
            Fault::Status(_) if may_act_twice(request) => self.take_one(RetryKind::Status),
            _ => None,
        }
    }

    fn take_one(&mut self, kind: RetryKind) -> Option<RetryKind> {
        self.retries_left = self.retries_left.checked_sub(1)?;
        Some(kind)
    }
}

const UNREACHABLE: Answer = Answer::new(502, "upstream cannot be reached");
const RETRY_AFTER: Option<(&str, &str)> = Some(("Retry-After", "1"));

const NO_PORT: Answer = Answer {
    field: RETRY_AFTER,
    ..Answer::new(503, "no local port is free to connect to the upstream")
};
const SHORTAGE: Answer = Answer {
    field: RETRY_AFTER,
    ..Answer::new(
        503,
        "no descriptor or memory is left to connect to the upstream",
    )
};

/// The answer to a request that waited for a server in vain.
pub(super) const OVERDUE: Answer = Answer {
    field: RETRY_AFTER,
    ..Answer::new(503, "no server was free in time")
};

/// The answer when there is no server to try.
pub(super) fn unavailable(why: NoServer) -> Answer {
    match why {
        NoServer::NoneHealthy => Answer::new(503, "no healthy upstream"),
        NoServer::AllFull => Answer {
            field: RETRY_AFTER,
            ..Answer::new(503, "all servers are busy")
        },
        NoServer::AllTried => UNREACHABLE,
    }
}
