//! Directories that were made for claims go when their claims do.

use std::io::ErrorKind;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Shared, refuse};

/// `PVC_NAMESPACE_NAME`, as the volume controller names them; never a way out of the directory.
fn is_ours(name: &str) -> bool {
    name.starts_with("pvc-")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

pub(super) async fn remove(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    if !is_ours(&name) {
        return refuse(StatusCode::BAD_REQUEST, format!("{name:?} is no volume of this node"));
    }
    let dir = shared.node.config.local_volumes_dir().join(&name);
    match tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        // Nobody ever used it.
        Ok(Err(e)) if e.kind() == ErrorKind::NotFound => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(e)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("remove {name}: {e}")),
        Err(e) => refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out() {
        for (name, ours) in [
            ("pvc-1f_default_data-web.0", true),
            ("pvc-1/../../etc", false),
            ("..", false),
            ("", false),
            ("other", false),
        ] {
            assert_eq!(is_ours(name), ours, "{name}");
        }
    }
}
