//! Questions to a VMM's HTTP API, whatever carries them.

use super::address::VmmKind;
use super::error::{Failed, VmmCause};
use super::http::Answer;
use serde::de::DeserializeOwned;
use std::future::Future;

/// Asks `request` and takes its document.
pub(super) async fn document<T, F>(
    ask: &impl Fn(&'static str) -> F,
    kind: VmmKind,
    request: &'static str,
) -> Result<T, Failed>
where
    T: DeserializeOwned,
    F: Future<Output = Result<Answer, Failed>>,
{
    let answer = ask(request).await?;
    answer.document(kind).map_err(named(request))
}

/// Puts the request's name on a cause.
pub(super) fn named(request: &'static str) -> impl Fn(VmmCause) -> Failed {
    move |cause| Failed { request, cause }
}
