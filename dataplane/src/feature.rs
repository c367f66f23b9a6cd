//! What this node's kernel and programs can do, and which iptables back end is in use.
//!
//! The rules for both are Felix's; parsing and deciding are pure, the parts that run programs are thin.

mod backend;
mod programs;
mod version;

use std::fmt;
use std::str::FromStr;

pub use self::backend::{BackendProbe, Detection, detect_backend};
pub use self::programs::{
    SystemProbe, detect_features, find_exact_program, find_main_program, find_program, legacy_tables,
};
pub use self::version::Version;

/// The kernel interface behind the `iptables` programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// `ip_tables`, tables swapped as a whole.
    Legacy,
    /// `nf_tables` through `iptables-nft`.
    Nft,
}

impl Backend {
    /// As in the programs' names: `iptables-legacy-save`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }

    /// The one that this is not.
    pub const fn other(self) -> Self {
        match self {
            Self::Legacy => Self::Nft,
            Self::Nft => Self::Legacy,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Calico's setting `IptablesBackend`: `Auto`, `Legacy` or `NFT`, in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// Whichever the node uses already.
    #[default]
    Auto,
    /// This one.
    Fixed(Backend),
}

/// A setting has a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not a back end.
    #[error("iptables back end must be Auto, Legacy or NFT, not {0:?}")]
    Backend(String),
    /// Not a list of `name=value`.
    #[error("feature override must be NAME=true or NAME=false, not {0:?}")]
    Override(String),
    /// No such feature.
    #[error("there is no feature {0:?}")]
    Feature(String),
}

impl FromStr for BackendChoice {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "legacy" => Ok(Self::Fixed(Backend::Legacy)),
            "nft" => Ok(Self::Fixed(Backend::Nft)),
            _ => Err(SettingError::Backend(text.to_owned())),
        }
    }
}

/// What programs and kernel can do. The first three change the text of rules, and so their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `SNAT --random-fully` is known.
    pub snat_fully_random: bool,
    /// `MASQUERADE --random-fully` is known.
    pub masq_fully_random: bool,
    /// `NFLOG --nflog-size` works; else `--nflog-range`.
    pub nflog_size: bool,
    /// `iptables-restore` takes the xtables lock and `--wait`.
    pub restore_supports_lock: bool,
}

impl Features {
    /// By version, with Felix's thresholds. What is not known is taken to be old.
    pub fn of(iptables: Option<Version>, kernel: Option<Version>) -> Self {
        let iptables = iptables.unwrap_or(Version(1, 4, 7));
        let kernel = kernel.unwrap_or(Version(3, 10, 0));
        let random_kernel = kernel >= Version(3, 14, 0);
        Self {
            snat_fully_random: random_kernel && iptables >= Version(1, 6, 0),
            masq_fully_random: random_kernel && iptables >= Version(1, 6, 2),
            nflog_size: kernel >= Version(4, 8, 0),
            restore_supports_lock: iptables >= Version(1, 6, 2),
        }
    }

    /// Applies Calico's setting `FeatureDetectOverride`, e.g. `MASQFullyRandom=true,NFLogSize=false`; an
    /// empty value leaves a feature as detected. Entries that are wrong are handed back, the others hold.
    pub fn with_overrides(mut self, setting: &str) -> (Self, Vec<SettingError>) {
        let mut errors = Vec::new();
        for entry in setting.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            errors.extend(self.set(entry).err());
        }
        (self, errors)
    }

    fn set(&mut self, entry: &str) -> Result<(), SettingError> {
        let wrong = || SettingError::Override(entry.to_owned());
        let (name, value) = entry.split_once('=').ok_or_else(wrong)?;
        let field = match name.trim() {
            "SNATFullyRandom" => &mut self.snat_fully_random,
            "MASQFullyRandom" => &mut self.masq_fully_random,
            "NFLogSize" => &mut self.nflog_size,
            "RestoreSupportsLock" => &mut self.restore_supports_lock,
            other => return Err(SettingError::Feature(other.to_owned())),
        };
        match value.trim().to_ascii_lowercase().as_str() {
            "" => {}
            "true" => *field = true,
            "false" => *field = false,
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
