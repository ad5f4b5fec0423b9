//! Admission by Rego, the language of Open Policy Agent: RegoPolicy of policy.binnacle.io.
//!
//! A policy's package says `deny` (or `violation`, as Gatekeeper's do) and `warn`: sets of texts, or of objects with a
//! `msg`. Its `input` is what an AdmissionReview holds. An evaluation has its time and a thread of its own; what is
//! over it is an error, and `failurePolicy` says what an error means.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value as Rego};
use serde_json::{Value, json};

use super::Matches;
use crate::admission::attributes::Attributes;
use crate::cache::Cache;
use crate::error::{ApiError, Result};
use crate::kinds::{self, rego::GROUP};
use crate::object;
use crate::server::ApiServer;
use crate::webhook::config::is_exempt;
use crate::webhook::{Subject, review};

/// All of one policy's rules, for one write.
const EVALUATED_WITHIN: Duration = Duration::from_millis(100);
/// Steps between looks at the clock.
const CHECK_EVERY: NonZeroU32 = NonZeroU32::new(256).expect("it is not zero");
const DENY: [&str; 2] = ["deny", "violation"];
const WARN: &str = "warn";
const REVIEW: &str = "admission.k8s.io/v1";
/// Messages of one policy that are told.
const MAX_MESSAGES: usize = 20;

/// A policy, parsed.
struct Policy {
    name: String,
    fail: bool,
    matches: Matches,
    compiled: Compiled,
}

#[derive(Clone)]
pub(crate) struct Compiled {
    engine: Engine,
    /// `data.kubernetes.admission`
    package: String,
}

/// Reads a policy's text: today's Rego or, failing that, the one before 1.0. Rules that it cannot have are errors here
/// and not when they are needed.
pub(crate) fn compile(text: &str) -> std::result::Result<Compiled, String> {
    let read = |v0: bool| -> std::result::Result<Compiled, String> {
        let mut engine = Engine::new();
        engine.set_rego_v0(v0);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: EVALUATED_WITHIN,
            check_interval: CHECK_EVERY,
        });
        // What a function cannot do leaves its rule undefined, as in Open Policy Agent.
        engine.set_strict_builtin_errors(false);
        let package =
            engine.add_policy("policy.rego".to_owned(), text.to_owned()).map_err(|e| e.to_string())?;
        let mut compiled = Compiled { engine, package };
        compiled.engine.set_input(Rego::new_object());
        // The analysis of all rules comes with the first question.
        let rules: Vec<&str> = DENY.into_iter().chain([WARN]).collect();
        for rule in rules {
            compiled.messages(rule)?;
        }
        Ok(compiled)
    };
    read(false).or_else(|today| read(true).map_err(|_| today))
}

impl Compiled {
    fn messages(&mut self, rule: &str) -> std::result::Result<Vec<String>, String> {
        let query = format!("{}.{rule}", self.package);
        let results = self.engine.eval_query(query, false).map_err(|e| e.to_string())?;
        let found = results.result.into_iter().flat_map(|r| r.expressions).map(|e| e.value).next();
        let Some(found) = found.filter(|v| *v != Rego::Undefined) else { return Ok(Vec::new()) };
        let found = found.to_json_str().map_err(|e| e.to_string())?;
        let found: Value = serde_json::from_str(&found).map_err(|e| e.to_string())?;
        Ok(texts(&found).into_iter().take(MAX_MESSAGES).collect())
    }
}

/// Texts of a set, or of objects with a `msg` in it; `true` has none of its own.
fn texts(found: &Value) -> Vec<String> {
    match found {
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::String(s) => vec![s.clone()],
        Value::Object(m) => match m.get("msg").or_else(|| m.get("message")) {
            Some(Value::String(s)) => vec![s.clone()],
            _ => vec![found.to_string()],
        },
        Value::Bool(true) => vec!["the rule holds".to_owned()],
        _ => Vec::new(),
    }
}

/// All policies, parsed once per change of them.
pub(crate) struct RegoPolicies {
    cache: Arc<Cache>,
    index: usize,
    parsed: Mutex<(u64, Arc<[Policy]>)>,
}

impl RegoPolicies {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let index = kinds::by_resource(GROUP, "regopolicies").expect("policies are a kind").index;
        RegoPolicies { cache, index, parsed: Mutex::new((u64::MAX, Arc::from(Vec::new()))) }
    }

    fn current(&self) -> Arc<[Policy]> {
        let now = self.cache.changed(self.index);
        let mut held = self.parsed.lock();
        if held.0 != now {
            let all = self.cache.list(self.index, None).objects;
            let parsed = all.iter().filter_map(|o| {
                let o = o.value();
                let text = object::text(&o, "spec.rego").unwrap_or_default();
                match compile(text) {
                    Ok(compiled) => Some(Policy {
                        name: object::name(&o).to_owned(),
                        fail: object::text(&o, "spec.failurePolicy") != Some("Ignore"),
                        matches: Matches::parse(&o["spec"]["matchConstraints"]),
                        compiled,
                    }),
                    // It was read when it was written: only another version of us can think otherwise.
                    Err(e) => {
                        tracing::error!(policy = object::name(&o), error = e, "a RegoPolicy cannot be read");
                        None
                    }
                }
            });
            *held = (now, parsed.collect());
        }
        held.1.clone()
    }
}

/// What a policy says of a write: refusals and warnings.
type Said = (Vec<String>, Vec<String>);

impl ApiServer {
    /// Judges a write by all Rego policies that concern it; `subject` is what a subresource takes.
    pub(crate) async fn judge_by_rego(
        &self,
        a: &Attributes<'_>,
        new: Option<&Value>,
        subject: Option<Subject>,
    ) -> Result<()> {
        if a.user.is_none() || is_exempt(a) || a.served.group == GROUP {
            return Ok(());
        }
        for policy in self.rego.current().iter() {
            let Some(served) = policy.matches.concern(&self.cache, a, new) else { continue };
            let shown = self.show(&served, a, new, subject).await?;
            let review = review::request(REVIEW, &a.trail.id, a, &served, &shown, subject);
            match policy.ask(review).await {
                Ok((denied, warned)) => {
                    for w in warned {
                        a.trail.warn(format!("RegoPolicy '{}': {w}", policy.name));
                    }
                    if !denied.is_empty() {
                        return Err(refusal(policy, a, &denied.join("; ")));
                    }
                }
                Err(why) if policy.fail => return Err(refusal(policy, a, &why)),
                Err(why) => {
                    tracing::warn!(policy = policy.name, error = why, "a RegoPolicy failed and is ignored");
                }
            }
        }
        Ok(())
    }
}

impl Policy {
    /// Its messages about a review.
    async fn ask(&self, review: Value) -> std::result::Result<Said, String> {
        let mut compiled = self.compiled.clone();
        // Away from the threads that serve requests.
        let judged = tokio::task::spawn_blocking(move || {
            compiled.engine.set_input(Rego::from(review));
            let mut denied = Vec::new();
            for rule in DENY {
                denied.extend(compiled.messages(rule)?);
            }
            Ok((denied, compiled.messages(WARN)?))
        });
        judged.await.map_err(|e| format!("the evaluation ended: {e}"))?
    }
}

fn refusal(policy: &Policy, a: &Attributes<'_>, why: &str) -> ApiError {
    let said = format!("RegoPolicy '{}' denied request: {why}", policy.name);
    let mut e = ApiError::forbidden(a.served, a.name, &said);
    if let Some(d) = &mut e.details {
        d["causes"] = json!([{"message": said}]);
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str, input: Value) -> (Vec<String>, Vec<String>) {
        let mut c = compile(text).expect("a policy");
        c.engine.set_input(Rego::from(input));
        let denied = DENY.iter().flat_map(|r| c.messages(r).expect("judged")).collect();
        (denied, c.messages(WARN).expect("judged"))
    }

    #[test]
    fn todays_rego_and_yesterdays_say_the_same() {
        let now = "package a\ndeny contains msg if { input.x > 1; msg := sprintf(\"%d is too much\", [input.x]) }\nwarn contains \"look\" if input.y";
        let then = "package a\ndeny[msg] { input.x > 1; msg := sprintf(\"%d is too much\", [input.x]) }\nwarn[\"look\"] { input.y }";
        let gatekeeper = "package a\nviolation[{\"msg\": msg}] { input.x > 1; msg := sprintf(\"%d is too much\", [input.x]) }\nwarn[\"look\"] { input.y }";
        for text in [now, then, gatekeeper] {
            let (denied, warned) = judged(text, json!({"x": 2, "y": true}));
            assert_eq!(
                (denied, warned),
                (vec!["2 is too much".to_owned()], vec!["look".to_owned()]),
                "{text}"
            );
            assert_eq!(judged(text, json!({"x": 1})), (Vec::new(), Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_said_at_once_and_what_never_ends_is_ended() {
        for text in
            ["", "package a\ndeny contains msg if { msg := }", "package a\ndeny contains \"x\" if { y == 1 }"]
        {
            assert!(compile(text).is_err(), "{text:?}");
        }
        let endless = "package a\ndeny contains \"x\" if {\n some i in numbers.range(1, 100000)\n some j in numbers.range(1, 100000)\n input.on\n i * j == -1\n}";
        let e = match compile(endless) {
            Ok(mut c) => {
                c.engine.set_input(Rego::from(json!({"on": true})));
                c.messages("deny").expect_err("it takes too long")
            }
            // It may take too long to be read already.
            Err(e) => e,
        };
        assert!(e.contains("time limit"), "{e}");
    }
}
