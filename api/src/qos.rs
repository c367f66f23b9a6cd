//! Quality of service of workloads: `qosControls` of a `WorkloadEndpoint`, annotations of pods and host endpoints.
//!
//! A value that cannot be used must not take the endpoint's policy with it. So controls are kept as written, and
//! [`Qos::read`] makes the best of them: what is out of range is brought into it, and told.

mod quantity;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use serde_json::Value;

use crate::resource::FieldError;
use quantity::quantity;

/// What the annotations begin with; the control's name follows.
pub const ANNOTATION_PREFIX: &str = "qos.projectcalico.org/";
/// The control that marks packets on their way out of the cluster.
pub const DSCP: &str = "dscp";

/// Packets a second, and packets at once: the kernel counts in ten-thousandths of a second (`XT_LIMIT_SCALE`).
const PACKETS: RangeInclusive<u32> = 1..=10_000;
/// Connections (`xt_connlimit_info::limit`).
const CONNECTIONS: RangeInclusive<u32> = 1..=u32::MAX;
/// Packets at once where none are given.
const DEFAULT_BURST: u32 = 5;
/// The highest value of the six bits (RFC 2474).
const DSCP_MAX: u8 = 63;

/// Controls of bandwidth, which are known and not enforced.
const BANDWIDTH: [&str; 8] = [
    "ingressBandwidth",
    "egressBandwidth",
    "ingressBurst",
    "egressBurst",
    "ingressPeakrate",
    "egressPeakrate",
    "ingressMinburst",
    "egressMinburst",
];

/// Controls that are enforced.
const ENFORCED: [&str; 7] = [
    "ingressPacketRate",
    "ingressPacketBurst",
    "ingressMaxConnections",
    "egressPacketRate",
    "egressPacketBurst",
    "egressMaxConnections",
    DSCP,
];

/// Classes by name (RFC 2474, RFC 2597, RFC 3246).
const CLASSES: [(&str, u8); 21] = [
    ("DF", 0),
    ("EF", 46),
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("CS0", 0),
    ("CS1", 8),
    ("CS2", 16),
    ("CS3", 24),
    ("CS4", 32),
    ("CS5", 40),
    ("CS6", 48),
];

/// How many packets may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRate {
    /// Packets a second, 1 to 10,000.
    pub per_second: u32,
    /// Packets at once, 1 to 10,000.
    pub burst: u32,
}

/// Limits of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Packets over it are dropped.
    pub packet_rate: Option<PacketRate>,
    /// TCP connections at the same time; further ones are refused.
    pub max_connections: Option<NonZeroU32>,
}

/// What is asked for a workload, and can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qos {
    /// Of traffic to it.
    pub ingress: Limits,
    /// Of traffic from it.
    pub egress: Limits,
    /// The DSCP value of what it sends out of the cluster, 0 to 63.
    pub dscp: Option<u8>,
}

impl Qos {
    /// Reads controls by name: numbers as a `WorkloadEndpoint` has them, or texts as annotations do (`1k`).
    ///
    /// Comes with what is wrong with them, by the control's name.
    pub fn read(controls: &BTreeMap<String, Value>) -> (Self, Vec<FieldError>) {
        let mut reader = Reader { controls, errors: Vec::new() };
        let ingress = reader.limits("ingressPacketRate", "ingressPacketBurst", "ingressMaxConnections");
        let egress = reader.limits("egressPacketRate", "egressPacketBurst", "egressMaxConnections");
        let dscp = reader.dscp();
        reader.others();
        (Self { ingress, egress, dscp }, reader.errors)
    }
}

/// The DSCP value that annotations of a host endpoint ask for, with what is wrong with it. Hosts have no other controls.
pub fn host_dscp(annotations: &BTreeMap<String, String>) -> (Option<u8>, Vec<FieldError>) {
    let mut controls = of_annotations(annotations);
    controls.retain(|control, _| control == DSCP);
    let (qos, errors) = Qos::read(&controls);
    (qos.dscp, errors)
}

/// The control that an annotation stands for.
pub(crate) fn control_of(annotation: &str) -> Option<&'static str> {
    match annotation {
        "kubernetes.io/ingress-bandwidth" => Some("ingressBandwidth"),
        "kubernetes.io/egress-bandwidth" => Some("egressBandwidth"),
        _ => {
            let name = annotation.strip_prefix(ANNOTATION_PREFIX)?;
            ENFORCED.into_iter().chain(BANDWIDTH).find(|control| *control == name)
        }
    }
}

/// Controls as annotations have them.
pub(crate) fn of_annotations(annotations: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
    // Sorted by key, so that Calico's own names come after those of Kubernetes and count more.
    let controls = annotations.iter().filter_map(|(key, text)| Some((control_of(key)?, text)));
    controls.map(|(control, text)| (control.to_owned(), Value::from(text.as_str()))).collect()
}

struct Reader<'a> {
    controls: &'a BTreeMap<String, Value>,
    errors: Vec<FieldError>,
}

impl Reader<'_> {
    fn limits(&mut self, rate: &str, burst: &str, connections: &str) -> Limits {
        let per_second = self.number(rate, &PACKETS);
        let given_burst = self.number(burst, &PACKETS);
        if per_second.is_none() && given_burst.is_some() {
            self.errors.push(FieldError::new(burst, format!("has no effect without {rate}")));
        }
        let burst = given_burst.unwrap_or(DEFAULT_BURST);
        Limits {
            packet_rate: per_second.map(|per_second| PacketRate { per_second, burst }),
            max_connections: self.number(connections, &CONNECTIONS).and_then(NonZeroU32::new),
        }
    }

    /// A number, brought into its range. None if it is not set or not to be understood.
    fn number(&mut self, control: &str, range: &RangeInclusive<u32>) -> Option<u32> {
        let value = self.controls.get(control)?;
        let number = match amount(value) {
            Ok(number) => number?,
            Err(message) => {
                self.errors.push(FieldError::new(control, message + "; there is no limit"));
                return None;
            }
        };
        let nearest = number.clamp((*range.start()).into(), (*range.end()).into());
        if nearest != number {
            let message =
                format!("{number} is not from {} to {}; it is {nearest}", range.start(), range.end());
            self.errors.push(FieldError::new(control, message));
        }
        u32::try_from(nearest).ok()
    }

    fn dscp(&mut self) -> Option<u8> {
        let value = self.controls.get(DSCP).filter(|value| !value.is_null())?;
        let number = match value {
            Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
            Value::String(text) => named_dscp(text.trim()),
            _ => None,
        };
        let number = number.filter(|number| *number <= DSCP_MAX);
        if number.is_none() {
            let message =
                format!("{value} is neither from 0 to {DSCP_MAX} nor a class like AF11; nothing is marked");
            self.errors.push(FieldError::new(DSCP, message));
        }
        number
    }

    /// Tells of what has no effect.
    fn others(&mut self) {
        for (control, value) in self.controls {
            if ENFORCED.contains(&control.as_str()) || matches!(amount(value), Ok(None)) {
                continue;
            }
            let message = if BANDWIDTH.contains(&control.as_str()) {
                "bandwidth is not limited by this release"
            } else {
                "there is no such control"
            };
            self.errors.push(FieldError::new(control.as_str(), message));
        }
    }
}

fn named_dscp(text: &str) -> Option<u8> {
    let class = CLASSES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    class.map(|(_, value)| value).or_else(|| text.parse().ok())
}

/// What a value comes to. The number 0 is how Go writes that a field is not set.
fn amount(value: &Value) -> Result<Option<i128>, String> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => {
            let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            whole.map(|number| (number != 0).then_some(number))
        }
        Value::String(text) => quantity(text).map(Some),
        _ => None,
    };
    number.ok_or_else(|| format!("{value} is no quantity like 100 or 1k"))
}

#[cfg(test)]
mod tests;
