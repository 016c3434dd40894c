//! `listen`: notifications as they come, each beside what its agent says when it is dialled back.

use super::Outcome;
use super::args::ListenArgs;
use super::error::CliError;
use super::lifecycle::client;
use super::output::{Output, complain};
use crate::host::client::Reading;
use crate::host::error::ClientError;
use crate::host::listen::{Access, Incoming, Listener, Place, confirm};
use crate::host::{json, table};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// News that wait to be shown; a full queue slows those who bring them.
const NEWS_MAX: usize = 16;

/// What came of one connection.
type News = Result<Heard, ClientError>;

/// A notification, and what was made of it.
pub(super) struct Heard {
    hint: Reading,
    evidence: Result<Reading, ClientError>,
    /// Whether it was acknowledged, or why not.
    acked: Result<(), String>,
}

pub(super) async fn run(args: ListenArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
    let place = place(&args)?;
    let (uid, gid) = args.owner.map_or((None, None), |owner| (Some(owner.uid), owner.gid));
    let mut listener = Listener::bind_for(place, Access { uid, gid, mode: args.mode })?;
    let (sender, mut news) = mpsc::channel::<News>(NEWS_MAX);
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let (timeout, no_ack) = (args.timeout, args.no_ack);
                tokio::spawn(attend(incoming?, timeout, no_ack, sender.clone()));
            }
            Some(heard) = news.recv() => match heard {
                Ok(heard) if args.json => output.line(&heard.json()?)?,
                Ok(heard) => output.text(&heard.text())?,
                Err(error) => complain(&error),
            },
            _ = interrupt.recv() => return Ok(Outcome::Fine),
            _ = terminate.recv() => return Ok(Outcome::Fine),
        }
    }
}

fn place(args: &ListenArgs) -> Result<Place, CliError> {
    let path = &args.place;
    match &args.dial {
        None if path.as_os_str() == "vsock" => Ok(Place::Vsock { port: args.port }),
        Some(_) if path.as_os_str() == "vsock" => Err(CliError::DialOne),
        Some(agent) => Ok(Place::Hybrid { path: path.clone(), agent: agent.clone() }),
        None => {
            let open = |error| CliError::Open { path: path.display().to_string(), error };
            Ok(Place::hybrid(std::path::absolute(path).map_err(open)?)?)
        }
    }
}

/// Hears one connection, asks its agent, and closes it.
async fn attend(mut incoming: Incoming, timeout: Duration, no_ack: bool, news: mpsc::Sender<News>) {
    let heard = hear(&mut incoming, timeout, no_ack).await;
    // Nobody listens any more where the command ends.
    let _ = news.send(heard).await;
    // A guest that does not close its end has not said less for it.
    let _ = incoming.close().await;
}

async fn hear(incoming: &mut Incoming, timeout: Duration, no_ack: bool) -> News {
    let notify = incoming.notify().await?;
    let target = incoming.target().clone();
    let hint = Reading { target: target.clone(), agent: notify.agent, report: notify.report, skew_ns: None };
    // The first connection after a restore may be swallowed.
    let client = client(target, timeout);
    let evidence = client.retrying(|| client.read()).await;
    let acked = match &evidence {
        Err(_) => Err("the agent could not be asked".to_owned()),
        Ok(evidence) => match confirm(&hint.report, &evidence.report) {
            Ok(_) if no_ack => Err("not asked for".to_owned()),
            Ok(ack) => incoming.ack(ack).await.map_err(|error| error.cause.to_string()),
            Err(doubt) => Err(doubt.to_string()),
        },
    };
    Ok(Heard { hint, evidence, acked })
}

impl Heard {
    fn text(&self) -> String {
        let hint = format!("hint {} {}", json::reason_name(self.hint.report.reason), table::line(&self.hint));
        let evidence = match &self.evidence {
            Ok(evidence) => table::line(evidence),
            Err(error) => error.to_string(),
        };
        let acked = match &self.acked {
            Ok(()) => "acknowledged".to_owned(),
            Err(cause) => format!("not acknowledged: {cause}"),
        };
        format!("{hint}\n  evidence {evidence}\n  {acked}\n")
    }

    fn json(&self) -> serde_json::Result<String> {
        let error = self.evidence.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let evidence = self.evidence.as_ref().map_err(|_| error.as_str());
        json::notification(&self.hint, evidence, self.acked.as_ref().copied().map_err(String::as_str))
    }
}
