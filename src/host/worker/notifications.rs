//! Where guests speak first. What they say is a hint: the guest it came from is visited at once, and acked by that.

use super::core::Core;
use super::descriptor::Descriptor;
use super::fleet::Sandbox;
use super::metrics::label;
use super::order::Phase;
use super::poller::Poller;
use crate::host::listen::{Incoming, Listener, Place};
use crate::host::target::{PORT_DEFAULT, Target};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two attempts to listen at a place.
const RETRY: Duration = Duration::from_secs(15);

/// Between two visits that a guest can bring about by itself.
const HINT_PAUSE: Duration = Duration::from_secs(1);

/// The places that are listened at.
pub(super) struct Notifications {
    core: Arc<Core>,
    poller: Arc<Poller>,
    /// By sandbox: where, and what ends it.
    places: HashMap<String, (Place, CancellationToken)>,
    /// Whose each context id is.
    guests: Arc<Mutex<HashMap<u32, String>>>,
}

impl Notifications {
    pub(super) fn new(core: Arc<Core>, poller: Arc<Poller>) -> Self {
        let notifications = Self { core, poller, places: HashMap::new(), guests: Arc::default() };
        if let Some(port) = notifications.core.config().notify.vsock_port {
            let guests = Arc::clone(&notifications.guests);
            let whose = move |target: &Target| match target {
                Target::Vsock { cid, .. } => {
                    guests.lock().unwrap_or_else(PoisonError::into_inner).get(cid).cloned()
                }
                _ => None,
            };
            notifications.listen(Place::Vsock { port }, notifications.core.stop.child_token(), whose);
        }
        notifications
    }

    /// Listens where the sandbox's guest speaks, and nowhere else for it.
    pub(super) fn describe(&mut self, descriptor: &Descriptor) {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.retain(|_, sandbox| *sandbox != descriptor.sandbox);
        if let Some(Target::Vsock { cid, .. }) = &descriptor.target {
            guests.insert(*cid, descriptor.sandbox.clone());
        }
        drop(guests);
        let place = place(descriptor, self.core.config().notify.hybrid);
        if self.places.get(&descriptor.sandbox).map(|(place, _)| place) == place.as_ref() {
            return;
        }
        self.end(&descriptor.sandbox);
        if let Some(place) = place {
            let stop = self.core.stop.child_token();
            self.places.insert(descriptor.sandbox.clone(), (place.clone(), stop.clone()));
            let sandbox = descriptor.sandbox.clone();
            self.listen(place, stop, move |_| Some(sandbox.clone()));
        }
    }

    pub(super) fn undescribe(&mut self, sandbox: &str) {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, other| other != sandbox);
        self.end(sandbox);
    }

    fn end(&mut self, sandbox: &str) {
        if let Some((_, stop)) = self.places.remove(sandbox) {
            stop.cancel();
        }
    }

    fn listen(
        &self,
        place: Place,
        stop: CancellationToken,
        whose: impl Fn(&Target) -> Option<String> + Send + Sync + 'static,
    ) {
        let (core, poller) = (Arc::clone(&self.core), Arc::clone(&self.poller));
        let tasks = core.tasks.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = hear_all(&core, &poller, &place, whose) => {}
            }
        });
    }
}

/// Where a guest's notifications arrive.
fn place(descriptor: &Descriptor, hybrid: bool) -> Option<Place> {
    let target = descriptor.target.as_ref()?;
    match (&descriptor.notify, target) {
        (Some(Target::Unix(path)), _) => Some(Place::Hybrid { path: path.clone(), agent: target.clone() }),
        (_, Target::Hybrid { path, .. }) if hybrid => {
            let path = PathBuf::from(format!("{}_{PORT_DEFAULT}", path.display()));
            Some(Place::Hybrid { path, agent: target.clone() })
        }
        _ => None,
    }
}

async fn hear_all(
    core: &Arc<Core>,
    poller: &Arc<Poller>,
    place: &Place,
    whose: impl Fn(&Target) -> Option<String>,
) {
    let mut told = false;
    loop {
        let error = match Listener::bind(place.clone()) {
            Ok(mut listener) => {
                told = false;
                loop {
                    match listener.accept().await {
                        Ok(incoming) => {
                            let sandbox = whose(incoming.target()).and_then(|name| core.fleet.get(&name));
                            hear(core, poller, incoming, sandbox);
                        }
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%error, "notifications are not heard");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// One connection, on its own: one guest's slowness is not another's.
fn hear(core: &Arc<Core>, poller: &Arc<Poller>, mut incoming: Incoming, sandbox: Option<Arc<Sandbox>>) {
    let (core, poller) = (Arc::clone(core), Arc::clone(poller));
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        let name = match (sandbox, incoming.notify().await) {
            (None, _) => "of_nobody",
            (Some(_), Err(_)) => "garbage",
            (Some(sandbox), Ok(_)) => match sandbox.phase() {
                Some(phase @ (Phase::Paused | Phase::Destroyed)) => {
                    let (sandbox, phase) = (&sandbox.name, phase.name());
                    tracing::warn!(sandbox, phase, "its guest runs, and the platform has not said so");
                    "not_running"
                }
                _ => {
                    poller.hint(&sandbox, HINT_PAUSE);
                    "heard"
                }
            },
        };
        core.metrics.notifications.get_or_create(&label(name)).inc();
        if let Err(error) = incoming.close().await {
            tracing::debug!(%error, "a notification's connection did not close in time");
        }
    });
}
