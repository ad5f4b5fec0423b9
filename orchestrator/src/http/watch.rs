//! A Kubernetes watch over a WebSocket: each event a text message.
//!
//! A browser opens at most six HTTP/1.1 connections to a host, for all its tabs together, and a watch would hold one
//! of them for as long as a page is open. WebSockets are not counted among the six.

use axum::body::{Body, BodyDataStream};
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

/// An event that is larger than this ends the watch: no object is.
const LONGEST_EVENT: usize = 16 * 1024 * 1024;

/// Whether the request is one for changes.
pub(super) fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|q| q.split('&').any(|p| p == "watch=1" || p == "watch=true"))
}

/// Turns the API server's answer to a watch into messages. A refusal stays a refusal.
pub(super) fn upgrade(socket: WebSocketUpgrade, answer: Response<Body>) -> Response {
    if answer.status() != StatusCode::OK {
        return answer.into_response();
    }
    socket.on_upgrade(move |s| send(s, answer.into_body().into_data_stream()))
}

async fn send(mut socket: WebSocket, mut events: BodyDataStream) {
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let bytes = tokio::select! {
            // The browser says nothing but that it goes away.
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            next = events.next() => match next {
                Some(Ok(bytes)) => bytes,
                // The page lists anew when the watch ends, for whatever reason.
                Some(Err(_)) | None => return,
            },
        };
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Ok(text) = Utf8Bytes::try_from(line) else { return };
            if socket.send(Message::Text(text)).await.is_err() {
                return;
            }
        }
        if rest.len() > LONGEST_EVENT {
            tracing::warn!(bytes = rest.len(), "a watch event is too long for a browser");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_for_changes_are_watches() {
        for (uri, expect) in [
            ("/api/v1/pods?watch=1", true),
            ("/api/v1/pods?fieldSelector=a%3Db&watch=true", true),
            ("/api/v1/pods?watch=0", false),
            ("/api/v1/pods?labelSelector=watch%3D1", false),
            ("/api/v1/pods", false),
        ] {
            assert_eq!(is_watch(&uri.parse().expect("a URI")), expect, "{uri}");
        }
    }
}
