//! Job: runs pods until enough of them have succeeded (kubernetes: pkg/controller/job).
//!
//! A pod that ended is counted once, whatever happens to it afterwards: it carries a finalizer until the job's
//! status has it. First its uid is noted in `uncountedTerminatedPods`, then the finalizer goes, then the number grows.

mod plan;

use std::sync::Arc;

use apimachinery::trace::TRACEPARENT_ANNOTATION;
use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::context::{Context, Error};
use crate::owner::{controller_of, is_controlled_by};
use crate::podcontrol::{self, PodControl};
use crate::replicaset::until;
use plan::{INDEX, Plan, TRACKING, plan};

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("job");
    let jobs = context.informers.of::<Job>();
    let pods = context.informers.of::<Pod>();
    let control = PodControl::new(context, "job-controller");
    control.queue_owners(&jobs, &pods, &queue);
    jobs.synced().await;
    pods.synced().await;
    queue.run(2, stop, move |key| reconcile(control.clone(), key)).await;
}

async fn reconcile(c: Arc<PodControl>, key: Key) -> Result<Reconcile, Error> {
    let pods = c.context.informers.of::<Pod>().list_in(&key.namespace);
    let Some(job) = c.context.informers.of::<Job>().get(&key) else {
        release_orphans(&c, &key, &pods).await?;
        return Ok(Reconcile::Done);
    };
    let pods: Vec<Arc<Pod>> = pods.into_iter().filter(|p| is_controlled_by(&p.metadata, &*job)).collect();
    let plan = plan(&job, &pods, c.context.now());
    if plan.expired == Some(true) {
        delete(&c, &job, &key).await?;
        return Ok(Reconcile::Done);
    }
    if (!plan.create.is_empty() || !plan.delete.is_empty()) && c.satisfied(&key) {
        let span = tracing::info_span!("job scale", namespace = %key.namespace, name = %key.name,
            create = plan.create.len(), delete = plan.delete.len());
        if let Some(parent) = job.annotations().get(TRACEPARENT_ANNOTATION) {
            telemetry::propagation::set_parent_from(&span, parent);
        }
        let made = plan.create.iter().map(|index| pod_of(&job, *index)).collect();
        c.create(&*job, &key, made).instrument(span).await?;
        c.delete(&*job, &key, &plan.delete).await?;
    }
    update_status(&c, &job, &key, &plan).await?;
    // The status knows them now.
    for name in &plan.release {
        release(&c.context, &key.namespace, name).await?;
    }
    for (warning, reason, note) in plan.events {
        if warning {
            c.recorder.warning(&*job, reason, "Finish", note).await;
        } else {
            c.recorder.normal(&*job, reason, "Finish", note).await;
        }
    }
    Ok(match plan.look_again {
        Some(at) => Reconcile::After(until(at, c.context.now())),
        None => Reconcile::Done,
    })
}

/// Pods of a job that is gone must not wait to be counted.
async fn release_orphans(c: &PodControl, key: &Key, pods: &[Arc<Pod>]) -> Result<(), Error> {
    let of_job = |p: &&Arc<Pod>| {
        controller_of(&p.metadata).is_some_and(|o| o.kind == "Job" && o.name == key.name)
            && p.finalizers().iter().any(|f| f == TRACKING)
    };
    for p in pods.iter().filter(of_job) {
        release(&c.context, &key.namespace, &p.name_any()).await?;
    }
    Ok(())
}

async fn release(context: &Context, namespace: &str, name: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(context.client(), namespace);
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    client::error::optional(api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
    Ok(())
}

async fn delete(c: &PodControl, job: &Job, key: &Key) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(c.context.client(), &key.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
        ..DeleteParams::foreground()
    };
    match api.delete(&key.name, &params).await {
        Err(e) if !client::error::is_not_found(&e) && !client::error::is_conflict(&e) => Err(e.into()),
        _ => Ok(()),
    }
}

async fn update_status(c: &PodControl, job: &Job, key: &Key, plan: &Plan) -> Result<(), Error> {
    if job.status.as_ref() == Some(&plan.status) {
        return Ok(());
    }
    let api: Api<Job> = Api::namespaced(c.context.client(), &key.namespace);
    // Replaced as a whole: a merge would keep uids that are counted.
    let mut new = job.clone();
    new.status = Some(plan.status.clone());
    client::error::unless_newer(api.replace_status(&key.name, &Default::default(), &new).await)?;
    Ok(())
}

fn pod_of(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut pod = podcontrol::from_template(job, template);
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
    if let Some(i) = index {
        let name = job.name_any();
        pod.metadata.generate_name = Some(format!("{name}-{i}-"));
        pod.annotations_mut().insert(INDEX.to_owned(), i.to_string());
        pod.labels_mut().insert(INDEX.to_owned(), i.to_string());
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{name}-{i}"));
            let env = || EnvVar {
                name: "JOB_COMPLETION_INDEX".to_owned(),
                value: Some(i.to_string()),
                ..EnvVar::default()
            };
            let inits = spec.init_containers.iter_mut().flatten();
            for container in inits.chain(spec.containers.iter_mut()) {
                container.env.get_or_insert_default().push(env());
            }
        }
    }
    pod
}
