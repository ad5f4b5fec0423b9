//! containerd's content store: blobs by digest.

use std::collections::HashMap;

use bytes::Bytes;
use containerd_client::services::v1::{
    AbortRequest, Info, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    content_client::ContentClient,
};
use futures::{Stream, StreamExt};
use prost_types::FieldMask;

use crate::Error;
use crate::containerd::{Containerd, Lease, MAX_MESSAGE};

/// The largest manifest or configuration that is read into memory.
const MAX_DOCUMENT: usize = 8 << 20;
/// Bytes per message to containerd.
const CHUNK: usize = 1 << 20;

fn client(c: &Containerd) -> ContentClient<tonic::transport::Channel> {
    ContentClient::new(c.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
}

/// A small blob as a whole.
pub(crate) async fn read(c: &Containerd, digest: &str) -> Result<Vec<u8>, Error> {
    let request = c.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
    let what = || Error::containerd(format!("read {digest}"));
    let mut stream = client(c).read(request).await.map_err(what())?.into_inner();
    let mut out = Vec::new();
    while let Some(part) = stream.message().await.map_err(what())? {
        out.extend_from_slice(&part.data);
        if out.len() > MAX_DOCUMENT {
            return Err(Error::Image { image: digest.to_owned(), why: "larger than 8 MiB".to_owned() });
        }
    }
    Ok(out)
}

/// Stores a blob; containerd checks its digest. One that is there already is fine.
pub(crate) async fn write(
    c: &Containerd,
    lease: &Lease,
    digest: &str,
    size: i64,
    data: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Result<(), Error> {
    let reference = format!("binnacle-{digest}-{}", uuid::Uuid::new_v4());
    let begun = reference.clone();
    let result = write_as(c, lease, reference, digest, size, data).await;
    if result.is_err() {
        // What was written of it would hold its space for a day; most often that space is what is missing.
        let abort = c.leased(lease, AbortRequest { r#ref: begun });
        if let Err(e) = client(c).abort(abort).await {
            tracing::debug!(error = %e, digest, "giving up an unfinished blob");
        }
    }
    result
}

async fn write_as(
    c: &Containerd,
    lease: &Lease,
    reference: String,
    digest: &str,
    size: i64,
    data: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Result<(), Error> {
    let message = move |action: WriteAction, offset: i64, data: Bytes, digest: &str| WriteContentRequest {
        action: action as i32,
        r#ref: reference.clone(),
        total: size,
        expected: if action == WriteAction::Commit { digest.to_owned() } else { String::new() },
        offset,
        data: data.to_vec(),
        ..WriteContentRequest::default()
    };
    // A source that fails ends the stream without a commit; the error is kept for the caller.
    let (failed, mut failure) = tokio::sync::oneshot::channel();
    let wanted = digest.to_owned();
    let messages =
        async_stream(data, failed, move |action, offset, data| message(action, offset, data, &wanted));
    let what = || Error::containerd(format!("store {digest}"));
    let exists = |e: &tonic::Status| e.code() == tonic::Code::AlreadyExists;
    let mut replies = match client(c).write(c.leased(lease, messages)).await {
        Ok(r) => r.into_inner(),
        Err(e) if exists(&e) => return Ok(()),
        Err(e) => return Err(what()(e)),
    };
    loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(e) if exists(&e) => return Ok(()),
            Err(e) => return Err(what()(e)),
        }
    }
    match failure.try_recv() {
        Ok(e) => Err(Error::io(format!("read {digest}"))(e)),
        Err(_) => Ok(()),
    }
}

/// Write messages for the data in order, then the commit.
fn async_stream(
    data: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    failed: tokio::sync::oneshot::Sender<std::io::Error>,
    message: impl Fn(WriteAction, i64, Bytes) -> WriteContentRequest + Send + 'static,
) -> impl Stream<Item = WriteContentRequest> + Send + 'static {
    struct State<S, M> {
        data: std::pin::Pin<Box<S>>,
        rest: Bytes,
        offset: i64,
        failed: Option<tokio::sync::oneshot::Sender<std::io::Error>>,
        message: M,
    }
    let state = State { data: Box::pin(data), rest: Bytes::new(), offset: 0, failed: Some(failed), message };
    futures::stream::unfold(Some(state), |state| async move {
        let mut s = state?;
        while s.rest.is_empty() {
            match s.data.next().await {
                Some(Ok(b)) => s.rest = b,
                Some(Err(e)) => {
                    if let Some(f) = s.failed.take() {
                        // The receiver waits for the end of this stream.
                        drop(f.send(e));
                    }
                    return None;
                }
                None => {
                    let commit = (s.message)(WriteAction::Commit, s.offset, Bytes::new());
                    return Some((commit, None));
                }
            }
        }
        let part = s.rest.split_to(s.rest.len().min(CHUNK));
        let len = i64::try_from(part.len()).expect("a chunk is small");
        let m = (s.message)(WriteAction::Write, s.offset, part);
        s.offset += len;
        Some((m, Some(s)))
    })
}

/// Stores a blob that is in memory.
pub(crate) async fn write_bytes(
    c: &Containerd,
    lease: &Lease,
    digest: &str,
    bytes: Bytes,
) -> Result<(), Error> {
    let size = i64::try_from(bytes.len()).expect("a document is small");
    write(c, lease, digest, size, futures::stream::iter([Ok(bytes)])).await
}

/// Sets labels of a blob; others stay.
pub(crate) async fn label(
    c: &Containerd,
    digest: &str,
    labels: HashMap<String, String>,
) -> Result<(), Error> {
    let paths = labels.keys().map(|k| format!("labels.{k}")).collect();
    let info = Info { digest: digest.to_owned(), labels, ..Info::default() };
    let update = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
    client(c).update(c.request(update)).await.map_err(Error::containerd(format!("label {digest}")))?;
    Ok(())
}

/// True if the blob is there.
pub(crate) async fn exists(c: &Containerd, digest: &str) -> Result<bool, Error> {
    use containerd_client::services::v1::InfoRequest;
    let info = client(c).info(c.request(InfoRequest { digest: digest.to_owned() })).await;
    Ok(crate::error::found(info).map_err(Error::containerd(format!("look up {digest}")))?.is_some())
}
