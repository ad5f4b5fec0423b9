//! A list on its way out: written piece by piece as the client takes it, so that a long one never lies in
//! memory as a whole beside the objects it is made of.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use serde_json::Value;

use crate::cache::Object;
use crate::kinds::Served;
use crate::read::{render, render_metadata};
use crate::request::Shape;

/// Longer lists go out in pieces.
const LONG: usize = 256 << 10;
/// A piece ends behind the object that makes it this long.
const PIECE: usize = 64 << 10;

/// The objects of a list, and what stands before them.
pub(crate) struct Listing {
    pub(crate) served: Served,
    pub(crate) shape: Shape,
    pub(crate) metadata: Value,
    pub(crate) objects: Vec<Arc<Object>>,
}

/// A list's answer.
pub(crate) enum Listed {
    /// A table, whose columns are as wide as its rows say.
    Whole(Bytes),
    Objects(Listing),
}

impl Listed {
    pub(crate) fn is_long(&self) -> bool {
        matches!(self, Listed::Objects(l) if l.size() > LONG)
    }

    pub(crate) fn whole(self) -> Bytes {
        match self {
            Listed::Whole(bytes) => bytes,
            Listed::Objects(l) => {
                let mut out = Vec::with_capacity(l.size() + 512);
                l.write(0, usize::MAX, &mut out);
                Bytes::from(out)
            }
        }
    }

    pub(crate) fn pieces(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        let state = match self {
            Listed::Whole(bytes) => (Some(bytes), None),
            Listed::Objects(l) => (None, Some((l, 0))),
        };
        futures::stream::unfold(state, |(whole, rest)| async move {
            if let Some(bytes) = whole {
                return Some((Ok(bytes), (None, None)));
            }
            let (list, from) = rest?;
            let mut out = Vec::with_capacity(PIECE + (PIECE >> 2));
            let next = list.write(from, PIECE, &mut out);
            let rest = (next <= list.objects.len()).then_some((list, next));
            Some((Ok(Bytes::from(out)), (None, rest)))
        })
    }
}

impl Listing {
    fn size(&self) -> usize {
        self.objects.iter().map(|o| o.bytes.len() + 1).sum()
    }

    /// Writes the objects from a place on, up to so many bytes, the list's head before the first and its end behind
    /// the last. Gives where to go on: one beyond the number of objects when all is written.
    fn write(&self, from: usize, bytes: usize, out: &mut Vec<u8>) -> usize {
        if from == 0 {
            let (kind, version) = match self.shape {
                Shape::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
                _ => (self.served.list_kind(), self.served.api_version()),
            };
            let head = format!(
                r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{},"items":["#,
                self.metadata
            );
            out.extend_from_slice(head.as_bytes());
        }
        for (i, o) in self.objects.iter().enumerate().skip(from) {
            if i > 0 {
                out.push(b',');
            }
            match self.shape {
                Shape::Object => out.extend_from_slice(&render(&self.served, o)),
                _ => out.extend_from_slice(&render_metadata(&self.served, o)),
            }
            if out.len() >= bytes && i + 1 < self.objects.len() {
                return i + 1;
            }
        }
        out.extend_from_slice(b"]}");
        self.objects.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use futures::StreamExt;
    use serde_json::json;

    #[tokio::test]
    async fn pieces_are_the_whole() {
        let served = kinds::by_resource("", "configmaps").expect("a kind");
        for n in [0, 1, 3, 400] {
            let object = |i: usize| {
                let o = json!({"metadata": {"name": format!("m{i}")}, "data": {"k": "x".repeat(1000)}});
                Arc::new(Object::from_value(served.kind, &format!("default/m{i}"), 7, &o))
            };
            let list = || {
                Listed::Objects(Listing {
                    served: served.clone(),
                    shape: Shape::Object,
                    metadata: json!({"resourceVersion": "7"}),
                    objects: (0..n).map(object).collect(),
                })
            };
            let whole = list().whole();
            let pieces: Vec<Bytes> =
                list().pieces().map(|p| p.unwrap_or_else(|never| match never {})).collect().await;
            assert_eq!(pieces.concat(), whole);
            assert_eq!((list().is_long(), pieces.len() > 4), (n == 400, n == 400));
            let read: Value = serde_json::from_slice(&whole).expect("JSON");
            assert_eq!(
                (read["items"].as_array().map(Vec::len), &read["kind"]),
                (Some(n), &"ConfigMapList".into())
            );
        }
    }
}
