//! A pod's status as the API shows it, from what is. Pure.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use signal::Timestamp;

use crate::plan::{Observed, Plan, ephemeral, is_sidecar};
use crate::quantity;
use crate::runtime::{Exit, State};

/// What the status needs beyond plan and observation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) host_ip: String,
    pub(crate) pod_ip: Option<String>,
}

/// How far an in-place resize is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resize {
    #[default]
    Done,
    /// `Infeasible` or `Deferred`, and why.
    Pending {
        reason: &'static str,
        message: String,
    },
    Failed(String),
}

/// API times have whole seconds.
pub(crate) fn time(t: Timestamp) -> Time {
    let seconds = t.nanos().div_euclid(1_000_000_000);
    Time(jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

pub(crate) fn build(pod: &Pod, o: &Observed, plan: &Plan, place: &Place) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else { return old };
    let statuses = |list: &[Container], init: bool| -> Vec<ContainerStatus> {
        list.iter().map(|c| container(pod, c, init, o, plan)).collect()
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let mut s = PodStatus {
        phase: Some(plan.phase.as_str().to_owned()),
        qos_class: Some(quantity::qos(spec).to_owned()),
        host_ip: Some(place.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: place.host_ip.clone() }]),
        start_time: old.start_time.clone().or_else(|| o.start_time.map(time)),
        container_statuses: Some(statuses(&spec.containers, false)),
        init_container_statuses: (!init.is_empty()).then(|| statuses(init, true)),
        ephemeral_container_statuses: spec.ephemeral_containers.is_some().then(|| {
            let guests = ephemeral(spec).map(|c| ContainerStatus {
                ready: false,
                started: None,
                ..container(pod, &c, false, o, plan)
            });
            guests.collect()
        }),
        observed_generation: pod.metadata.generation,
        ..old.clone()
    };
    if let Some((reason, message)) = &plan.failure {
        s.reason = Some((*reason).to_owned());
        s.message = Some(message.clone());
    }
    let ip = place.pod_ip.clone().or(old.pod_ip);
    s.pod_ips = ip.clone().map(|ip| vec![PodIP { ip }]);
    s.pod_ip = ip;
    s.conditions = Some(conditions(pod, spec, o, plan, &s));
    s
}

fn terminated(e: &Exit, id: &str) -> ContainerStateTerminated {
    let reason = if e.oom_killed {
        "OOMKilled"
    } else if e.code == 0 {
        "Completed"
    } else if e.started_at.0 == 0 {
        "StartError"
    } else {
        "Error"
    };
    ContainerStateTerminated {
        container_id: Some(format!("containerd://{id}")),
        exit_code: e.code,
        finished_at: Some(time(e.finished_at)),
        message: e.message.clone(),
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: Some(time(e.started_at)),
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn has_init(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).next().is_some()
}

/// `name_namespace(uid)`: how the node's messages name a pod.
pub(crate) fn full_name(pod: &Pod) -> String {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let meta = &pod.metadata;
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

fn container(pod: &Pod, c: &Container, init: bool, o: &Observed, plan: &Plan) -> ContainerStatus {
    let record = o.latest.get(&c.name);
    let mut s = ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        restart_count: record.map_or(0, |r| i32::try_from(r.identity.attempt).unwrap_or(i32::MAX)),
        started: Some(false),
        ..ContainerStatus::default()
    };
    if let Some(r) = record {
        s.container_id = Some(format!("containerd://{}", r.id));
        s.image.clone_from(&r.identity.image);
        s.image_id.clone_from(&r.identity.image_id);
    }
    if let Some((id, e)) = o.previous.get(&c.name) {
        let last = ContainerState { terminated: Some(terminated(e, id)), ..ContainerState::default() };
        s.last_state = Some(last);
    }
    let running = matches!(record.map(|r| &r.state), Some(State::Running { .. }));
    if running && o.resized.contains(&c.name) {
        s.allocated_resources = c.resources.as_ref().and_then(|r| r.requests.clone());
        s.resources = c.resources.clone();
    } else if running {
        let said = pod.status.iter().flat_map(|s| {
            s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
        });
        if let Some(before) = said.into_iter().find(|b| b.name == c.name) {
            s.allocated_resources.clone_from(&before.allocated_resources);
            s.resources.clone_from(&before.resources);
        }
    }
    let held = o.held.get(&c.name);
    s.state = Some(match record.map(|r| &r.state) {
        Some(State::Running { started_at, .. }) => {
            s.started = Some(o.started.contains(&c.name));
            s.ready = o.ready.contains(&c.name);
            let running = ContainerStateRunning { started_at: Some(time(*started_at)) };
            ContainerState { running: Some(running), ..ContainerState::default() }
        }
        Some(State::Exited(e)) => {
            let done = ContainerState {
                terminated: record.map(|r| terminated(e, &r.id)),
                ..ContainerState::default()
            };
            s.ready = init && e.code == 0;
            match (plan.crash_looping.get(&c.name), held) {
                (Some(delay), _) => {
                    s.last_state = Some(done);
                    let (name, pod) = (&c.name, full_name(pod));
                    let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
                    waiting("CrashLoopBackOff", Some(message))
                }
                (None, Some(h)) if !plan.phase.is_final() => {
                    s.last_state = Some(done);
                    waiting(h.reason, Some(h.message.clone()))
                }
                _ => done,
            }
        }
        Some(State::Created) | None => match held {
            Some(h) => waiting(h.reason, (!h.message.is_empty()).then(|| h.message.clone())),
            None if !init && !plan.initialized && has_init(pod) => waiting("PodInitializing", None),
            None => waiting("ContainerCreating", None),
        },
    });
    if init && !is_sidecar(c) {
        s.started = Some(matches!(record.map(|r| &r.state), Some(State::Running { .. })));
    }
    s
}

/// One condition: its text, and since when.
fn condition(
    old: &[PodCondition],
    now: Timestamp,
    kind: &str,
    met: bool,
    reason: Option<&str>,
    message: Option<String>,
    generation: Option<i64>,
) -> PodCondition {
    let status = if met { "True" } else { "False" };
    let before = old.iter().find(|c| c.type_ == kind);
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: since.or_else(|| Some(time(now))),
        last_probe_time: None,
        observed_generation: generation,
    }
}

fn conditions(pod: &Pod, spec: &PodSpec, o: &Observed, plan: &Plan, s: &PodStatus) -> Vec<PodCondition> {
    let old = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let generation = pod.metadata.generation;
    let make = |kind: &str, met: bool, reason: Option<&str>, message: Option<String>| {
        condition(old, o.now, kind, met, reason, message, generation)
    };
    let done = plan.phase.is_final();
    let succeeded = plan.phase == crate::plan::Phase::Succeeded;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).map(|c| &c.name);
    let mut unready: Vec<&str> = sidecars.filter(|n| !o.ready.contains(*n)).map(String::as_str).collect();
    let main = s.container_statuses.iter().flatten().filter(|c| !c.ready);
    unready.extend(main.map(|c| c.name.as_str()));
    let containers_ready = unready.is_empty() && !done;
    let not_ready = |ready: bool| -> (Option<&str>, Option<String>) {
        if ready {
            (None, None)
        } else if succeeded {
            (Some("PodCompleted"), None)
        } else if plan.phase == crate::plan::Phase::Failed {
            (Some("PodFailed"), None)
        } else {
            let list = unready.join(" ");
            (Some("ContainersNotReady"), Some(format!("containers with unready status: [{list}]")))
        }
    };
    let gates = gates(spec, old);
    let (reason, message) = not_ready(containers_ready);
    let ready = containers_ready && gates.is_empty();
    let (ready_reason, ready_message) = if containers_ready && !gates.is_empty() {
        (Some("ReadinessGatesNotReady"), Some(gates.join(", ")))
    } else {
        (reason, message.clone())
    };
    let initialized = if plan.initialized || spec.init_containers.iter().flatten().next().is_none() {
        make("Initialized", true, succeeded.then_some("PodCompleted"), None)
    } else {
        let incomplete: Vec<&str> = s
            .init_container_statuses
            .iter()
            .flatten()
            .filter(|c| !c.ready)
            .map(|c| c.name.as_str())
            .collect();
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        make("Initialized", false, Some("ContainersNotInitialized"), Some(message))
    };
    let mut list = vec![
        make("PodReadyToStartContainers", o.set_up && !done, None, None),
        initialized,
        make("Ready", ready, ready_reason, ready_message),
        make("ContainersReady", containers_ready, reason, message),
        make("PodScheduled", true, None, None),
    ];
    match &o.resize {
        Resize::Done => {}
        Resize::Pending { reason, message } => {
            list.push(make("PodResizePending", true, Some(reason), Some(message.clone())));
        }
        Resize::Failed(why) => {
            list.push(make("PodResizeInProgress", true, Some("Error"), Some(why.clone())));
        }
    }
    // Others' conditions stay: readiness gates, DisruptionTarget.
    list.extend(old.iter().filter(|c| !OURS.contains(&c.type_.as_str())).cloned());
    list
}

/// Why the pod's readiness gates are not open.
fn gates(spec: &PodSpec, conditions: &[PodCondition]) -> Vec<String> {
    let all = spec.readiness_gates.iter().flatten().map(|g| g.condition_type.as_str());
    all.filter_map(|gate| match conditions.iter().find(|c| c.type_ == gate) {
        None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
        Some(c) if c.status == "True" => None,
        Some(c) => {
            Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", c.status))
        }
    })
    .collect()
}

const OURS: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

/// True if the status says that the pod is ready.
pub(crate) fn is_ready(s: &PodStatus) -> bool {
    s.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}
