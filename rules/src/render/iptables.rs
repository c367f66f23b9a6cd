//! The text of iptables rules, with Felix's rule ids.
//!
//! The text is what Felix feeds to `iptables-restore`, character by character: the id of a rule is a hash
//! over the text of all rules of its chain up to itself, so a blank in the wrong place makes every later
//! id differ.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use sha2::{Digest, Sha224};
use tortie_api::net::{IpVersion, PortRange};

use crate::render::{RenderedChain, RenderedHook, RenderedRule, RuleId};
use crate::ruleset::{Action, Chain, ConntrackState, Hook, Match, Rule, SetKey, Side};

/// What the installed iptables and kernel can do, as far as it changes the text of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `MASQUERADE --random-fully`: iptables 1.6.2, kernel 3.14.
    pub masquerade_random: bool,
    /// `SNAT --random-fully`: iptables 1.6.0, kernel 3.14.
    pub snat_random: bool,
    /// `NFLOG --nflog-size`: kernel 4.8.
    pub nflog_size: bool,
}

impl Default for Features {
    /// What every distribution of the last years has.
    fn default() -> Self {
        Self { masquerade_random: true, snat_random: true, nflog_size: true }
    }
}

/// How much of a packet goes to who listens to flows: enough for the headers.
const NFLOG_BYTES: u32 = 80;

/// The longest comment, in bytes, that goes into a rule.
const COMMENT_MAX: usize = 256;

/// Renders a chain of ours.
pub fn chain(chain: &Chain, features: Features) -> RenderedChain {
    RenderedChain { name: chain.name.clone(), rules: rules(&chain.name, &chain.rules, features) }
}

/// Renders our rules of a kernel chain. The appended ones have a hash chain of their own.
pub fn hook(hook: &Hook, features: Features) -> RenderedHook {
    RenderedHook {
        chain: hook.chain.to_owned(),
        inserted: rules(hook.chain, &hook.inserted, features),
        appended: rules(&format!("{}*appends*", hook.chain), &hook.appended, features),
    }
}

fn rules(seed: &str, rules: &[Rule], features: Features) -> Vec<RenderedRule> {
    let head = format!("-A {seed} HASH");
    let mut hash: [u8; 28] = Sha224::digest(seed.as_bytes()).into();
    let mut body = String::new();
    rules
        .iter()
        .map(|rule| {
            body.clear();
            write_rule(&mut body, rule, features);
            let mut hasher = Sha224::new();
            hasher.update(hash);
            hasher.update(head.as_bytes());
            hasher.update(body.as_bytes());
            hash = hasher.finalize().into();
            let id = rule_id(&hash);
            RenderedRule { id, text: format!("-m comment --comment \"cali:{id}\"{body}") }
        })
        .collect()
}

fn rule_id(hash: &[u8; 28]) -> RuleId {
    let mut text = [0; 40];
    let mut id = [0; 16];
    // 28 bytes make 38 characters of base64, so this cannot fail.
    let written = URL_SAFE_NO_PAD.encode_slice(hash, &mut text).unwrap_or(0);
    debug_assert!(written >= id.len());
    id.copy_from_slice(&text[..16]);
    RuleId(id)
}

/// Comments, matches and action, each with a blank before it.
fn write_rule(out: &mut String, rule: &Rule, features: Features) {
    for comment in &rule.comments {
        out.push_str(" -m comment --comment \"");
        push_comment(out, comment);
        out.push('"');
    }
    for m in &rule.matches {
        out.push(' ');
        write_match(out, m);
    }
    if let Some(action) = &rule.action {
        out.push(' ');
        write_action(out, action, features);
    }
}

/// Replaces what a comment may not hold by `_`, one for each character, and cuts at 256 bytes.
fn push_comment(out: &mut String, comment: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_ @%+=:,./-".contains(c);
    out.extend(comment.chars().map(|c| if is_plain(c) { c } else { '_' }).take(COMMENT_MAX));
}

fn not(negate: bool) -> &'static str {
    if negate { "! " } else { "" }
}

fn write_match(out: &mut String, m: &Match) {
    let written = match m {
        Match::MarkClear(bits) => write!(out, "-m mark --mark 0/{bits:#x}"),
        Match::MarkAnySet(bits) => write!(out, "-m mark ! --mark 0/{bits:#x}"),
        Match::Mark { value, mask } => write!(out, "-m mark --mark {value:#x}/{mask:#x}"),
        Match::MarkNot { value, mask } => write!(out, "-m mark ! --mark {value:#x}/{mask:#x}"),
        Match::InInterface(name) => write!(out, "--in-interface {name}"),
        Match::OutInterface(name) => write!(out, "--out-interface {name}"),
        Match::ReversePathFails => write!(out, "-m rpfilter --invert --validmark"),
        Match::Conntrack { states, negate } => {
            let names: Vec<&str> = states.iter().map(|s| state_name(*s)).collect();
            write!(out, "-m conntrack {}--ctstate {}", not(*negate), names.join(","))
        }
        Match::Protocol { protocol, negate } => {
            write!(out, "{}-p {}", not(*negate), protocol.dataplane_text())
        }
        Match::Net { side, net, negate } => {
            write!(out, "{}--{} {}", not(*negate), side_word(*side), net_text(net))
        }
        Match::Address { side, address } => write!(out, "--{} {address}", side_word(*side)),
        Match::Local(Side::Source) => write!(out, "-m addrtype --src-type LOCAL"),
        Match::Local(Side::Destination) => write!(out, "-m addrtype --dst-type LOCAL"),
        Match::NotFromOutInterface => write!(out, "-m addrtype ! --src-type LOCAL --limit-iface-out"),
        Match::Set { name, side, key, negate } => {
            write!(out, "-m set {}--match-set {name} {}", not(*negate), set_flags(*side, *key))
        }
        Match::Ports { side, ports, negate } => {
            write!(out, "-m multiport {}--{}-ports {}", not(*negate), side_word(*side), port_list(ports))
        }
        Match::DestinationPort(port) => write!(out, "--dport {port}"),
        Match::Icmp { version, icmp_type, code, negate } => {
            let (module, option) = match version {
                IpVersion::V4 => ("icmp", "icmp-type"),
                IpVersion::V6 => ("icmp6", "icmpv6-type"),
            };
            let code = code.map(|c| format!("/{c}")).unwrap_or_default();
            write!(out, "-m {module} {}--{option} {icmp_type}{code}", not(*negate))
        }
        Match::TcpSyn => write!(out, "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN"),
        Match::ConnectionsAbove(count) => {
            write!(out, "-m connlimit --connlimit-above {count} --connlimit-mask 0")
        }
        Match::Limit { rate, burst: 0 } => write!(out, "-m limit --limit {rate}"),
        Match::Limit { rate, burst } => write!(out, "-m limit --limit {rate} --limit-burst {burst}"),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

fn write_action(out: &mut String, action: &Action, features: Features) {
    let random = |on: bool| if on { " --random-fully" } else { "" };
    let written = match action {
        Action::Accept => write!(out, "--jump ACCEPT"),
        // iptables has no verdict maps, and nothing that is compiled for it asks for one: closed if it did.
        Action::Drop | Action::Lookup { .. } => write!(out, "--jump DROP"),
        // Nor flowtables, nor revocation of connections: the packet goes on to the next rule, as there.
        Action::Offload | Action::SetConnectionMark { .. } => Ok(()),
        Action::Reject => write!(out, "--jump REJECT"),
        // Felix writes the short option here, and ids are made of the text.
        Action::ResetConnection => write!(out, "-j REJECT --reject-with tcp-reset"),
        Action::Return => write!(out, "--jump RETURN"),
        Action::NoTrack => write!(out, "--jump NOTRACK"),
        Action::Jump(chain) => write!(out, "--jump {chain}"),
        Action::Goto(chain) => write!(out, "--goto {chain}"),
        Action::SetMark(bits) => write!(out, "--jump MARK --set-mark {bits:#x}/{bits:#x}"),
        Action::ClearMark(bits) => write!(out, "--jump MARK --set-mark 0/{bits:#x}"),
        Action::SetMaskedMark { value, mask } => write!(out, "--jump MARK --set-mark {value:#x}/{mask:#x}"),
        Action::Log { prefix } => write!(out, "--jump LOG --log-prefix \"{prefix}: \" --log-level 5"),
        Action::Nflog { group, prefix } => {
            let length = if features.nflog_size { "size" } else { "range" };
            write!(
                out,
                "--jump NFLOG --nflog-group {group} --nflog-prefix {prefix} --nflog-{length} {NFLOG_BYTES}"
            )
        }
        Action::DnatPort(to) => write!(out, "--jump DNAT --to-destination {to}"),
        Action::Dnat(address) => write!(out, "--jump DNAT --to-destination {address}"),
        Action::SetDscp(value) => write!(out, "--jump DSCP --set-dscp {value}"),
        Action::Masquerade { ports } => {
            let ports = ports.map(|p| format!(" --to-ports {}-{}", p.first(), p.last())).unwrap_or_default();
            write!(out, "--jump MASQUERADE{ports}{}", random(features.masquerade_random))
        }
        Action::Snat { address, ports } => {
            let to = match (address, ports) {
                (_, None) => address.to_string(),
                (std::net::IpAddr::V4(a), Some(p)) => format!("{a}:{}-{}", p.first(), p.last()),
                (std::net::IpAddr::V6(a), Some(p)) => format!("[{a}]:{}-{}", p.first(), p.last()),
            };
            write!(out, "--jump SNAT --to-source {to}{}", random(features.snat_random))
        }
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

fn state_name(state: ConntrackState) -> &'static str {
    match state {
        ConntrackState::New => "NEW",
        ConntrackState::Related => "RELATED",
        ConntrackState::Established => "ESTABLISHED",
        ConntrackState::Invalid => "INVALID",
        ConntrackState::Dnat => "DNAT",
    }
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::Source => "source",
        Side::Destination => "destination",
    }
}

fn set_flags(side: Side, key: SetKey) -> &'static str {
    match (side, key) {
        (Side::Source, SetKey::Address) => "src",
        (Side::Destination, SetKey::Address) => "dst",
        (Side::Source, SetKey::AddressPort) => "src,src",
        (Side::Destination, SetKey::AddressPort) => "dst,dst",
    }
}

fn net_text(net: &IpNet) -> String {
    net.to_string()
}

fn port_list(ports: &[PortRange]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
