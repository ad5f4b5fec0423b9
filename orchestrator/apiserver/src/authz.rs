//! May they? The authorizers in their order: the masters' group, nodes, roles. Denied unless one allows.

use apimachinery::selector::FieldSelector;
use apimachinery::user::{MASTERS, UserInfo};

use crate::metrics::auth;
use crate::node;
use crate::server::{Access, ApiServer};

/// What the authorizers came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// Why not, where an authorizer has more to say than that nobody allows it.
    pub(crate) reason: String,
}

impl ApiServer {
    /// `fields` are those of a list or watch.
    pub(crate) fn decide(&self, user: &UserInfo, access: &Access, fields: Option<&FieldSelector>) -> Verdict {
        let allowed = Verdict { allowed: true, reason: String::new() };
        if user.in_group(MASTERS) {
            return allowed;
        }
        let mut reason = String::new();
        if user.in_group(node::GROUP) {
            let opinion = match node::identity(user) {
                Some(name) => node::authorize(&self.cache, name, access, fields),
                None => Err(format!("unknown node for user {:?}", user.name)),
            };
            auth::decided(true, opinion.is_ok());
            match opinion {
                Ok(()) => return allowed,
                Err(why) => reason = why,
            }
        }
        let allowed = self.rbac.allows(user, access);
        auth::decided(false, allowed);
        Verdict { allowed, reason }
    }

    /// Whose word allows what is allowed: upstream's sentence about a binding, or nothing.
    pub(crate) fn allowed_by(&self, user: &UserInfo, access: &Access) -> String {
        if user.in_group(MASTERS) { String::new() } else { self.rbac.why(user, access).unwrap_or_default() }
    }
}
