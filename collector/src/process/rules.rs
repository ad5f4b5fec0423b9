//! What holds for a stream: the configuration's defaults, then its namespace in the configuration, then the
//! namespace's annotations, then the pod's. The nearer one wins, setting by setting; redactions add up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use regex::RegexSet;
use serde::{Deserialize, Serialize};
use signal::Labels;

use super::attributes::Format;
use super::multiline::Multiline;
use super::redact::Redactor;

/// Annotations begin so.
pub const ANNOTATION: &str = "binnacle.io/logs-";

/// The section `logs` of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LogsConfig {
    pub defaults: Settings,
    pub namespaces: BTreeMap<String, Settings>,
}

/// What can be said of lines; what is not said is taken from further away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// `auto` (stack traces of Java, Python, Go and Node.js), `off`, or a regular expression that begins a record.
    pub multiline: Option<String>,
    /// `off`, `json`, `logfmt` or `auto`: fields of lines become attributes.
    pub attributes: Option<String>,
    /// `credit-card`, `bearer-token`, `jwt`, or regular expressions: what matches is replaced.
    pub redact: Option<Vec<String>>,
    /// Lines that match one of these regular expressions are not stored.
    pub drop: Option<Vec<String>>,
    /// The share of lines below warning that is stored, 0 to 1.
    pub sample: Option<f64>,
    /// Of the whole namespace; 0 is any number.
    pub lines_per_second: Option<u64>,
    pub bytes_per_second: Option<u64>,
}

impl Settings {
    /// From annotations; what is wrong is told by its annotation.
    pub fn from_annotations<'a>(
        all: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Settings>, RulesError> {
        let mut s = Settings::default();
        let mut found = false;
        for (name, value) in all {
            let Some(what) = name.strip_prefix(ANNOTATION) else { continue };
            found = true;
            let bad = |why: String| RulesError { setting: name.to_owned(), why };
            let list =
                || Some(value.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect());
            let number =
                || value.trim().parse().map(Some).map_err(|_| bad(format!("{value:?} is no whole number")));
            match what {
                "multiline" => s.multiline = Some(value.trim().to_owned()),
                "attributes" => s.attributes = Some(value.trim().to_owned()),
                "redact" => s.redact = list(),
                "drop" => s.drop = list(),
                "sample" => {
                    s.sample =
                        Some(value.trim().parse().map_err(|_| bad(format!("{value:?} is no number")))?);
                }
                "lines-per-second" => s.lines_per_second = number()?,
                "bytes-per-second" => s.bytes_per_second = number()?,
                _ => return Err(bad("no such setting".to_owned())),
            }
        }
        if !found {
            return Ok(None);
        }
        s.compile()?;
        Ok(Some(s))
    }

    /// This, and where it says nothing, `further`.
    fn over(&self, further: &Settings) -> Settings {
        let mut redact = further.redact.clone().unwrap_or_default();
        redact.extend(
            self.redact
                .iter()
                .flatten()
                .filter(|r| !further.redact.iter().flatten().any(|f| f == *r))
                .cloned(),
        );
        Settings {
            multiline: self.multiline.clone().or_else(|| further.multiline.clone()),
            attributes: self.attributes.clone().or_else(|| further.attributes.clone()),
            redact: (!redact.is_empty()).then_some(redact),
            drop: self.drop.clone().or_else(|| further.drop.clone()),
            sample: self.sample.or(further.sample),
            lines_per_second: self.lines_per_second.or(further.lines_per_second),
            bytes_per_second: self.bytes_per_second.or(further.bytes_per_second),
        }
    }

    fn compile(&self) -> Result<LogRules, RulesError> {
        let bad = |setting: &str, why: String| RulesError { setting: setting.to_owned(), why };
        let sample = self.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample) {
            return Err(bad("sample", format!("{sample} is not between 0 and 1")));
        }
        let drop = match &self.drop {
            Some(patterns) if !patterns.is_empty() => {
                Some(RegexSet::new(patterns).map_err(|e| bad("drop", e.to_string()))?)
            }
            _ => None,
        };
        Ok(LogRules {
            multiline: Multiline::parse(self.multiline.as_deref().unwrap_or("auto"))
                .map_err(|e| bad("multiline", e))?,
            attributes: Format::parse(self.attributes.as_deref().unwrap_or("off"))
                .map_err(|e| bad("attributes", e))?,
            redact: Redactor::new(self.redact.as_deref().unwrap_or_default())
                .map_err(|e| bad("redact", e))?,
            drop,
            sample,
            lines_per_second: self.lines_per_second.unwrap_or(0),
            bytes_per_second: self.bytes_per_second.unwrap_or(0),
        })
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct RulesError {
    pub setting: String,
    pub why: String,
}

/// Settings, ready for use.
#[derive(Clone, Debug)]
pub struct LogRules {
    pub(crate) multiline: Multiline,
    pub(super) attributes: Format,
    pub(super) redact: Option<Redactor>,
    pub(super) drop: Option<RegexSet>,
    pub(super) sample: f64,
    pub(super) lines_per_second: u64,
    pub(super) bytes_per_second: u64,
}

impl LogRules {
    /// True if records pass as they are.
    pub(super) fn is_nothing(&self) -> bool {
        self.attributes == Format::Off && self.redact.is_none() && self.drop.is_none() && self.sample >= 1.0
    }
}

/// The rules of all streams. Shared by who knows of annotations and who reads lines.
#[derive(Debug)]
pub struct Rules {
    config: LogsConfig,
    /// By namespace, and by `namespace/pod`.
    annotated: RwLock<HashMap<String, Settings>>,
    /// By `namespace/pod` where a pod has annotations, else by namespace where that has any, else one for all.
    compiled: RwLock<HashMap<String, Arc<LogRules>>>,
}

impl Rules {
    pub fn new(config: LogsConfig) -> Result<Rules, RulesError> {
        config.defaults.compile()?;
        for (name, s) in &config.namespaces {
            s.over(&config.defaults)
                .compile()
                .map_err(|e| RulesError { setting: format!("namespaces: {name}: {}", e.setting), ..e })?;
        }
        Ok(Rules { config, annotated: RwLock::default(), compiled: RwLock::default() })
    }

    /// What annotations of a namespace (`namespace`) or pod (`namespace/pod`) say; `None` if they say nothing.
    pub fn annotate(&self, whose: &str, settings: Option<Settings>) {
        let mut all = self.annotated.write();
        let changed = match settings {
            Some(s) => all.insert(whose.to_owned(), s.clone()).as_ref() != Some(&s),
            None => all.remove(whose).is_some(),
        };
        if changed {
            self.compiled.write().clear();
        }
    }

    /// The rules of a stream, by its labels `namespace` and `pod`.
    pub fn of(&self, labels: &Labels) -> Arc<LogRules> {
        let namespace = labels.get("namespace").unwrap_or_default();
        let annotated = self.annotated.read();
        let pod = labels.get("pod").map(|p| format!("{namespace}/{p}")).filter(|p| annotated.contains_key(p));
        let known = annotated.contains_key(namespace) || self.config.namespaces.contains_key(namespace);
        let key = pod.as_deref().unwrap_or(if known { namespace } else { "" });
        if let Some(rules) = self.compiled.read().get(key) {
            return rules.clone();
        }
        let mut settings = self.config.defaults.clone();
        let nearer = [
            self.config.namespaces.get(namespace),
            annotated.get(namespace),
            pod.as_ref().and_then(|p| annotated.get(p)),
        ];
        for s in nearer.into_iter().flatten() {
            settings = s.over(&settings);
        }
        let rules = match settings.compile() {
            Ok(r) => Arc::new(r),
            Err(e) => {
                // Each part was compiled before it came here.
                tracing::error!(error = %e, "log rules that cannot be used");
                Arc::new(Settings::default().compile().expect("no setting is a good one"))
            }
        };
        self.compiled.write().insert(key.to_owned(), rules.clone());
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_setting_wins_and_redactions_add_up() {
        let config = LogsConfig {
            defaults: Settings { sample: Some(0.5), redact: Some(vec!["jwt".into()]), ..Settings::default() },
            namespaces: [("a".to_owned(), Settings { sample: Some(0.25), ..Settings::default() })].into(),
        };
        let rules = Rules::new(config).expect("rules");
        let of = |ns: &str, pod: &str| rules.of(&Labels::from_pairs([("namespace", ns), ("pod", pod)]));
        assert_eq!((of("b", "p").sample, of("a", "p").sample), (0.5, 0.25));
        let said =
            |pairs: &[(&str, &str)]| Settings::from_annotations(pairs.iter().copied()).expect("settings");
        rules.annotate("a", said(&[("binnacle.io/logs-drop", "x\ny"), ("other", "z")]));
        rules.annotate(
            "a/p",
            said(&[("binnacle.io/logs-sample", "1"), ("binnacle.io/logs-redact", "credit-card")]),
        );
        let r = of("a", "p");
        assert_eq!((r.sample, r.drop.as_ref().map(RegexSet::len)), (1.0, Some(2)));
        assert_eq!(r.redact.as_ref().map(Redactor::len), Some(2));
        assert_eq!(of("a", "q").sample, 0.25);
        rules.annotate("a/p", None);
        assert_eq!(of("a", "p").sample, 0.25);
        assert_eq!(said(&[("other", "z")]), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |name: &str, value: &str, expect: &str| {
            let e = Settings::from_annotations([(name, value)]).expect_err(value);
            assert!(e.to_string().contains(expect), "{e}");
        };
        check("binnacle.io/logs-drop", "(", "drop: regex parse error");
        check("binnacle.io/logs-sample", "2", "sample: 2 is not between");
        check("binnacle.io/logs-sample", "half", "is no number");
        check("binnacle.io/logs-what", "1", "no such setting");
        check("binnacle.io/logs-attributes", "xml", "attributes");
    }
}
