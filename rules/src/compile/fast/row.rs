//! What a class of addresses is told: the first matching rule for every protocol and port, computed here.
//!
//! A row is made section by section (a tier, a profile): each rule takes what it matches out of what is still
//! undecided. Its port axis has a place for packets whose port cannot be read, which only rules without ports match:
//! what these are told is the default behind the cells of their protocol.

use std::collections::BTreeMap;

use super::step::{PortSet, ProtocolTest};

/// A number of ports and of the place behind them: packets without a port that can be read.
const NO_PORT: u32 = 65_536;

/// A protocol, or all that a row does not tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Line {
    Protocol(u8),
    Others,
}

/// Ranges of the port axis in order, each with a value. What is not in any has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis<T>(Vec<(u32, u32, T)>);

impl<T: Clone + PartialEq> Axis<T> {
    const fn empty() -> Self {
        Self(Vec::new())
    }

    fn whole(value: T) -> Self {
        Self(vec![(0, NO_PORT, value)])
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the parts that lie in some ranges, or everything. `work` counts the ranges that were looked at.
    fn take(&mut self, ranges: Option<&PortSet>, work: &mut usize) -> Vec<(u32, u32, T)> {
        let Some(ranges) = ranges else {
            *work += self.0.len();
            return std::mem::take(&mut self.0);
        };
        let ranges = ranges.ranges();
        // Most rules of a long list concern few of many cells: only the stretch that they span is rebuilt.
        let (Some((lowest, _)), Some((_, highest))) = (ranges.first(), ranges.last()) else {
            return Vec::new();
        };
        let from = self.0.partition_point(|(_, last, _)| *last < u32::from(*lowest));
        let to = self.0.partition_point(|(first, ..)| *first <= u32::from(*highest));
        let (mut kept, mut taken) = (Vec::new(), Vec::new());
        let mut ranges = ranges.iter().map(|(first, last)| (u32::from(*first), u32::from(*last))).peekable();
        for (mut first, last, value) in self.0.drain(from..to.max(from)).collect::<Vec<_>>() {
            *work += 1;
            while let Some((start, end)) = ranges.peek().copied() {
                if end < first {
                    ranges.next();
                    continue;
                }
                if start > last {
                    break;
                }
                if start > first {
                    kept.push((first, start - 1, value.clone()));
                }
                taken.push((first.max(start), last.min(end), value.clone()));
                first = last.min(end) + 1;
                if end >= last {
                    break;
                }
                ranges.next();
            }
            if first <= last {
                kept.push((first, last, value));
            }
        }
        self.0.splice(from..from, kept);
        taken
    }

    /// Adds ranges that are not there yet.
    fn put(&mut self, mut ranges: Vec<(u32, u32, T)>) {
        if self.0.is_empty() {
            self.0 = ranges;
        } else {
            self.0.append(&mut ranges);
        }
    }

    /// In order, with neighbours of the same value made one.
    fn tidy(&mut self) {
        self.0.sort_unstable_by_key(|(first, ..)| *first);
        self.0.dedup_by(|next, kept| {
            let joins = kept.2 == next.2 && kept.1 + 1 == next.0;
            if joins {
                kept.1 = next.1;
            }
            joins
        });
    }
}

/// What packets of one protocol are told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cells<T> {
    /// Ports of which something else is said than by default, as disjoint ranges in order.
    pub(super) ports: Vec<(u16, u16, T)>,
    /// All others, and those without a port that can be read.
    pub(super) default: T,
}

/// The cells of one protocol of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineOf<'a, T> {
    ports: &'a [(u16, u16, T)],
    /// See [`Cells::default`].
    pub(super) default: &'a T,
}

impl<T: PartialEq> LineOf<'_, T> {
    /// What packets to a port are told.
    pub(super) fn at(&self, port: u16) -> &T {
        let place = self.ports.partition_point(|(_, last, _)| *last < port);
        self.ports.get(place).filter(|(first, ..)| *first <= port).map_or(self.default, |(.., value)| value)
    }

    /// Ranges of ports that are told something else than in another line, in order. Neighbours may be told different
    /// things.
    pub(super) fn differing(&self, other: &Self) -> Vec<(u16, u16)> {
        let mut starts = vec![0];
        for (first, last, _) in self.ports.iter().chain(other.ports) {
            starts.push(*first);
            starts.extend(last.checked_add(1));
        }
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).map(|start| start - 1).chain([u16::MAX]);
        starts.iter().copied().zip(ends).filter(|(first, _)| self.at(*first) != other.at(*first)).collect()
    }
}

/// What a class of addresses is told. `T` is the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Row<T> {
    /// Protocols that are told something of their own, in order.
    pub(super) protocols: Vec<(u8, Cells<T>)>,
    /// All others.
    pub(super) others: T,
}

impl<T> Row<T> {
    /// Whether all packets are told the same.
    pub(super) const fn is_constant(&self) -> bool {
        self.protocols.is_empty()
    }

    /// What packets of one protocol are told.
    pub(super) fn line(&self, protocol: u8) -> LineOf<'_, T> {
        let place = self.protocols.binary_search_by_key(&protocol, |(number, _)| *number);
        let cells = place.ok().and_then(|place| self.protocols.get(place));
        cells.map_or(LineOf { ports: &[], default: &self.others }, |(_, cells)| LineOf {
            ports: &cells.ports,
            default: &cells.default,
        })
    }

    /// The same with other values.
    pub(super) fn map<U: PartialEq>(&self, of: &mut impl FnMut(&T) -> U) -> Row<U> {
        let protocols = self.protocols.iter().map(|(number, cells)| {
            let ports = cells.ports.iter().map(|(first, last, value)| (*first, *last, of(value))).collect();
            (*number, Cells { ports, default: of(&cells.default) })
        });
        let protocols = protocols.collect();
        Row { protocols, others: of(&self.others) }
    }

    /// The number of things that it tells apart.
    pub(super) fn cells(&self) -> usize {
        self.protocols.iter().map(|(_, cells)| cells.ports.len() + 1).sum::<usize>() + 1
    }
}

/// Makes a row. `T` is what was noted on the way (`Trail`), `O` the outcome.
#[derive(Debug)]
pub(super) struct RowBuilder<T, O> {
    undecided: BTreeMap<Line, Axis<T>>,
    passed: BTreeMap<Line, Axis<T>>,
    decided: BTreeMap<Line, Axis<O>>,
}

/// What becomes of what a rule matches, or of what a section leaves undecided.
pub(super) enum Decision<'a, T, O> {
    /// This is the outcome.
    End(&'a dyn Fn(&T) -> O),
    /// The next section is asked.
    NextSection(&'a dyn Fn(&T) -> T),
}

impl<T: Clone + PartialEq, O: Clone + PartialEq> RowBuilder<T, O> {
    /// Nothing is decided. `protocols` are those that rules tell apart.
    pub(super) fn new(protocols: impl Iterator<Item = u8>, start: &T) -> Self {
        let lines: Vec<Line> = protocols.map(Line::Protocol).chain([Line::Others]).collect();
        let undecided = lines.iter().map(|line| (*line, Axis::whole(start.clone()))).collect();
        let passed = lines.iter().map(|line| (*line, Axis::empty())).collect();
        let decided = lines.iter().map(|line| (*line, Axis::empty())).collect();
        Self { undecided, passed, decided }
    }

    /// Whether nothing is left of this section.
    pub(super) fn is_section_done(&self) -> bool {
        self.undecided.values().all(Axis::is_empty)
    }

    /// Takes what a rule matches out of what is undecided.
    pub(super) fn apply(
        &mut self,
        test: ProtocolTest,
        ports: Option<&PortSet>,
        decision: &Decision<'_, T, O>,
        work: &mut usize,
    ) {
        for (line, axis) in &mut self.undecided {
            *work += 1;
            let fits = match (test, line) {
                (ProtocolTest::Any, _) => true,
                (ProtocolTest::Is(number), Line::Protocol(of)) => number == *of,
                (ProtocolTest::Is(_), Line::Others) => false,
                (ProtocolTest::Not(number), line) => Line::Protocol(number) != *line,
            };
            if fits {
                let taken = axis.take(ports, work);
                match decision {
                    Decision::End(outcome) => {
                        let ends = taken.into_iter().map(|(a, b, trail)| (a, b, outcome(&trail))).collect();
                        self.decided.entry(*line).or_insert_with(Axis::empty).put(ends);
                    }
                    Decision::NextSection(note) => {
                        let passed = taken.into_iter().map(|(a, b, trail)| (a, b, note(&trail))).collect();
                        self.passed.entry(*line).or_insert_with(Axis::empty).put(passed);
                    }
                }
            }
        }
    }

    /// Ends a section: decides on what is left, and goes on with what was passed on.
    pub(super) fn end_section(&mut self, decision: &Decision<'_, T, O>, work: &mut usize) {
        self.apply(ProtocolTest::Any, None, decision, work);
        std::mem::swap(&mut self.undecided, &mut self.passed);
        self.undecided.values_mut().for_each(Axis::tidy);
    }

    /// The row. Everything must have been decided.
    pub(super) fn finish(mut self) -> Row<O> {
        self.decided.values_mut().for_each(Axis::tidy);
        let others = match self.decided.remove(&Line::Others).map(|axis| axis.0).as_deref() {
            Some([.., (_, _, outcome)]) => outcome.clone(),
            _ => unreachable!("every line has its place without a port"),
        };
        let mut protocols = Vec::new();
        for (line, axis) in self.decided {
            let (Line::Protocol(number), Some((_, _, default))) = (line, axis.0.last()) else { continue };
            let default = default.clone();
            let ports: Vec<(u16, u16, O)> = axis
                .0
                .into_iter()
                .filter(|(_, _, outcome)| *outcome != default)
                .map(|(first, last, outcome)| (port(first), port(last), outcome))
                .collect();
            if !ports.is_empty() || default != others {
                protocols.push((number, Cells { ports, default }));
            }
        }
        Row { protocols, others }
    }
}

fn port(place: u32) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
