//! The error numbers of ip sets (`linux/netfilter/ipset/ip_set.h`, `ip_set_hash.h`) and their words.

use crate::netlink::Refusal;

/// The set type or revision is not in this kernel.
pub(super) const FIND_TYPE: i32 = 4098;
const MAX_SETS: i32 = 4099;
/// Something refers to the set.
pub(super) const BUSY: i32 = 4100;
/// The new name is taken; for a swap: there is no second set.
pub(super) const EXIST_SETNAME2: i32 = 4101;
/// Sets of different types cannot be swapped.
pub(super) const TYPE_MISMATCH: i32 = 4102;
/// The member to add is there already, or the one to delete is not.
pub(super) const EXIST: i32 = 4103;
const INVALID_CIDR: i32 = 4104;
const INVALID_FAMILY: i32 = 4106;
const REFERENCED: i32 = 4108;
/// For hash types: the set has its maximum of members. For `bitmap:port` the same number means "out of range".
pub(super) const HASH_FULL: i32 = 4352;
const HASH_ELEM: i32 = 4353;
const INVALID_PROTO: i32 = 4354;

/// The refusal in words.
pub(super) fn words(refusal: &Refusal) -> String {
    let text = match refusal.errno {
        4097 => "the kernel does not understand the request (ipset protocol error)",
        FIND_TYPE => "this kernel does not have the set type",
        MAX_SETS => "the kernel cannot hold more sets",
        BUSY => "the set is in use",
        EXIST_SETNAME2 => "the new name is taken",
        TYPE_MISMATCH => "the sets are of different types",
        EXIST => "the member was there already, or was not there",
        INVALID_CIDR => "the kernel does not take the prefix length",
        INVALID_FAMILY => "the kernel does not take the address family",
        REFERENCED => "the set is referred to",
        HASH_FULL => "the set is full",
        HASH_ELEM => "the kernel does not take the empty address",
        INVALID_PROTO => "the kernel does not take the protocol",
        _ => return refusal.to_string(),
    };
    text.to_owned()
}
