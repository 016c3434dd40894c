//! Everything that is answered but 200.

use super::body::Problem;
use crate::host::worker::order::Expected;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a request is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The body or the path is wrong.
    #[error("{0}")]
    Body(String),
    /// A body beyond all bounds.
    #[error("the body has more than {0} bytes")]
    Long(usize),
    /// A body that did not come in time.
    #[error("the body did not come within {0} seconds")]
    Slow(u64),
    /// Not the bearer's token.
    #[error("this address takes requests with the worker's bearer token alone")]
    Token,
    /// Neither a descriptor nor a running life.
    #[error("sandbox {0:?} is not known: no descriptor names it, and no life of it is open")]
    Unknown(String),
    /// A call of another life, or one that cannot follow the last.
    #[error("out of order: the sandbox is {phase}, {said}")]
    Order {
        /// Where the sandbox is.
        phase: &'static str,
        /// What does not fit.
        said: String,
        /// What would.
        expected: Expected,
    },
    /// An id that another call has.
    #[error("event_id: {0}")]
    Event(String),
    /// What the call says contradicts the books.
    #[error("{0}")]
    Data(String),
    /// Not in the books: it has to be said again.
    #[error("the ledger has not taken it, call again: {0}")]
    Ledger(String),
    /// The worker stops.
    #[error("the worker stops, call again")]
    Stopping,
    /// No such path.
    #[error("there is no such path; GET /openapi.json tells which there are")]
    Path,
    /// Another method.
    #[error("this path does not take this method")]
    Method,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Long(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Unknown(_) | Self::Path => StatusCode::NOT_FOUND,
            Self::Order { .. } | Self::Event(_) => StatusCode::CONFLICT,
            Self::Data(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Ledger(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// Its name, for a program and for a metric.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Body(_) => "bad_request",
            Self::Long(_) => "too_long",
            Self::Slow(_) => "too_slow",
            Self::Token => "unauthorized",
            Self::Unknown(_) => "unknown_sandbox",
            Self::Order { .. } => "out_of_order",
            Self::Event(_) => "event_id_taken",
            Self::Data(_) => "contradiction",
            Self::Ledger(_) => "ledger",
            Self::Stopping => "stopping",
            Self::Path => "no_such_path",
            Self::Method => "method",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let expected = match &self {
            Self::Order { expected, .. } => Some(expected.clone()),
            _ => None,
        };
        let problem = Problem { error: self.name().to_owned(), message: self.to_string(), expected };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
