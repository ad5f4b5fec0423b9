//! `kubeconfig`, `open`, `token`.

use anyhow::{Context, Result};
use serde_json::json;

use super::print;
use super::remote::Remote;
use crate::assemble::directory::admin_token;
use crate::cli::{DataDir, TokenArgs, TokenCommand};

pub(crate) fn kubeconfig(a: &DataDir) -> Result<()> {
    let path = a.data_dir.join("admin.kubeconfig");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("{} cannot be read: start the cluster first, or run as its user", path.display())
    })?;
    print(text.trim_end())
}

pub(crate) async fn open(a: &DataDir) -> Result<()> {
    let remote = Remote::new(&a.data_dir)?;
    let answer = remote.post("/ui/api/login-link", &json!({})).await?;
    let path = answer["path"].as_str().context("the server gave no link")?;
    print(&format!("http://{}{path}", remote.addresses.http))
}

pub(crate) fn token(a: &TokenArgs) -> Result<()> {
    match &a.what {
        TokenCommand::Create(d) => print(&admin_token(&d.data_dir)?),
    }
}
