//! What others do to our rules.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use tortie_dataplane::feature::Backend;
use tortie_dataplane::iptables::{RuleWatch, Writers};
use tortie_dataplane::nft::driver::touches;
use tortie_dataplane::nft::{Ear, Watch};
use tortie_dataplane::steer::chain;

use super::family::Family;
use super::sweep::Place;

/// Hears of changes.
pub(super) enum RulesWatch {
    /// Of what iptables puts into nf_tables.
    Iptables(RuleWatch),
    /// Of tables of nftables' own.
    Native(Watch),
}

impl AsFd for RulesWatch {
    /// Readable when somebody changed something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Iptables(watch) => watch.as_fd(),
            Self::Native(watch) => watch.as_fd(),
        }
    }
}

impl RulesWatch {
    /// Begins to listen. Without, changes of others are found when the tables are read again.
    pub(super) fn open(place: Place, writers: &Writers) -> Option<Self> {
        let opened = match place {
            Place::Iptables(Backend::Legacy) => return None,
            Place::Iptables(Backend::Nft) => {
                RuleWatch::open(writers.clone()).map(Self::Iptables).map_err(|error| chain(&error))
            }
            Place::Native => Watch::open().map(Self::Native).map_err(|error| error.words()),
        };
        opened.inspect_err(|error| tracing::warn!(error, "cannot watch rules for changes of others")).ok()
    }

    /// What nftables' own tables listen with.
    pub(super) fn ear(&self) -> Option<Ear> {
        match self {
            Self::Iptables(_) => None,
            Self::Native(watch) => Some(watch.ear()),
        }
    }

    /// Tells the tables what others have changed in them since the last time; the next pass mends it. Returns how many
    /// tables that were.
    pub(super) fn poll(&mut self, families: &mut [Family], now: Instant) -> u64 {
        match self {
            Self::Iptables(watch) => poll_iptables(watch, families, now),
            Self::Native(watch) => poll_native(watch, families, now),
        }
    }
}

fn poll_iptables(watch: &mut RuleWatch, families: &mut [Family], now: Instant) -> u64 {
    let mut changes = 0;
    for ((version, table), touch) in watch.poll() {
        let family = families.iter_mut().find(|f| f.version == version);
        if let Some(steered) = family.and_then(|f| f.tables.get_mut(&table)) {
            tracing::debug!(%version, %table, ?touch, "changed by others");
            changes += 1;
            steered.tell(move |steered| {
                steered.driver.touch(touch);
                steered.touched(now);
            });
        }
    }
    changes
}

fn poll_native(watch: &mut Watch, families: &mut [Family], now: Instant) -> u64 {
    let heard = watch.poll();
    if heard.commits.is_empty() && !heard.lost {
        return 0;
    }
    let natives = families.iter_mut().filter_map(|f| f.native.as_mut());
    let ports: Vec<u32> = natives.filter_map(|native| native.driver.port().ok()).collect();
    let mut changes = 0;
    for (version, touch) in touches(&heard, &ports) {
        let family = families.iter_mut().find(|f| f.version == version);
        if let Some(native) = family.and_then(|f| f.native.as_mut()) {
            tracing::debug!(%version, ?touch, "changed by others");
            changes += 1;
            native.driver.touch(touch);
            native.touched(now);
        }
    }
    changes
}
