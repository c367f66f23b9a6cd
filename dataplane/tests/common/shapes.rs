//! Every shape that the codec writes, beside nft's words for it.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use tortie_rules::ruleset::nft::{
    Checksum, Comparison, ConntrackKey, Data, Direction, DynamicSet, Element, Expression, Family, FibResult,
    FibSelector, FieldType, HashSource, LimitUnit, LogTarget, MetaKey, NatFlags, NatKind, Payload, Register,
    RejectKind, RouteKey, Rule, Set, SetOperation, Verdict,
};

/// A rule and its text.
pub(crate) struct Shape {
    /// What nft calls it.
    pub(crate) text: &'static str,
    /// It.
    pub(crate) rule: Rule,
    /// What the newer nft makes of the same words, where that is something else.
    pub(crate) newer: Option<Rule>,
}

/// A set, its elements, and what nft calls both.
pub(crate) struct SetShape {
    pub(crate) set: Set,
    pub(crate) elements: Vec<Element>,
    /// Its declaration, without name and elements.
    pub(crate) declaration: &'static str,
    /// Its elements.
    pub(crate) text: &'static str,
}

pub(crate) const R: Register = Register::FIRST;

/// The word of this number.
pub(crate) fn word(number: u8) -> Register {
    Register::word(number).unwrap()
}

fn shape(text: &'static str, expressions: Vec<Expression>) -> Shape {
    Shape { text, rule: Rule { expressions, comment: None }, newer: None }
}

fn meta(key: MetaKey) -> Expression {
    Expression::Meta { key, to: R }
}

fn set_meta(key: MetaKey) -> Expression {
    Expression::SetMeta { key, from: R }
}

fn load(payload: Payload) -> Expression {
    Expression::Payload { payload, to: R }
}

fn compare(comparison: Comparison, value: Data) -> Expression {
    Expression::Compare { comparison, from: R, value }
}

fn equal(value: Data) -> Expression {
    compare(Comparison::Equal, value)
}

fn unequal(value: Data) -> Expression {
    compare(Comparison::NotEqual, value)
}

fn bits(mask: Data, xor: Data) -> Expression {
    Expression::Bitwise { from: R, to: R, mask, xor }
}

fn value(value: Data) -> Expression {
    Expression::Immediate { value, to: R }
}

fn ct(key: ConntrackKey) -> Expression {
    Expression::Conntrack { key, direction: None, to: R }
}

fn fib(result: FibResult, selector: FibSelector) -> Expression {
    Expression::Fib { result, selector, to: R }
}

fn drop() -> Expression {
    Expression::Verdict(Verdict::Drop)
}

fn protocol(number: u8) -> Vec<Expression> {
    vec![meta(MetaKey::Protocol), equal(Data::u8(number))]
}

fn v4(text: &str) -> Data {
    text.parse::<std::net::Ipv4Addr>().unwrap().into()
}

fn v6(text: &str) -> Data {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

/// The same behind a match of the protocol.
fn of_tcp(expressions: Vec<Expression>) -> Vec<Expression> {
    let mut all = protocol(6);
    all.extend(expressions);
    all
}

/// Matches, marks and verdicts: for a chain of type filter.
pub(crate) fn filter_shapes(family: Family) -> Vec<Shape> {
    let mut shapes = verdict_shapes();
    shapes.extend(match_shapes());
    shapes.extend(lookup_shapes(family));
    shapes.extend(effect_shapes());
    shapes.extend(if family == Family::Ipv4 { v4_shapes() } else { v6_shapes() });
    shapes
}

fn verdict_shapes() -> Vec<Shape> {
    let verdict = |verdict| vec![Expression::Verdict(verdict)];
    vec![
        shape("accept", verdict(Verdict::Accept)),
        shape("drop", verdict(Verdict::Drop)),
        shape("continue", verdict(Verdict::Continue)),
        shape("return", verdict(Verdict::Return)),
        shape("jump cali-target", verdict(Verdict::Jump("cali-target".to_owned()))),
        shape("goto cali-target", verdict(Verdict::Goto("cali-target".to_owned()))),
        Shape {
            text: "counter accept comment \"cali:0123456789abcdef; said to people\"",
            rule: Rule {
                expressions: vec![Expression::Counter, Expression::Verdict(Verdict::Accept)],
                comment: Some("cali:0123456789abcdef; said to people".to_owned()),
            },
            newer: None,
        },
    ]
}

#[allow(clippy::too_many_lines, reason = "a list of cases")]
fn match_shapes() -> Vec<Shape> {
    let zero = || Data::host32(0);
    vec![
        shape(
            "iifname \"cali1234567890a\"",
            vec![meta(MetaKey::InInterface), equal(Data::interface("cali1234567890a"))],
        ),
        shape("oifname \"cali*\"", vec![meta(MetaKey::OutInterface), equal(Data::interface_prefix("cali"))]),
        shape(
            "iifname != \"cali*\"",
            vec![meta(MetaKey::InInterface), unequal(Data::interface_prefix("cali"))],
        ),
        shape("meta mark 0x10000", vec![meta(MetaKey::Mark), equal(Data::host32(0x10000))]),
        shape(
            "meta mark & 0xff0000 == 0x20000",
            vec![meta(MetaKey::Mark), bits(Data::host32(0xff_0000), zero()), equal(Data::host32(0x2_0000))],
        ),
        shape(
            "meta mark & 0xff0000 != 0x20000",
            vec![meta(MetaKey::Mark), bits(Data::host32(0xff_0000), zero()), unequal(Data::host32(0x2_0000))],
        ),
        shape(
            "meta mark & 0x30000 != 0x0",
            vec![meta(MetaKey::Mark), bits(Data::host32(0x3_0000), zero()), unequal(zero())],
        ),
        shape("meta l4proto udp", protocol(17)),
        shape("meta l4proto != 132", vec![meta(MetaKey::Protocol), unequal(Data::u8(132))]),
        shape("tcp dport 8080", of_tcp(vec![load(Payload::DESTINATION_PORT), equal(Data::be16(8080))])),
        shape("tcp sport != 8080", of_tcp(vec![load(Payload::SOURCE_PORT), unequal(Data::be16(8080))])),
        port_range(),
        shape(
            "tcp dport != 30000-32767",
            of_tcp(vec![
                load(Payload::DESTINATION_PORT),
                Expression::Range { negate: true, from: R, low: Data::be16(30000), high: Data::be16(32767) },
            ]),
        ),
        shape(
            "tcp flags & (fin|syn|rst|ack) == syn",
            of_tcp(vec![load(Payload::TCP_FLAGS), bits(Data::u8(0x17), Data::u8(0)), equal(Data::u8(2))]),
        ),
        shape(
            "ct state established,related",
            vec![ct(ConntrackKey::State), bits(Data::host32(6), zero()), unequal(zero())],
        ),
        shape(
            "ct state invalid",
            vec![ct(ConntrackKey::State), bits(Data::host32(1), zero()), unequal(zero())],
        ),
        shape(
            "ct status dnat",
            vec![ct(ConntrackKey::Status), bits(Data::host32(32), zero()), unequal(zero())],
        ),
        shape(
            "ct status expected",
            vec![ct(ConntrackKey::Status), bits(Data::host32(1), zero()), unequal(zero())],
        ),
        shape(
            "ct direction != original",
            vec![ct(ConntrackKey::Direction), compare(Comparison::NotEqual, Data::u8(0))],
        ),
        shape("ct direction reply", vec![ct(ConntrackKey::Direction), equal(Data::u8(1))]),
        shape(
            "ct mark & 0xffff == 0x7",
            vec![ct(ConntrackKey::Mark), bits(Data::host32(0xffff), zero()), equal(Data::host32(7))],
        ),
        shape(
            "ct original packets > 10",
            vec![
                Expression::Conntrack {
                    key: ConntrackKey::Packets,
                    direction: Some(Direction::Original),
                    to: R,
                },
                Expression::ByteOrder { from: R, to: R, to_network: true, len: 8, size: 8 },
                compare(Comparison::Greater, Data::new(&10u64.to_be_bytes())),
            ],
        ),
        shape("meta pkttype multicast", vec![meta(MetaKey::PacketType), equal(Data::u8(2))]),
        shape("meta length 100", vec![meta(MetaKey::Length), equal(Data::host32(100))]),
        shape(
            "fib daddr type local",
            vec![
                fib(FibResult::AddressType, FibSelector { destination: true, ..FibSelector::default() }),
                equal(Data::host32(2)),
            ],
        ),
        shape(
            "fib saddr . mark . iif oif 0 drop",
            vec![
                fib(
                    FibResult::OutIndex,
                    FibSelector { source: true, mark: true, in_interface: true, ..FibSelector::default() },
                ),
                equal(zero()),
                drop(),
            ],
        ),
        shape(
            "fib daddr oif exists",
            vec![
                fib(FibResult::Exists, FibSelector { destination: true, ..FibSelector::default() }),
                equal(Data::new(&[1, 0, 0, 0])),
            ],
        ),
        shape(
            "limit rate 10/second burst 5 packets",
            vec![Expression::Limit {
                rate: 10,
                unit: LimitUnit::Second,
                burst: 5,
                bytes: false,
                over: false,
            }],
        ),
        shape(
            "limit rate over 3/minute burst 7 packets",
            vec![Expression::Limit { rate: 3, unit: LimitUnit::Minute, burst: 7, bytes: false, over: true }],
        ),
        shape("ct count over 10", vec![Expression::ConnectionLimit { count: 10, over: true }]),
    ]
}

/// Two comparisons, and one expression since nft 1.1.
fn port_range() -> Shape {
    let two = of_tcp(vec![
        load(Payload::DESTINATION_PORT),
        compare(Comparison::GreaterOrEqual, Data::be16(30000)),
        compare(Comparison::LessOrEqual, Data::be16(32767)),
    ]);
    let one = of_tcp(vec![
        load(Payload::DESTINATION_PORT),
        Expression::Range { negate: false, from: R, low: Data::be16(30000), high: Data::be16(32767) },
    ]);
    Shape { newer: Some(Rule { expressions: one, comment: None }), ..shape("tcp dport 30000-32767", two) }
}

fn lookup_shapes(family: Family) -> Vec<Shape> {
    let (source, len) =
        if family == Family::Ipv4 { (Payload::IPV4_SOURCE, 4) } else { (Payload::IPV6_SOURCE, 16) };
    let [one, other, verdicts, negated] = if family == Family::Ipv4 {
        [
            "ip saddr @nets",
            "ip saddr . meta l4proto . th dport vmap @verdicts",
            "meta mark set ip saddr map @marks",
            "ip saddr != @nets",
        ]
    } else {
        [
            "ip6 saddr @nets",
            "ip6 saddr . meta l4proto . th dport vmap @verdicts",
            "meta mark set ip6 saddr map @marks",
            "ip6 saddr != @nets",
        ]
    };
    let second = R.after(len).unwrap();
    let third = second.after(1).unwrap();
    let lookup = |negate| vec![load(source), Expression::Lookup { set: "nets".to_owned(), key: R, negate }];
    vec![
        shape(one, lookup(false)),
        shape(negated, lookup(true)),
        shape(
            other,
            vec![
                load(source),
                Expression::Meta { key: MetaKey::Protocol, to: second },
                Expression::Payload { payload: Payload::DESTINATION_PORT, to: third },
                Expression::VerdictMap { map: "verdicts".to_owned(), key: R },
            ],
        ),
        shape(
            verdicts,
            vec![
                load(source),
                Expression::Map { map: "marks".to_owned(), key: R, to: R },
                set_meta(MetaKey::Mark),
            ],
        ),
        shape(
            "iifname vmap @dispatch",
            vec![meta(MetaKey::InInterface), Expression::VerdictMap { map: "dispatch".to_owned(), key: R }],
        ),
        shape(
            "iifname . oifname vmap @pairs",
            vec![
                meta(MetaKey::InInterface),
                Expression::Meta { key: MetaKey::OutInterface, to: word(4) },
                Expression::VerdictMap { map: "pairs".to_owned(), key: R },
            ],
        ),
        shape(
            "meta mark . meta l4proto . th dport vmap @rows",
            vec![
                meta(MetaKey::Mark),
                Expression::Meta { key: MetaKey::Protocol, to: word(1) },
                Expression::Payload { payload: Payload::DESTINATION_PORT, to: word(2) },
                Expression::VerdictMap { map: "rows".to_owned(), key: R },
            ],
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a list of cases")]
fn effect_shapes() -> Vec<Shape> {
    let none = || Data::host32(u32::MAX);
    vec![
        shape("meta mark set 0x10000", vec![value(Data::host32(0x10000)), set_meta(MetaKey::Mark)]),
        shape(
            "meta mark set meta mark | 0x10000",
            vec![
                meta(MetaKey::Mark),
                bits(Data::host32(!0x10000), Data::host32(0x10000)),
                set_meta(MetaKey::Mark),
            ],
        ),
        shape(
            "meta mark set meta mark & 0xfffeffff",
            vec![meta(MetaKey::Mark), bits(Data::host32(!0x10000), Data::host32(0)), set_meta(MetaKey::Mark)],
        ),
        shape(
            "meta mark set meta mark ^ 0x00000001",
            vec![meta(MetaKey::Mark), bits(none(), Data::host32(1)), set_meta(MetaKey::Mark)],
        ),
        shape(
            "ct mark set meta mark",
            vec![
                meta(MetaKey::Mark),
                Expression::SetConntrack { key: ConntrackKey::Mark, direction: None, from: R },
            ],
        ),
        shape(
            "ct mark set ct mark & 0x0006ffff | 0x00060000",
            vec![
                ct(ConntrackKey::Mark),
                bits(Data::host32(0xffff), Data::host32(0x6_0000)),
                Expression::SetConntrack { key: ConntrackKey::Mark, direction: None, from: R },
            ],
        ),
        shape("meta mark set ct mark", vec![ct(ConntrackKey::Mark), set_meta(MetaKey::Mark)]),
        shape("meta nftrace set 1", vec![value(Data::u8(1)), set_meta(MetaKey::Trace)]),
        shape(
            "log prefix \"calico-drop: \"",
            vec![log("calico-drop: ", LogTarget::Kernel { level: 4, flags: 0 })],
        ),
        shape(
            "log prefix \"x\" level info flags tcp sequence",
            vec![log("x", LogTarget::Kernel { level: 6, flags: 1 })],
        ),
        shape(
            "log prefix \"DPI|default\" group 2 snaplen 80",
            vec![log("DPI|default", group(2, Some(80), None))],
        ),
        shape("log prefix \"x\" group 1 queue-threshold 10", vec![log("x", group(1, None, Some(10)))]),
        shape(
            "add @learned { meta mark timeout 10s }",
            vec![meta(MetaKey::Mark), dynamic(SetOperation::Add, Some(10), vec![])],
        ),
        shape(
            "update @learned { meta mark counter } drop",
            vec![meta(MetaKey::Mark), dynamic(SetOperation::Update, None, vec![Expression::Counter]), drop()],
        ),
        shape(
            "delete @learned { meta mark }",
            vec![meta(MetaKey::Mark), dynamic(SetOperation::Delete, None, vec![])],
        ),
        shape(
            "meta mark set numgen random mod 4 offset 1",
            vec![
                Expression::NumberGenerator { random: true, modulus: 4, offset: 1, to: R },
                set_meta(MetaKey::Mark),
            ],
        ),
        shape(
            "meta mark set symhash mod 4",
            vec![
                Expression::Hash { source: HashSource::Symmetric, modulus: 4, seed: None, offset: 0, to: R },
                set_meta(MetaKey::Mark),
            ],
        ),
        shape(
            "tcp option maxseg size set 1400",
            vec![value(Data::be16(1400)), Expression::SetTcpOption { kind: 2, offset: 2, len: 2, from: R }],
        ),
        shape(
            "tcp option maxseg size set rt mtu",
            vec![
                Expression::Route { key: RouteKey::TcpMss, to: R },
                Expression::ByteOrder { from: R, to: R, to_network: true, len: 2, size: 2 },
                Expression::SetTcpOption { kind: 2, offset: 2, len: 2, from: R },
            ],
        ),
        shape(
            "tcp option maxseg size 1400",
            vec![Expression::TcpOption { kind: 2, offset: 2, len: 2, to: R }, equal(Data::be16(1400))],
        ),
        shape(
            "meta l4proto tcp reject with tcp reset",
            of_tcp(vec![Expression::Reject(RejectKind::TcpReset)]),
        ),
    ]
}

fn log(prefix: &str, target: LogTarget) -> Expression {
    Expression::Log { prefix: Some(prefix.to_owned()), target }
}

fn group(group: u16, snap_len: Option<u32>, queue_threshold: Option<u16>) -> LogTarget {
    LogTarget::Group { group, snap_len, queue_threshold }
}

fn dynamic(operation: SetOperation, seconds: Option<u64>, expressions: Vec<Expression>) -> Expression {
    Expression::DynamicSet(DynamicSet {
        operation,
        set: "learned".to_owned(),
        key: R,
        value: None,
        timeout: seconds.map(Duration::from_secs),
        negate: false,
        expressions,
    })
}

fn v4_shapes() -> Vec<Shape> {
    vec![
        shape("ip saddr 10.65.0.2", vec![load(Payload::IPV4_SOURCE), equal(v4("10.65.0.2"))]),
        shape(
            "ip daddr 10.64.0.0/10",
            vec![
                load(Payload::IPV4_DESTINATION),
                bits(v4("255.192.0.0"), v4("0.0.0.0")),
                equal(v4("10.64.0.0")),
            ],
        ),
        shape(
            "ip saddr != 10.0.0.0/8",
            vec![load(Payload { len: 1, ..Payload::IPV4_SOURCE }), unequal(Data::u8(10))],
        ),
        shape(
            "icmp type echo-request icmp code 0",
            vec![
                meta(MetaKey::Protocol),
                equal(Data::u8(1)),
                load(Payload { len: 2, ..Payload::ICMP_TYPE }),
                equal(Data::new(&[8, 0])),
            ],
        ),
        shape(
            "icmp type echo-request",
            vec![meta(MetaKey::Protocol), equal(Data::u8(1)), load(Payload::ICMP_TYPE), equal(Data::u8(8))],
        ),
        shape(
            "ip dscp set af11",
            vec![
                load(Payload::IPV4_DSCP_WORD),
                bits(Data::be16(0xff03), Data::be16(10 << 2)),
                Expression::SetPayload {
                    payload: Payload::IPV4_DSCP_WORD,
                    from: R,
                    checksum: Some(Checksum::IPV4_HEADER),
                },
            ],
        ),
        shape("reject", vec![Expression::Reject(RejectKind::Icmp(3))]),
        shape(
            "meta mark set jhash ip saddr mod 4 seed 0x1",
            vec![
                Expression::Payload { payload: Payload::IPV4_SOURCE, to: word(4) },
                Expression::Hash {
                    source: HashSource::Jenkins { from: word(4), len: 4 },
                    modulus: 4,
                    seed: Some(1),
                    offset: 0,
                    to: R,
                },
                set_meta(MetaKey::Mark),
            ],
        ),
    ]
}

fn v6_shapes() -> Vec<Shape> {
    vec![
        shape("ip6 saddr fd00::2", vec![load(Payload::IPV6_SOURCE), equal(v6("fd00::2"))]),
        shape(
            "ip6 daddr fd00::/10",
            vec![load(Payload::IPV6_DESTINATION), bits(v6("ffc0::"), v6("::")), equal(v6("fd00::"))],
        ),
        shape(
            "icmpv6 type nd-neighbor-solicit",
            vec![
                meta(MetaKey::Protocol),
                equal(Data::u8(58)),
                load(Payload::ICMP_TYPE),
                equal(Data::u8(135)),
            ],
        ),
        shape(
            "ip6 dscp set af11",
            vec![
                load(Payload::IPV6_DSCP),
                bits(Data::be16(0xf03f), Data::be16(10 << 6)),
                Expression::SetPayload { payload: Payload::IPV6_DSCP, from: R, checksum: None },
            ],
        ),
        shape("reject", vec![Expression::Reject(RejectKind::Icmp(4))]),
    ]
}

/// What only chains of type nat hold, behind routing; `prerouting` for those before it.
pub(crate) fn nat_shapes(family: Family, prerouting: bool) -> Vec<Shape> {
    let version = family;
    let flags = NatFlags::default();
    let address = |text4: &str, text6: &str| if family == Family::Ipv4 { v4(text4) } else { v6(text6) };
    let to = |first: Data| Expression::Immediate { value: first, to: R };
    let ports = Data::be16;
    let is_v4 = family == Family::Ipv4;
    let nat = |kind, addresses, ports, flags| Expression::Nat { kind, version, addresses, ports, flags };
    // nft puts the next value behind the first in the next 16-byte register.
    let next = word(4);
    if prerouting {
        return vec![
            shape(
                if is_v4 { "dnat to 10.65.0.9" } else { "dnat to fd00::9" },
                vec![
                    to(address("10.65.0.9", "fd00::9")),
                    nat(NatKind::Destination, Some((R, R)), None, flags),
                ],
            ),
            shape(
                if is_v4 {
                    "tcp dport 80 dnat to 10.65.0.9:8080"
                } else {
                    "tcp dport 80 dnat to [fd00::9]:8080"
                },
                of_tcp(vec![
                    load(Payload::DESTINATION_PORT),
                    equal(Data::be16(80)),
                    to(address("10.65.0.9", "fd00::9")),
                    Expression::Immediate { value: ports(8080), to: next },
                    nat(NatKind::Destination, Some((R, R)), Some((next, next)), flags),
                ]),
            ),
            shape(
                "meta l4proto tcp redirect to :8080",
                of_tcp(vec![to(ports(8080)), Expression::Redirect { ports: Some((R, R)), flags }]),
            ),
        ];
    }
    let fully_random = NatFlags { fully_random: true, ..flags };
    vec![
        shape("masquerade", vec![Expression::Masquerade { ports: None, flags }]),
        shape("masquerade fully-random", vec![Expression::Masquerade { ports: None, flags: fully_random }]),
        shape(
            "meta l4proto tcp masquerade to :1024-2048 fully-random",
            of_tcp(vec![
                to(ports(1024)),
                Expression::Immediate { value: ports(2048), to: next },
                Expression::Masquerade { ports: Some((R, next)), flags: fully_random },
            ]),
        ),
        shape(
            if is_v4 {
                "snat to 192.0.2.1 random,persistent"
            } else {
                "snat to 2001:db8::1 random,persistent"
            },
            vec![
                to(address("192.0.2.1", "2001:db8::1")),
                nat(
                    NatKind::Source,
                    Some((R, R)),
                    None,
                    NatFlags { random: true, persistent: true, ..flags },
                ),
            ],
        ),
    ]
}

/// What only chains before connection tracking hold.
pub(crate) fn raw_shapes() -> Vec<Shape> {
    let set_zone = |direction| Expression::SetConntrack { key: ConntrackKey::Zone, direction, from: R };
    let zone = || value(Data::new(&5u16.to_ne_bytes()));
    vec![
        shape("notrack", vec![Expression::NoTrack]),
        shape("ct zone set 5", vec![zone(), set_zone(None)]),
        shape("ct original zone set 5", vec![zone(), set_zone(Some(Direction::Original))]),
    ]
}

/// Packets of an interface before everything else.
pub(crate) fn netdev_shapes() -> Vec<Shape> {
    vec![
        shape("meta mark set 0x1", vec![value(Data::host32(1)), set_meta(MetaKey::Mark)]),
        shape(
            "ether daddr 02:00:00:00:00:01 drop",
            vec![
                meta(MetaKey::InType),
                equal(Data::new(&1u16.to_ne_bytes())),
                load(Payload::ETHER_DESTINATION),
                equal(Data::new(&[2, 0, 0, 0, 0, 1])),
                drop(),
            ],
        ),
        shape(
            "ip saddr 10.65.0.2 accept",
            vec![
                meta(MetaKey::EtherType),
                equal(Data::be16(0x0800)),
                load(Payload::IPV4_SOURCE),
                equal(v4("10.65.0.2")),
                Expression::Verdict(Verdict::Accept),
            ],
        ),
    ]
}

/// Of ARP.
pub(crate) fn arp_shapes() -> Vec<Shape> {
    vec![
        shape("arp operation reply drop", vec![load(Payload::ARP_OPERATION), equal(Data::be16(2)), drop()]),
        shape(
            "oifname \"cali*\" counter",
            vec![meta(MetaKey::OutInterface), equal(Data::interface_prefix("cali")), Expression::Counter],
        ),
    ]
}

/// What not every kernel has.
pub(crate) fn rare_shapes() -> Vec<Shape> {
    let queue = |number, total, bypass, fanout| Expression::Queue { number, total, bypass, fanout };
    vec![
        shape("flow add @cali-f", vec![Expression::FlowOffload { flowtable: "cali-f".to_owned() }]),
        shape("queue num 3", vec![queue(3, 1, false, false)]),
        shape("queue num 3-5 bypass,fanout", vec![queue(3, 3, true, true)]),
    ]
}

/// Sets for the rules above, and other kinds.
pub(crate) fn set_shapes(family: Family) -> Vec<SetShape> {
    let (address, is_v4) =
        if family == Family::Ipv4 { (FieldType::Ipv4, true) } else { (FieldType::Ipv6, false) };
    let host = |last: u16| if is_v4 { v4(&format!("10.65.0.{last}")) } else { v6(&format!("fd00::{last}")) };
    let jump = || Verdict::Jump("cali-target".to_owned());
    let row = |last, protocol, port| Data::concat([host(last), Data::u8(protocol), Data::be16(port)]);
    vec![
        SetShape {
            set: Set::new("nets", [address]).of_intervals().with_comment("networks of a policy"),
            elements: net_elements(is_v4),
            declaration: if is_v4 {
                "type ipv4_addr; flags interval; comment \"networks of a policy\";"
            } else {
                "type ipv6_addr; flags interval; comment \"networks of a policy\";"
            },
            text: if is_v4 {
                "10.65.0.0/26, 10.65.0.64, 10.65.1.0-10.65.1.9, 192.168.0.0-255.255.255.255"
            } else {
                "fd00::/64, fd01::1, fd01::10-fd01::19, fe00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            },
        },
        SetShape {
            set: Set::new("hosts", [address]),
            elements: vec![Element::new(host(1)), Element::new(host(2)).comment("the second")],
            declaration: if is_v4 { "type ipv4_addr;" } else { "type ipv6_addr;" },
            text: if is_v4 {
                "10.65.0.1, 10.65.0.2 comment \"the second\""
            } else {
                "fd00::1, fd00::2 comment \"the second\""
            },
        },
        SetShape {
            set: Set::verdict_map("verdicts", [address, FieldType::Protocol, FieldType::Port]),
            elements: vec![
                Element::new(row(1, 6, 80)).verdict(jump()),
                Element::new(row(1, 17, 53)).verdict(Verdict::Accept).comment("names"),
                Element::new(row(2, 6, 443)).verdict(Verdict::Return),
                Element::catch_all().verdict(Verdict::Drop),
            ],
            declaration: if is_v4 {
                "type ipv4_addr . inet_proto . inet_service : verdict;"
            } else {
                "type ipv6_addr . inet_proto . inet_service : verdict;"
            },
            text: if is_v4 {
                "10.65.0.1 . tcp . 80 : jump cali-target, 10.65.0.1 . udp . 53 comment \"names\" : accept, \
                 10.65.0.2 . tcp . 443 : return, * : drop"
            } else {
                "fd00::1 . tcp . 80 : jump cali-target, fd00::1 . udp . 53 comment \"names\" : accept, \
                 fd00::2 . tcp . 443 : return, * : drop"
            },
        },
        SetShape {
            set: Set::map("marks", [address], [FieldType::Mark]),
            elements: vec![
                Element::new(host(1)).data(Data::host32(0x10000)),
                Element::new(host(2)).data(Data::host32(0x20001)),
            ],
            declaration: if is_v4 { "type ipv4_addr : mark;" } else { "type ipv6_addr : mark;" },
            text: if is_v4 {
                "10.65.0.1 : 0x10000, 10.65.0.2 : 0x20001"
            } else {
                "fd00::1 : 0x10000, fd00::2 : 0x20001"
            },
        },
    ]
    .into_iter()
    .chain(common_set_shapes())
    .chain(interval_map_shapes(is_v4))
    .collect()
}

fn net_elements(is_v4: bool) -> Vec<Element> {
    let interval = |first: &str, last: &str| {
        if is_v4 { Element::interval(v4(first), v4(last)) } else { Element::interval(v6(first), v6(last)) }
    };
    if is_v4 {
        vec![
            interval("10.65.0.0", "10.65.0.63"),
            interval("10.65.0.64", "10.65.0.64"),
            interval("10.65.1.0", "10.65.1.9"),
            interval("192.168.0.0", "255.255.255.255"),
        ]
    } else {
        vec![
            interval("fd00::", "fd00::ffff:ffff:ffff:ffff"),
            interval("fd01::1", "fd01::1"),
            interval("fd01::10", "fd01::19"),
            interval("fe00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ]
    }
}

#[allow(clippy::too_many_lines, reason = "a list of cases")]
fn common_set_shapes() -> Vec<SetShape> {
    let jump = || Verdict::Jump("cali-target".to_owned());
    let name = Data::interface;
    let mark_row = |mark, port| Data::concat([Data::host32(mark), Data::u8(6), Data::be16(port)]);
    vec![
        SetShape {
            set: Set::verdict_map("dispatch", [FieldType::Interface]).with_comment("workloads"),
            elements: vec![
                Element::new(name("cali1234567890a")).verdict(jump()),
                Element::new(name("cali2")).verdict(Verdict::Goto("cali-target".to_owned())),
            ],
            declaration: "type ifname : verdict; comment \"workloads\";",
            text: "\"cali1234567890a\" : jump cali-target, \"cali2\" : goto cali-target",
        },
        SetShape {
            set: Set::verdict_map("pairs", [FieldType::Interface, FieldType::Interface]),
            elements: vec![Element::new(Data::concat([name("cali1"), name("cali2")])).verdict(jump())],
            declaration: "type ifname . ifname : verdict;",
            text: "\"cali1\" . \"cali2\" : jump cali-target",
        },
        SetShape {
            set: Set::verdict_map("rows", [FieldType::Mark, FieldType::Protocol, FieldType::Port]),
            elements: vec![
                Element::new(mark_row(0x10000, 80)).verdict(Verdict::Accept),
                Element::new(mark_row(0x20001, 443)).verdict(Verdict::Drop),
            ],
            declaration: "type mark . inet_proto . inet_service : verdict;",
            text: "0x10000 . tcp . 80 : accept, 0x20001 . tcp . 443 : drop",
        },
        SetShape {
            set: Set::verdict_map("ports", [FieldType::Protocol, FieldType::Port]).of_intervals(),
            elements: vec![
                Element::interval(port(6, 80), port(6, 90)).verdict(Verdict::Accept),
                Element::interval(port(17, 53), port(17, 53)).verdict(Verdict::Drop).comment("names"),
            ],
            declaration: "type inet_proto . inet_service : verdict; flags interval;",
            text: "tcp . 80-90 : accept, udp . 53 comment \"names\" : drop",
        },
        SetShape {
            set: Set {
                timeouts: true,
                dynamic: true,
                timeout: Some(Duration::from_mins(5)),
                size: Some(1000),
                ..Set::new("learned", [FieldType::Mark])
            },
            elements: vec![],
            declaration: "type mark; size 1000; flags dynamic,timeout; timeout 5m;",
            text: "",
        },
        SetShape {
            set: Set {
                expressions: vec![Expression::Counter],
                ..Set::new("counted", [FieldType::IcmpType, FieldType::IcmpCode])
            },
            elements: vec![],
            declaration: "type icmp_type . icmp_code; counter;",
            text: "",
        },
        SetShape {
            set: Set { timeouts: true, ..Set::new("passing", [FieldType::Ether]) },
            elements: vec![
                Element::new(Data::new(&[2, 0, 0, 0, 0, 1])).timeout(Duration::from_hours(1)).comment("soon"),
            ],
            declaration: "type ether_addr; flags timeout;",
            text: "02:00:00:00:00:01 timeout 1h comment \"soon\"",
        },
        SetShape {
            set: Set::map("targets", [FieldType::Port], [FieldType::Ipv4, FieldType::Port]),
            elements: vec![
                Element::new(Data::be16(80)).data(Data::concat([v4("10.65.0.9"), Data::be16(8080)])),
            ],
            declaration: "type inet_service : ipv4_addr . inet_service;",
            text: "80 : 10.65.0.9 . 8080",
        },
    ]
}

fn port(protocol: u8, port: u16) -> Data {
    Data::concat([Data::u8(protocol), Data::be16(port)])
}

fn interval_map_shapes(is_v4: bool) -> Vec<SetShape> {
    let (address, declaration) = if is_v4 {
        (FieldType::Ipv4, "type ipv4_addr : verdict; flags interval;")
    } else {
        (FieldType::Ipv6, "type ipv6_addr : verdict; flags interval;")
    };
    let of = |first: &str, last: &str| {
        if is_v4 { Element::interval(v4(first), v4(last)) } else { Element::interval(v6(first), v6(last)) }
    };
    let goto = || Verdict::Goto("cali-target".to_owned());
    let (elements, text) = if is_v4 {
        (
            vec![
                of("10.65.0.0", "10.65.0.255").verdict(goto()),
                of("10.65.1.0", "10.65.1.255").verdict(Verdict::Drop),
                Element::catch_all().verdict(Verdict::Return),
            ],
            "10.65.0.0/24 : goto cali-target, 10.65.1.0/24 : drop, * : return",
        )
    } else {
        (
            vec![
                of("fd00::", "fd00::ffff:ffff:ffff:ffff").verdict(goto()),
                of("fd00:0:0:1::", "fd00:0:0:1:ffff:ffff:ffff:ffff").verdict(Verdict::Drop),
                Element::catch_all().verdict(Verdict::Return),
            ],
            "fd00::/64 : goto cali-target, fd00:0:0:1::/64 : drop, * : return",
        )
    };
    vec![SetShape { set: Set::verdict_map("classes", [address]).of_intervals(), elements, declaration, text }]
}
