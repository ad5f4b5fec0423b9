//! `GET /backup`: the cluster's objects and keys in one file, for administrators.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use apimachinery::user::UserInfo;
use apiserver::ApiServer;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

/// What a backup is made of.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) server: Arc<ApiServer>,
    pub(super) data_dir: PathBuf,
}

pub(super) async fn backup(
    State(source): State<Source>,
    axum::Extension(user): axum::Extension<UserInfo>,
) -> Response {
    if !user.in_group(apimachinery::user::MASTERS) {
        return (StatusCode::FORBIDDEN, "only members of system:masters may take a backup").into_response();
    }
    let begun = async {
        let files = files(&source.data_dir)?;
        source.server.backup(files).await.context("the store")
    };
    match begun.await {
        Ok(backup) => Body::from_stream(futures::stream::try_unfold(backup, |mut b| async move {
            // An error ends the stream before its last piece: whoever reads it sees that it is not whole.
            Ok::<_, store::Error>(b.next().await?.map(|piece| (piece, b)))
        }))
        .into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e:#}")).into_response(),
    }
}

/// Without these a restored cluster would know none of its users, nodes and service accounts again.
fn files(data_dir: &Path) -> Result<Vec<(String, Bytes)>> {
    let mut found = Vec::new();
    let mut add = |name: String| -> Result<()> {
        let path = data_dir.join(&name);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        found.push((name, Bytes::from(bytes)));
        Ok(())
    };
    add("admin.token".to_owned())?;
    let pki = data_dir.join("pki");
    for entry in std::fs::read_dir(&pki).with_context(|| pki.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Some(name) = entry.file_name().to_str()
        {
            add(format!("pki/{name}"))?;
        }
    }
    Ok(found)
}
