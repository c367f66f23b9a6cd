//! Deletes the tables of nftables' own that Calico makes where it does not go through iptables.
//!
//! ```text
//!   GETTABLE ip calico ──► not there: done
//!                     └──► BATCH_BEGIN | DELRULE  | BATCH_END: all its rules, in one commit
//!                          BATCH_BEGIN | DELTABLE | BATCH_END: what is left, in another
//! ```
//!
//! In one commit a packet that is among the rules at that moment could find a map of theirs empty already, and be
//! dropped for it: of an unknown interface.
//!
//! A node that Felix ran in its nftables mode has its rules there, and they would go on judging packets beside
//! ours. A table is known by its name; Felix takes them for its own in the same way.

use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6};

use crate::netlink::{Batch, Channel, NetlinkError, Protocol, Writer};
use crate::reconcile::{Problem, Report};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type and the resource of a batch.
const SUBSYSTEM: u8 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` of linux/netfilter/nfnetlink.h.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFT_MSG_*` of linux/netfilter/nf_tables.h.
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const DELETE_RULE: u16 = 8;
/// `NFTA_TABLE_NAME` and `NFTA_RULE_TABLE`.
const ATTR_NAME: u16 = 1;
/// `NFPROTO_ARP`.
const ARP: i32 = 3;

/// The tables: family, the family's name, name. The last one is for Calico's rules about ARP replies, which Felix
/// makes in every mode and we do not: nobody would keep what it says up to date.
const TABLES: [(i32, &str, &str); 3] =
    [(AF_INET, "ip", "calico"), (AF_INET6, "ip6", "calico"), (ARP, "arp", "calico-arp")];

/// Calico's own tables, to be kept away. The connection to the kernel stays open.
#[derive(Debug)]
pub struct NativeTables {
    channel: Channel,
}

impl Default for NativeTables {
    fn default() -> Self {
        Self { channel: Channel::new(Protocol::Netfilter) }
    }
}

impl NativeTables {
    /// Deletes those that are there, each at once. To be called when what replaces them is in force, and again now
    /// and then: a program that is still there may bring them back.
    ///
    /// Where our own rules are in such tables (`are_ours`), only the table about ARP replies goes.
    pub fn sweep(&mut self, are_ours: bool) -> Report {
        let mut report = Report::default();
        let before = self.channel.requests();
        for (family, family_name, name) in
            TABLES.into_iter().filter(|(family, ..)| !are_ours || *family == ARP)
        {
            match self.delete(family, name) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(family = family_name, name, "removed a table of Calico's nftables mode");
                    report.changed += 1;
                }
                Err(error) => report.problems.push(Problem {
                    object: format!("leftover nftables table {family_name} {name}"),
                    error: error.words(),
                }),
            }
        }
        report.calls += self.channel.requests() - before;
        report
    }

    /// Returns whether there was such a table.
    fn delete(&mut self, family: i32, name: &str) -> Result<bool, NetlinkError> {
        let mut query = Batch::new();
        query.push(kind(GET_TABLE), 0, |message| table(message, family, name));
        match self.channel.request(&mut query) {
            Ok(()) => {}
            Err(error) if error.refusal().is_some_and(is_absence) => return Ok(false),
            Err(error) => return Err(error),
        }
        // Without a chain: all rules.
        for message in [DELETE_RULE, DELETE_TABLE] {
            match self.commit(message, family, name) {
                Err(error) if error.refusal().is_some_and(is_absence) => return Ok(false),
                outcome => outcome?,
            }
        }
        Ok(true)
    }

    /// One message about a table, as a transaction.
    fn commit(&mut self, message: u16, family: i32, name: &str) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch.push(BATCH_BEGIN, 0, |message| message.raw(&[0, 0, 0, SUBSYSTEM]));
        batch.push(kind(message), 0, |message| table(message, family, name));
        // Kernels before 6.10 acknowledge no end of a batch.
        batch.await_last();
        batch.push(BATCH_END, 0, |message| message.raw(&[0, 0, 0, SUBSYSTEM]));
        self.channel.request(&mut batch)
    }
}

/// Not there, or a kernel without nftables or without this family.
fn is_absence(refusal: &crate::netlink::Refusal) -> bool {
    [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EINVAL, Errno::EAFNOSUPPORT]
        .iter()
        .any(|errno| refusal.is(*errno))
}

fn kind(message: u16) -> u16 {
    u16::from(SUBSYSTEM) << 8 | message
}

/// `struct nfgenmsg` and the table's name.
fn table(message: &mut Writer<'_>, family: i32, name: &str) {
    // The constants above are all below 256.
    message.raw(&[u8::try_from(family).unwrap_or_default(), 0, 0, 0]);
    message.text(ATTR_NAME, name);
}
