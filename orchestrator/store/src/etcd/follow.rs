//! Following etcd: one watch over all keys, opened again where it stopped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, GetOptions, WatchOptions, WatchStream};

use super::{MAX_ANSWER, Shared, failure, latest, signed, unsigned};
use crate::{Error, Event};

/// A key that nobody writes.
pub(super) const NOBODY: &[u8] = b"\0";
/// Between two attempts to reach etcd again.
const RETRY: Duration = Duration::from_millis(500);
/// A watch for history that says nothing for so long has nothing to say.
const HISTORY_WITHIN: Duration = Duration::from_secs(10);

/// Publishes each change after `revision`, until the task is ended.
pub(super) async fn run(shared: Arc<Shared>, mut revision: u64) {
    loop {
        match follow(&shared, &mut revision).await {
            Ok(()) => tracing::info!(revision, "etcd ended the watch, it is opened again"),
            Err(Error::Compacted { compacted, .. }) => {
                tracing::warn!(revision, compacted, "etcd forgot changes before they were read");
                shared.forgot(compacted);
                match latest(&mut shared.kv()).await {
                    Ok(now) => {
                        // Whoever is behind this must read everything again.
                        shared.forgot(now);
                        shared.hub.restart(now);
                        revision = now;
                    }
                    Err(e) => tracing::warn!(error = %e, "etcd does not answer"),
                }
            }
            Err(e) => tracing::warn!(error = %e, "the watch on etcd failed, it is opened again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(shared: &Shared, revision: &mut u64) -> Result<(), Error> {
    let mut stream = open(shared, *revision).await?;
    while let Some(events) = next(&mut stream).await? {
        let events: Vec<_> = events.into_iter().filter(|e| e.revision > *revision).map(Arc::new).collect();
        if let Some(last) = events.last() {
            *revision = last.revision;
            shared.hub.publish(events);
        }
    }
    Ok(())
}

/// The first changes after a revision.
pub(super) async fn once(shared: &Shared, after: u64) -> Result<Vec<Event>, Error> {
    let read = async {
        let mut stream = open(shared, after).await?;
        loop {
            match next(&mut stream).await? {
                Some(events) if events.is_empty() => {}
                Some(events) => return Ok(events),
                None => return Err(Error::Unavailable("etcd ended the watch".to_owned())),
            }
        }
    };
    match tokio::time::timeout(HISTORY_WITHIN, read).await {
        Ok(Err(Error::Compacted { compacted, .. })) => Err(Error::Compacted { requested: after, compacted }),
        Ok(read) => read,
        Err(_) => Err(Error::Unavailable("etcd did not say what changed".to_owned())),
    }
}

/// Up to where etcd has forgotten history: its words for a watch that begins too early say it.
pub(super) async fn compacted(shared: &Shared) -> Result<u64, Error> {
    let probe = GetOptions::new().with_count_only().with_revision(1);
    match shared.kv().get(NOBODY.to_vec(), Some(probe)).await.map_err(failure) {
        Err(Error::Compacted { .. }) => {}
        Ok(_) | Err(Error::Future { .. }) => return Ok(0),
        Err(e) => return Err(e),
    }
    let options = WatchOptions::new().with_start_revision(1);
    let mut client = shared.client.watch_client();
    let mut stream = client.watch(NOBODY.to_vec(), Some(options)).await.map_err(failure)?;
    loop {
        match next(&mut stream).await {
            Err(Error::Compacted { compacted, .. }) => return Ok(compacted),
            Ok(Some(_)) => {}
            Ok(None) => return Err(Error::Unavailable("etcd ended the watch".to_owned())),
            Err(e) => return Err(e),
        }
    }
}

async fn open(shared: &Shared, after: u64) -> Result<WatchStream, Error> {
    let options = WatchOptions::new().with_all_keys().with_prev_key().with_start_revision(signed(after + 1));
    let mut client = shared.client.watch_client().max_decoding_message_size(MAX_ANSWER);
    client.watch(NOBODY.to_vec(), Some(options)).await.map_err(failure)
}

/// The next answer's changes, which may be none; `None` at the end of the stream.
async fn next(stream: &mut WatchStream) -> Result<Option<Vec<Event>>, Error> {
    let Some(answer) = stream.message().await.map_err(failure)? else { return Ok(None) };
    if answer.canceled() {
        let compacted = unsigned(answer.compact_revision());
        if compacted > 0 {
            return Err(Error::Compacted { requested: 0, compacted });
        }
        return Err(Error::Unavailable(format!("etcd cancelled the watch: {}", answer.cancel_reason())));
    }
    Ok(Some(answer.events().iter().filter_map(event).collect()))
}

fn event(e: &etcd_client::Event) -> Option<Event> {
    let (kv, before) = (e.kv()?, e.prev_kv());
    let revision = unsigned(kv.mod_revision());
    let prev_revision = before.map_or(0, |b| unsigned(b.mod_revision()));
    let key = Bytes::copy_from_slice(kv.key());
    Some(match e.event_type() {
        EventType::Put => Event {
            revision,
            key,
            value: Some(Bytes::copy_from_slice(kv.value())),
            create_revision: unsigned(kv.create_revision()),
            version: unsigned(kv.version()),
            prev_revision,
        },
        EventType::Delete => Event {
            revision,
            key,
            value: None,
            create_revision: before.map_or(0, |b| unsigned(b.create_revision())),
            version: before.map_or(0, |b| unsigned(b.version())) + 1,
            prev_revision,
        },
    })
}
