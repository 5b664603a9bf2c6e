//! Messages of the log of clicks.

/// What is taken has an identity that can be stored, and clicks of instants that there
/// are.
///
/// # Panics
/// If it is not so.
pub fn clicks(bytes: &[u8]) {
    let Ok(batch) = waypost_analytics_consumer::decode(bytes) else {
        return;
    };
    assert!(!batch.gateway.is_empty() && !batch.gateway.contains('\0'));
    for number in [batch.boot, batch.sequence] {
        assert!(i64::try_from(number).is_ok(), "{number} cannot be stored");
    }
}
