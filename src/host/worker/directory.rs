//! Takes the news of the drop-in directory into the fleet.

use super::core::Core;
use super::descriptors::Change;
use super::notifications::Notifications;
use super::poller::Poller;
use super::watching::{News, Watching};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Between two attempts to write plans down.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the fleet as the directory says.
pub(super) struct Directory {
    core: Arc<Core>,
    poller: Arc<Poller>,
    notifications: Notifications,
    /// Plans that the ledger does not have yet, and those it has.
    plans_due: BTreeMap<String, String>,
    plans: BTreeMap<String, String>,
    faults: BTreeSet<(String, String)>,
}

impl Directory {
    pub(super) fn new(core: Arc<Core>, poller: Arc<Poller>) -> Self {
        let notifications = Notifications::new(Arc::clone(&core), Arc::clone(&poller));
        Self {
            core,
            poller,
            notifications,
            plans_due: BTreeMap::new(),
            plans: BTreeMap::new(),
            faults: BTreeSet::new(),
        }
    }

    /// Until the worker stops.
    pub(super) async fn run(mut self, mut watching: Watching, reread: Arc<tokio::sync::Notify>) {
        let stop = self.core.stop.clone();
        let mut retry = tokio::time::interval(RETRY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = reread.notified() => watching.reread(),
                _ = retry.tick() => self.write_plans().await,
                news = watching.next() => match news {
                    Some(news) => {
                        self.take(news);
                        self.write_plans().await;
                    }
                    None => {
                        tracing::error!("the drop-in directory is watched no more; restart the worker");
                        return;
                    }
                },
            }
        }
    }

    pub(super) fn take(&mut self, news: News) {
        let interval = self.core.config().poll.interval;
        for change in news.changes {
            match change {
                Change::Described(descriptor) => {
                    if let Some(plan) = &descriptor.plan
                        && self.plans.get(&descriptor.org) != Some(plan)
                    {
                        self.plans_due.insert(descriptor.org.clone(), plan.clone());
                    }
                    self.notifications.describe(&descriptor);
                    let (sandbox, new) = self.core.fleet.describe(descriptor);
                    if new {
                        self.poller.add(&sandbox, interval);
                    }
                }
                Change::Gone(name) => {
                    self.notifications.undescribe(&name);
                    self.core.fleet.undescribe(&name);
                }
            }
        }
        self.core.metrics.descriptor_faults.set(i64::try_from(news.faults.len()).unwrap_or(i64::MAX));
        let faults: BTreeSet<_> = news.faults.into_iter().collect();
        for (file, fault) in faults.difference(&self.faults) {
            tracing::warn!(file, fault, "a descriptor cannot be used; what it said before stays");
        }
        self.faults = faults;
    }

    async fn write_plans(&mut self) {
        while let Some((org, plan)) = self.plans_due.pop_first() {
            if let Err(error) = self.core.desk.set_plan(&org, &plan).await {
                tracing::debug!(org, %error, "a plan is not written yet");
                self.plans_due.insert(org, plan);
                return;
            }
            self.plans.insert(org, plan);
        }
    }
}
