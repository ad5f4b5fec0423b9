//! Compaction of etcd, by one server at a time, with upstream's key, so that an upstream API server on the same
//! etcd and we do not both do it (apiserver: pkg/storage/etcd3/compact.go).

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::{Shared, compact, failure, unsigned};
use crate::Error;

const KEY: &str = "compact_rev_key";

/// Every `keep` forgets what was history `keep` before, until the task is ended.
pub(super) async fn run(shared: Arc<Shared>, keep: Duration) {
    let (mut version, mut revision) = (0, 0);
    loop {
        tokio::time::sleep(keep).await;
        match turn(&shared, version, revision).await {
            Ok((v, r)) => (version, revision) = (v, r),
            Err(e) => tracing::warn!(error = %e, "etcd could not be compacted, it will be tried again"),
        }
    }
}

/// Takes the turn if nobody else did since `version`, and compacts at the revision of the turn before.
/// Gives the version and revision to compare and compact with next time.
async fn turn(shared: &Shared, version: i64, revision: u64) -> Result<(i64, u64), Error> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, version)])
        .and_then([TxnOp::put(KEY, revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let answer = shared.kv().txn(txn).await.map_err(failure)?;
    let now = answer.header().map_or(0, |h| unsigned(h.revision()));
    if !answer.succeeded() {
        let taken = answer.op_responses().into_iter().find_map(|r| match r {
            TxnOpResponse::Get(g) => g.kvs().first().map(etcd_client::KeyValue::version),
            _ => None,
        });
        return Ok((taken.unwrap_or(0), now));
    }
    if revision > 0 {
        compact(shared, revision).await?;
    }
    Ok((version + 1, now))
}
