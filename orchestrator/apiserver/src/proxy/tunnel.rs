//! Bytes both ways between two upgraded connections, until one ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Carries bytes both ways between two upgraded connections until one ends.
pub(crate) fn tunnel(name: &'static str, client: OnUpgrade, far: OnUpgrade) {
    telemetry::task::spawn(name, async move {
        match tokio::try_join!(client, far) {
            Ok((a, b)) => {
                if let Err(e) = carry(TokioIo::new(a), TokioIo::new(b)).await {
                    tracing::debug!(error = %e, tunnel = name, "a tunnel ended");
                }
            }
            Err(e) => tracing::warn!(error = %e, tunnel = name, "a tunnel could not be opened"),
        }
    });
}

async fn carry(
    client: impl AsyncRead + AsyncWrite + Unpin,
    far: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    tokio::io::copy_bidirectional(&mut Wire(client), &mut Wire(far)).await?;
    Ok(())
}

/// A TLS peer that goes without a word has ended as one that says so: as an error it would take with it what it said
/// before and the other side has not read yet. What needs to know its own end says it above TLS.
struct Wire<T>(T);

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buf)) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Says what it has, then is gone without TLS' goodbye.
    struct Abrupt(io::Cursor<Vec<u8>>);

    impl AsyncRead for Abrupt {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.position() == self.0.get_ref().len() as u64 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Abrupt {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_slow_client_gets_all_of_a_peer_that_has_gone() {
        let said: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let (mut client, ours) = tokio::io::duplex(512);
        let far = Abrupt(io::Cursor::new(said.clone()));
        let read = async {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("read to the end");
            client.shutdown().await.expect("closed");
            drop(client);
            got
        };
        let (carried, got) = tokio::join!(carry(ours, far), read);
        assert!(got == said, "{} of {} bytes", got.len(), said.len());
        carried.expect("an end is no error");
    }
}
