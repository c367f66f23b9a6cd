//! The history of a store: a bounded log of changes with a revision each, and who watches from where. Plain
//! data under the store's lock; the deliverer thread calls the sinks outside of it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};

use tortie_api::kind::Kind;

use super::folder::Change;
use crate::{Error, Revision, Sink, WatchEvent};

/// How many changes stay in the log once every watch has got them: for watches that come back.
const KEPT: u64 = 1024;

/// How many changes stay in the log for a watch that does not keep up, before it expires.
const KEPT_FOR_SLOW: u64 = 65_536;

/// A sink, shared with the thread that calls it.
pub(super) type SharedSink = Arc<Mutex<Sink>>;

struct Watch {
    kind: Kind,
    /// The next change to hand out.
    cursor: u64,
    /// The changes before this one have been taken by the sink.
    delivered: u64,
    /// Whether changes were delivered since the last bookmark.
    needs_bookmark: bool,
    sink: SharedSink,
}

/// One event and the watches that get it.
pub(super) struct Delivery {
    /// The watches, by number.
    pub(super) targets: Vec<(u64, SharedSink)>,
    /// What they get.
    pub(super) event: WatchEvent,
}

/// The log and the watches.
pub(super) struct Feed {
    /// Tells the revisions of this store from those of every other, also of the same folder.
    instance: u64,
    log: VecDeque<Change>,
    /// The number of the first change in the log.
    first: u64,
    watches: BTreeMap<u64, Watch>,
    next_watch: u64,
}

impl Feed {
    /// An empty history.
    pub(super) fn new() -> Self {
        // The only source of randomness in the standard library: each state has random keys.
        let instance = RandomState::new().build_hasher().finish();
        Self { instance, log: VecDeque::new(), first: 0, watches: BTreeMap::new(), next_watch: 0 }
    }

    /// The number that the next change will get.
    pub(super) fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// The revision now.
    pub(super) fn revision(&self) -> Revision {
        Revision::new(&format!("{:016x}-{}", self.instance, self.end()))
    }

    /// Takes in changes.
    pub(super) fn append(&mut self, changes: Vec<Change>) {
        self.log.extend(changes);
        let slowest = self.watches.values().map(|watch| watch.cursor).min().unwrap_or(u64::MAX);
        while (self.first < slowest && self.log.len() as u64 > KEPT) || self.log.len() as u64 > KEPT_FOR_SLOW
        {
            self.log.pop_front();
            self.first += 1;
        }
    }

    /// Starts a watch; returns its number.
    pub(super) fn subscribe(&mut self, kind: Kind, from: &Revision, sink: Sink) -> Result<u64, Error> {
        let cursor = self.parse(from).ok_or(Error::Expired)?;
        let id = self.next_watch;
        self.next_watch += 1;
        let sink = Arc::new(Mutex::new(sink));
        self.watches.insert(id, Watch { kind, cursor, delivered: cursor, needs_bookmark: false, sink });
        Ok(id)
    }

    /// The change that follows a revision, if it is one of ours and still in the log.
    fn parse(&self, revision: &Revision) -> Option<u64> {
        let (instance, number) = revision.as_str().split_once('-')?;
        if u64::from_str_radix(instance, 16).ok()? != self.instance {
            return None;
        }
        let number = number.parse().ok()?;
        (self.first..=self.end()).contains(&number).then_some(number)
    }

    /// Ends a watch; returns its sink, to be dropped outside of the lock.
    pub(super) fn unsubscribe(&mut self, id: u64) -> Option<SharedSink> {
        self.watches.remove(&id).map(|watch| watch.sink)
    }

    /// What to hand out next; `None` when everybody has everything. To be followed by [`Feed::delivered`].
    pub(super) fn next_delivery(&mut self) -> Option<Delivery> {
        if let Some(id) = self.watches.iter().find(|(_, w)| w.cursor < self.first).map(|(id, _)| *id) {
            let watch = self.watches.remove(&id)?;
            return Some(Delivery { targets: vec![(id, watch.sink)], event: WatchEvent::Expired });
        }
        let end = self.end();
        while let Some(cursor) = self.watches.values().map(|watch| watch.cursor).min().filter(|c| *c < end) {
            // The log is shorter than memory, so its positions are `usize`.
            let change = &self.log[usize::try_from(cursor - self.first).ok()?];
            let kind = change.stored().key.kind;
            let mut targets = Vec::new();
            for (id, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.cursor == cursor) {
                watch.cursor += 1;
                if watch.kind == kind {
                    watch.needs_bookmark = true;
                    targets.push((*id, Arc::clone(&watch.sink)));
                } else {
                    watch.delivered = watch.cursor;
                }
            }
            if !targets.is_empty() {
                return Some(Delivery { targets, event: event(change.clone()) });
            }
        }
        self.next_bookmark()
    }

    fn next_bookmark(&mut self) -> Option<Delivery> {
        let event = WatchEvent::Bookmark(self.revision());
        let due = self.watches.iter_mut().filter(|(_, watch)| watch.needs_bookmark);
        let targets: Vec<_> = due
            .map(|(id, watch)| {
                watch.needs_bookmark = false;
                (*id, Arc::clone(&watch.sink))
            })
            .collect();
        (!targets.is_empty()).then_some(Delivery { targets, event })
    }

    /// A sink has taken its event, and wants more or not.
    pub(super) fn delivered(&mut self, id: u64, wants_more: bool) {
        if !wants_more {
            self.watches.remove(&id);
        } else if let Some(watch) = self.watches.get_mut(&id) {
            watch.delivered = watch.cursor;
        }
    }

    /// Whether every watch has got every change before number `end`.
    pub(super) fn is_delivered(&self, end: u64) -> bool {
        self.watches.values().all(|watch| watch.delivered >= end)
    }
}

fn event(change: Change) -> WatchEvent {
    match change {
        Change::Added(stored) => WatchEvent::Added(stored),
        Change::Modified(stored) => WatchEvent::Modified(stored),
        Change::Deleted(stored) => WatchEvent::Deleted(stored),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tortie_api::resource::Resource;

    use super::*;
    use crate::local::document;

    fn change(kind: &str) -> Change {
        let value = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": "a" } });
        let resource = Resource::from_value(&value).unwrap();
        Change::Added(document::stored(resource.key(), Arc::new(resource), value))
    }

    /// Takes everything that there is to deliver; returns who got what.
    fn drain(feed: &mut Feed) -> Vec<(u64, String)> {
        let mut got = Vec::new();
        while let Some(delivery) = feed.next_delivery() {
            let name = match delivery.event {
                WatchEvent::Added(stored) => stored.key.kind.to_string(),
                WatchEvent::Bookmark(_) => "bookmark".to_owned(),
                WatchEvent::Expired => "expired".to_owned(),
                other => panic!("{other:?}"),
            };
            for (id, _) in delivery.targets {
                feed.delivered(id, true);
                got.push((id, name.clone()));
            }
        }
        got
    }

    #[test]
    fn watches_of_several_kinds_get_their_events_in_the_order_of_the_log() {
        let mut feed = Feed::new();
        let start = feed.revision();
        let namespaces = feed.subscribe(Kind::Namespace, &start, Box::new(|_| true)).unwrap();
        let accounts = feed.subscribe(Kind::ServiceAccount, &start, Box::new(|_| true)).unwrap();
        feed.append(vec![change("ServiceAccount"), change("Namespace"), change("ServiceAccount")]);
        assert!(!feed.is_delivered(feed.end()));
        let got = drain(&mut feed);
        let kinds: Vec<(u64, &str)> = got.iter().map(|(id, name)| (*id, name.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (accounts, "ServiceAccount"),
                (namespaces, "Namespace"),
                (accounts, "ServiceAccount"),
                (namespaces, "bookmark"),
                (accounts, "bookmark"),
            ]
        );
        assert!(feed.is_delivered(feed.end()));
    }

    #[test]
    fn a_slow_watch_keeps_the_log_up_to_a_bound_and_expires_beyond_it() {
        let mut feed = Feed::new();
        let start = feed.revision();
        let slow = feed.subscribe(Kind::Namespace, &start, Box::new(|_| true)).unwrap();
        let count = usize::try_from(KEPT_FOR_SLOW).unwrap();
        feed.append(vec![change("Namespace"); count]);
        assert_eq!(feed.log.len(), count);
        feed.append(vec![change("Namespace")]);
        assert_eq!(drain(&mut feed), [(slow, "expired".to_owned())]);
        // Nobody waits for the log any more.
        feed.append(vec![change("Namespace")]);
        assert_eq!(feed.log.len() as u64, KEPT);
        assert!(matches!(feed.subscribe(Kind::Namespace, &start, Box::new(|_| true)), Err(Error::Expired)));
    }
}
