//! Questions that components ask of an API error.

use kube::Error;

/// The object is not there.
pub fn is_not_found(e: &Error) -> bool {
    code(e) == Some(404)
}

/// Somebody else wrote first (409 Conflict), or the object exists already (409 AlreadyExists).
pub fn is_conflict(e: &Error) -> bool {
    code(e) == Some(409)
}

/// The object exists already.
pub fn is_already_exists(e: &Error) -> bool {
    matches!(e, Error::Api(s) if s.code == 409 && s.reason == "AlreadyExists")
}

fn code(e: &Error) -> Option<u16> {
    match e {
        Error::Api(s) => Some(s.code),
        _ => None,
    }
}

/// Turns "not found" into `None`.
pub fn optional<T>(r: Result<T, Error>) -> Result<Option<T>, Error> {
    match r {
        Ok(v) => Ok(Some(v)),
        Err(e) if is_not_found(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Turns "not found" and "somebody wrote first" into `None`: for a status computed from what a watch gave, since the
/// newer object comes by the same watch and is reconciled in its turn.
pub fn unless_newer<T>(r: Result<T, Error>) -> Result<Option<T>, Error> {
    match r {
        Err(e) if is_conflict(&e) && !is_already_exists(&e) => Ok(None),
        r => optional(r),
    }
}
