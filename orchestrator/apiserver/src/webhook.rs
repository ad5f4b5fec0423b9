//! Others are asked about a write: mutating webhooks one after the other, validating ones at once
//! (apiserver: pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go).
//!
//! [`config`] says which webhooks a write concerns, [`review`] what is asked and answered, [`client`] carries it.

pub(crate) mod client;
pub(crate) mod config;
mod metrics;
pub(crate) mod review;

use serde_json::{Value, json};

use crate::admission::attributes::Attributes;
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::patch;
use crate::read;
use crate::server::ApiServer;

use config::Hook;
use metrics::{Called, METRICS};
use review::Answer;

/// Group, version and kind of what a subresource takes.
pub(crate) type Subject = (&'static str, &'static str, &'static str);

const MUTATING: &str = "admit";
const VALIDATING: &str = "validating";

/// A webhook's place in the round, for annotations.
struct Turn<'a> {
    hook: &'a Hook,
    round: usize,
    index: usize,
    phase: &'static str,
}

impl ApiServer {
    /// Lets mutating webhooks change an object; says whether any did. `subject` is the kind of what a subresource
    /// takes, `None` for objects of the resource itself.
    pub(crate) async fn call_mutating(
        &self,
        a: &Attributes<'_>,
        mut o: Option<&mut Value>,
        subject: Option<Subject>,
    ) -> Result<bool> {
        let hooks = self.hooks.mutating();
        if hooks.is_empty()
            || !self.config.admission.is_on("MutatingAdmissionWebhook")
            || a.user.is_none()
            || config::is_exempt(a)
        {
            return Ok(false);
        }
        let (mut changed, mut called) = (false, Vec::new());
        for (index, hook) in hooks.iter().enumerate() {
            let turn = Turn { hook, round: 0, index, phase: MUTATING };
            if let Some(did) = self.mutate_by(a, &turn, o.as_deref_mut(), subject).await? {
                changed |= did;
                if hook.again {
                    called.push((index, o.as_deref().cloned()));
                }
            }
        }
        if !changed || called.is_empty() {
            return Ok(changed);
        }
        // What was seen may have been changed by later ones, and by the server's own defaults after them.
        if let (Some(o), None) = (o.as_deref_mut(), subject) {
            self.admit_defaults(a, o).await?;
        }
        for (index, seen) in called {
            if o.as_deref() != seen.as_ref() {
                let turn = Turn { hook: &hooks[index], round: 1, index, phase: MUTATING };
                self.mutate_by(a, &turn, o.as_deref_mut(), subject).await?;
            }
        }
        Ok(true)
    }

    /// One webhook's turn: `None` if it is not concerned, else whether it changed the object.
    async fn mutate_by(
        &self,
        a: &Attributes<'_>,
        turn: &Turn<'_>,
        o: Option<&mut Value>,
        subject: Option<Subject>,
    ) -> Result<Option<bool>> {
        let Some(served) = turn.hook.concerns(&self.cache, a, o.as_deref()) else { return Ok(None) };
        if !self.is_asked(turn.hook, a, o.as_deref())? {
            return Ok(None);
        }
        let Some(answer) = self.ask(a, turn, &served, o.as_deref(), subject).await? else {
            return Ok(Some(false));
        };
        let mut mutated = false;
        if let (Some(patch), Some(o)) = (&answer.patch, o) {
            let before = o.clone();
            *o = apply(&served, o.clone(), patch, subject).map_err(|e| failed(turn.hook, &e.message))?;
            mutated = *o != before;
            if mutated && subject.is_none() {
                (a.served.kind.default)(o);
            }
        }
        let key = format!("mutation.webhook.admission.k8s.io/round_{}_index_{}", turn.round, turn.index);
        let said =
            json!({"configuration": turn.hook.configuration, "webhook": turn.hook.name, "mutated": mutated});
        a.trail.annotate(key, said.to_string());
        Ok(Some(mutated))
    }

    /// Asks the validating webhooks; the first refusal counts.
    pub(crate) async fn call_validating(
        &self,
        a: &Attributes<'_>,
        o: Option<&Value>,
        subject: Option<Subject>,
    ) -> Result<()> {
        let hooks = self.hooks.validating();
        if hooks.is_empty()
            || !self.config.admission.is_on("ValidatingAdmissionWebhook")
            || a.user.is_none()
            || config::is_exempt(a)
        {
            return Ok(());
        }
        let turns: Vec<(Turn<'_>, Served)> = hooks
            .iter()
            .enumerate()
            .filter_map(|(index, hook)| {
                let served = hook.concerns(&self.cache, a, o)?;
                Some((Turn { hook, round: 0, index, phase: VALIDATING }, served))
            })
            .collect();
        let mut asked = Vec::with_capacity(turns.len());
        for turn in turns {
            if self.is_asked(turn.0.hook, a, o)? {
                asked.push(turn);
            }
        }
        let asked = asked.iter().map(|(turn, served)| self.ask(a, turn, served, o, subject));
        for answer in futures::future::join_all(asked).await {
            answer?;
        }
        Ok(())
    }

    /// Whether a webhook's conditions hold; where one fails, its failure policy decides.
    fn is_asked(&self, hook: &Hook, a: &Attributes<'_>, o: Option<&Value>) -> Result<bool> {
        match self.conditions_hold(&hook.conditions, a, o) {
            Ok(holds) => Ok(holds),
            Err(why) if hook.ignore_failure => {
                tracing::warn!(
                    webhook = hook.name,
                    error = why,
                    "a match condition failed, the webhook is left out"
                );
                Ok(false)
            }
            Err(why) => Err(ApiError::forbidden(a.served, a.name, &why)),
        }
    }

    /// One question. `None` is a failure that the webhook's policy ignores.
    async fn ask(
        &self,
        a: &Attributes<'_>,
        turn: &Turn<'_>,
        served: &Served,
        new: Option<&Value>,
        subject: Option<Subject>,
    ) -> Result<Option<Answer>> {
        let hook = turn.hook;
        if a.dry_run && !hook.dry {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(ApiError::bad_request(why));
        }
        let started = self.config.clock.monotonic();
        let uid = uuid::Uuid::new_v4().to_string();
        let question = review::request(hook.review, &uid, a, served, new, subject);
        let answered = match &hook.peer {
            Err(why) => Err(format!("could not get REST client: {why}")),
            Ok(peer) => match self.peers.post(peer, &question, hook.timeout).await {
                Err(e) => Err(format!("failed to call webhook: {e}")),
                Ok(v) => Answer::parse(hook.review, &uid, turn.phase == MUTATING, &v)
                    .map_err(|e| format!("received invalid webhook response: {e}")),
            },
        };
        let took = self.config.clock.monotonic().saturating_duration_since(started);
        let (phase, operation) = (turn.phase, a.operation.text());
        let rejected = match &answered {
            Ok(answer) => !answer.allowed,
            Err(_) => !hook.ignore_failure,
        };
        let labels = Called {
            name: hook.name.clone(),
            r#type: phase,
            operation,
            rejected: if rejected { "true" } else { "false" },
        };
        METRICS.called(labels, took);
        let answer = match answered {
            Ok(answer) => answer,
            Err(why) if hook.ignore_failure => {
                tracing::warn!(webhook = hook.name, error = why, "failed calling webhook, failing open");
                METRICS.ignored(&hook.name, phase);
                let kind = if phase == MUTATING { "mutating" } else { "validating" };
                let key = format!(
                    "failed-open.{kind}.webhook.admission.k8s.io/round_{}_index_{}",
                    turn.round, turn.index
                );
                a.trail.annotate(key, hook.name.clone());
                return Ok(None);
            }
            Err(why) => {
                METRICS.refused(&hook.name, phase, operation, "calling_webhook_error", 500);
                return Err(failed(hook, &why));
            }
        };
        for w in &answer.warnings {
            a.trail.warn(w.as_str());
        }
        for (k, v) in &answer.annotations {
            a.trail.annotate(format!("{}/{k}", hook.name), v.as_str());
        }
        if answer.allowed {
            return Ok(Some(answer));
        }
        let refusal = answer.refusal(&hook.name);
        METRICS.refused(&hook.name, phase, operation, "no_error", refusal.code);
        Err(refusal)
    }
}

fn failed(hook: &Hook, why: &str) -> ApiError {
    ApiError::internal(format!("failed calling webhook {:?}: {why}", hook.name))
}

/// A webhook's patch, in the version it saw.
fn apply(shown: &Served, o: Value, patch: &[u8], subject: Option<Subject>) -> Result<Value> {
    let seen = if subject.is_none() { read::render_value(shown, o) } else { o };
    let new = patch::untyped(&seen, patch::JSON_PATCH, patch)?;
    if subject.is_some() {
        return Ok(new);
    }
    let mut unknown = Vec::new();
    patch::conform(shown, new, crate::request::FieldValidation::Ignore, &mut unknown)
}
