//! How long a service's RPCs take, by their outcome.

use std::time::Instant;

use prometheus::HistogramVec;
use tonic::{Code, Response, Status};
use waypost_runtime::metrics::{self, LATENCY_SECONDS, Label, Registry};

use crate::transport;

/// Cheap to clone: the numbers are shared.
#[derive(Debug, Clone)]
pub struct RpcTimes(HistogramVec);

impl RpcTimes {
    /// Registers the metric of this name, for these RPCs.
    ///
    /// # Errors
    /// If the registry has a metric of this name already.
    pub fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        rpcs: &'static [&'static str],
    ) -> metrics::Result<Self> {
        let labels = [
            Label::one_of("rpc", rpcs),
            Label::one_of("outcome", transport::OUTCOMES),
        ];
        let times = registry.histograms(name, help, LATENCY_SECONDS, &labels)?;
        Ok(Self(times))
    }

    /// Runs what answers one, and notes how long it took.
    ///
    /// # Errors
    /// As what it runs.
    pub async fn timed<T>(
        &self,
        rpc: &'static str,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let begun = Instant::now();
        let answer = answer.await;
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.0
            .with_label_values(&[rpc, transport::outcome(code)])
            .observe(begun.elapsed().as_secs_f64());
        answer.map(Response::new)
    }
}
