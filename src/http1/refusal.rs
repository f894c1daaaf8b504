//! Why a message is refused.

use std::fmt;

/// Why a message was refused. One variant for each cause; the text names the rule, never the peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A line ends in LF without CR (RFC 9112 section 2.2).
    BareLf,
    /// CR stands somewhere other than before LF (RFC 9112 section 2.2).
    BareCr,
    /// The request line is not `method SP target SP version` (RFC 9112 section 3).
    RequestLine,
    /// The method is not a token (RFC 9110 section 9.1).
    Method,
    /// The target is in none of the four forms or has a byte that a URI cannot have (RFC 9112 section 3.2).
    Target,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The version is not `HTTP/1.x` (RFC 9112 section 2.3).
    Version,
    /// A major version that we do not speak (RFC 9110 section 15.6.6).
    VersionUnsupported,
    /// The status line is not `version SP 3DIGIT [SP reason]` (RFC 9112 section 4).
    StatusLine,
    /// A field name is empty or not a token, or white space stands before the colon (RFC 9112 section 5.1).
    FieldName,
    /// A field name has an underscore, and the configuration refuses such names (RFC 3875 section 4.1.18 tells why one would).
    Underscore,
    /// A field value has a control byte (RFC 9110 section 5.5).
    FieldValue,
    /// A line begins with white space: obsolete line folding (RFC 9112 section 5.2).
    Folding,
    /// The head is larger than the limit.
    HeadTooLarge,
    /// More fields than the limit.
    TooManyFields,
    /// An HTTP/1.1 request without Host, or with several (RFC 9112 section 3.2).
    Host,
    /// Content-Length is not a plain number, or there are several (RFC 9112 section 6.3).
    ContentLength,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 section 6.1).
    LengthAndEncoding,
    /// Transfer-Encoding does not end in one `chunked`, or the sender speaks HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncoding,
    /// A transfer coding that we do not know (RFC 9112 section 6.1).
    TransferCodingUnknown,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// A chunk size that is empty, not hexadecimal or too large (RFC 9112 section 7.1).
    ChunkSize,
    /// A chunk's line or data does not end as it must (RFC 9112 section 7.1).
    ChunkLine,
    /// Chunk extensions longer than anyone needs (RFC 9112 section 7.1.1).
    ChunkExtension,
    /// A trailer section that is malformed or too large (RFC 9112 section 7.1.2).
    Trailer,
    /// The body is longer than the limit.
    BodyTooLarge,
}

impl Refusal {
    /// The status that answers a request with this fault.
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::BodyTooLarge => 413,
            Self::Expectation => 417,
            Self::TransferCodingUnknown => 501,
            Self::VersionUnsupported => 505,
            _ => 400,
        }
    }

    /// The cause in a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BareLf => "line ends in LF without CR",
            Self::BareCr => "CR without LF",
            Self::RequestLine => "malformed request line",
            Self::Method => "malformed method",
            Self::Target => "malformed request target",
            Self::TargetTooLong => "request target too long",
            Self::Version => "malformed HTTP version",
            Self::VersionUnsupported => "HTTP version not supported",
            Self::StatusLine => "malformed status line",
            Self::FieldName => "malformed field name",
            Self::Underscore => "underscore in a field name",
            Self::FieldValue => "malformed field value",
            Self::Folding => "folded field line",
            Self::HeadTooLarge => "header section too large",
            Self::TooManyFields => "too many header fields",
            Self::Host => "missing, repeated or malformed Host",
            Self::ContentLength => "malformed or repeated Content-Length",
            Self::LengthAndEncoding => "both Content-Length and Transfer-Encoding",
            Self::TransferEncoding => "malformed Transfer-Encoding",
            Self::TransferCodingUnknown => "transfer coding not supported",
            Self::Expectation => "expectation not supported",
            Self::ChunkSize => "malformed chunk size",
            Self::ChunkLine => "malformed chunk",
            Self::ChunkExtension => "chunk extension too long",
            Self::Trailer => "malformed trailer section",
            Self::BodyTooLarge => "request body too large",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Refusal {}
