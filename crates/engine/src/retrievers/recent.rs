//! A map that forgets what was not used for longest.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// At most `capacity` entries; one more drops the one that was used least recently.
pub(super) struct Recent<K, V> {
    capacity: usize,
    /// Grows with every use.
    clock: u64,
    entries: HashMap<K, (u64, V)>,
    /// Keys by their last use.
    order: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a map of nothing holds nothing");
        Self { capacity, clock: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    /// The value under a key, which counts as used.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let (used, value) = self.entries.get_mut(key)?;
        self.clock += 1;
        let key = self.order.remove(used).expect("every entry has its place in the order");
        *used = self.clock;
        self.order.insert(self.clock, key);
        Some(value)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.clock += 1;
        if let Some((used, _)) = self.entries.insert(key.clone(), (self.clock, value)) {
            self.order.remove(&used);
        }
        self.order.insert(self.clock, key);
        if self.entries.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        assert_eq!(recent.get("a"), Some(&mut 1));
        recent.insert("c", 3);
        assert_eq!(recent.get("a"), Some(&mut 1));
        assert_eq!(recent.get("b"), None);
        recent.insert("c", 4);
        assert_eq!(recent.get("c"), Some(&mut 4));
        assert_eq!((recent.entries.len(), recent.order.len()), (2, 2));
    }
}
