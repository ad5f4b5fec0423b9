//! OTLP over gRPC.

use std::net::IpAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use signal::SinkError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::{Peer, Receiver};
use crate::answer::MOST_BYTES;
use crate::metrics::{received, refused};

/// Serves until `stop`.
pub async fn serve(
    receiver: Receiver,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let gzip = CompressionEncoding::Gzip;
    let routes = Routes::new(
        LogsServiceServer::new(receiver.clone())
            .accept_compressed(gzip)
            .send_compressed(gzip)
            .max_decoding_message_size(MOST_BYTES),
    )
    .add_service(
        TraceServiceServer::new(receiver.clone())
            .accept_compressed(gzip)
            .send_compressed(gzip)
            .max_decoding_message_size(MOST_BYTES),
    )
    .add_service(
        MetricsServiceServer::new(receiver)
            .accept_compressed(gzip)
            .send_compressed(gzip)
            .max_decoding_message_size(MOST_BYTES),
    );
    tonic::transport::Server::builder()
        .timeout(Duration::from_secs(30))
        .concurrency_limit_per_connection(32)
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.cancelled_owned(),
        )
        .await
}

impl Receiver {
    fn of_peer<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let peer: Option<IpAddr> = request.remote_addr().map(|a| a.ip());
        self.identify(peer).map(|i| Peer::new(i, false)).ok_or_else(|| {
            refused("otlp_grpc", "unknown_sender");
            Status::unauthenticated("the sender's address belongs to no pod of this cluster")
        })
    }
}

/// google.rpc.Status with its details, for `grpc-status-details-bin`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// google.rpc.RetryInfo
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// As the specification maps them: what may succeed later is UNAVAILABLE, or RESOURCE_EXHAUSTED with the time after
/// which it may, without which clients take it for final.
fn status(e: &SinkError) -> Status {
    refused("otlp_grpc", "sink");
    let (code, after) = match e {
        SinkError::Invalid(_) => return Status::invalid_argument(e.to_string()),
        SinkError::Overloaded { retry_after, .. } => (Code::ResourceExhausted, *retry_after),
        SinkError::Storage(_) => (Code::ResourceExhausted, Duration::from_secs(5)),
        SinkError::Closed => (Code::Unavailable, Duration::from_secs(1)),
    };
    let delay = prost_types::Duration {
        seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(after.subsec_nanos()).unwrap_or(0),
    };
    let info = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
    };
    let details = RpcStatus { code: code.into(), message: e.to_string(), details: vec![info] };
    Status::with_details(code, e.to_string(), details.encode_to_vec().into())
}

fn rejected(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let identity = self.of_peer(&request)?;
        received("otlp_grpc", request.get_ref().encoded_len());
        let done = self.export_logs(request.get_ref(), &identity).await.map_err(|e| status(&e))?;
        Ok(Response::new(ExportLogsServiceResponse {
            partial_success: (done.rejected > 0).then(|| ExportLogsPartialSuccess {
                rejected_log_records: rejected(done.rejected),
                error_message: done.reason.unwrap_or_default(),
            }),
        }))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let identity = self.of_peer(&request)?;
        received("otlp_grpc", request.get_ref().encoded_len());
        let done = self.export_traces(request.get_ref(), &identity).await.map_err(|e| status(&e))?;
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success: (done.rejected > 0).then(|| ExportTracePartialSuccess {
                rejected_spans: rejected(done.rejected),
                error_message: done.reason.unwrap_or_default(),
            }),
        }))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let identity = self.of_peer(&request)?;
        received("otlp_grpc", request.get_ref().encoded_len());
        let done = self.export_metrics(request.get_ref(), &identity).await.map_err(|e| status(&e))?;
        Ok(Response::new(ExportMetricsServiceResponse {
            partial_success: (done.rejected > 0).then(|| ExportMetricsPartialSuccess {
                rejected_data_points: rejected(done.rejected),
                error_message: done.reason.unwrap_or_default(),
            }),
        }))
    }
}
