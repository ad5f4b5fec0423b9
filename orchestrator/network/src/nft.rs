//! Runs nft: one script is one transaction.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Error;

/// Applies a script, all of it or nothing.
pub(crate) async fn apply(script: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::NftMissing)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let written = stdin.write_all(script.as_bytes()).await;
    drop(stdin);
    let out = child.wait_with_output().await.map_err(Error::NftMissing)?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        return Err(refusal(&text));
    }
    written.map_err(Error::io("hand rules to nft"))
}

/// What nft's complaint means: the rules are wrong, or the kernel knows no such thing.
fn refusal(text: &str) -> Error {
    let short = text.lines().take(4).collect::<Vec<_>>().join("; ");
    let missing =
        ["Operation not supported", "Protocol not supported", "Unable to initialize Netlink socket"];
    if missing.iter().any(|m| text.contains(m)) { Error::NoNftables(short) } else { Error::Nft(short) }
}

/// Removes tables; those that are not there are fine.
pub(crate) async fn delete_tables(names: &[String]) -> Result<(), Error> {
    let script: String = names.iter().map(|n| format!("table ip {n}\ndelete table ip {n}\n")).collect();
    apply(&script).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_is_told_from_a_wrong_rule() {
        let missing = "Error: Could not process rule: Operation not supported\ntable ip binnacle";
        assert!(matches!(refusal(missing), Error::NoNftables(_)));
        assert!(matches!(refusal("-:1:1-5: Error: syntax error, unexpected string"), Error::Nft(_)));
    }
}
