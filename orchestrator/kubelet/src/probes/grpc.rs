//! The standard gRPC health check (grpc.health.v1.Health/Check), in upstream's words where it fails.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::Code;

use super::words::{duration_text, io_text};

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// What the protocol calls a status; 1 is the good one.
fn status_name(n: i32) -> &'static str {
    match n {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

/// The innermost cause: tonic's own words are only "transport error".
fn cause(e: &(dyn Error + 'static)) -> String {
    let mut e = e;
    loop {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            return io_text(io);
        }
        match e.source() {
            Some(s) => e = s,
            None => return e.to_string(),
        }
    }
}

/// Asks once; the error is the probe's output.
pub(super) async fn check(addr: SocketAddr, service: String, timeout: Duration) -> Result<(), String> {
    let within = duration_text(timeout);
    let late =
        format!("timeout: failed to connect service \"{addr}\" within {within}: context deadline exceeded");
    let connect = async {
        tonic::transport::Endpoint::try_from(format!("http://{addr}"))
            .and_then(|e| e.user_agent(super::USER_AGENT))
            .map_err(|e| e.to_string())?
            .connect()
            .await
            .map_err(|e| {
                let why = cause(&e);
                format!("error: failed to connect service at \"{addr}\": connect: {why}")
            })
    };
    let deadline = tokio::time::Instant::now() + timeout;
    let channel = tokio::time::timeout_at(deadline, connect).await.map_err(|_| late)??;
    let call = async {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|e| format!("error: health rpc probe failed: {}", cause(&e)))?;
        let path = "/grpc.health.v1.Health/Check".parse().expect("a literal path");
        let request = tonic::Request::new(HealthCheckRequest { service });
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        match client.unary(request, path, codec).await {
            Ok(answer) => match answer.into_inner().status {
                1 => Ok(()),
                n => Err(format!("service unhealthy (responded with \"{}\")", status_name(n))),
            },
            Err(e) if e.code() == Code::Unimplemented => Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                e.message()
            )),
            Err(e) => Err(format!(
                "error: health rpc probe failed: rpc error: code = {:?} desc = {}",
                e.code(),
                e.message()
            )),
        }
    };
    tokio::time::timeout_at(deadline, call)
        .await
        .unwrap_or_else(|_| Err(format!("timeout: health rpc did not complete within {within}")))
}
