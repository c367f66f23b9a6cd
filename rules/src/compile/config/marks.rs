//! Mark bits: which of the configured mask is for what.

use crate::ruleset::Bits;

/// The mark bits that the rules use, taken from the configured mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Policy accepted the packet.
    pub accept: Bits,
    /// Policy passed the packet on to the next tier.
    pub pass: Bits,
    /// Policy denied the packet.
    pub drop: Bits,
    /// Scratch: from a workload (raw), all blocks match (policy rules).
    pub scratch0: Bits,
    /// Scratch: this block matches.
    pub scratch1: Bits,
    /// The packet came out of a WireGuard tunnel; 0 where there is none.
    pub wireguard: Bits,
    /// The packet belongs to a connection that policy has accepted as it is now; 0 where that is not asked, and every
    /// connection that is established passes.
    pub known: Bits,
    /// All other bits of the mask: where packets that IPVS sends on came from.
    pub endpoint: Bits,
}

/// A mark mask with too few bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mark mask {mask:#x} has {got} bits, but {needed} are needed")]
pub struct MarkError {
    mask: u32,
    got: u32,
    needed: u32,
}

/// What takes bits of the mask only where it is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkUses {
    /// WireGuard.
    pub wireguard: bool,
    /// What policy no longer allows ends at once (`NftablesInstantRevocation`).
    pub revocation: bool,
}

impl Marks {
    /// Bits that a mask must have. WireGuard and instant revocation need one more each.
    pub const NEEDED: u32 = 5;

    /// Takes the bits of a mask, lowest first.
    ///
    /// # Errors
    /// When there are fewer than [`Marks::NEEDED`].
    pub fn from_mask(mask: u32) -> Result<Self, MarkError> {
        Self::with(mask, MarkUses::default())
    }

    /// The same, with bits for what is in use beside.
    ///
    /// # Errors
    /// When there are fewer than [`Marks::NEEDED`] and one for each use.
    pub fn with(mask: u32, uses: MarkUses) -> Result<Self, MarkError> {
        let needed = Self::NEEDED + u32::from(uses.wireguard) + u32::from(uses.revocation);
        let mut rest = mask;
        let mut next = || {
            let lowest = rest & rest.wrapping_neg();
            rest &= !lowest;
            if lowest == 0 { Err(MarkError { mask, got: mask.count_ones(), needed }) } else { Ok(lowest) }
        };
        let (accept, pass, drop, scratch0, scratch1) = (next()?, next()?, next()?, next()?, next()?);
        let wireguard = if uses.wireguard { next()? } else { 0 };
        let known = if uses.revocation { next()? } else { 0 };
        Ok(Self { accept, pass, drop, scratch0, scratch1, wireguard, known, endpoint: rest })
    }

    /// All bits of the mask.
    pub const fn mask(&self) -> Bits {
        self.all() | self.drop | self.wireguard | self.known | self.endpoint
    }

    /// What a packet must not bring along when it enters our rules. The drop bit is never kept, so it need not
    /// be cleared.
    pub const fn all(&self) -> Bits {
        self.accept | self.pass | self.scratch0 | self.scratch1
    }
}

impl Default for Marks {
    /// Of Felix's default mask, `0xffff0000`.
    fn default() -> Self {
        Self {
            accept: 0x1_0000,
            pass: 0x2_0000,
            drop: 0x4_0000,
            scratch0: 0x8_0000,
            scratch1: 0x10_0000,
            wireguard: 0,
            known: 0,
            endpoint: 0xffe0_0000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_taken_lowest_first() {
        assert_eq!(Marks::from_mask(0xffff_0000), Ok(Marks::default()));
        assert_eq!(Marks::default().all(), 0x1b_0000);
        let sparse = Marks::from_mask(0b1010_1010_1010).expect("six bits");
        assert_eq!((sparse.accept, sparse.scratch1), (0b10, 0b10_0000_0000));
        assert_eq!((sparse.wireguard, sparse.endpoint), (0, 0b1000_0000_0000));
        let error = Marks::from_mask(0xf).expect_err("four bits");
        assert_eq!(error.to_string(), "mark mask 0xf has 4 bits, but 5 are needed");
    }

    #[test]
    fn what_is_in_use_takes_the_bits_behind_and_leaves_the_rest_to_endpoints() {
        let uses = |wireguard, revocation| MarkUses { wireguard, revocation };
        let marks = Marks::with(0xffff_0000, uses(true, false)).expect("sixteen bits");
        assert_eq!((marks.wireguard, marks.known, marks.endpoint), (0x20_0000, 0, 0xffc0_0000));
        let marks = Marks::with(0xffff_0000, uses(true, true)).expect("sixteen bits");
        assert_eq!((marks.wireguard, marks.known, marks.endpoint), (0x20_0000, 0x40_0000, 0xff80_0000));
        assert_eq!(marks.mask(), 0xffff_0000);
        let error = Marks::with(0x1f, uses(true, false)).expect_err("five bits");
        assert_eq!(error.to_string(), "mark mask 0x1f has 5 bits, but 6 are needed");
        let error = Marks::with(0x3f, uses(true, true)).expect_err("six bits");
        assert_eq!(error.to_string(), "mark mask 0x3f has 6 bits, but 7 are needed");
    }
}
