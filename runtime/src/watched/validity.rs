//! Until when the certificates in watched files are valid.

use prometheus::GaugeVec;

use crate::metrics::{Label, Registry};

/// When a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: u64,
    pub not_after: u64,
}

/// Shows it, so that somebody hears of a certificate that is not renewed.
#[derive(Debug, Clone)]
pub(super) struct Validities {
    not_before: GaugeVec,
    not_after: GaugeVec,
}

impl Validities {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let file = Label::such("file", "what it is for, as in `tls`");
        let validities = Self {
            not_before: registry.real_gauges(
                "waypost_tls_certificate_not_before_timestamp_seconds",
                "Since when the certificate in use is valid, in seconds since 1970",
                &[file],
            )?,
            not_after: registry.real_gauges(
                "waypost_tls_certificate_not_after_timestamp_seconds",
                "Until when the certificate in use is valid, in seconds since 1970",
                &[file],
            )?,
        };
        Ok(validities)
    }

    pub(super) fn set(&self, name: &str, validity: Validity) {
        let set = |gauge: &GaugeVec, seconds: u64| {
            gauge.with_label_values(&[name]).set(seconds as f64);
        };
        set(&self.not_before, validity.not_before);
        set(&self.not_after, validity.not_after);
    }
}
