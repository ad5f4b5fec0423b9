//! Objects of a write in the version that a webhook or a policy matched: a rule on `autoscaling/v1` meets a request of
//! `v2`, and sees it as `v1` (KEP-2523, `matchPolicy: Equivalent`).

use std::borrow::Cow;

use serde_json::Value;

use super::attributes::Attributes;
use crate::error::Result;
use crate::kinds::{self, Served};
use crate::server::ApiServer;
use crate::webhook::Subject;
use crate::{object, patch, read};

/// What is written and what is there, as somebody sees them.
pub(crate) struct Shown<'v> {
    pub(crate) new: Option<Cow<'v, Value>>,
    pub(crate) old: Option<Cow<'v, Value>>,
}

/// The resource as rules name it, if they do: as the request has it or, unless they are exact, the same objects in
/// another version.
pub(crate) fn matched(a: &Attributes<'_>, exact: bool, matches: impl Fn(&Served) -> bool) -> Option<Served> {
    if matches(a.served) {
        return Some(a.served.clone());
    }
    if exact {
        return None;
    }
    let customs = a.served.custom.iter().flat_map(|held| held.custom.served());
    kinds::served().filter(|s| s.index == a.served.index).chain(customs).find(|s| matches(s))
}

impl ApiServer {
    /// An object of a request in this version.
    pub(crate) async fn in_shown<'v>(&self, served: &Served, o: &'v Value) -> Result<Cow<'v, Value>> {
        Ok(match (&served.custom, served.alias) {
            (Some(_), _) if object::text(o, "apiVersion") != Some(&served.api_version()) => {
                Cow::Owned(self.to_served(served, o.clone()).await?)
            }
            (None, Some(_)) => Cow::Owned(read::render_value(served, o.clone())),
            _ => Cow::Borrowed(o),
        })
    }

    /// Both objects of a write in this version; what a subresource takes has only one.
    pub(crate) async fn show<'v>(
        &self,
        served: &Served,
        a: &Attributes<'v>,
        new: Option<&'v Value>,
        subject: Option<Subject>,
    ) -> Result<Shown<'v>> {
        if subject.is_some() {
            return Ok(Shown { new: new.map(Cow::Borrowed), old: a.old.map(Cow::Borrowed) });
        }
        let new = match new {
            Some(o) => Some(self.in_shown(served, o).await?),
            None => None,
        };
        let old = match a.old {
            Some(o) => Some(self.in_shown(served, o).await?),
            None => None,
        };
        Ok(Shown { new, old })
    }

    /// What somebody made of an object that was shown, as the request's road has it.
    pub(crate) async fn take_back(&self, a: &Attributes<'_>, served: &Served, made: Value) -> Result<Value> {
        let mut unknown = Vec::new();
        let made = patch::conform(served, made, crate::options::FieldValidation::Ignore, &mut unknown)?;
        match &a.served.custom {
            Some(_) => Ok(self.in_shown(a.served, &made).await?.into_owned()),
            None => Ok(made),
        }
    }
}
