//! A model of the consumer group: its coordinator, and what each client knows of it.
//!
//! The eager protocol: a change of members takes all partitions back from everybody, and a new generation gives them out.
//! A client learns of it with its heartbeats, and its application answers before it joins again. A static member leaves
//! without a word; whoever comes with its name takes its place and its partitions, and the one before is fenced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::broker::Place;
use super::scheduler::{Micros, SECOND, State};

/// How long the coordinator waits for members to join again.
const REBALANCE_TIMEOUT: Micros = 30 * SECOND;

pub struct Group {
    pub generation: i32,
    /// Members that the coordinator knows.
    pub members: BTreeMap<String, Known>,
    /// Since when members are joining; `None`: stable.
    joining_since: Option<Micros>,
    pub committed: BTreeMap<Place, i64>,
    /// Offsets in transactions that are not finished, by transactional id.
    pub pending: BTreeMap<String, BTreeSet<Place>>,
    pub clients: Vec<Client>,
    /// Topics that are read, with their numbers of partitions.
    pub topics: Vec<(&'static str, i32)>,
    pub session_timeout: Micros,
    /// Whether members have names that outlive them.
    pub is_static: bool,
    /// What each member was given in this generation.
    assignments: BTreeMap<String, Vec<Place>>,
    member_count: u64,
}

/// What the coordinator knows of a member.
pub struct Known {
    instance: usize,
    seen_at: Micros,
    has_joined: bool,
}

/// What a client knows.
pub struct Client {
    pub process: usize,
    instance: usize,
    pub member: String,
    pub generation: i32,
    phase: Phase,
    pub events: VecDeque<Event>,
    pub positions: BTreeMap<Place, Position>,
}

#[derive(Clone, Copy)]
pub struct Position {
    pub next: i64,
    /// The end was told at this offset.
    pub end_told_at: i64,
    pub is_paused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Out,
    Joining,
    Stable,
    /// The application has to give its partitions back first.
    Revoking,
    Closed,
}

pub enum Event {
    Assigned(Vec<Place>),
    Revoked,
    /// Another has its name: only a new client helps.
    Fenced,
}

impl Group {
    pub fn new(topics: Vec<(&'static str, i32)>, session_timeout: Micros) -> Group {
        Group {
            generation: 0,
            members: BTreeMap::new(),
            joining_since: None,
            committed: BTreeMap::new(),
            pending: BTreeMap::new(),
            clients: Vec::new(),
            topics,
            session_timeout,
            is_static: false,
            assignments: BTreeMap::new(),
            member_count: 0,
        }
    }

    pub fn subscribe(&mut self, process: usize, instance: usize) -> usize {
        self.clients.push(Client {
            process,
            instance,
            member: String::new(),
            generation: -1,
            phase: Phase::Out,
            events: VecDeque::new(),
            positions: BTreeMap::new(),
        });
        self.clients.len() - 1
    }

    /// The application has given its partitions back: the client joins again.
    pub fn unassign(&mut self, client: usize, now: Micros) {
        let known = &mut self.clients[client];
        known.positions.clear();
        if known.phase != Phase::Revoking {
            return;
        }
        match self.members.get_mut(&known.member) {
            Some(member) => {
                member.has_joined = true;
                member.seen_at = now;
                known.phase = Phase::Joining;
            }
            None => (known.phase, known.generation) = (Phase::Out, -1),
        }
    }

    pub fn leave(&mut self, client: usize, now: Micros) {
        let known = &mut self.clients[client];
        known.phase = Phase::Closed;
        if self.is_static {
            return;
        }
        let member = std::mem::take(&mut known.member);
        if self.members.remove(&member).is_some() {
            self.rebalance(now);
        }
    }

    fn rebalance(&mut self, now: Micros) {
        if self.joining_since.is_none() {
            self.members.values_mut().for_each(|member| member.has_joined = false);
        }
        self.joining_since = Some(now);
    }

    /// `range`: each topic's partitions in stretches, by the order of the members.
    fn assignment_of(&self, at: i32) -> Vec<Place> {
        let count = self.members.len() as i32;
        let mut places = Vec::new();
        for (topic, partitions) in &self.topics {
            let (share, more) = (partitions / count, partitions % count);
            let first = at * share + at.min(more);
            let length = share + i32::from(at < more);
            places.extend((first..first + length).map(|partition| (*topic, partition)));
        }
        places
    }
}

impl State {
    /// The clients of a process hear from the coordinator at once.
    pub fn hear(&mut self, process: usize) {
        if self.broker.away_until > self.now {
            return;
        }
        let (now, group) = (self.now, &mut self.broker.group);
        for client in 0..group.clients.len() {
            if group.clients[client].process == process {
                group.heartbeat(client, now);
            }
        }
    }

    /// Heartbeats, and what they bring.
    pub fn tick_group(&mut self) {
        let now = self.now;
        if self.broker.away_until > now {
            // A coordinator that comes back gives everybody a new session.
            self.broker.group.members.values_mut().for_each(|member| member.seen_at = now);
            return;
        }
        for client in 0..self.broker.group.clients.len() {
            let process = &self.processes[self.broker.group.clients[client].process];
            if process.killed || process.paused_until > now {
                continue;
            }
            if let Some(known) = self.broker.group.members.get_mut(&self.broker.group.clients[client].member)
            {
                known.seen_at = now;
            }
            if self.random.per_mille(400) {
                self.broker.group.heartbeat(client, now);
            }
        }
        let group = &mut self.broker.group;
        let timeout = group.session_timeout;
        let count = group.members.len();
        group.members.retain(|_, member| member.seen_at + timeout >= now);
        if group.members.len() < count {
            group.rebalance(now);
        }
        let Some(since) = group.joining_since else { return };
        if now > since + REBALANCE_TIMEOUT {
            group.members.retain(|_, member| member.has_joined);
        }
        let is_complete = group.members.values().all(|member| member.has_joined);
        if is_complete && self.random.per_mille(500) {
            let group = &mut self.broker.group;
            group.generation += 1;
            group.joining_since = None;
            let members = group.members.keys().zip(0..);
            group.assignments =
                members.map(|(member, at)| (member.clone(), group.assignment_of(at))).collect();
        }
    }
}

impl Group {
    /// A client hears from the coordinator.
    fn heartbeat(&mut self, client: usize, now: Micros) {
        let is_known = self.members.contains_key(&self.clients[client].member);
        let is_joining = self.joining_since.is_some();
        match self.clients[client].phase {
            Phase::Out => {
                self.member_count += 1;
                let member = format!("member-{:03}", self.member_count);
                let instance = self.clients[client].instance;
                match self.static_member(instance) {
                    Some(before) => {
                        self.members.remove(&before);
                        if let Some(places) = self.assignments.remove(&before) {
                            self.assignments.insert(member.clone(), places);
                        }
                    }
                    None => self.rebalance(now),
                }
                let joined = Known { instance, seen_at: now, has_joined: true };
                self.members.insert(member.clone(), joined);
                let known = &mut self.clients[client];
                known.member = member;
                known.phase = Phase::Joining;
            }
            Phase::Joining if !is_known => self.forget(client, Phase::Out),
            Phase::Joining if is_joining => {
                if let Some(member) = self.members.get_mut(&self.clients[client].member) {
                    member.has_joined = true;
                }
            }
            Phase::Joining => {
                let places = self.assignments.get(&self.clients[client].member).cloned().unwrap_or_default();
                let generation = self.generation;
                let known = &mut self.clients[client];
                known.generation = generation;
                known.phase = Phase::Stable;
                known.events.push_back(Event::Assigned(places));
            }
            Phase::Stable if !is_known => {
                self.forget(client, Phase::Revoking);
                self.clients[client].events.push_back(Event::Revoked);
            }
            Phase::Stable if is_joining => {
                self.clients[client].phase = Phase::Revoking;
                self.clients[client].events.push_back(Event::Revoked);
            }
            Phase::Revoking if !is_known => self.forget(client, Phase::Revoking),
            Phase::Stable | Phase::Revoking | Phase::Closed => {}
        }
    }

    /// The member that has this instance's name.
    fn static_member(&self, instance: usize) -> Option<String> {
        let mut members = self.members.iter().filter(|_| self.is_static);
        members.find(|(_, member)| member.instance == instance).map(|(id, _)| id.clone())
    }

    /// The client is no member any more. One whose name another has by now is done for: a fatal error.
    fn forget(&mut self, client: usize, phase: Phase) {
        let is_fenced = self.static_member(self.clients[client].instance).is_some();
        let phase = if is_fenced { Phase::Closed } else { phase };
        let known = &mut self.clients[client];
        if is_fenced {
            known.events.push_back(Event::Fenced);
        }
        known.member = String::new();
        known.generation = -1;
        known.phase = phase;
    }
}
