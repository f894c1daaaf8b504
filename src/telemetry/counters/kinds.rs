//! What is counted by kind: timeouts, failures, retries and stickiness.

/// Defines a closed set of causes with their names on the status page and in metrics.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$kind_doc:meta])* $kind:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$kind_doc])* $kind,)+
        }

        impl $name {
            /// Every kind, in the order of the enum.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$kind,)+];
            /// How many kinds there are.
            pub const COUNT: usize = [$($text,)+].len();

            /// The kind's name, in lower case with underscores.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)+
                }
            }
        }
    };
}

kinds! {
    /// Which timeout ended a connection, an exchange or an attempt.
    TimeoutKind {
        /// The client did not finish its request head.
        ClientHeader = "client_header",
        /// The client stopped sending its request body.
        ClientBody = "client_body",
        /// No further request came on the client's connection.
        KeepAlive = "keep_alive",
        /// A peer on either side stopped reading.
        Write = "write",
        /// A connection to a server was not established.
        Connect = "connect",
        /// A server sent no response head.
        ResponseHeader = "response_header",
        /// A server stopped sending its response body.
        ResponseBody = "response_body",
        /// A tunnel carried nothing.
        TunnelIdle = "tunnel_idle",
        /// The client sent its request body too slowly.
        ClientBodyRate = "client_body_rate",
        /// The client took its response too slowly.
        ResponseRate = "response_rate",
    }
}

kinds! {
    /// How a server failed an attempt.
    FailureKind {
        /// Nobody listens there.
        ConnectRefused = "connect_refused",
        /// The connection failed in another way: no route, name not resolved.
        ConnectError = "connect_error",
        /// No local port was free towards it, or its source addresses are gone; not the server's doing.
        NoPort = "no_port",
        /// Our descriptors or memory ran out; not the server's doing.
        Shortage = "shortage",
        /// The connection was not established in time.
        ConnectTimeout = "connect_timeout",
        /// The server closed or reset the connection before a response head was complete.
        Closed = "closed",
        /// What the server sent is not a valid response.
        BadResponse = "bad_response",
        /// The response head did not come in time.
        ResponseTimeout = "response_timeout",
        /// The response body ended early or stalled.
        Truncated = "truncated",
    }
}

kinds! {
    /// What became of a client's stickiness, where an answer came from a server.
    StickyKind {
        /// Its cookie led to the server that answered.
        Hit = "hits",
        /// Its cookie led to another server: it has moved and got a new one.
        Move = "moves",
        /// It had no cookie of ours and got one.
        Insert = "inserts",
    }
}

kinds! {
    /// Why a request was sent again.
    RetryKind {
        /// No connection could be had.
        Connect = "connect",
        /// The server closed a pooled connection before a byte of the answer.
        Reused = "reused",
        /// The server closed a new connection before a byte of the answer.
        Closed = "closed",
        /// The server broke off in a response head, or sent something else than HTTP.
        Invalid = "invalid",
        /// The server did not answer in time.
        Timeout = "timeout",
        /// The server answered with one of the statuses to try again on.
        Status = "status",
    }
}
