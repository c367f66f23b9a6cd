//! Applying: reading what changed, then neighbours and new routes, then what has to go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

use super::state::{Contents, Steps};
use super::wire::{self, Found};
use super::{Routes, Wanted};
use crate::link::MacAddr;
use crate::neigh::{self, Neighbour};
use crate::netlink::{Batch, NetlinkError, Refusal, Reply};
use crate::reconcile::{Problem, Report};
use tortie_api::net::IpVersion;

/// Up to this many interfaces are read one by one; a dump for each walks the whole table in the kernel.
const READ_ONE_BY_ONE: usize = 8;

/// One request.
#[derive(Clone, Debug)]
enum Op {
    SetNeighbour(IpAddr, MacAddr),
    Add(Found, bool),
    Delete(Found),
    DeleteNeighbour(IpAddr, MacAddr),
}

/// A request for an interface: its name, its index and the request.
type Request = (String, u32, Op);

impl Routes {
    pub(super) fn connect(&mut self) -> Report {
        let before = self.channel.requests();
        let mut report = Report::default();
        if self.observed {
            if let Err(error) = self.connect_all(&mut report) {
                report
                    .problems
                    .push(Problem { object: format!("{} routes", self.version), error: error.words() });
            }
            self.settle();
        } else {
            report.problems.push(Problem {
                object: format!("{} routes", self.version),
                error: "the kernel's routes have not been read yet".to_owned(),
            });
        }
        report.calls = self.channel.requests() - before;
        report
    }

    fn connect_all(&mut self, report: &mut Report) -> Result<(), NetlinkError> {
        self.read_unread()?;
        let mut additions = Vec::new();
        for (name, index, steps) in self.all_steps() {
            let neighbours = steps.set_neighbours.into_iter().map(|(addr, mac)| Op::SetNeighbour(addr, mac));
            let routes = steps.add.into_iter().map(|(route, replace)| Op::Add(route, replace));
            additions.extend(neighbours.chain(routes).map(|op| (name.clone(), index, op)));
        }
        let taken = self.send(additions, report)?;
        if !taken.is_empty() {
            self.resolve(taken, report)?;
        }
        // Worked out anew: what replaced something or failed is known now.
        let left = self.all_steps();
        let missing: BTreeSet<IpNet> =
            left.iter().flat_map(|(_, _, steps)| &steps.add).map(|(route, _)| route.dest).collect();
        let mut deletions = Vec::new();
        for (name, index, steps) in left {
            // Not before its successor is there.
            let routes =
                steps.delete.into_iter().filter(|route| !missing.contains(&route.dest)).map(Op::Delete);
            let neighbours =
                steps.delete_neighbours.into_iter().map(|(addr, mac)| Op::DeleteNeighbour(addr, mac));
            deletions.extend(routes.chain(neighbours).map(|op| (name.clone(), index, op)));
        }
        self.send(deletions, report)?;
        Ok(())
    }

    fn read_unread(&mut self) -> Result<(), NetlinkError> {
        let names = self.unread();
        if names.len() > READ_ONE_BY_ONE {
            return self.read_contents(&names);
        }
        for name in names {
            let Some(index) = self.interfaces.get(&name).map(|interface| interface.index) else { continue };
            let routes = wire::list(&mut self.channel, self.version, Some(index))?;
            let mut contents = Contents::default();
            contents.routes.extend(routes.into_iter().map(|(_, route)| route));
            if self.version == IpVersion::V4 {
                let neighbours = neigh::list(&mut self.channel, self.version, Some(index))?;
                contents.neighbours.extend(neighbours.into_iter().map(|found| (found.addr, found.mac)));
            }
            if let Some(interface) = self.interfaces.get_mut(&name) {
                interface.contents = Some(contents);
            }
        }
        Ok(())
    }

    fn all_steps(&self) -> Vec<(String, u32, Steps)> {
        let steps = self.dirty.iter().filter_map(|name| {
            let index = self.interfaces.get(name)?.index;
            Some((name.clone(), index, self.steps(name)?))
        });
        steps.collect()
    }

    /// Sends requests and takes in what they did. Returns new routes whose slot is taken.
    fn send(&mut self, requests: Vec<Request>, report: &mut Report) -> Result<Vec<Request>, NetlinkError> {
        let mut taken = Vec::new();
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let mut batch = Batch::new();
            let mut sent = Vec::new();
            while let Some(request) = requests.next_if(|_| !batch.is_full()) {
                self.write(&mut batch, &request);
                sent.push(request);
            }
            let mut refusals: Vec<Option<Refusal>> = vec![None; sent.len()];
            let result = self.channel.execute(&mut batch, &mut |reply| {
                if let Reply::Refused { index, refusal, .. } = reply {
                    refusals[index] = Some(refusal);
                }
            });
            if let Err(error) = result {
                // What was done is not known: look again.
                for (name, ..) in sent.into_iter().chain(requests) {
                    self.forget(&name);
                }
                return Err(error);
            }
            for (request, refusal) in sent.into_iter().zip(refusals) {
                taken.extend(self.take_outcome(request, refusal, report));
            }
        }
        Ok(taken)
    }

    fn write(&self, batch: &mut Batch, (_, index, op): &Request) {
        let neighbour = |addr: &IpAddr, mac: &MacAddr| Neighbour { ifindex: *index, addr: *addr, mac: *mac };
        match op {
            Op::SetNeighbour(addr, mac) => neigh::set(batch, &neighbour(addr, mac)),
            Op::Add(route, replace) => wire::add(batch, self.version, *index, route, *replace),
            Op::Delete(route) => wire::delete(batch, self.version, *index, route),
            Op::DeleteNeighbour(addr, mac) => neigh::delete(batch, &neighbour(addr, mac)),
        }
    }

    /// Updates what is known after a request; gives it back when a route's slot is taken.
    fn take_outcome(
        &mut self,
        request: Request,
        refusal: Option<Refusal>,
        report: &mut Report,
    ) -> Option<Request> {
        let (name, _, op) = &request;
        let Some(refusal) = refusal else {
            report.changed += 1;
            self.note_done(name, op);
            return None;
        };
        let has_gone = match op {
            Op::Add(_, false) if refusal.is(Errno::EEXIST) => return Some(request),
            Op::Delete(_) => refusal.is(Errno::ESRCH),
            Op::DeleteNeighbour(..) => refusal.is(Errno::ENOENT),
            _ => false,
        };
        let is_down = [Errno::ENODEV, Errno::ENETDOWN, Errno::ENXIO].iter().any(|errno| refusal.is(*errno));
        if has_gone {
            self.note_done(name, op);
        } else if is_down {
            // It went down or away while we worked. The event that says so is under way.
            let name = name.clone();
            self.forget(&name);
            if let Some(interface) = self.interfaces.get_mut(&name) {
                interface.running = false;
            }
        } else {
            report.problems.push(problem(name, op, refusal.to_string()));
        }
        None
    }

    fn note_done(&mut self, name: &str, op: &Op) {
        let Some(contents) = self.interfaces.get_mut(name).and_then(|found| found.contents.as_mut()) else {
            return;
        };
        match op {
            Op::SetNeighbour(addr, mac) => {
                contents.neighbours.insert(*addr, *mac);
            }
            Op::Add(route, replace) => {
                if *replace {
                    contents.routes.retain(|other| !other.is_same_slot(route));
                }
                contents.routes.insert(route.clone());
            }
            Op::Delete(route) => {
                contents.routes.remove(route);
            }
            Op::DeleteNeighbour(addr, _) => {
                contents.neighbours.remove(addr);
            }
        }
    }

    /// The slot of a new route is taken by a route that was not known, or one on another interface. It is
    /// replaced if that one is ours and not wanted there; a foreign route stays.
    fn resolve(&mut self, taken: Vec<Request>, report: &mut Report) -> Result<(), NetlinkError> {
        let all = wire::list(&mut self.channel, self.version, None)?;
        let mut replacements = Vec::new();
        for (name, index, op) in taken {
            let Op::Add(route, _) = op else { continue };
            let holder = all.iter().find(|(_, other)| other.is_same_slot(&route));
            let verdict = match holder {
                Some((holder, _)) if *holder == index => Ok(()),
                Some((holder, other)) => self.may_take_from(*holder, other),
                None => Err("the kernel has a route of another kind for it".to_owned()),
            };
            match verdict {
                Ok(()) => replacements.push((name, index, Op::Add(route, true))),
                Err(why) => report.problems.push(problem(&name, &Op::Add(route, false), why)),
            }
        }
        for (name, ..) in self.send(replacements, report)? {
            self.forget(&name);
        }
        Ok(())
    }

    /// Whether a route on another interface may be replaced. If so that interface is to be read again.
    fn may_take_from(&mut self, holder: u32, route: &Found) -> Result<(), String> {
        let found = self.interfaces.iter().find(|(_, interface)| interface.index == holder);
        let Some(name) = found.map(|(name, _)| name.clone()) else {
            return Err(format!("interface {holder} has a route to it"));
        };
        let is_wanted = |wanted: &Wanted| wanted.routes.iter().any(|other| other.is_same_slot(route));
        let is_ours = self.is_workload(&name) && self.ownership(&name).covers(route);
        if !is_ours || self.wanted.get(&name).is_some_and(is_wanted) {
            return Err(format!("interface {name} has a route to it"));
        }
        self.forget(&name);
        Ok(())
    }

    /// What an interface has is no longer known.
    fn forget(&mut self, name: &str) {
        if let Some(interface) = self.interfaces.get_mut(name) {
            interface.contents = None;
        }
        self.dirty.insert(name.to_owned());
    }

    /// Drops interfaces that are in step, or are not there, from the worklist.
    pub(super) fn settle(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let stays = |name: &String| {
            let is_running = self.interfaces.get(name).is_some_and(|interface| interface.running);
            is_running
                && self.is_workload(name)
                && self.steps(name).is_none_or(|steps| !steps.is_empty() || steps.not_before.is_some())
        };
        self.dirty = dirty.into_iter().filter(stays).collect();
    }
}

fn problem(name: &str, op: &Op, error: String) -> Problem {
    let object = match op {
        Op::Add(route, _) | Op::Delete(route) => format!("route {} dev {name}", route.dest),
        Op::SetNeighbour(addr, _) | Op::DeleteNeighbour(addr, _) => format!("neighbour {addr} dev {name}"),
    };
    Problem { object, error }
}
