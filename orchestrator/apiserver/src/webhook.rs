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
use crate::admission::reinvocation::{Plugin, Rounds};
use crate::admission::shown::Shown;
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::patch;
use crate::policies::Seen;
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
        rounds: &mut Rounds,
    ) -> Result<bool> {
        let hooks = self.hooks.mutating();
        if hooks.is_empty()
            || !self.config.admission.is_on("MutatingAdmissionWebhook")
            || a.user.is_none()
            || config::is_exempt(a)
        {
            return Ok(false);
        }
        let mut changed = false;
        rounds.begin(Plugin::Hooks, o.as_deref());
        for (index, hook) in hooks.iter().enumerate() {
            let key = (hook.configuration.as_str(), hook.name.as_str());
            if !rounds.has_turn(Plugin::Hooks, key) {
                continue;
            }
            let turn = Turn { hook, round: rounds.number(), index, phase: MUTATING };
            if let Some(did) = self.mutate_by(a, &turn, o.as_deref_mut(), subject).await? {
                changed |= did;
                rounds.had_turn(Plugin::Hooks, key, did, hook.again);
            }
        }
        rounds.end(Plugin::Hooks, o.as_deref());
        Ok(changed)
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
        let made = {
            let shown = self.show(&served, a, o.as_deref(), subject).await?;
            if !self.is_asked(turn.hook, a, &served, &shown, subject)? {
                return Ok(None);
            }
            // Few writes concern a webhook: the others need no room for it.
            let asked = self.waiting(a, Box::pin(self.ask(a, turn, &served, &shown, subject))).await?;
            let Some(answer) = asked else {
                return Ok(Some(false));
            };
            match (&answer.patch, &shown.new) {
                (Some(patch), Some(seen)) => {
                    let made = patch::untyped(seen, patch::JSON_PATCH, patch)
                        .map_err(|e| failed(turn.hook, &e.message))?;
                    (made != **seen).then_some(made)
                }
                _ => None,
            }
        };
        let mut mutated = false;
        if let (Some(made), Some(o)) = (made, o) {
            let before = std::mem::take(o);
            *o = match subject {
                Some(_) => made,
                None => self.take_back(a, &served, made).await.map_err(|e| failed(turn.hook, &e.message))?,
            };
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
        for (turn, served) in turns {
            let shown = self.show(&served, a, o, subject).await?;
            if self.is_asked(turn.hook, a, &served, &shown, subject)? {
                asked.push((turn, served, shown));
            }
        }
        let asked =
            asked.iter().map(|(turn, served, shown)| Box::pin(self.ask(a, turn, served, shown, subject)));
        for answer in self.waiting(a, futures::future::join_all(asked)).await {
            answer?;
        }
        Ok(())
    }

    /// Counts time as that of webhooks.
    async fn waiting<T>(&self, a: &Attributes<'_>, work: impl Future<Output = T>) -> T {
        let began = self.config.clock.monotonic();
        let done = work.await;
        a.trail.stations.called(self.config.clock.monotonic().saturating_duration_since(began));
        done
    }

    /// Whether a webhook's conditions hold; where one fails, its failure policy decides.
    fn is_asked(
        &self,
        hook: &Hook,
        a: &Attributes<'_>,
        served: &Served,
        shown: &Shown<'_>,
        subject: Option<Subject>,
    ) -> Result<bool> {
        let attributes = Attributes { old: shown.old.as_deref(), ..*a };
        let seen = Seen { attributes: &attributes, served, subject };
        match self.conditions_hold(&hook.conditions, &seen, shown.new.as_deref()) {
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
        shown: &Shown<'_>,
        subject: Option<Subject>,
    ) -> Result<Option<Answer>> {
        let hook = turn.hook;
        if a.dry_run && !hook.dry {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(ApiError::bad_request(why));
        }
        let started = self.config.clock.monotonic();
        let uid = uuid::Uuid::new_v4().to_string();
        let question = review::request(hook.review, &uid, a, served, shown, subject);
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
