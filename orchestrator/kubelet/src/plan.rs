//! What a pod needs next, from its object and its observed containers. Pure (invariant 4): no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use signal::Timestamp;

use crate::runtime::{Exit, Record, State};
use crate::status::Resize;

const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_MOST: Duration = Duration::from_secs(300);

/// How long a container that keeps ending must wait (kubelet: client-go util/flowcontrol/backoff.go).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    delay: Duration,
    updated: Timestamp,
}

impl Backoff {
    /// The next one, at a restart of a container that ended at `finished`: double, or afresh after 10 quiet minutes.
    pub(crate) fn next(before: Option<Backoff>, finished: Timestamp, now: Timestamp) -> Backoff {
        let delay = match before {
            Some(b) if finished.since(b.updated) <= 2 * BACKOFF_MOST => (b.delay * 2).min(BACKOFF_MOST),
            _ => BACKOFF_FIRST,
        };
        Backoff { delay, updated: now }
    }

    fn until(self, finished: Timestamp) -> Timestamp {
        if finished.since(self.updated) > 2 * BACKOFF_MOST {
            return finished;
        }
        finished.saturating_add(self.delay)
    }
}

/// A container that could not be created: what its status says, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) until: Timestamp,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is known of a pod on this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) now: Timestamp,
    /// Network, volumes and files are there.
    pub(crate) set_up: bool,
    /// The latest attempt of each container.
    pub(crate) latest: BTreeMap<String, Record>,
    /// How the attempt before the latest ended.
    pub(crate) previous: BTreeMap<String, (String, Exit)>,
    /// Running containers whose startup probe has succeeded (or that have none).
    pub(crate) started: BTreeSet<String>,
    pub(crate) ready: BTreeSet<String>,
    /// Containers that a probe has condemned, with the event's text.
    pub(crate) condemned: BTreeMap<String, String>,
    /// Containers being stopped.
    pub(crate) stopping: BTreeSet<String>,
    pub(crate) backoff: BTreeMap<String, Backoff>,
    pub(crate) held: BTreeMap<String, Held>,
    /// Whether what runs has what the pod says now.
    pub(crate) resize: Resize,
    /// Running containers that have.
    pub(crate) resized: BTreeSet<String>,
    /// When this node first saw the pod.
    pub(crate) start_time: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    SetUp,
    Start {
        name: String,
        attempt: u32,
    },
    Stop {
        name: String,
        id: String,
        message: String,
    },
    /// No container runs any more: network, volumes and files go, and the object with them.
    TearDown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    pub(crate) fn parse(s: &str) -> Self {
        match s {
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            _ => Phase::Pending,
        }
    }

    pub(crate) fn is_final(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) phase: Phase,
    /// Look again then, even if nothing happens.
    pub(crate) wake: Option<Timestamp>,
    /// Containers that wait out a back-off, with the text of their status.
    pub(crate) crash_looping: BTreeMap<String, String>,
    pub(crate) initialized: bool,
    /// `reason` and `message` of the pod, if it failed as a whole.
    pub(crate) failure: Option<(&'static str, String)>,
}

/// What becomes of one container.
enum Fate {
    Running,
    /// Not running, and it will not be started again.
    Over(Exit),
    /// To be started now, or after a while, or in a moment being stopped.
    Coming,
}

fn restart_policy<'a>(spec: &'a PodSpec, c: &'a Container, init: bool) -> &'a str {
    if init && c.restart_policy.as_deref() == Some("Always") {
        return "Always";
    }
    match (spec.restart_policy.as_deref().unwrap_or("Always"), init) {
        // An init container that succeeded is over, whatever the pod's policy.
        ("Always", true) => "OnFailure",
        (p, _) => p,
    }
}

pub(crate) fn is_sidecar(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

/// What changes when a container's image does.
pub(crate) fn spec_hash(c: &Container) -> String {
    let text = c.image.as_deref().unwrap_or_default();
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

pub(crate) fn plan(pod: &Pod, o: &Observed) -> Plan {
    let Some(spec) = &pod.spec else { return Plan::default() };
    let mut p = Plan { phase: current_phase(pod), ..Plan::default() };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    p.initialized = spec.containers.iter().any(|c| o.latest.contains_key(&c.name));
    if pod.metadata.deletion_timestamp.is_some() || p.phase.is_final() {
        let deleted = pod.metadata.deletion_timestamp.is_some();
        stop_all(spec, o, &mut p);
        if p.actions.is_empty() && o.stopping.is_empty() {
            if deleted {
                p.actions.push(Action::TearDown);
            }
            p.phase = final_phase(spec, o, p.phase, deleted);
        }
        p.initialized |= init.is_empty() || p.phase == Phase::Succeeded;
        return p;
    }
    if let Some(why) = deadline(pod, o, &mut p) {
        p.phase = Phase::Failed;
        p.failure = Some(("DeadlineExceeded", why));
        return settle(pod, spec, o, p);
    }
    if !o.set_up {
        p.actions.push(Action::SetUp);
        return p;
    }
    plan_ephemeral(spec, o, &mut p);
    if !p.initialized {
        match plan_init(spec, init, o, &mut p) {
            Some(true) => p.initialized = true,
            Some(false) => {
                p.phase = Phase::Failed;
                return settle(pod, spec, o, p);
            }
            None => {
                p.phase = Phase::Pending;
                return p;
            }
        }
    } else {
        for c in init.iter().filter(|c| is_sidecar(c)) {
            judge(spec, c, true, o, &mut p);
        }
    }
    plan_main(spec, o, &mut p);
    if p.phase.is_final() { settle(pod, spec, o, p) } else { p }
}

/// A pod that is decided stops what still runs, and its phase becomes final only after that: who sees a final phase
/// may give the pod's resources to others.
fn settle(pod: &Pod, spec: &PodSpec, o: &Observed, mut p: Plan) -> Plan {
    p.actions.retain(|a| matches!(a, Action::Stop { .. }));
    stop_all(spec, o, &mut p);
    if !p.actions.is_empty() || !o.stopping.is_empty() {
        p.phase = current_phase(pod);
        p.failure = None;
    }
    p
}

fn current_phase(pod: &Pod) -> Phase {
    Phase::parse(pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending"))
}

/// The end of a deleted pod: what its containers say.
fn final_phase(spec: &PodSpec, o: &Observed, before: Phase, deleted: bool) -> Phase {
    if before.is_final() || !deleted {
        return before;
    }
    let exits: Vec<Option<&Exit>> = spec
        .containers
        .iter()
        .map(|c| match o.latest.get(&c.name).map(|r| &r.state) {
            Some(State::Exited(e)) => Some(e),
            _ => None,
        })
        .collect();
    if exits.iter().all(|e| e.is_some_and(|e| e.code == 0)) { Phase::Succeeded } else { Phase::Failed }
}

fn deadline(pod: &Pod, o: &Observed, p: &mut Plan) -> Option<String> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let end = o.start_time?.saturating_add(Duration::from_secs(u64::try_from(seconds).ok()?));
    if o.now >= end {
        return Some("Pod was active on the node longer than the specified deadline".to_owned());
    }
    wake(p, end);
    None
}

fn wake(p: &mut Plan, at: Timestamp) {
    p.wake = Some(p.wake.map_or(at, |w| w.min(at)));
}

/// Those that came to look at a running pod, as containers: they run once, and nothing depends on them.
pub(crate) fn ephemeral(spec: &PodSpec) -> impl Iterator<Item = Container> {
    let list = spec.ephemeral_containers.iter().flatten();
    list.filter_map(|e| {
        // The same fields, but for whose processes it sees.
        let mut v = serde_json::to_value(e).ok()?;
        v.as_object_mut()?.shift_remove("targetContainerName");
        serde_json::from_value(v).ok()
    })
}

fn plan_ephemeral(spec: &PodSpec, o: &Observed, p: &mut Plan) {
    for c in ephemeral(spec) {
        if matches!(o.latest.get(&c.name).map(|r| &r.state), None | Some(State::Created)) {
            judge(spec, &c, false, o, p);
        }
    }
}

/// `Some(true)`: all init containers are done; `Some(false)`: one failed for good; `None`: not yet.
fn plan_init(spec: &PodSpec, init: &[Container], o: &Observed, p: &mut Plan) -> Option<bool> {
    for c in init {
        match judge(spec, c, true, o, p) {
            Fate::Running if is_sidecar(c) && o.started.contains(&c.name) => {}
            Fate::Over(e) if e.code == 0 => {}
            Fate::Over(_) => return Some(false),
            Fate::Running | Fate::Coming => return None,
        }
    }
    Some(true)
}

fn plan_main(spec: &PodSpec, o: &Observed, p: &mut Plan) {
    let fates: Vec<Fate> = spec.containers.iter().map(|c| judge(spec, c, false, o, p)).collect();
    let seen = spec.containers.iter().any(|c| {
        matches!(o.latest.get(&c.name).map(|r| &r.state), Some(State::Running { .. } | State::Exited(_)))
    });
    let over: Vec<&Exit> =
        fates.iter().filter_map(|f| if let Fate::Over(e) = f { Some(e) } else { None }).collect();
    p.phase = if over.len() == fates.len() && !fates.is_empty() {
        if over.iter().all(|e| e.code == 0) { Phase::Succeeded } else { Phase::Failed }
    } else if seen && spec.containers.iter().all(|c| has_run(o, c)) {
        Phase::Running
    } else {
        Phase::Pending
    };
}

/// A container counts for the phase "Running" once it ran, also if it waits to be restarted.
fn has_run(o: &Observed, c: &Container) -> bool {
    o.previous.contains_key(&c.name)
        || matches!(o.latest.get(&c.name).map(|r| &r.state), Some(State::Running { .. } | State::Exited(_)))
}

fn judge(spec: &PodSpec, c: &Container, init: bool, o: &Observed, p: &mut Plan) -> Fate {
    let name = &c.name;
    let start = |p: &mut Plan, attempt| {
        match o.held.get(name) {
            Some(h) if h.until > o.now => wake(p, h.until),
            _ => p.actions.push(Action::Start { name: name.clone(), attempt }),
        }
        Fate::Coming
    };
    let Some(record) = o.latest.get(name) else { return start(p, 0) };
    match &record.state {
        // Made but never started: the same attempt again.
        State::Created => start(p, record.identity.attempt),
        State::Running { .. } => {
            let changed = record.identity.spec_hash != spec_hash(c);
            let message = match o.condemned.get(name) {
                Some(m) => Some(m.clone()),
                None if changed => Some(format!("Container {name} definition changed, will be restarted")),
                None => None,
            };
            match message {
                Some(message) => {
                    if !o.stopping.contains(name) {
                        p.actions.push(Action::Stop { name: name.clone(), id: record.id.clone(), message });
                    }
                    Fate::Coming
                }
                None => Fate::Running,
            }
        }
        State::Exited(e) => {
            let again = match restart_policy(spec, c, init) {
                "Always" => true,
                "OnFailure" => e.code != 0,
                _ => false,
            };
            if !again {
                return Fate::Over(e.clone());
            }
            let until = o.backoff.get(name).map_or(e.finished_at, |b| b.until(e.finished_at));
            if until > o.now {
                let delay = o.backoff.get(name).map_or(BACKOFF_FIRST, |b| b.delay);
                p.crash_looping.insert(name.clone(), crate::probes::duration_text(delay));
                wake(p, until);
                return Fate::Coming;
            }
            start(p, record.identity.attempt + 1)
        }
    }
}

/// Stops everything: first containers, then sidecars one by one, the last started first (KEP-753).
fn stop_all(spec: &PodSpec, o: &Observed, p: &mut Plan) {
    let running = |c: &Container| match o.latest.get(&c.name) {
        Some(r) if matches!(r.state, State::Running { .. }) => Some(r.id.clone()),
        _ => None,
    };
    let mut stop = |c: &Container, id: String| {
        let planned = p.actions.iter().any(|a| matches!(a, Action::Stop { name, .. } if *name == c.name));
        if !o.stopping.contains(&c.name) && !planned {
            let message = format!("Stopping container {}", c.name);
            p.actions.push(Action::Stop { name: c.name.clone(), id, message });
        }
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let guests: Vec<Container> = ephemeral(spec).collect();
    let mut served = false;
    for c in spec.containers.iter().chain(&guests).chain(init.iter().filter(|c| !is_sidecar(c))) {
        if let Some(id) = running(c) {
            served = true;
            stop(c, id);
        }
    }
    if served {
        return;
    }
    if let Some((c, id)) = init.iter().rev().filter(|c| is_sidecar(c)).find_map(|c| Some((c, running(c)?))) {
        stop(c, id);
    }
}

#[cfg(test)]
mod tests;
