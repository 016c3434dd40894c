//! A handful of connections by number. With so few a list is quicker than a map, and a tenth of its code.

use super::ConnectionId;

/// Values by connection, in the order of their arrival.
#[derive(Clone, Debug)]
pub(crate) struct Table<T>(Vec<(ConnectionId, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&T> {
        self.0.iter().find(|(other, _)| *other == id).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut T> {
        self.0.iter_mut().find(|(other, _)| *other == id).map(|(_, value)| value)
    }

    /// The edge never uses a number twice, so nothing is replaced.
    pub(crate) fn insert(&mut self, id: ConnectionId, value: T) {
        self.0.push((id, value));
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<T> {
        let at = self.0.iter().position(|(other, _)| *other == id)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(ConnectionId, &T) -> bool) {
        self.0.retain(|(id, value)| keep(*id, value));
    }

    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.0.iter().map(|(id, _)| *id).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &T)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }
}
