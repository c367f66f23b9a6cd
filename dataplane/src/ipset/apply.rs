//! Applying: bringing wanted sets in step, and destroying the others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::IpSets;
use super::codec::{self, Connection, Strictness};
use super::errors;
use super::fill::{self, Job, Outcome};
use super::member::{Member, SetSpec};
use super::state::{Action, Actual, Difference, Set};
use crate::netlink::{Batch, NetlinkError, Refusal, Reply};
use crate::reconcile::{Problem, Report};
use tortie_api::net::IpVersion;

/// How often one apply works on a set: once, and again after it was read anew or without a refused member.
const ROUNDS: usize = 4;
/// Members that are taken out of sets and put into messages at a time.
const MEMBERS_AT_ONCE: usize = 50_000;
/// A set in use may be so for a moment: rules are replaced, someone lists it.
const PATIENCE: u32 = 5;
/// Destroying a set takes some kernels 40 ms; the rest waits for the next apply.
const WITHDRAW_BUDGET: Duration = Duration::from_millis(100);
const DESTROYED_AT_ONCE: usize = 16;
/// How many names are tried for a temporary set before giving up.
const TEMPORARY_NAMES: usize = 8;

impl IpSets {
    pub(super) fn provide(&mut self) -> Report {
        let touched: Vec<String> = self.dirty.iter().cloned().collect();
        let mut changed = BTreeSet::new();
        for name in &touched {
            if let Some(set) = self.sets.get_mut(name) {
                set.failure = None;
                set.refused.clear();
            }
        }
        let mut names = touched.clone();
        for round in 0..ROUNDS {
            let strictness = if round == 0 { Strictness::Strict } else { Strictness::Tolerant };
            names = self.round(&names, strictness, &mut changed);
            if names.is_empty() {
                break;
            }
        }
        for name in names {
            if let Some(set) = self.sets.get_mut(&name)
                && set.failure.is_none()
                && set.action() != Action::Nothing
            {
                set.failure = Some("someone else keeps changing the set".to_owned());
            }
        }
        let mut report = Report { changed: changed.len(), ..Report::default() };
        for name in touched {
            let problems = self.sets.get(&name).map(Set::problems).unwrap_or_default();
            report.problems.extend(problems.into_iter().map(|error| problem(&name, error)));
            self.settle(&name);
        }
        report
    }

    /// Works on these sets once; returns those that need another round.
    fn round(
        &mut self,
        names: &[String],
        strictness: Strictness,
        changed: &mut BTreeSet<String>,
    ) -> Vec<String> {
        let mut again = Vec::new();
        let mut jobs = Jobs::default();
        for name in names {
            if self.action(name) == Action::Read {
                self.read_set(name);
            }
            match self.action(name) {
                Action::Create | Action::Update => {
                    if let Some(job) = self.job(name, name.clone()) {
                        jobs.push(name, job);
                    }
                }
                Action::Rebuild => {
                    if self.rebuild(name, changed) {
                        again.push(name.clone());
                    }
                }
                Action::Nothing | Action::Read | Action::Destroy => {}
            }
            if jobs.members >= MEMBERS_AT_ONCE {
                self.run(std::mem::take(&mut jobs), strictness, changed, &mut again);
            }
        }
        self.run(jobs, strictness, changed, &mut again);
        again
    }

    fn action(&self, name: &str) -> Action {
        self.sets.get(name).map_or(Action::Nothing, Set::action)
    }

    /// The messages' content for a set that is created or changed in place, or filled under another name.
    /// `None` when the kernel does not have the set type, which is noted with the set.
    fn job(&mut self, name: &str, target: String) -> Option<Job> {
        let set = self.sets.get_mut(name)?;
        let wanted = set.wanted.as_ref()?;
        let refused = &set.refused;
        let takes = |member: &Member| !refused.contains_key(member);
        let spec = SetSpec { max_elements: set.limit(), ..wanted.spec.clone() };
        let (create, delete, add) = match &set.actual {
            Actual::Tracked(difference) if target == name => {
                let add = difference.add.iter().copied().filter(takes).collect();
                (false, difference.delete.iter().copied().filter(takes).collect(), add)
            }
            _ => (true, Vec::new(), wanted.members.sorted(takes)),
        };
        let create = if create {
            if spec.max_elements > wanted.spec.max_elements {
                let (members, asked) = (wanted.members.len(), wanted.spec.max_elements);
                let limit = spec.max_elements;
                tracing::warn!(set = name, members, asked, limit, "more members than asked for: made larger");
            }
            match self.connection.revision(&spec) {
                Ok(revision) => Some(revision),
                Err(error) => {
                    let why = error.refusal().map_or_else(|| error.words(), errors::words);
                    set.failure = Some(format!("cannot create it: {why}"));
                    return None;
                }
            }
        } else {
            None
        };
        Some(Job { target, spec, create, delete, add, outcome: Outcome::default() })
    }

    fn run(
        &mut self,
        mut jobs: Jobs,
        strictness: Strictness,
        changed: &mut BTreeSet<String>,
        again: &mut Vec<String>,
    ) {
        let result = fill::run(&mut self.connection, &mut jobs.list, strictness);
        for (name, job) in jobs.names.into_iter().zip(jobs.list) {
            let Some(set) = self.sets.get_mut(&name) else { continue };
            match &result {
                Ok(()) => {
                    if take_outcome(set, job) {
                        again.push(name.clone());
                    }
                    changed.insert(name);
                }
                Err(error) => {
                    set.actual = Actual::Unread;
                    set.failure = Some(error.words());
                }
            }
        }
    }

    /// Fills a temporary set and puts it in the place of the old one. True when another round is needed.
    fn rebuild(&mut self, name: &str, changed: &mut BTreeSet<String>) -> bool {
        let result = self.fill_temporary(name).and_then(|filled| match filled {
            Some(filled) => Ok(Some((self.replace(&filled.name, name)?, filled))),
            None => Ok(None),
        });
        let Some(set) = self.sets.get_mut(name) else { return false };
        match result {
            Ok(Some((Ok(()), Filled { capacity, outcome, .. }))) => {
                changed.insert(name.to_owned());
                set.failure = None;
                note(set, &outcome);
                set.capacity = capacity;
                set.actual = Actual::Tracked(Difference {
                    add: outcome.not_added.into_iter().collect(),
                    delete: BTreeSet::new(),
                });
                !outcome.refused.is_empty()
            }
            Ok(Some((Err(refusal), _))) => {
                set.failure = Some(format!("cannot replace it: {}", errors::words(&refusal)));
                false
            }
            Ok(None) => false,
            Err(error) => {
                set.actual = Actual::Unread;
                set.failure = Some(error.words());
                false
            }
        }
    }

    /// A set with the wanted members under a temporary name, and what is missing in it.
    fn fill_temporary(&mut self, name: &str) -> Result<Option<Filled>, NetlinkError> {
        for _ in 0..TEMPORARY_NAMES {
            let Some(temporary) = self.temporary_name(name) else { return Ok(None) };
            let Some(job) = self.job(name, temporary.clone()) else { return Ok(None) };
            let mut jobs = [job];
            // Whatever happens from here on, it may be there and has to go.
            self.sets.insert(temporary.clone(), Set::new(Actual::Unread));
            self.doomed.insert(temporary.clone());
            fill::run(&mut self.connection, &mut jobs, Strictness::Strict)?;
            let [job] = jobs;
            match &job.outcome.create_refused {
                None if job.outcome.full => {
                    // What is there stays as it is: rules had better see all members than some.
                    if let Some(set) = self.sets.get_mut(name) {
                        note(set, &job.outcome);
                        set.is_full();
                    }
                }
                None => {
                    let (capacity, outcome) = (job.spec.max_elements, job.outcome);
                    return Ok(Some(Filled { name: temporary, capacity, outcome }));
                }
                Some(refusal) if refusal.is(Errno::EEXIST) => {}
                Some(refusal) => {
                    let why = format!("cannot create a temporary set: {}", errors::words(refusal));
                    if let Some(set) = self.sets.get_mut(name) {
                        set.failure = Some(why);
                    }
                    return Ok(None);
                }
            }
        }
        if let Some(set) = self.sets.get_mut(name)
            && set.failure.is_none()
        {
            set.failure = Some("cannot find a free name for a temporary set".to_owned());
        }
        Ok(None)
    }

    /// The first free `cali4t<N>` or `cali6t<N>`.
    fn temporary_name(&self, name: &str) -> Option<String> {
        let family = self.sets.get(name)?.wanted.as_ref()?.spec.family;
        let prefix = match family {
            IpVersion::V4 => "cali4t",
            IpVersion::V6 => "cali6t",
        };
        (0..u64::MAX).map(|number| format!("{prefix}{number}")).find(|name| !self.sets.contains_key(name))
    }

    /// Swaps, so that rules see the new members at once. The kernel swaps only sets of one type: a set of
    /// another type has to go first, which it does only when no rule refers to it.
    fn replace(&mut self, temporary: &str, name: &str) -> Result<Result<(), Refusal>, NetlinkError> {
        let version = self.connection.version();
        let swapped =
            exchange(&mut self.connection, &mut |batch| codec::swap(batch, version, temporary, name))?;
        match swapped {
            Err(refusal) if refusal.errno == errors::TYPE_MISMATCH => {
                let gone = exchange(&mut self.connection, &mut |batch| codec::destroy(batch, version, name))?;
                if let Err(refusal) = gone {
                    return Ok(Err(refusal));
                }
                self.move_to(temporary, name)
            }
            // EXIST_SETNAME2 is how the kernel says that the second set is missing.
            Err(refusal) if refusal.is(Errno::ENOENT) || refusal.errno == errors::EXIST_SETNAME2 => {
                self.move_to(temporary, name)
            }
            other => Ok(other),
        }
    }

    fn move_to(&mut self, temporary: &str, name: &str) -> Result<Result<(), Refusal>, NetlinkError> {
        let version = self.connection.version();
        let moved =
            exchange(&mut self.connection, &mut |batch| codec::rename(batch, version, temporary, name))?;
        if moved.is_ok() {
            self.sets.remove(temporary);
            self.doomed.remove(temporary);
        }
        Ok(moved)
    }

    pub(super) fn withdraw(&mut self) -> Report {
        let mut report = Report::default();
        let begun = Instant::now();
        let names: Vec<String> = self.doomed.iter().cloned().collect();
        for group in names.chunks(DESTROYED_AT_ONCE) {
            if begun.elapsed() > WITHDRAW_BUDGET {
                break;
            }
            self.destroy(group, &mut report);
        }
        report
    }

    fn destroy(&mut self, names: &[String], report: &mut Report) {
        let version = self.connection.version();
        let mut batch = Batch::new();
        for name in names {
            codec::destroy(&mut batch, version, name);
        }
        let mut refusals = vec![None; names.len()];
        let result = self.connection.channel.execute(&mut batch, &mut |reply| {
            if let Reply::Refused { index, refusal, .. } = reply {
                refusals[index] = Some(refusal);
            }
        });
        if let Err(error) = result {
            report.problems.extend(names.iter().map(|name| problem(name, error.words())));
            return;
        }
        for (name, refusal) in names.iter().zip(refusals) {
            let Some(set) = self.sets.get_mut(name) else { continue };
            match refusal {
                Some(refusal) if !refusal.is(Errno::ENOENT) => {
                    set.busy += 1;
                    let is_busy = refusal.errno == errors::BUSY || refusal.is(Errno::EBUSY);
                    if !is_busy || set.busy > PATIENCE {
                        let why = format!("cannot destroy it: {}", errors::words(&refusal));
                        report.problems.push(problem(name, why));
                    }
                }
                _ => {
                    report.changed += 1;
                    set.actual = Actual::Absent;
                    self.settle(name);
                }
            }
        }
    }
}

/// A temporary set that is ready to take a set's place.
struct Filled {
    name: String,
    capacity: u32,
    outcome: Outcome,
}

/// Jobs that are done together.
#[derive(Default)]
struct Jobs {
    names: Vec<String>,
    list: Vec<Job>,
    members: usize,
}

impl Jobs {
    fn push(&mut self, name: &str, job: Job) {
        self.members += job.add.len() + job.delete.len();
        self.names.push(name.to_owned());
        self.list.push(job);
    }
}

/// Updates what is known of a set after its job. True when another round is needed.
fn take_outcome(set: &mut Set, job: Job) -> bool {
    if job.create.is_some() {
        set.capacity = job.spec.max_elements;
    }
    let outcome = job.outcome;
    note(set, &outcome);
    if outcome.drifted {
        set.actual = Actual::Unread;
        return true;
    }
    if let Some(refusal) = &outcome.create_refused {
        set.failure = Some(format!("cannot create it: {}", errors::words(refusal)));
        return false;
    }
    // Members that were left out because the kernel refused them before are missing still.
    let mut add: BTreeSet<Member> = outcome.not_added.into_iter().collect();
    let mut delete: BTreeSet<Member> = outcome.not_deleted.into_iter().collect();
    for member in set.refused.keys() {
        match (&set.wanted, &set.actual) {
            (Some(wanted), _) if wanted.members.contains(member) => add.insert(*member),
            (_, Actual::Tracked(before)) if before.delete.contains(member) => delete.insert(*member),
            _ => false,
        };
    }
    set.actual = Actual::Tracked(Difference { add, delete });
    if outcome.full {
        set.is_full();
    }
    outcome.full || !outcome.refused.is_empty()
}

/// Notes what went wrong with members.
fn note(set: &mut Set, outcome: &Outcome) {
    set.refused.extend(outcome.refused.clone());
    if outcome.full {
        let missing = outcome.not_added.len();
        let limit = set.limit();
        set.failure = Some(format!("the set is full: {missing} members are over its limit of {limit}"));
    } else if outcome.failure.is_some() {
        set.failure.clone_from(&outcome.failure);
    }
}

/// One request, and whether the kernel refused it.
fn exchange(
    connection: &mut Connection,
    write: &mut dyn FnMut(&mut Batch),
) -> Result<Result<(), Refusal>, NetlinkError> {
    let mut batch = Batch::new();
    write(&mut batch);
    match connection.channel.request(&mut batch) {
        Ok(()) => Ok(Ok(())),
        Err(NetlinkError::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(error),
    }
}

fn problem(name: &str, error: String) -> Problem {
    Problem { object: format!("set {name}"), error }
}

impl Set {
    /// For the plan: members to add and to delete.
    pub(super) fn change_counts(&self) -> (usize, usize) {
        let all = self.wanted.as_ref().map_or(0, |wanted: &super::state::Wanted| wanted.members.len());
        match (&self.actual, self.action()) {
            (Actual::Tracked(difference), Action::Update) => (difference.add.len(), difference.delete.len()),
            _ => (all, 0),
        }
    }
}
