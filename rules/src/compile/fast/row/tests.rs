//! First match wins, cell by cell.

use super::*;

fn ports(ranges: &[(u16, u16)]) -> PortSet {
    PortSet::new(ranges.iter().copied())
}

fn build(rules: &[(ProtocolTest, Option<PortSet>, char)]) -> Row<char> {
    let mut builder: RowBuilder<(), char> = RowBuilder::new([6, 17].into_iter(), &());
    let mut work = 0;
    for (test, ports, outcome) in rules {
        builder.apply(*test, ports.as_ref(), &Decision::End(&|()| *outcome), &mut work);
    }
    builder.end_section(&Decision::End(&|()| '-'), &mut work);
    builder.finish()
}

#[test]
fn the_first_rule_wins() {
    let row = build(&[
        (ProtocolTest::Is(6), Some(ports(&[(80, 90)])), 'a'),
        (ProtocolTest::Is(6), Some(ports(&[(0, 85), (443, 443)])), 'b'),
        (ProtocolTest::Not(6), None, 'c'),
    ]);
    let cells = Cells { ports: vec![(0, 79, 'b'), (80, 90, 'a'), (443, 443, 'b')], default: '-' };
    assert_eq!(row, Row { protocols: vec![(6, cells)], others: 'c' });
}

/// One witness for each cell that any rule can make, against asking rule after rule.
#[test]
fn rows_say_what_rules_say_one_after_the_other() {
    let mut state = 7_u64;
    let mut dice = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..400 {
        let count = dice(9);
        let rules: Vec<(ProtocolTest, Option<PortSet>, char)> = (0..count)
            .map(|_| {
                let test =
                    [ProtocolTest::Any, ProtocolTest::Is(6), ProtocolTest::Is(17), ProtocolTest::Not(6)]
                        [usize::try_from(dice(4)).unwrap()];
                let ranges: Vec<(u16, u16)> = (0..dice(4))
                    .map(|_| {
                        let first =
                            [0_u16, 1, 79, 80, 81, 443, 65_534, 65_535][usize::try_from(dice(8)).unwrap()];
                        (first, first.saturating_add(u16::try_from(dice(3)).unwrap()))
                    })
                    .collect();
                let has_ports = matches!(test, ProtocolTest::Is(_)) && dice(4) > 0;
                let outcome = ['a', 'b', 'c'][usize::try_from(dice(3)).unwrap()];
                (test, has_ports.then(|| ports(&ranges)), outcome)
            })
            .collect();
        let row = build(&rules);
        for protocol in [6, 17, 1] {
            let boundaries =
                [0, 1, 2, 3, 78, 79, 80, 81, 82, 83, 84, 442, 443, 444, 445, 446, 65_533, 65_534, 65_535];
            for port in boundaries.into_iter().map(Some).chain([None]) {
                let fits = |(test, ports, _): &&(ProtocolTest, Option<PortSet>, char)| {
                    let protocol_fits = match test {
                        ProtocolTest::Any => true,
                        ProtocolTest::Is(number) => *number == protocol,
                        ProtocolTest::Not(number) => *number != protocol,
                    };
                    let in_ranges = |ports: &PortSet| {
                        port.is_some_and(|p| ports.ranges().iter().any(|(a, b)| *a <= p && p <= *b))
                    };
                    protocol_fits && ports.as_ref().is_none_or(in_ranges)
                };
                let expected = rules.iter().find(fits).map_or('-', |(.., outcome)| *outcome);
                let cells = row.protocols.iter().find(|(number, _)| *number == protocol);
                let told = cells.map_or(row.others, |(_, cells)| {
                    let cell = cells.ports.iter().find(|(a, b, _)| port.is_some_and(|p| *a <= p && p <= *b));
                    cell.map_or(cells.default, |(.., outcome)| *outcome)
                });
                assert_eq!(told, expected, "{protocol} {port:?} {rules:?} {row:?}");
            }
        }
    }
}

#[test]
fn packets_without_a_port_meet_rules_without_ports_only() {
    let row =
        build(&[(ProtocolTest::Is(17), Some(ports(&[(0, 65535)])), 'a'), (ProtocolTest::Any, None, 'b')]);
    let cells = Cells { ports: vec![(0, 65535, 'a')], default: 'b' };
    assert_eq!(row, Row { protocols: vec![(17, cells)], others: 'b' });
}

#[test]
fn what_is_passed_on_meets_the_next_section() {
    let mut builder: RowBuilder<u8, (char, u8)> = RowBuilder::new([6].into_iter(), &0);
    let mut work = 0;
    let pass = ports(&[(1, 10)]);
    builder.apply(ProtocolTest::Is(6), Some(&pass), &Decision::NextSection(&|n| n + 1), &mut work);
    builder.end_section(&Decision::End(&|n| ('d', *n)), &mut work);
    assert!(!builder.is_section_done());
    let allow = ports(&[(5, 20)]);
    builder.apply(ProtocolTest::Is(6), Some(&allow), &Decision::End(&|n| ('a', *n)), &mut work);
    builder.end_section(&Decision::End(&|n| ('e', *n)), &mut work);
    assert!(builder.is_section_done());
    let cells = Cells { ports: vec![(1, 4, ('e', 1)), (5, 10, ('a', 1))], default: ('d', 0) };
    assert_eq!(builder.finish(), Row { protocols: vec![(6, cells)], others: ('d', 0) });
}
