//! Cases that Ringlane is known to fail, with reasons; `docs/conformance.md` has the same list. None may be about security.

/// Name and reason.
pub(crate) const DEVIATIONS: &[(&str, &str)] = &[
    (
        "connection::via-added",
        "`Via` is off unless `forward.via` is set: it tells every server and log how the site is built, and few read it",
    ),
    (
        "connection::max-forwards-trace",
        "Max-Forwards is not counted: with one gateway before its own servers there is no chain of proxies to trace",
    ),
    ("connection::max-forwards-counted", "the same"),
];
