//! The agent's settings, from four layers.
//!
//! Highest first: environment (`FELIX_<NAME>`), configuration file (INI, all sections together),
//! `FelixConfiguration` `node.<nodename>`, `FelixConfiguration` `default`, and below them the built-in
//! defaults, which are Felix's but for [`Settings::route_protocol`] and [`Settings::health_enabled`].
//!
//! A value that cannot be understood is reported, and the next layer below counts.

mod derived;
mod hosts;
mod layers;
mod native;
mod network;
mod params;
mod values;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tortie_dataplane::feature::BackendChoice;
use tortie_rules::compile::Config as CompileConfig;

use self::derived::Derived;
pub use self::hosts::{Excluded, Pattern};
pub use self::layers::{Layer, from_environment, from_file, from_resource};
pub use self::native::{NftablesLayout, NftablesMode, NftablesOptions};

/// Everything that can be set and has an effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Options of the compiler.
    pub compile: CompileConfig,
    /// `NFTablesMode`
    pub nftables_mode: NftablesMode,
    /// What counts instead in nftables mode.
    pub nftables: NftablesOptions,
    /// `IptablesBackend`
    pub iptables_backend: BackendChoice,
    /// `FeatureDetectOverride`
    pub feature_override: String,
    /// `IptablesRefreshInterval`; zero turns it off.
    pub iptables_refresh: Duration,
    /// `IptablesPostWriteCheckIntervalSecs`
    pub iptables_post_write_check: Duration,
    /// `IptablesLockProbeIntervalMillis`
    pub iptables_lock_probe: Duration,
    /// `IpsetsRefreshInterval`; zero turns it off.
    pub ipsets_refresh: Duration,
    /// `RouteRefreshInterval`; zero turns it off.
    pub route_refresh: Duration,
    /// `RouteSyncDisabled`
    pub route_sync_disabled: bool,
    /// `DeviceRouteProtocol`. Ours is 80, so that our routes can be told from others'; Felix's is 3 (boot).
    pub route_protocol: u8,
    /// `IPv4NormalRoutePriority`
    pub route_metric_v4: u32,
    /// `IPv6NormalRoutePriority`
    pub route_metric_v6: u32,
    /// `DeviceRouteSourceAddress`
    pub route_source_v4: Option<IpAddr>,
    /// `DeviceRouteSourceAddressIPv6`
    pub route_source_v6: Option<IpAddr>,
    /// `RemoveExternalRoutes`
    pub remove_external_routes: bool,
    /// `IPForwarding`
    pub ip_forwarding: bool,
    /// `InterfaceExclude`
    pub excluded_interfaces: Excluded,
    /// `HealthEnabled`. Ours is on, since liveness and readiness harm nobody on localhost; Felix's is off.
    pub health_enabled: bool,
    /// `HealthHost`
    pub health_host: String,
    /// `HealthPort`
    pub health_port: u16,
    /// `PrometheusMetricsEnabled`
    pub metrics_enabled: bool,
    /// `PrometheusMetricsHost`; empty for all addresses of the node.
    pub metrics_host: String,
    /// `PrometheusMetricsPort`
    pub metrics_port: u16,
    /// `LogSeverityScreen`, as a tracing level.
    pub log_level: tracing::Level,
    /// What becomes a part of `compile` together with others.
    derived: Derived,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            compile: CompileConfig::default(),
            nftables_mode: NftablesMode::Auto,
            nftables: NftablesOptions::default(),
            iptables_backend: BackendChoice::Auto,
            feature_override: String::new(),
            iptables_refresh: Duration::from_mins(3),
            iptables_post_write_check: Duration::from_secs(5),
            iptables_lock_probe: Duration::from_millis(50),
            ipsets_refresh: Duration::from_secs(90),
            route_refresh: Duration::from_secs(90),
            route_sync_disabled: false,
            route_protocol: 80,
            route_metric_v4: 1024,
            route_metric_v6: 1024,
            route_source_v4: None,
            route_source_v6: None,
            remove_external_routes: true,
            ip_forwarding: true,
            excluded_interfaces: Excluded::of(&["kube-ipvs0"]),
            health_enabled: true,
            health_host: "localhost".to_owned(),
            health_port: 9099,
            metrics_enabled: false,
            metrics_host: String::new(),
            metrics_port: 9091,
            log_level: tracing::Level::INFO,
            derived: Derived::default(),
        }
    }
}

/// A setting that could not be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingProblem {
    /// The layer, in words.
    pub source: String,
    /// The setting as written there.
    pub name: String,
    /// What is wrong, and what counts instead.
    pub message: String,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.source, self.name, self.message)
    }
}

impl Settings {
    /// Lays layers over the defaults, the lowest first. Problems are values that are not understood, and names
    /// that have no effect in this release.
    pub fn resolve<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> (Self, Vec<SettingProblem>) {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        for layer in layers {
            for (name, value) in &layer.values {
                let message = match params::apply(&mut settings, name, value) {
                    Ok(true) => network::shortcoming(&settings, name).map(str::to_owned),
                    Ok(false) => Some("has no effect in this release".to_owned()),
                    Err(message) => Some(settings.stay(layer, name, message)),
                };
                let problem =
                    |message| SettingProblem { source: layer.source.clone(), name: name.clone(), message };
                problems.extend(message.map(problem));
            }
        }
        let derived = settings.derived.clone();
        if let Err(error) = derived.apply(&mut settings.compile) {
            let (source, name) = ("all layers".to_owned(), "IptablesMarkMask".to_owned());
            let message = format!("{error} with WireGuard, which stays off");
            problems.push(SettingProblem { source, name, message });
        }
        (settings, problems)
    }

    /// The same with what counts in nftables mode. Felix has settings of their own for it, and so have we.
    ///
    /// # Errors
    /// When the mark mask has no bit for WireGuard, or for instant revocation, which then is off; the settings are
    /// returned all the same.
    pub fn for_nftables(&self) -> (Self, Option<String>) {
        let mut settings = self.clone();
        let options = &self.nftables;
        let compile = &mut settings.compile;
        compile.filter_allow = options.filter_allow;
        compile.mangle_allow = options.mangle_allow;
        compile.filter_deny = options.filter_deny;
        settings.iptables_refresh = options.refresh;
        settings.derived.mark_mask = options.mark_mask;
        let mut message = None;
        if options.instant_revocation {
            match settings.derived.fits_revocation(&settings.compile) {
                Ok(()) => settings.derived.has_revocation = true,
                Err(error) => {
                    message = Some(format!("{error} with NftablesInstantRevocation, which stays off"));
                }
            }
        }
        if let Err(error) = settings.derived.set_marks(&mut settings.compile) {
            message = Some(format!("{error} with WireGuard, which stays off"));
        }
        (settings, message)
    }

    /// Where health is served, if it is.
    pub fn health_address(&self) -> Option<(String, u16)> {
        self.health_enabled.then(|| (self.health_host.clone(), self.health_port))
    }

    /// Where metrics are served, if they are. Who asks for TLS gets none without it.
    pub fn metrics_address(&self) -> Option<(String, u16)> {
        let is_served = self.metrics_enabled && self.derived.metrics_tls.is_empty();
        is_served.then(|| (self.metrics_host.clone(), self.metrics_port))
    }

    /// Keeps what the layer had before in the place of a value that is not understood.
    fn stay(&mut self, layer: &Layer, name: &str, message: String) -> String {
        match layer.last_good.get(name) {
            Some(good) if params::apply(self, name, good).is_ok() => {
                format!("{message}; {good:?} stays in force")
            }
            _ => message,
        }
    }
}

#[cfg(test)]
mod tests;
